//! The seam between Tasker and a database.
//!
//! A store remembers, it never decides: it compares, swaps, claims and lists, and it owns the
//! clock. It knows nothing of retry policies, of what a graph means or of when a task is finished;
//! all that arrives as a [`TaskChange`] that `decide` concluded. Every method is atomic in the unit
//! that it names, may be called by any number of processes at once, and may be dropped at any
//! await: it then has happened wholly or not at all, and a transaction is never left open.

pub mod board;
mod change;
mod document;
pub mod memory;
pub mod occasions;
mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use self::change::{Applied, Assumption, Committed, NewOffer, TaskChange, Then};
pub use self::document::{
    Collection, Content, Document, DocumentChange, DocumentQuery, Documents, DocumentsWritten,
    UnknownCollection,
};
use crate::escalation::Alarm;
use crate::history::{Author, Recorded};
use crate::{Fingerprint, Json, Priority, StepIndex, TaskId, TaskState, TaskTemplate, WorkerId};

/// Where tasks live.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// Stores new tasks, each wholly or not at all, and answers in their order.
    ///
    /// When this returns the tasks are durable. A task whose idempotency key is taken is not
    /// stored; [`Created::Existing`] names the one that is, whether or not its input was the same
    /// (the caller compares the digests). With a `claimant`, whose lease must be alive, the new
    /// tasks are its own at once, as if it had claimed them in the same transaction; if the lease
    /// is gone they are stored all the same and [`Created::New`] says that they are not claimed.
    ///
    /// The [alarm](NewTask::alarm) of a task is written with it.
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError>;

    /// Hands work to a worker: queued tasks, offered steps, and news of the tasks that it owns.
    ///
    /// Two callers never get the same task or offer, and nobody waits for another's locks. Nothing
    /// is handed out before its `wake_at`. What is due comes in the order of its
    /// [rank](Priority::rank), fairly over the routes: each route has a turn before one has two.
    /// The tasks' version is one higher than before, their state is `in_progress` (one that is
    /// `compensating` stays so), and they bring their context and whole history, so nothing else
    /// needs to be read. News is handed out once.
    /// If the lease is gone the answer is [`Claimed::LeaseLost`] and nothing happened.
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError>;

    /// Applies changes in one transaction, each only if what it assumed is true.
    ///
    /// If the author is a worker whose lease is gone, nothing is applied at all. A change whose
    /// assumption is false, or one of whose rows (or the row that one of its offers is for) exists
    /// already, is left out whole and answered with [`Applied::Conflict`]; the others stand. An
    /// offer that stands already stays as it is, with its holder. When this returns, what was
    /// applied is durable.
    ///
    /// The [documents](TaskChange::documents) of a change that is applied are written with it; those
    /// that exist stay as they are.
    ///
    /// Checking what a change assumes and writing it are one act: no take-over and no other commit
    /// of the same task comes between the two, also where the change writes rows only.
    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError>;

    /// Registers a worker or renews its lease, or retires it.
    ///
    /// An id whose worker was taken over or retired is never accepted again: [`Renewed::LeaseLost`].
    /// A worker whose lease ran out but that nobody has taken over yet may renew.
    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError>;

    /// Takes over workers whose lease ran out, at most `limit` of them.
    ///
    /// Each is one atomic act: the worker is gone for good, a [`WorkerLost`] row is added to the
    /// log of every task that it owned, those tasks are queued to run at once, and the offers that
    /// it held can be claimed again. Returns the workers that were taken over.
    ///
    /// [`WorkerLost`]: crate::history::Occurrence::WorkerLost
    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError>;

    /// One task with its whole history, as one consistent snapshot; `None` if there is none.
    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError>;

    /// Tasks by type, state and whether they are degraded, newest first, a page at a time.
    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError>;

    /// Documents, as one consistent snapshot.
    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError>;

    /// Writes documents in one transaction, each only if its version is the one that was read.
    ///
    /// Two changes of one document in one call are applied one after the other. When this returns,
    /// what was applied is durable.
    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError>;

    /// Returns as soon as a claim may find something that the worker's last one did not see, and
    /// after `max` in any case.
    ///
    /// A hint and no more: correctness never depends on it. A store may hint more often than that.
    async fn wait_for_work(&self, worker: WorkerId, max: Duration);
}

/// A task to be stored.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its name, made by the caller.
    pub id: TaskId,
    /// What it is made of; kept by the store once per fingerprint.
    pub template: Arc<TaskTemplate>,
    /// Its input, checked against the template's schema.
    pub context: Json,
    /// Makes a second submission with the same key, for the same namespace and name of task,
    /// answer with the first task.
    pub idempotency_key: Option<String>,
    /// How long from now until it may be claimed; zero for at once.
    pub delay: Duration,
    /// How urgent it is, for as long as it is stored.
    pub priority: Priority,
}

