//! What the store in memory keeps, and how each call changes it.
//!
//! Synchronous, and given the time: the model check of the protocol explores this very code.

mod claim;
mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::history::{Author, Occurrence, Recorded, Transition};
use crate::store::{
    Applied, Assumption, Collection, Committed, Created, Document, Heartbeat, NewOffer, NewTask,
    News, Renewed, Route, StoredTask, TaskChange, TaskQuery, TaskSummary, Then,
};
use crate::{Fingerprint, Json, Priority, StepIndex, TaskId, TaskState, TaskTemplate, WorkerId};

/// A log and a number in it; the task's own log is `None`.
type RowKey = (Option<StepIndex>, u32);

/// The queued tasks of one priority on one route, in the order in which they are claimed.
type Lane = BTreeSet<(Timestamp, TaskId)>;

/// Everything that the store keeps.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct State {
    tasks: BTreeMap<TaskId, Task>,
    keys: BTreeMap<(String, String, String), TaskId>,
    queue: BTreeMap<Route, BTreeMap<Priority, Lane>>,
    offers: BTreeMap<Route, BTreeSet<(TaskId, StepIndex)>>,
    workers: BTreeMap<WorkerId, Worker>,
    gone: BTreeSet<WorkerId>,
    documents: BTreeMap<(Collection, String), Document>,
    /// Whether somebody who waits for work should look; whoever looks clears it.
    pub(crate) has_news: bool,
    /// Turned off one at a time by the model check, which must then find a broken promise.
    pub(crate) guards: Guards,
}

#[derive(Clone, Debug, Hash)]
struct Task {
    template: Arc<TaskTemplate>,
    context: Json,
    input_digest: Option<Fingerprint>,
    priority: Priority,
    state: TaskState,
    degraded: bool,
    version: u64,
    owner: Option<WorkerId>,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
    queued: Option<(Route, Timestamp)>,
    rows: BTreeMap<RowKey, Recorded>,
    offers: BTreeMap<StepIndex, Offer>,
}

#[derive(Clone, Debug, Hash)]
struct Offer {
    offer: NewOffer,
    holder: Option<WorkerId>,
}

#[derive(Clone, Debug, Hash)]
struct Worker {
    expires_at: Timestamp,
    spare: u32,
    owned: BTreeSet<TaskId>,
    news: Vec<News>,
}

/// The three checks that the protocol rests on.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Guards {
    /// A commit needs a living lease.
    pub(crate) fence: bool,
    /// A change needs the version that it assumed.
    pub(crate) version: bool,
    /// A row is added once.
    pub(crate) unique: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { fence: true, version: true, unique: true }
    }
}

impl State {
    pub(crate) fn create(
        &mut self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
        now: Timestamp,
    ) -> Vec<Created> {
        let claimant = claimant.filter(|worker| self.workers.contains_key(worker));
        tasks.into_iter().map(|task| self.create_one(task, claimant, now)).collect()
    }

    fn create_one(&mut self, new: NewTask, claimant: Option<WorkerId>, now: Timestamp) -> Created {
        let alarm = new.alarm();
        let input_digest = new.idempotency_key.as_ref().map(|_| new.input_digest());
        if let Some(key) = new.idempotency_key {
            let of = new.template.task_type();
            let key = (of.namespace.clone(), of.name.clone(), key);
            if let Some(&id) = self.keys.get(&key) {
                let digest = self.tasks.get(&id).and_then(|task| task.input_digest);
                let input_digest = digest.unwrap_or_else(|| Fingerprint::of(b""));
                return Created::Existing { id, input_digest };
            }
            self.keys.insert(key, new.id);
        }
        if let Some(alarm) = alarm {
            self.write_document(alarm, now);
        }
        let mut task = Task {
            template: new.template,
            context: new.context,
            input_digest,
            priority: new.priority,
            state: TaskState::Pending,
            degraded: false,
            version: 0,
            owner: None,
            created_at: now,
            ended_at: None,
            queued: None,
            rows: BTreeMap::new(),
            offers: BTreeMap::new(),
        };
        let claimant = claimant.filter(|_| new.delay.is_zero());
        if let Some(worker) = claimant.and_then(|worker| self.workers.get_mut(&worker)) {
            worker.owned.insert(new.id);
            task.owner = claimant;
            task.version = 1;
            task.state = TaskState::InProgress;
            self.tasks.insert(new.id, task);
            return Created::New { at: now, claimed: Some(1) };
        }
        let route = Route::of(&task.template);
        self.tasks.insert(new.id, task);
        self.enqueue(new.id, route, later(now, new.delay));
        Created::New { at: now, claimed: None }
    }

