//! After the storm: all is well outside, everything comes to its end, and the records agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Storm, record, workflows};
use crate::escalation::{Alarm, EscalationState, Incident, Record, keys_of, review};
use crate::store::{
    Assumption, ClaimRequest, Claimed, Collection, Document, DocumentQuery, Documents, Heartbeat,
    Renewed, Route, StoredTask, TaskChange, Then,
};
use crate::{Action, Operator, RetryFilter, TaskState, Tasker, WorkerId};

/// Why everything is brought to its end.
pub(super) const REASON: &str = "the storm is over";

/// Brings everything to its end, and checks what came of it.
pub(super) async fn settle(storm: &Storm) {
    storm.world.calm_down().await;
    storm.processes.iter().for_each(super::Process::calm_down);
    let tasker = storm.processes[1].tasker();
    let carol = Operator::new("carol", REASON);
    tasker.reset_system(workflows::BANK, &carol).await.unwrap();

    let rests = |task: &StoredTask| task.state.is_terminal() || task.state == TaskState::Paused;
    storm.eventually("tasks end or are paused", rests).await;
    storm.eventually_raises_what_stands().await;
    loop {
        for task in storm.stored().await {
            if task.state == TaskState::Paused {
                tasker.operate(task.id, Action::Resume, &carol).await.unwrap();
            }
        }
        storm.eventually("tasks end", |task| task.state.is_terminal()).await;
        // All is well outside: what is tried again comes to a good end, in paused time at once.
        let retried = tasker.retry_all(&RetryFilter::default(), &carol).await.unwrap();
        if retried.outcomes.is_empty() {
            break;
        }
        assert!(retried.outcomes.iter().all(|(_, told)| told.is_ok()), "{retried:?}");
        storm.eventually("tasks end", |task| task.state.is_terminal()).await;
        let failed = storm.stored().await.into_iter().find(|task| task.state == TaskState::Error);
        if let Some(task) = failed.filter(|_| storm.pace.is_paused) {
            storm.accuse(&task, "it failed though all is well");
        }
    }
    let effects = storm.world.effects();
    let tasks = storm.stored().await;
    for task in &tasks {
        if let Err(error) = record::check(task, &effects, &storm.orders.lock().unwrap()) {
            storm.accuse(task, &error);
        }
    }
    storm.check_documents(&tasks).await;
    storm.eventually_holds_nothing(&tasker, &tasks).await;
    storm.report(&tasks);
}

impl Storm {
    /// What there was, to see that it was a storm.
    fn report(&self, tasks: &[StoredTask]) {
        let (mut ends, mut orders) = (BTreeMap::new(), BTreeMap::new());
        for task in tasks {
            *ends.entry(task.state.as_str()).or_insert(0) += 1;
        }
        for order in self.orders.lock().unwrap().iter() {
            *orders.entry(format!("{:?}", order.answer)).or_insert(0) += 1;
        }
        let rows: usize = tasks.iter().map(|task| task.rows.len()).sum();
        println!("  {ends:?} with {rows} rows, orders {orders:?}");
    }

    async fn stored(&self) -> Vec<StoredTask> {
        let mut stored = Vec::new();
        for task in self.tasks() {
            let found = self.store().load(task).await.unwrap();
            assert!(found.is_some() || self.forecast().sweeps, "seed {}: no {task}", self.seed);
            stored.extend(found);
        }
        stored
    }

    /// Fails because of a task.
    fn accuse(&self, task: &StoredTask, what: &str) -> ! {
        let rows: String = task
            .rows
            .iter()
            .map(|row| {
                let it = &row.transition;
                let step = it.step.map(|step| task.template.step(step).name.as_str());
                let (at, by) = (row.at, &row.author);
                let log = format!("{} {}", step.unwrap_or("-"), it.seq);
                format!("\n  {at} {log}: attempt {} {:?} by {by:?}", it.attempt, it.what)
            })
            .collect();
        let why = crate::Why::of(task).map(|why| why.to_string());
        let (kind, state) = (task.template.task_type(), task.state);
        let (owner, wake_at, route) = (task.owner, task.wake_at, &task.route);
        panic!(
            "seed {}: {what}: {kind} {} is {state}, owner {owner:?}, wakes {wake_at:?} on \
             {route:?}, now {}: {why:?}{rows}",
            self.seed, task.id, task.now
        );
    }