impl NewTask {
    /// A digest of what was asked for, to tell a repeated submission from a different one.
    pub fn input_digest(&self) -> Fingerprint {
        input_digest(&self.context)
    }

    /// The alarm of a task that should not take too long: a document that is written with it.
    pub fn alarm(&self) -> Option<DocumentChange> {
        let limits = self.template.steps().iter().map(|step| step.expected_within);
        let first = limits.chain([self.template.deadline()]).flatten().min()?;
        let due_in = Some(self.delay.saturating_add(first));
        let put = Some(Alarm { delay: self.delay }.content(due_in));
        let (collection, key) = (Collection::Alarm, self.id.to_string());
        Some(DocumentChange { collection, key, expects: None, put })
    }
}

/// A digest of a task's input that does not depend on the order of its keys or on white space.
pub fn input_digest(context: &Json) -> Fingerprint {
    // Parsing into a `Value` sorts the keys.
    let canonical = context.to::<serde_json::Value>().map(|value| value.to_string());
    Fingerprint::of(canonical.as_deref().unwrap_or(context.as_str()).as_bytes())
}

/// What became of a task that was to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is stored.
    New {
        /// When, by the store's clock.
        at: Timestamp,
        /// Its version if the claimant owns it, `None` if it is queued.
        claimed: Option<u64>,
    },
    /// Its idempotency key was taken.
    Existing {
        /// By this task.
        id: TaskId,
        /// The digest of that task's input.
        input_digest: Fingerprint,
    },
}

/// Who asks for work, and for how much.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The worker; its lease must be alive.
    pub worker: WorkerId,
    /// The routes that it serves.
    pub routes: Arc<BTreeSet<Route>>,
    /// How many tasks it can take.
    pub tasks: usize,
    /// How many offered steps it can take.
    pub offers: usize,
    /// After a call whose answer was lost: the tasks that the worker holds. Whatever else stands
    /// in its name is handed out again, and news may have been lost with the answer.
    pub holding: Option<Vec<TaskId>>,
}

/// Which workers may take a queued task: those that serve its type, or one handler of it.
///
/// Written `namespace/name@version`, or with `#handler` or `!system#handler` at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route(Arc<str>);

impl Route {
    /// The route of a template's tasks.
    pub fn of(template: &TaskTemplate) -> Self {
        Self(template.task_type().to_string().into())
    }

    /// The route of those tasks of a template that wait for one handler.
    pub fn to_handler(template: &TaskTemplate, handler: &str) -> Self {
        Self(format!("{}#{handler}", template.task_type()).into())
    }

    /// The route of those tasks of a template that wait until a system takes a call of one handler.
    ///
    /// Who lacks the handler could only pass such a task on, and get it back.
    pub fn to_system(template: &TaskTemplate, system: &str, handler: &str) -> Self {
        Self(format!("{}!{system}#{handler}", template.task_type()).into())
    }

    /// The handler or the system that is waited for, if it is not just for any worker.
    pub fn waits_for(&self) -> Option<Awaited<'_>> {
        let at = self.0.find(['#', '!'])?;
        let name = &self.0[at + 1..];
        Some(if self.0.as_bytes()[at] == b'#' {
            Awaited::Handler(name)
        } else {
            Awaited::System(name.split_once('#').map_or(name, |(system, _)| system))
        })
    }

    /// A route that a store read back.
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The route as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the tasks on a [`Route`] wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited<'a> {
    /// A worker that has this handler.
    Handler(&'a str),
    /// That this system is well again, or has room for another call.
    System(&'a str),
}

/// The answer to a claim.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// The worker was taken over or retired: it owns nothing any more.
    LeaseLost,
    /// What there was, perhaps nothing.
    Work(Work),
}

/// What a claim handed out.
#[derive(Clone, Debug)]
pub struct Work {
    /// The store's clock.
    pub now: Timestamp,
    /// Tasks that the worker owns from now on.
    pub tasks: Vec<StoredTask>,
    /// Steps of other workers' tasks that it is to run.
    pub offers: Vec<OfferedStep>,
    /// What others did to the tasks that it owns.
    pub news: Vec<News>,
    /// How long until the next queued task on its routes may be claimed; `None` if there is none.
    /// Zero if the claim took all that it asked for and there is more.
    pub next_in: Option<Duration>,
}

/// Something that another process did to a task that a worker owns, or owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// Another worker settled a step that was offered.
    Settled {
        /// The task.
        task: TaskId,
        /// The row that was added.
        row: Recorded,
    },
    /// An operator moved the task: it is no longer the worker's.
    Revoked {
        /// The task.
        task: TaskId,
    },
}