    pub(crate) fn commit(
        &mut self,
        author: &Author,
        changes: Vec<TaskChange>,
        now: Timestamp,
    ) -> Committed {
        if !self.admits(author) {
            return Committed::LeaseLost;
        }
        let applied = changes.into_iter().map(|change| match self.holds(author, &change) {
            true => self.write(author, change, now),
            false => Applied::Conflict,
        });
        let applied = applied.collect();
        Committed::Changes { now, applied }
    }

    /// The fence: whether the author may commit at all.
    pub(crate) fn admits(&self, author: &Author) -> bool {
        match author {
            Author::Worker(worker) => !self.guards.fence || self.workers.contains_key(worker),
            Author::Operator(_) => true,
        }
    }

    /// Whether what a change assumes is true.
    pub(crate) fn holds(&self, author: &Author, change: &TaskChange) -> bool {
        let Some(task) = self.tasks.get(&change.task) else { return false };
        let worker = worker_of(author);
        // Nobody owns a queued task, and no operator is that nobody.
        let is_author = |who: Option<WorkerId>| who.is_some() && who == worker;
        match change.assumes {
            Assumption::Owned { version } => {
                !self.guards.version || (is_author(task.owner) && task.version == version)
            }
            Assumption::Unmoved { version } => !self.guards.version || task.version == version,
            Assumption::OfferHeld { step, seq } => task
                .offers
                .get(&step)
                .is_some_and(|offer| is_author(offer.holder) && offer.offer.seq == seq),
        }
    }

    /// Writes a change whose assumption holds, unless one of its rows exists.
    pub(crate) fn write(&mut self, author: &Author, change: TaskChange, now: Timestamp) -> Applied {
        let worker = worker_of(author);
        let Some(task) = self.tasks.get_mut(&change.task) else {
            return Applied::Conflict;
        };
        let key = |row: &Transition| (row.step, row.seq);
        let mut keys = change.rows.iter().map(key);
        // An offer is for a row to come.
        let mut offered = change.offers.iter().map(|offer| (Some(offer.step), offer.seq));
        let exists = |key| task.rows.contains_key(&key);
        let new = !keys.any(exists) && !offered.any(exists);
        if self.guards.unique && !new {
            return Applied::Conflict;
        }
        let documents = change.documents();
        let mut recorded = Vec::new();
        for row in change.rows {
            let row = Recorded { at: now, author: author.clone(), transition: row };
            recorded.push(row.clone());
            task.rows.insert(key(&row.transition), row);
        }
        if let Assumption::OfferHeld { step, .. } = change.assumes {
            task.offers.remove(&step);
            if let Some(owner) = task.owner {
                let news = recorded.into_iter().map(|row| News::Settled { task: change.task, row });
                self.workers.entry(owner).and_modify(|owner| owner.news.extend(news));
                self.has_news = true;
            }
        }
        for offer in change.offers {
            self.has_news = true;
            let (route, step) = (offer.route.clone(), offer.step);
            let Some(task) = self.tasks.get_mut(&change.task) else { continue };
            // A change that is sent again must not take the step from who runs it.
            if task.offers.get(&step).is_some_and(|stands| stands.offer.seq == offer.seq) {
                continue;
            }
            task.offers.insert(step, Offer { offer, holder: None });
            self.offers.entry(route).or_default().insert((change.task, step));
        }
        if let (Some(degraded), Some(task)) = (change.degraded, self.tasks.get_mut(&change.task)) {
            task.degraded = degraded;
        }
        for raised in documents {
            // One that was raised before stays as it is.
            self.write_document(raised, now);
        }
        match change.then {
            Then::Keep => {}
            Then::Queue { state, wake_in, route } => {
                self.leave_owner(change.task, worker);
                if let Some(task) = self.tasks.get_mut(&change.task) {
                    task.state = state;
                    task.ended_at = None;
                }
                self.enqueue(change.task, route, later(now, wake_in));
            }
            Then::Hold { state } => {
                self.leave_owner(change.task, worker);
                self.dequeue(change.task);
                if let Some(task) = self.tasks.get_mut(&change.task) {
                    task.state = state;
                    task.ended_at = None;
                }
            }
            Then::End { state } => {
                self.leave_owner(change.task, worker);
                self.dequeue(change.task);
                if let Some(task) = self.tasks.get_mut(&change.task) {
                    let ended_so = task.ended_at.filter(|_| task.state == state);
                    task.state = state;
                    task.ended_at = Some(ended_so.unwrap_or(now));
                }
            }
        }
        Applied::Yes
    }