    /// The alarm that was set when a task was submitted.
    fn alarm_of(&self, task: &StoredTask) -> Alarm {
        let delays = self.delays.lock().unwrap();
        Alarm { delay: delays.get(&task.id).copied().unwrap_or_default() }
    }

    /// Waits until something is true of every task.
    async fn eventually(&self, what: &str, is_so: impl Fn(&StoredTask) -> bool) {
        let began = tokio::time::Instant::now();
        loop {
            let Some(task) = self.stored().await.into_iter().find(|task| !is_so(task)) else {
                return;
            };
            if began.elapsed() > self.pace.patience {
                self.accuse(&task, &format!("{what} at last"));
            }
            tokio::time::sleep(self.pace.timeout / 10).await;
        }
    }

    async fn documents(&self, collection: Collection) -> Vec<Document> {
        let mut found: Vec<Document> = Vec::new();
        loop {
            let after = found.last().map(|last| (last.created_at, last.key.clone()));
            let query = DocumentQuery::List { collection, state: None, after, limit: 0 };
            let page = self.store().read_documents(query).await.unwrap().found;
            if page.is_empty() {
                return found;
            }
            found.extend(page);
        }
    }

    /// Waits until documents are as they should be, which `wrong` says.
    async fn eventually_documents(
        &self,
        collection: Collection,
        wrong: impl Fn(&[Document]) -> Option<String>,
    ) {
        let began = tokio::time::Instant::now();
        while let Some(wrong) = wrong(&self.documents(collection).await) {
            assert!(began.elapsed() < self.pace.patience, "seed {}: {wrong}", self.seed);
            tokio::time::sleep(self.pace.timeout / 10).await;
        }
    }

    /// What takes too long by now is raised, and what is over is resolved, sooner or later.
    async fn eventually_raises_what_stands(&self) {
        let began = tokio::time::Instant::now();
        loop {
            let raised = self.documents(Collection::Escalation).await;
            let tasks = self.stored().await;
            let amiss = tasks.iter().find_map(|task| {
                let keys: BTreeSet<_> = keys_of(task).into_iter().collect();
                let found = raised.iter().filter(|it| keys.contains(&it.key)).cloned().collect();
                let raised = Documents { now: task.now, found };
                let changes = review(task, self.alarm_of(task), &raised).changes;
                changes.into_iter().next().map(|change| (task, change))
            });
            let Some((task, change)) = amiss else { return };
            if began.elapsed() > self.pace.patience {
                self.accuse(task, &format!("nobody has written {change:?}"));
            }
            tokio::time::sleep(self.pace.timeout / 10).await;
        }
    }

    async fn check_documents(&self, tasks: &[StoredTask]) {
        self.eventually_documents(Collection::Alarm, |alarms| {
            // That of a task that was to start later is kept, and never due.
            let alarm = alarms.iter().find(|alarm| alarm.due_at.is_some())?;
            let task = tasks.iter().find(|task| task.id.to_string() == alarm.key);
            Some(format!("{alarm:?} is left of {task:#?}"))
        })
        .await;
        let found = self.documents(Collection::Escalation).await;
        let found: BTreeMap<_, _> = found.iter().map(|it| (it.key.as_str(), it)).collect();
        for task in tasks {
            for key in raised_by(task) {
                if !found.contains_key(key.as_str()) {
                    self.accuse(task, &format!("`{key}` was not raised"));
                }
            }
            let known = keys_of(task);
            let begins = task.created_at + self.alarm_of(task).delay;
            for (key, document) in &found {
                let incident = Record::read(document).unwrap().incident;
                if incident.task() != Some(task.id) {
                    continue;
                }
                let in_time = match incident {
                    Incident::TaskOverdue { deadline, .. } => begins + deadline,
                    Incident::StepOverdue { expected_within, .. } => begins + expected_within,
                    _ => task.created_at,
                };
                if document.created_at < in_time || !known.iter().any(|it| it == key) {
                    self.accuse(task, &format!("`{key}` was raised for nothing"));
                }
            }
        }
        self.eventually_raises_what_stands().await;
        self.eventually_documents(Collection::Escalation, |found| {
            let open = found.iter().find(|document| !self.is_told(document))?;
            Some(format!("nobody is told of {open:?}"))
        })
        .await;
    }

