//! How a store that keeps rows applies a batch of changes: read, apply in memory, write.
//!
//! Changes are applied one after another in memory, so a later one sees what an earlier one did;
//! what remains at the end is written at once, with a few statements however many changes there
//! are. What holds and what conflicts is then the same for every such store. Reading, writing and
//! locking the rows, and checking the author's lease, are the store's own.
//!
//! A store reads where the tasks of all the changes stand ([`Board::place`]), the offers of those
//! tasks of which a change [concerns offers](TaskChange::concerns_offers)
//! ([`Board::place_offer`]), and which of the rows that are offered, and of the rows that are to
//! be added unless inserting them shows it, exist already ([`Board::place_row`]). Nothing of this
//! may change before the [`Effects`] are written. Times are microseconds since 1970 (UTC).
//!
//! ```
//! use tasker_core::history::Author;
//! use tasker_core::store::board::{Board, Standing};
//! use tasker_core::store::{Assumption, TaskChange, Then};
//! use tasker_core::{Priority, TaskId, TaskState, WorkerId};
//!
//! let (task, worker) = (TaskId::new(), WorkerId::new());
//! let mut board = Board::new(1_000);
//! board.place(task, Standing {
//!     template: 1,
//!     priority: Priority::Normal,
//!     state: TaskState::InProgress,
//!     degraded: false,
//!     version: 1,
//!     owner: Some(worker),
//!     route: None,
//!     wake_at: None,
//!     created_at: 0,
//!     ended_at: None,
//! });
//!
//! let assumes = Assumption::Owned { version: 1 };
//! let then = Then::End { state: TaskState::Complete };
//! let (rows, offers) = (Vec::new(), Vec::new());
//! let change = TaskChange { task, assumes, rows, offers, then, degraded: None, review: false };
//! let author = Author::Worker(worker);
//! assert!(board.apply(&author, &change));
//! assert!(!board.apply(&author, &change), "the first one took the task from its owner");
//!
//! let effects = board.finish();
//! let (_, standing) = &effects.moved[0];
//! assert_eq!((standing.version, standing.ended_at), (2, Some(1_000)));
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Assumption, DocumentChange, NewOffer, TaskChange, Then};
use crate::history::{Author, Transition};
use crate::{Priority, StepIndex, TaskId, TaskState, WorkerId};

/// The number of a task's own log, beside those of its steps, which are their positions.
pub const OWN_LOG: i64 = -1;

/// A log's number in a row: a step's position, or [`OWN_LOG`].
pub fn log_of(step: Option<StepIndex>) -> i64 {
    step.map_or(OWN_LOG, |step| i64::from(step.0))
}

/// The time that is a while after another, never too early and never out of range.
pub fn after(now: i64, wait: Duration) -> i64 {
    let micros = i64::try_from(wait.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    // The last whole second: jiff does not read the microseconds after it.
    now.saturating_add(micros).min(Timestamp::MAX.as_second() * 1_000_000)
}

/// A task's [rank](Priority::rank) as a row has it: the lowest is claimed first.
pub fn rank(priority: Priority, wake_at: i64) -> i64 {
    let head_start = i64::try_from(priority.head_start().as_micros()).unwrap_or(0);
    wake_at.saturating_sub(head_start)
}

/// Where a task stands: its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The store's own key of the template that the task is made of.
    pub template: i64,
    /// How urgent it is; no change changes it.
    pub priority: Priority,
    /// Its state.
    pub state: TaskState,
    /// Whether it goes on, or has ended, without something that was asked of it.
    pub degraded: bool,
    /// Counts claims, releases, ends and operators' actions.
    pub version: u64,
    /// The worker that owns it.
    pub owner: Option<WorkerId>,
    /// Where it was queued last; `None` for its template's own route.
    pub route: Option<Arc<str>>,
    /// While it is queued: from when on it may be claimed.
    pub wake_at: Option<i64>,
    /// When it was stored.
    pub created_at: i64,
    /// When it last ended.
    pub ended_at: Option<i64>,
}

/// The tasks of a batch of changes as they stand, and as they will once the changes are applied.
#[derive(Debug)]
pub struct Board<'a> {
    now: i64,
    tasks: HashMap<TaskId, Place>,
    offers: HashMap<TaskId, Vec<Offer<'a>>>,
    /// Rows that exist: found when that was looked for, and those that the batch adds.
    present: HashSet<(TaskId, i64, u32)>,
    effects: Effects<'a>,
}

#[derive(Debug)]
struct Place {
    stored: Standing,
    now: Standing,
}