    pub(crate) fn renew(&mut self, beat: &Heartbeat, now: Timestamp) -> Renewed {
        if self.gone.contains(&beat.worker) {
            return Renewed::LeaseLost;
        }
        match beat.lease {
            None => self.remove_worker(beat.worker, now),
            Some(lease) => {
                let (owned, news) = (BTreeSet::new(), Vec::new());
                let fresh = Worker { expires_at: now, spare: 0, owned, news };
                let worker = self.workers.entry(beat.worker).or_insert(fresh);
                worker.expires_at = later(now, lease);
                worker.spare = beat.spare;
            }
        }
        let others = || self.workers.iter().filter(|(id, _)| **id != beat.worker);
        let living = others().filter(|(_, other)| other.expires_at > now);
        let others_spare = living.fold(0u32, |sum, (_, other)| sum.saturating_add(other.spare));
        let next_expiry = others().map(|(_, other)| other.expires_at).min();
        let next_expiry =
            next_expiry.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let (systems, next_due) = (self.systems(), self.next_due(now));
        Renewed::Until { now, others_spare, next_expiry, systems, next_due }
    }

    pub(crate) fn take_over(&mut self, limit: usize, now: Timestamp) -> Vec<WorkerId> {
        let expired = self.workers.iter().filter(|(_, worker)| worker.expires_at <= now);
        let expired: Vec<_> = expired.map(|(id, _)| *id).take(limit).collect();
        for worker in &expired {
            self.remove_worker(*worker, now);
        }
        expired
    }

    /// Removes a worker for good; its tasks are queued, its offers can be claimed again.
    fn remove_worker(&mut self, id: WorkerId, now: Timestamp) {
        self.gone.insert(id);
        let Some(worker) = self.workers.remove(&id) else { return };
        for task_id in worker.owned {
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            let seq = task.rows.range((None, 0)..=(None, u32::MAX)).last();
            let seq = seq.map_or(1, |((_, seq), _)| seq + 1);
            let what = Occurrence::WorkerLost { worker: id };
            let row = Transition { step: None, seq, attempt: 0, ran_for: Duration::ZERO, what };
            let row = Recorded { at: now, author: Author::Worker(id), transition: row };
            task.rows.insert((None, seq), row);
            let route = Route::of(&task.template);
            self.leave_owner(task_id, Some(id));
            self.enqueue(task_id, route, now);
        }
        let held = self.tasks.iter_mut().flat_map(|(task, row)| {
            let held = row.offers.values_mut().filter(|offer| offer.holder == Some(id));
            held.map(|offer| {
                offer.holder = None;
                (offer.offer.route.clone(), (*task, offer.offer.step))
            })
        });
        for (route, offer) in held {
            self.offers.entry(route).or_default().insert(offer);
            self.has_news = true;
        }
    }

    /// One version on, no owner, no offers.
    fn leave_owner(&mut self, id: TaskId, author: Option<WorkerId>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.version += 1;
        let owner = task.owner.take();
        for (step, offer) in std::mem::take(&mut task.offers) {
            if let Some(open) = self.offers.get_mut(&offer.offer.route) {
                open.remove(&(id, step));
            }
        }
        let Some(worker) = owner.and_then(|owner| self.workers.get_mut(&owner)) else { return };
        worker.owned.remove(&id);
        if owner != author {
            worker.news.push(News::Revoked { task: id });
            self.has_news = true;
        }
    }