    /// Whether all that are to hear of an escalation have.
    fn is_told(&self, document: &Document) -> bool {
        let record = Record::read(document).unwrap();
        if record.state() != EscalationState::Open {
            return true;
        }
        let told = record.escalation(document).deliveries;
        // Whoever delivered it may have died; in real time the end of its lease is not waited for.
        let dead = self.forecast().faults && !self.pace.is_paused;
        let is_told = |sink| {
            told.get(sink)
                .is_some_and(|it| it.delivered_at.is_some() || (dead && it.next_at.is_some()))
        };
        is_told("pager") && is_told("mailbox")
    }

    /// No worker, no lease, no place at a system and no work is left.
    async fn eventually_holds_nothing(&self, tasker: &Tasker, tasks: &[StoredTask]) {
        for process in &self.processes {
            let tasker = process.tasker();
            let began = tokio::time::Instant::now();
            while tasker.calls_under_way() > 0 {
                let calls = tasker.calls_under_way();
                assert!(began.elapsed() < self.pace.patience, "seed {}: {calls} places", self.seed);
                tokio::time::sleep(self.pace.timeout / 10).await;
            }
            process.stop(self.pace.patience).await;
        }
        // A dead worker's lease runs out.
        let worker = WorkerId::new();
        let beat = |lease| {
            let name = "afterwards".to_owned();
            Heartbeat { worker, name, lease, spare: 0, running: Vec::new() }
        };
        let began = tokio::time::Instant::now();
        loop {
            self.store().take_over(100).await.unwrap();
            let renewed = self.store().renew(beat(Some(self.pace.patience))).await.unwrap();
            let Renewed::Until { next_expiry, others_spare, .. } = renewed else {
                panic!("seed {}: {renewed:?}", self.seed)
            };
            if (next_expiry, others_spare) == (None, 0) {
                break;
            }
            assert!(began.elapsed() < self.pace.patience, "seed {}: {renewed:?}", self.seed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut routes = BTreeSet::new();
        for task in tasks {
            let template = &task.template;
            routes.insert(Route::of(template));
            for handler in ["work", "side", "spare", "undo"] {
                routes.insert(Route::to_system(template, workflows::BANK, handler));
                routes.insert(Route::to_handler(template, handler));
            }
        }
        let routes = Arc::new(routes);
        let request = ClaimRequest { worker, routes, tasks: 100, offers: 100, holding: None };
        let claimed = self.store().claim(request).await.unwrap();
        let Claimed::Work(work) = &claimed else { panic!("seed {}: {claimed:?}", self.seed) };
        let left = work.tasks.len() + work.offers.len() + work.news.len();
        assert!(left == 0 && work.next_in.is_none(), "seed {}: {work:#?}", self.seed);
        self.store().renew(beat(None)).await.unwrap();
        for summary in tasker.find(Default::default()).await.unwrap() {
            let task = tasks.iter().find(|task| task.id == summary.id).unwrap();
            let stored = (task.state, task.degraded, task.ended_at);
            assert_eq!((summary.state, summary.degraded, summary.ended_at), stored);
        }
    }
}

/// The keys of what the rows of a task raise.
fn raised_by(task: &StoredTask) -> Vec<String> {
    let change = TaskChange {
        task: task.id,
        assumes: Assumption::Unmoved { version: task.version },
        rows: task.rows.iter().map(|row| row.transition.clone()).collect(),
        offers: Vec::new(),
        then: Then::Keep,
        degraded: None,
        review: false,
    };
    change.documents().into_iter().map(|raised| raised.key).collect()
}
