//! Does the same to two stores and holds their answers against each other.
//!
//! What [`conformance`](super::conformance) proves clause by clause this looks for in thousands of
//! calls in random order: a store that answers once otherwise than the reference (as a rule
//! [`MemoryStore`](crate::MemoryStore)) keeps another contract. The calls follow from a seed, so
//! every difference can be seen again.

pub(super) mod dice;
mod seen;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::dice::Dice;
use super::conformance::Handles;
use crate::history::Author;
use crate::store::{
    Assumption, ClaimRequest, Collection, Created, Document, DocumentQuery, Documents, Heartbeat,
    NewTask, Route, StateStore, StoreError, TaskChange, TaskQuery,
};
use crate::{
    Json, Priority, StepTemplate, TaskId, TaskState, TaskTemplate, TemplateError, WorkerId,
};

/// Two stores that do not answer alike, or one that does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Difference {
    /// Their answers differ in more than timestamps.
    #[error("seed {seed}, call {call}: {what}\n  expected {expected}\n  found    {found}")]
    Answers {
        /// What the calls followed from.
        seed: u64,
        /// Which call it was, from 0.
        call: usize,
        /// What was asked.
        what: String,
        /// What the reference answered.
        expected: String,
        /// What the other store answered.
        found: String,
    },
    /// A call failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The templates of the comparison could not be made.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Makes the same `calls` to two empty stores: to the one as `reference`, to the other through
/// either of its handles.
///
/// Leases and waits are either over at once or last for hours, so neither time that passes nor a
/// clock that differs makes a difference. Every task is read after every call.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tasker_core::MemoryStore;
/// use tasker_core::testing::compare::compare;
/// use tasker_core::testing::conformance::Handles;
///
/// let store = MemoryStore::new();
/// compare(&MemoryStore::new(), &Handles::new(store.clone(), store), 7, 50).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The first difference; what comes after it would tell nothing.
pub async fn compare(
    reference: &dyn StateStore,
    store: &Handles,
    seed: u64,
    calls: usize,
) -> Result<(), Difference> {
    let mut pair = Pair {
        reference,
        store,
        dice: Dice::new(seed),
        seed,
        call: 0,
        templates: [template("order", None)?, template("refund", Some(HOURS))?],
        workers: (0..3).map(|_| WorkerId::new()).collect(),
        tasks: Vec::new(),
    };
    for call in 0..calls {
        pair.call = call;
        pair.one_call().await?;
        pair.load_all().await?;
    }
    pair.read_documents().await?;
    pair.find_all().await
}

/// Few steps and few numbers, so that calls get in each other's way.
fn template(name: &str, deadline: Option<Duration>) -> Result<Arc<TaskTemplate>, TemplateError> {
    let mut template = TaskTemplate::builder(name);
    if let Some(deadline) = deadline {
        template = template.deadline(deadline);
    }
    let template = template
        .step(StepTemplate::new("reserve"))
        .step(StepTemplate::new("charge").after("reserve"))
        .step(StepTemplate::new("send").after("reserve"));
    Ok(Arc::new(template.build()?))
}

/// Longer than any comparison takes.
const HOURS: Duration = Duration::from_secs(4 * 3600);

/// More than there is.
const ALL: usize = 1000;

struct Pair<'a> {
    reference: &'a dyn StateStore,
    store: &'a Handles,
    dice: Dice,
    seed: u64,
    call: usize,
    templates: [Arc<TaskTemplate>; 2],
    workers: Vec<WorkerId>,
    tasks: Vec<TaskId>,
}