/// An offered step, claimed.
#[derive(Clone, Debug)]
pub struct OfferedStep {
    /// The task, with its own rows and those of the needed steps and of the step itself only.
    pub task: StoredTask,
    /// The step to run.
    pub step: StepIndex,
    /// The row of its log that settling it will write.
    pub seq: u32,
}

/// A worker's sign of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The incarnation.
    pub worker: WorkerId,
    /// What it is called, for people: host and process.
    pub name: String,
    /// Renew for this long from now; `None` retires the worker: what it still owns is treated as
    /// if it had been taken over at once.
    pub lease: Option<Duration>,
    /// How many more steps it could run at once.
    pub spare: u32,
    /// The steps that it has been running for long, for people.
    pub running: Vec<RunningStep>,
}

impl Heartbeat {
    /// The steps that run for long as a store keeps them for people: a JSON array.
    pub fn running_json(&self) -> String {
        let steps = self.running.iter().map(|step| {
            serde_json::json!({
                "task": step.task,
                "step": step.step,
                "running_for_ms": u64::try_from(step.running_for.as_millis()).unwrap_or(u64::MAX),
            })
        });
        serde_json::Value::Array(steps.collect()).to_string()
    }
}

/// A step that a worker has been running for long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunningStep {
    /// The task.
    pub task: TaskId,
    /// The step.
    pub step: StepIndex,
    /// For how long.
    pub running_for: Duration,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The worker was taken over or retired.
    LeaseLost,
    /// The lease runs from now.
    Until {
        /// The store's clock.
        now: Timestamp,
        /// How many more steps the other living workers could run at once, as they last said.
        others_spare: u32,
        /// How long until the first lease of another worker runs out: zero if one has run out and
        /// nobody has taken that worker over yet, `None` if there is no other worker.
        next_expiry: Option<Duration>,
        /// The sum of the versions of the documents about systems: another number than before says
        /// that one was written.
        systems: u64,
        /// How long until somebody should look at a document: zero if one is due, `None` if there
        /// is none that ever will be.
        next_due: Option<Duration>,
    },
}

/// A task as a store keeps it.
#[derive(Clone, Debug)]
pub struct StoredTask {
    /// Its name.
    pub id: TaskId,
    /// What it is made of.
    pub template: Arc<TaskTemplate>,
    /// Its input.
    pub context: Json,
    /// How urgent it is, whatever becomes of it.
    pub priority: Priority,
    /// Its state.
    pub state: TaskState,
    /// Whether it goes on, or has ended, without something that was asked of it: an optional step
    /// failed, a fallback took over, or somebody skipped a step.
    pub degraded: bool,
    /// Counts claims, releases, ends and operators' actions.
    pub version: u64,
    /// Who owns it.
    pub owner: Option<WorkerId>,
    /// Until when its owner's lease runs, as [`load`](StateStore::load) tells it; a claim does not.
    pub lease_until: Option<Timestamp>,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it last ended.
    pub ended_at: Option<Timestamp>,
    /// While it is queued: when it may be claimed.
    pub wake_at: Option<Timestamp>,
    /// While it is queued: who may claim it.
    pub route: Option<Route>,
    /// The store's clock when this was read.
    pub now: Timestamp,
    /// Its history, each log in the order of its numbers.
    pub rows: Vec<Recorded>,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct TaskQuery {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only tasks of this name.
    pub name: Option<String>,
    /// Only tasks in this state.
    pub state: Option<TaskState>,
    /// Only tasks that are [degraded](TaskSummary::degraded), or only those that are not.
    pub degraded: Option<bool>,
    /// Only tasks older than this one: the last of the page before.
    pub before: Option<TaskId>,
    /// At most this many; 0 means 100, and no page is longer than 1,000.
    pub limit: usize,
}

impl TaskQuery {
    /// How many tasks a page has.
    pub fn page_size(&self) -> usize {
        if self.limit == 0 { 100 } else { self.limit.min(1000) }
    }
}

/// A line in a list of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSummary {
    /// Its name.
    pub id: TaskId,
    /// Its kind, written `namespace/name@version`.
    pub task_type: String,
    /// Its state.
    pub state: TaskState,
    /// Whether it goes on, or has ended, without something that was asked of it: an optional step
    /// failed, a fallback took over, or somebody skipped a step.
    pub degraded: bool,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it last ended.
    pub ended_at: Option<Timestamp>,
}

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer. Whether the call had an effect is unknown: try again, and
    /// reload before you decide.
    #[error("the store is not available: {reason}")]
    Unavailable {
        /// What failed, without statements or secrets.
        reason: String,
        /// The database's own error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// What is stored cannot be read, or the database refuses what must be accepted: call somebody.
    #[error("the store is damaged or of another version: {reason}")]
    Damaged {
        /// What is wrong, without statements or secrets.
        reason: String,
        /// The underlying error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}
