//! One play of a workflow: a runtime of its own, paused time, a store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::Fresh;
use super::disturb::{Disturbance, Disturbed};
use crate::history::Occurrence;
use crate::store::{StateStore, StoredTask};
use crate::testing::{FaultyStore, Loss};
use crate::{
    Json, MemoryStore, Receipt, SubmitError, TaskHandler, TaskId, TaskRequest, TaskStatus, Tasker,
    Worker,
};

/// How a play ended.
pub(super) struct Ending {
    pub(super) status: TaskStatus,
    /// How often the success of each step is on record.
    pub(super) completions: BTreeMap<String, usize>,
    /// How often it is on record that what a step did was undone.
    pub(super) compensations: BTreeMap<String, usize>,
    /// The call at which the worker died, if it did.
    pub(super) crashed_at: Option<&'static str>,
}

/// A play that is over.
pub(super) struct Play<W> {
    pub(super) ending: Ending,
    pub(super) world: W,
    /// Whether the disturbance happened, if there was to be one.
    disturbed: bool,
}

impl<W> Play<W> {
    /// A step that never ran was not tested, and the test must not look as if it was.
    pub(super) fn was_disturbed(&self, scenario: &str) {
        assert!(self.disturbed, "not tested, for the step did not run: {scenario}");
    }
}

/// Everything is due earlier than this.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a worker lives without a sign of life; long, so that waiting for days costs no beats.
const LEASE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often somebody looks whether the task has ended, where no event tells.
const LOOK: Duration = Duration::from_secs(24 * 3600);

/// Plays a workflow once.
pub(super) fn play<W>(
    fresh: &Fresh<W>,
    context: &Json,
    disturbance: Option<Disturbance>,
    crash: Option<(usize, Loss)>,
) -> Play<W> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime for the test: {error}"),
    };
    runtime.block_on(async {
        let (handler, world) = fresh();
        let happened = Arc::new(AtomicBool::new(false));
        let handler = Disturbed { handler, disturbance, happened: happened.clone() };
        let store = MemoryStore::new();
        let ending = to_the_end(&store, &handler, context, crash).await;
        Play { ending, world, disturbed: happened.load(Ordering::SeqCst) }
    })
}

/// A process: a client and a worker.
struct Process {
    tasker: Tasker,
    worker: Worker,
    /// The store itself: a look at it is no point to crash at.
    store: MemoryStore,
}

impl Process {
    fn start(store: MemoryStore, through: impl StateStore, handler: &Disturbed) -> Self {
        let tasker = match Tasker::builder(through).register(handler.clone()).build() {
            Ok(tasker) => tasker,
            Err(error) => panic!("{error}"),
        };
        let worker = tasker.worker().lease(LEASE).poll(LEASE).start();
        Self { tasker, worker, store }
    }

    async fn submit_and_wait(&self, handler: &Disturbed, context: &Json) -> TaskStatus {
        let mut events = self.tasker.events();
        let id = self.submit(handler, context).await;
        let deadline = Instant::now() + YEAR;
        loop {
            let status = self.status(id).await;
            if status.state.is_terminal() {
                return status;
            }
            assert!(Instant::now() < deadline, "the task has not ended in a year: {status:?}");
            // Any event is a reason to look; most tasks have few.
            if let Ok(Err(RecvError::Closed)) = tokio::time::timeout(LOOK, events.recv()).await {
                events = self.tasker.events();
            }
        }
    }

    /// Submits under a key, so that a process that comes after a crash may do it again.
    async fn submit(&self, handler: &Disturbed, context: &Json) -> TaskId {
        let task = handler.template().task_type().to_string();
        let request = TaskRequest::new(task, context);
        let request = request.map(|request| request.idempotency_key("the only one"));
        let submitted = match request {
            Ok(request) => self.tasker.submit(request).await,
            Err(error) => panic!("{error}"),
        };
        match submitted {
            Ok(Receipt { id, .. }) => id,
            // A handler may prepare the same context differently a second time.
            Err(SubmitError::IdempotencyConflict { existing }) => existing,
            Err(error) => panic!("the task was not accepted: {error}"),
        }
    }

    async fn status(&self, id: TaskId) -> TaskStatus {
        TaskStatus::of(&stored(&self.store, id).await)
    }
}

async fn stored(store: &MemoryStore, id: TaskId) -> StoredTask {
    match store.load(id).await {
        Ok(Some(stored)) => stored,
        Ok(None) => panic!("the task was acknowledged and is gone"),
        Err(error) => panic!("the store in memory failed: {error}"),
    }
}

async fn to_the_end(
    store: &MemoryStore,
    handler: &Disturbed,
    context: &Json,
    crash: Option<(usize, Loss)>,
) -> Ending {
    let mortal = FaultyStore::new(store.clone());
    if let Some((call, loss)) = crash {
        mortal.crash_at(call, loss);
    }
    let first = Process::start(store.clone(), mortal.clone(), handler);
    let ended = tokio::select! {
        biased;
        name = mortal.crash() => Err(name),
        status = first.submit_and_wait(handler, context) => Ok(status),
    };
    let (status, crashed_at) = match ended {
        Ok(status) => {
            first.worker.shutdown(LEASE).await;
            (status, None)
        }
        Err(name) => {
            drop(first);
            let second = Process::start(store.clone(), store.clone(), handler);
            let status = second.submit_and_wait(handler, context).await;
            second.worker.shutdown(LEASE).await;
            (status, Some(name))
        }
    };
    let stored = stored(store, status.id).await;
    let completed = |what: &Occurrence| matches!(what, Occurrence::Completed { .. });
    let completions = times(&stored, completed);
    let compensations = times(&stored, |what| matches!(what, Occurrence::Compensated));
    Ending { status, completions, compensations, crashed_at }
}

/// How often each step has such a row.
fn times(stored: &StoredTask, is: impl Fn(&Occurrence) -> bool) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    let rows = stored.rows.iter().map(|row| &row.transition);
    for step in rows.filter(|row| is(&row.what)).filter_map(|row| row.step) {
        *times.entry(stored.template.step(step).name.clone()).or_default() += 1;
    }
    times
}