/// An offered step.
#[derive(Debug)]
pub struct Offer<'a> {
    step: i64,
    seq: u32,
    holder: Option<WorkerId>,
    /// Whether there is a row of the step, which has to go if the offer does.
    stored: bool,
    made: Option<&'a NewOffer>,
}

impl Offer<'_> {
    /// One that is in the database: the step's position, the row that settling it will write, and
    /// the worker that runs it.
    pub fn stored(step: i64, seq: u32, holder: Option<WorkerId>) -> Self {
        Self { step, seq, holder, stored: true, made: None }
    }
}

/// What is to be written, all of it or nothing.
#[derive(Debug, Default)]
pub struct Effects<'a> {
    /// Rows of history to add, in this order; that one exists already is a conflict that the
    /// board was not told of.
    pub rows: Vec<(TaskId, &'a Author, &'a Transition)>,
    /// Tasks whose row changes, and what it becomes.
    pub moved: Vec<(TaskId, Standing)>,
    /// Rows of the queue to take away, before any is added.
    pub unqueued: Vec<Unqueued>,
    /// Rows of the queue to add.
    pub queued: Vec<Queued>,
    /// Offers to take away, before any is added: the positions of a task's steps.
    pub offers_gone: HashMap<TaskId, Vec<i64>>,
    /// Offers to add, without a holder; one of the same step that is there is replaced.
    pub offers_made: Vec<(TaskId, &'a NewOffer)>,
    /// News to leave, in this order.
    pub news: Vec<Told>,
    /// Documents to add, unless they exist.
    pub documents: Vec<DocumentChange>,
}

/// A row of the queue that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unqueued {
    /// The task.
    pub task: TaskId,
    /// The route that it is on; `None` for its template's own.
    pub route: Option<Arc<str>>,
    /// The store's own key of the task's template.
    pub template: i64,
    /// How urgent the task is.
    pub priority: Priority,
    /// From when on the task could be claimed.
    pub wake_at: i64,
}

/// A row of the queue that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The task.
    pub task: TaskId,
    /// Who may claim it.
    pub route: Arc<str>,
    /// How urgent it is.
    pub priority: Priority,
    /// From when on it may be claimed.
    pub wake_at: i64,
}

/// News for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who is to hear it.
    pub worker: WorkerId,
    /// The task that it is about.
    pub task: TaskId,
    /// The log and the number of the row that was added; `None` if the task was moved.
    pub row: Option<(i64, u32)>,
}

impl<'a> Board<'a> {
    /// An empty one, for changes that are applied at a time.
    pub fn new(now: i64) -> Self {
        Self {
            now,
            tasks: HashMap::new(),
            offers: HashMap::new(),
            present: HashSet::new(),
            effects: Effects::default(),
        }
    }

    /// Tells where a task stands; the first one told counts. A change of a task that is not placed
    /// conflicts.
    pub fn place(&mut self, task: TaskId, standing: Standing) {
        self.tasks.entry(task).or_insert_with(|| Place { stored: standing.clone(), now: standing });
    }

    /// Tells of an offer that stands.
    pub fn place_offer(&mut self, task: TaskId, offer: Offer<'a>) {
        self.offers.entry(task).or_default().push(offer);
    }

    /// Tells that a row of history exists.
    pub fn place_row(&mut self, task: TaskId, step: i64, seq: u32) {
        self.present.insert((task, step, seq));
    }