    fn enqueue(&mut self, id: TaskId, route: Route, wake_at: Timestamp) {
        self.dequeue(id);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.queued = Some((route.clone(), wake_at));
            let lanes = self.queue.entry(route).or_default();
            lanes.entry(task.priority).or_default().insert((wake_at, id));
            self.has_news = true;
        }
    }

    fn dequeue(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Some((route, wake_at)) = task.queued.take() else { return };
        let lanes = self.queue.get_mut(&route);
        if let Some(lane) = lanes.and_then(|lanes| lanes.get_mut(&task.priority)) {
            lane.remove(&(wake_at, id));
        }
    }

    fn withdraw(&mut self, id: TaskId, step: StepIndex) {
        for open in self.offers.values_mut() {
            open.remove(&(id, step));
        }
    }

    pub(crate) fn load(&self, id: TaskId, now: Timestamp) -> Option<StoredTask> {
        let task = self.tasks.get(&id)?;
        Some(StoredTask {
            id,
            template: task.template.clone(),
            context: task.context.clone(),
            priority: task.priority,
            state: task.state,
            degraded: task.degraded,
            version: task.version,
            owner: task.owner,
            lease_until: None,
            created_at: task.created_at,
            ended_at: task.ended_at,
            wake_at: task.queued.as_ref().map(|(_, wake_at)| *wake_at),
            route: task.queued.as_ref().map(|(route, _)| route.clone()),
            now,
            rows: task.rows.values().cloned().collect(),
        })
    }

    /// Tells until when the lease of a task's owner runs.
    pub(crate) fn with_lease(&self, task: StoredTask) -> StoredTask {
        let owner = task.owner.and_then(|owner| self.workers.get(&owner));
        StoredTask { lease_until: owner.map(|owner| owner.expires_at), ..task }
    }

    /// Who is to run an offered step.
    #[cfg(test)]
    pub(super) fn holder(&self, task: TaskId, step: StepIndex) -> Option<WorkerId> {
        self.tasks.get(&task)?.offers.get(&step)?.holder
    }

    /// Whether a worker may commit.
    #[cfg(test)]
    pub(super) fn has_worker(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker)
    }

    /// Whether anything stands in a worker's name.
    #[cfg(test)]
    pub(super) fn has_work(&self, worker: WorkerId) -> bool {
        let mut offers = self.tasks.values().flat_map(|task| task.offers.values());
        let owned = self.workers.get(&worker).is_some_and(|worker| !worker.owned.is_empty());
        owned || offers.any(|offer| offer.holder == Some(worker))
    }

    /// The version of a task.
    #[cfg(test)]
    pub(super) fn version(&self, task: TaskId) -> u64 {
        self.tasks.get(&task).map_or(0, |task| task.version)
    }

    pub(crate) fn find(&self, query: &TaskQuery) -> Vec<TaskSummary> {
        let matches = |task: &&Task| {
            let of = task.template.task_type();
            query.namespace.as_ref().is_none_or(|name| *name == of.namespace)
                && query.name.as_ref().is_none_or(|name| *name == of.name)
                && query.state.is_none_or(|state| state == task.state)
                && query.degraded.is_none_or(|degraded| degraded == task.degraded)
        };
        let newest_first = self.tasks.iter().rev();
        let page = newest_first
            .filter(|(id, _)| query.before.is_none_or(|before| **id < before))
            .filter(|(_, task)| matches(task))
            .map(|(id, task)| TaskSummary {
                id: *id,
                task_type: task.template.task_type().to_string(),
                state: task.state,
                degraded: task.degraded,
                created_at: task.created_at,
                ended_at: task.ended_at,
            });
        page.take(query.page_size()).collect()
    }
}

/// The worker among authors; `None` is an operator.
const fn worker_of(author: &Author) -> Option<WorkerId> {
    match author {
        Author::Worker(worker) => Some(*worker),
        Author::Operator(_) => None,
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
