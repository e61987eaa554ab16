//! The reasons that there are, as data.

use jiff::Timestamp;
use serde::Serialize;

use crate::WorkerId;
use crate::breaker::{BreakerState, SystemStatus};
use crate::history::{Author, Failure};

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskCause {
    /// It was submitted with a delay.
    Delayed {
        /// When it may start.
        until: Timestamp,
    },
    /// It may go on and no worker has taken it.
    WaitsForWorker {
        /// What a worker must serve to take it.
        route: String,
        /// Since when it may go on.
        since: Option<Timestamp>,
        /// The worker that had it and gave no sign of life.
        lost: Option<WorkerId>,
    },
    /// A worker had it and put it back, for it had no handler for a step that is due: a worker that
    /// has it goes on.
    WaitsForHandler {
        /// The handlers of the steps that are due.
        handlers: Vec<String>,
        /// When it was put back.
        since: Option<Timestamp>,
    },
    /// It was put aside until a system takes another call that a step is to make.
    WaitsForSystem(WaitForSystem),
    /// An operator holds it up.
    Paused {
        /// Who.
        by: Option<Author>,
        /// Why.
        reason: Option<String>,
        /// Since when.
        since: Option<Timestamp>,
    },
    /// What its steps did is being undone.
    Compensating {
        /// The steps that are left to be undone.
        left: Vec<String>,
        /// Why that does not move.
        now: Box<TaskCause>,
    },
    /// What steps did could not be undone: it needs a person.
    CompensationFailed {
        /// Those steps.
        failed: Vec<String>,
    },
    /// Steps wait for their next attempt, and nothing else is to be done.
    WaitsForRetry {
        /// Those steps.
        retries: Vec<String>,
        /// When the task may go on.
        at: Timestamp,
    },
    /// A worker owns it. When it took the task is not stored.
    Owned {
        /// The worker.
        worker: WorkerId,
        /// Until when its lease runs: if it gives no sign of life until then, another worker takes
        /// the task over.
        lease_until: Option<Timestamp>,
        /// The steps that it may run: they run there, wait there for a slot, or are offered to
        /// other workers. If there are none, it is about to record what becomes of the task.
        due: Vec<String>,
    },
    /// Steps failed for good; what runs beside them ends, then the task has failed.
    Failing {
        /// The worker that owns it.
        worker: WorkerId,
        /// The steps that failed.
        failed: Vec<String>,
    },
    /// Steps failed for good: it needs a person.
    Failed {
        /// The steps that failed.
        failed: Vec<String>,
    },
    /// It kept losing its workers: it needs a person.
    Quarantined {
        /// How many were lost with it in a row.
        deliveries: u32,
    },
    /// It was cancelled.
    Cancelled {
        /// By whom.
        by: Option<Author>,
        /// Why.
        reason: Option<String>,
    },
}

/// Why a step is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepCause {
    /// Steps that it depends on have not succeeded.
    Blocked {
        /// Those steps.
        waits_for: Vec<String>,
    },
    /// Its latest attempt failed, and the time of the next has not come.
    WaitsForRetry {
        /// When the next attempt may start.
        at: Timestamp,
        /// The number of the attempt that failed, of those that count against the limit.
        attempt: u32,
        /// The most attempts of one count.
        limit: u32,
        /// How it failed.
        failure: Option<Failure>,
    },
    /// It may run, and nobody owns its task.
    WaitsForWorker {
        /// The handler that is to run it.
        handler: String,
        /// Since when it may run, but for a delay of the task.
        since: Timestamp,
    },
    /// It may run, and a worker owns its task: it runs there, waits there for a slot, or is offered
    /// to other workers.
    WithWorker {
        /// The worker.
        worker: WorkerId,
        /// The handler that is to run it.
        handler: String,
        /// Since when it may run, but for a delay of the task.
        since: Timestamp,
    },
    /// It may run, and the system that it is to call takes no call, or not yet another one.
    WaitsForSystem(WaitForSystem),
    /// It may run once its task is resumed.
    TaskPaused,
    /// What it did is to be undone once what rests on it is.
    UndoneLater {
        /// The steps that are to be undone before.
        waits_for: Vec<String>,
    },
    /// What it did could not be undone: it needs a person.
    CompensationFailed {
        /// The number of the last attempt.
        attempt: u32,
        /// How that failed: if its class is retryable, the attempts are used up.
        failure: Option<Failure>,
    },
    /// It failed for good: it needs a person.
    Failed {
        /// The number of its last attempt.
        attempt: u32,
        /// How that failed: if its class is retryable, the attempts are used up.
        failure: Option<Failure>,
    },
    /// It may run, and its task has failed or is about to: it is not begun any more, and if it
    /// runs it may end.
    TaskFailed,
}

/// The system that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitForSystem {
    /// The system.
    pub system: String,
    /// Where its breaker stands. While it is closed there are as many calls as the system is known
    /// to bear, and others have their turn first.
    pub state: BreakerState,
    /// Since when it is open, or closed; `None` if it never was open.
    pub since: Option<Timestamp>,
    /// When the next probe may begin; `None` if it is closed or an operator has to reset it.
    pub next_probe: Option<Timestamp>,
    /// Why it is open.
    pub reason: Option<String>,
}

impl WaitForSystem {
    pub(super) fn on(system: &str, systems: &[SystemStatus]) -> Self {
        let known = systems.iter().find(|known| known.name == system);
        Self {
            system: system.to_owned(),
            state: known.map_or(BreakerState::Closed, |known| known.state),
            since: known.and_then(|known| known.since),
            next_probe: known.and_then(|known| known.next_probe),
            reason: known.and_then(|known| known.reason.clone()),
        }
    }
}