    /// Applies a change if what it assumes is true and its rows are new; true if it was applied.
    ///
    /// Whether the author's lease is alive is for the store to check first.
    pub fn apply(&mut self, author: &'a Author, change: &'a TaskChange) -> bool {
        let id = change.task;
        if !self.holds(author, change) || self.offers_the_past(change) || !self.add_rows(change) {
            return false;
        }
        let Some(place) = self.tasks.get_mut(&id) else { return false };
        let task = &mut place.now;
        let rows = change.rows.iter();
        self.effects.rows.extend(rows.clone().map(|row| (id, author, row)));
        self.effects.documents.extend(change.documents());

        let others_owner = task.owner.filter(|owner| *author != Author::Worker(*owner));
        let offers = self.offers.entry(id).or_default();
        if let Assumption::OfferHeld { step, seq } = change.assumes {
            let settled = |offer: &Offer<'_>| offer.step == i64::from(step.0) && offer.seq == seq;
            withdraw(&mut self.effects, id, offers, settled);
            // The owner hears of it even if it settled the step itself, as anybody would.
            if let Some(owner) = task.owner {
                let told = rows.map(|row| {
                    let row = Some((log_of(row.step), row.seq));
                    Told { worker: owner, task: id, row }
                });
                self.effects.news.extend(told);
            }
        }
        for offer in &change.offers {
            let step = i64::from(offer.step.0);
            let before = offers.iter().position(|known| known.step == step);
            if before.is_some_and(|at| offers[at].seq == offer.seq) {
                // A change that is sent again must not take the step from who runs it.
                continue;
            }
            let stored = before.map(|at| offers.swap_remove(at)).is_some_and(|known| known.stored);
            offers.push(Offer { step, seq: offer.seq, holder: None, stored, made: Some(offer) });
        }
        task.degraded = change.degraded.unwrap_or(task.degraded);
        match &change.then {
            Then::Keep => return true,
            Then::Queue { state, wake_in, route } => {
                task.state = *state;
                task.ended_at = None;
                task.wake_at = Some(after(self.now, *wake_in));
                task.route = Some(route.as_str().into());
            }
            Then::Hold { state } => {
                task.state = *state;
                task.ended_at = None;
                task.wake_at = None;
            }
            Then::End { state } => {
                let ended_so = task.ended_at.filter(|_| task.state == *state);
                task.state = *state;
                task.wake_at = None;
                task.ended_at = Some(ended_so.unwrap_or(self.now));
            }
        }
        task.version += 1;
        task.owner = None;
        withdraw(&mut self.effects, id, offers, |_| true);
        let revoked = others_owner.map(|worker| Told { worker, task: id, row: None });
        self.effects.news.extend(revoked);
        true
    }

    fn holds(&self, author: &Author, change: &TaskChange) -> bool {
        let Some(Place { now: task, .. }) = self.tasks.get(&change.task) else { return false };
        match (change.assumes, author) {
            (Assumption::Unmoved { version }, _) => task.version == version,
            (Assumption::Owned { version }, Author::Worker(worker)) => {
                task.version == version && task.owner == Some(*worker)
            }
            (Assumption::OfferHeld { step, seq }, Author::Worker(worker)) => {
                self.offers.get(&change.task).is_some_and(|offers| {
                    offers.iter().any(|offer| {
                        offer.step == i64::from(step.0)
                            && offer.seq == seq
                            && offer.holder == Some(*worker)
                    })
                })
            }
            (Assumption::Owned { .. } | Assumption::OfferHeld { .. }, Author::Operator(_)) => false,
        }
    }

    /// Whether a change offers a step for a row that exists.
    fn offers_the_past(&self, change: &TaskChange) -> bool {
        let exists = |offer: &NewOffer| {
            self.present.contains(&(change.task, i64::from(offer.step.0), offer.seq))
        };
        change.offers.iter().any(exists)
    }

    /// Takes the numbers of a change's rows, all or none.
    fn add_rows(&mut self, change: &TaskChange) -> bool {
        for (taken, row) in change.rows.iter().enumerate() {
            if !self.present.insert((change.task, log_of(row.step), row.seq)) {
                for row in &change.rows[..taken] {
                    self.present.remove(&(change.task, log_of(row.step), row.seq));
                }
                return false;
            }
        }
        true
    }

    /// What all the changes that were applied add up to.
    pub fn finish(self) -> Effects<'a> {
        let mut effects = self.effects;
        for (id, offers) in self.offers {
            let made = offers.into_iter().filter_map(|offer| offer.made);
            effects.offers_made.extend(made.map(|offer| (id, offer)));
        }
        for (id, Place { stored, now }) in self.tasks {
            if now == stored {
                continue;
            }
            if (stored.wake_at, &stored.route) == (now.wake_at, &now.route) {
                // It stays where it is in the queue, or out of it.
                effects.moved.push((id, now));
                continue;
            }
            if let Some(wake_at) = stored.wake_at {
                let Standing { template, route, priority, .. } = stored;
                let gone = Unqueued { task: id, route, template, priority, wake_at };
                effects.unqueued.push(gone);
            }
            if let (Some(wake_at), Some(route)) = (now.wake_at, &now.route) {
                let (route, priority) = (Arc::clone(route), now.priority);
                effects.queued.push(Queued { task: id, route, priority, wake_at });
            }
            effects.moved.push((id, now));
        }
        effects
    }
}

/// Removes the offers of a task that a predicate names.
fn withdraw(
    effects: &mut Effects<'_>,
    task: TaskId,
    offers: &mut Vec<Offer<'_>>,
    which: impl Fn(&Offer<'_>) -> bool,
) {
    offers.retain(|offer| {
        if which(offer) && offer.stored {
            effects.offers_gone.entry(task).or_default().push(offer.step);
        }
        !which(offer)
    });
}