impl Pair<'_> {
    /// One of the other store's handles.
    fn handle(&mut self) -> Arc<dyn StateStore> {
        if self.dice.chance(50) { self.store.here.clone() } else { self.store.there.clone() }
    }

    fn same(&self, what: &str, expected: String, found: String) -> Result<(), Difference> {
        if expected == found {
            return Ok(());
        }
        let (seed, call, what) = (self.seed, self.call, what.to_owned());
        Err(Difference::Answers { seed, call, what, expected, found })
    }

    async fn one_call(&mut self) -> Result<(), Difference> {
        match self.dice.below(14) {
            0..=2 => self.create().await,
            3..=5 => self.claim().await,
            6 => self.renew().await,
            7 => self.take_over().await,
            8 => self.write_documents().await,
            9 => self.read_documents().await,
            _ if self.tasks.is_empty() => self.create().await,
            _ => self.commit().await,
        }
    }

    async fn create(&mut self) -> Result<(), Difference> {
        let count = 1 + self.dice.below(2);
        let tasks: Vec<_> = (0..count).map(|_| self.new_task()).collect();
        let worker = self.dice.pick(&self.workers);
        let claimant = worker.filter(|_| self.dice.chance(40));
        let store = self.handle();
        let expected = self.reference.create(tasks.clone(), claimant).await?;
        let found = store.create(tasks.clone(), claimant).await?;
        let what = format!("create {tasks:?} for {claimant:?}");
        self.same(&what, seen::created(&expected), seen::created(&found))?;
        let new = tasks.iter().zip(&expected);
        let new = new.filter(|(_, created)| matches!(created, Created::New { .. }));
        self.tasks.extend(new.map(|(task, _)| task.id));
        Ok(())
    }

    fn new_task(&mut self) -> NewTask {
        let dice = &mut self.dice;
        let template = self.templates[dice.below(2)].clone();
        let context = Json::from(serde_json::json!({ "number": dice.below(2), "text": "ï\"\\" }));
        let idempotency_key = dice.chance(40).then(|| format!("key {}", dice.below(4)));
        let delay = if dice.chance(25) { HOURS } else { Duration::ZERO };
        let priority = Priority::ALL[dice.below(3)];
        NewTask { id: TaskId::new(), template, context, idempotency_key, delay, priority }
    }

    async fn claim(&mut self) -> Result<(), Difference> {
        let Some(worker) = self.dice.pick(&self.workers) else { return Ok(()) };
        // With a limit, the turns of several routes are the store's own business.
        let all = self.dice.chance(50);
        let first = self.dice.below(2);
        let served = if all { &self.templates[..] } else { &self.templates[first..=first] };
        let handlers = |template: &Arc<TaskTemplate>| {
            [Route::of(template), Route::to_handler(template, "charge")]
        };
        let mut routes: BTreeSet<_> = served.iter().flat_map(handlers).collect();
        if !all {
            routes.retain(|route| !route.as_str().contains('#'));
        }
        let tasks = if all { ALL } else { self.dice.below(3) };
        let held = self.dice.chance(20).then(|| self.tasks.clone());
        let holding =
            held.map(|tasks| tasks.into_iter().filter(|_| self.dice.chance(50)).collect());
        let offers = if all && self.dice.chance(80) { ALL } else { 0 };
        let request = ClaimRequest { worker, routes: Arc::new(routes), tasks, offers, holding };
        let what = format!("{request:?}");
        let store = self.handle();
        let expected = self.reference.claim(request.clone()).await?;
        let found = store.claim(request).await?;
        self.same(&what, seen::claimed(&expected, all), seen::claimed(&found, all))
    }

    async fn renew(&mut self) -> Result<(), Difference> {
        if self.dice.chance(30) {
            self.workers.push(WorkerId::new());
        }
        let Some(worker) = self.dice.pick(&self.workers) else { return Ok(()) };
        let lease = match self.dice.below(10) {
            0 => None,
            1 | 2 => Some(Duration::ZERO),
            _ => Some(HOURS),
        };
        let spare = self.dice.below(5) as u32;
        let beat =
            Heartbeat { worker, name: "worker".to_owned(), lease, spare, running: Vec::new() };
        let store = self.handle();
        let expected = self.reference.renew(beat.clone()).await?;
        let found = store.renew(beat.clone()).await?;
        self.same(&format!("{beat:?}"), seen::renewed(&expected), seen::renewed(&found))
    }

    async fn take_over(&mut self) -> Result<(), Difference> {
        let store = self.handle();
        let mut expected = self.reference.take_over(ALL).await?;
        let mut found = store.take_over(ALL).await?;
        expected.sort_unstable();
        found.sort_unstable();
        self.same("take over", format!("{expected:?}"), format!("{found:?}"))
    }

    async fn commit(&mut self) -> Result<(), Difference> {
        let mut known = Vec::new();
        for id in &self.tasks {
            known.extend(self.reference.load(*id).await?);
        }
        let dice = &mut self.dice;
        let owner = dice.pick(&known.iter().collect::<Vec<_>>()).and_then(|task| task.owner);
        let worker = owner.filter(|_| dice.chance(80)).or(dice.pick(&self.workers));
        let worker = worker.filter(|_| dice.chance(85));
        let author = worker.map_or_else(|| Author::Operator("ada".to_owned()), Author::Worker);
        // Mostly at something that the author may touch.
        let mut own: Vec<_> = known.iter().filter(|task| task.owner == worker).collect();
        if own.is_empty() || dice.chance(30) {
            own = known.iter().collect();
        }
        let count = 1 + dice.below(3);
        let changes = (0..count).filter_map(|_| dice.pick(&own).map(|task| dice.change(task)));
        let changes: Vec<TaskChange> = changes
            // An operator owns nothing and holds no offer.
            .filter(|it| worker.is_some() || matches!(it.assumes, Assumption::Unmoved { .. }))
            .collect();
        let store = self.handle();
        let expected = self.reference.commit(&author, changes.clone()).await?;
        let found = store.commit(&author, changes.clone()).await?;
        let what = format!("{author:?} commits {changes:#?}");
        self.same(&what, seen::committed(&expected), seen::committed(&found))
    }

    async fn write_documents(&mut self) -> Result<(), Difference> {
        let known = self.documents().await?;
        let count = 1 + self.dice.below(4);
        let changes: Vec<_> = (0..count).map(|_| self.dice.document(&known)).collect();
        let store = self.handle();
        let expected = self.reference.write_documents(changes.clone()).await?;
        let found = store.write_documents(changes.clone()).await?;
        let what = format!("write {changes:#?}");
        self.same(&what, format!("{:?}", expected.applied), format!("{:?}", found.applied))
    }

    /// All that the reference has.
    async fn documents(&self) -> Result<Vec<Document>, Difference> {
        let mut known = Vec::new();
        for collection in Collection::ALL {
            let query = DocumentQuery::List { collection, state: None, after: None, limit: ALL };
            known.extend(self.reference.read_documents(query).await?.found);
        }
        Ok(known)
    }

    async fn read_documents(&mut self) -> Result<(), Difference> {
        let due = DocumentQuery::Due { limit: ALL };
        let (expected, found) = (
            self.reference.read_documents(due.clone()).await?,
            self.handle().read_documents(due).await?,
        );
        // What is due since the same moment comes in any order.
        self.same("due", seen::documents(&expected, true), seen::documents(&found, true))?;
        for collection in Collection::ALL {
            let keys = ["a", "b", "none"].map(str::to_owned).to_vec();
            let keys = DocumentQuery::Keys { collection, keys };
            let expected = self.reference.read_documents(keys.clone()).await?;
            let found = self.handle().read_documents(keys).await?;
            self.same("keys", seen::documents(&expected, false), seen::documents(&found, false))?;
            for state in [None, Some("set".to_owned()), Some("open".to_owned())] {
                self.list_documents(collection, state).await?;
            }
        }
        Ok(())
    }

    /// Two pages of a list; each store goes on from its own last one.
    async fn list_documents(
        &mut self,
        collection: Collection,
        state: Option<String>,
    ) -> Result<(), Difference> {
        let mut places = (None, None);
        for _ in 0..2 {
            let list = |after| {
                let state = state.clone();
                DocumentQuery::List { collection, state, after, limit: 3 }
            };
            let store = self.handle();
            let expected = self.reference.read_documents(list(places.0)).await?;
            let found = store.read_documents(list(places.1)).await?;
            let what = format!("list of {collection}, {state:?}");
            self.same(&what, seen::documents(&expected, false), seen::documents(&found, false))?;
            let last = |page: &Documents| page.found.last().map(seen::place);
            places = (last(&expected), last(&found));
            if places.0.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn load_all(&mut self) -> Result<(), Difference> {
        for id in self.tasks.clone() {
            let store = self.handle();
            let expected = self.reference.load(id).await?;
            let found = store.load(id).await?;
            let seen = |task: Option<_>| task.as_ref().map(seen::stored).unwrap_or_default();
            self.same("load", seen(expected), seen(found))?;
        }
        Ok(())
    }

    async fn find_all(&mut self) -> Result<(), Difference> {
        let states = TaskState::ALL.map(Some).into_iter().chain([None]);
        let filters = states.flat_map(|state| {
            let order = || Some("order".to_owned());
            [(state, order(), None), (state, None, None), (state, None, Some(true))]
        });
        for (state, name, degraded) in filters.chain([(None, None, Some(false))]) {
            let mut query = TaskQuery { name, state, degraded, limit: 3, ..TaskQuery::default() };
            loop {
                let store = self.handle();
                let expected = self.reference.find(query.clone()).await?;
                let found = store.find(query.clone()).await?;
                self.same(&format!("{query:?}"), seen::found(&expected), seen::found(&found))?;
                let Some(last) = expected.last() else { break };
                query.before = Some(last.id);
            }
        }
        Ok(())
    }
}
