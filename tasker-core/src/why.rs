//! Why a task does not move, and why each of its steps does not.
//!
//! Pure: what a store read back goes in, an explanation comes out, as data and as a sentence. It
//! has names, times and failures, never a context or a result. It decides nothing: what is due,
//! blocked or failed is what the snapshot says.

mod cause;
mod sentence;

use jiff::Timestamp;

pub use self::cause::{StepCause, TaskCause, WaitForSystem};

use crate::action::ActionKind;
use crate::breaker::{BreakerState, SystemStatus};
use crate::decide;
use crate::history::{Author, Occurrence, Recorded};
use crate::snapshot::{Outcome, Phase, Snapshot, Step, Undone};
use crate::store::{Awaited, Route, StoredTask};
use crate::{StepIndex, StepState, TaskState};

/// Why a task does not move, or has failed; its [`Display`](std::fmt::Display) is a sentence.
///
/// Serialised, it has the fields of its cause, that sentence, and `steps` with the same of each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// Why the task is where it is.
    pub cause: TaskCause,
    /// Why its steps are where they are, in the order of the template: those that have not ended,
    /// and those that failed and took the task with them. None of a cancelled task.
    pub steps: Vec<StepWhy>,
}

/// Why a step does not move; its [`Display`](std::fmt::Display) is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepWhy {
    /// The step.
    pub step: String,
    /// Why it is where it is.
    pub cause: StepCause,
}

/// The system on whose route a task is queued.
fn awaited(stored: &StoredTask) -> Option<&str> {
    match stored.route.as_ref()?.waits_for()? {
        Awaited::System(system) => Some(system),
        Awaited::Handler(_) => None,
    }
}

/// Whether a queued task, while it waits for something else, would find the breaker open.
fn set_aside(stored: &StoredTask, systems: &[SystemStatus], system: &str) -> bool {
    let open = |it: &SystemStatus| it.name == system && it.state != BreakerState::Closed;
    stored.owner.is_none() && systems.iter().any(open)
}

impl Why {
    /// Explains a task that a store read back; `None` if it is complete, compensated or resolved.
    pub fn of(stored: &StoredTask) -> Option<Self> {
        Self::with_systems(stored, &[])
    }

    /// The same where it is known how the systems stand that the task's steps depend on.
    pub fn with_systems(stored: &StoredTask, systems: &[SystemStatus]) -> Option<Self> {
        let task = Snapshot::replay(stored);
        let cause = match stored.state {
            TaskState::Complete | TaskState::Compensated | TaskState::ResolvedManually => {
                return None;
            }
            TaskState::Cancelled => {
                let (by, reason, _) = ordered(stored, ActionKind::Cancel);
                TaskCause::Cancelled { by, reason }
            }
            TaskState::Paused => {
                let (by, reason, since) = ordered(stored, ActionKind::Pause);
                TaskCause::Paused { by, reason, since }
            }
            TaskState::Error => failed(&task, stored),
            TaskState::Compensating => {
                let left = |index| {
                    let step: &Step = task.step(index);
                    step.is_undoing() && step.undone() == Undone::No
                };
                let left = steps_that(&task, left);
                TaskCause::Compensating { left, now: Box::new(unfinished(&task, stored, systems)) }
            }
            TaskState::Pending | TaskState::InProgress => unfinished(&task, stored, systems),
        };
        let indices = || (0u32..).map(StepIndex).take(task.steps().len());
        let steps = indices().filter_map(|index| {
            let cause = step_cause(&task, stored, systems, index)?;
            Some(StepWhy { step: name(&task, index), cause })
        });
        Some(Self { cause, steps: steps.collect() })
    }
}

fn name(task: &Snapshot, index: StepIndex) -> String {
    task.template().step(index).name.clone()
}

/// The names of the steps of which something is true.
fn steps_that(task: &Snapshot, is: impl Fn(StepIndex) -> bool) -> Vec<String> {
    let indices = (0u32..).map(StepIndex).take(task.steps().len());
    indices.filter(|index| is(*index)).map(|index| name(task, index)).collect()
}

/// Whether a step may run at once, as far as its own history and its parents go.
fn is_due(task: &Snapshot, index: StepIndex, now: Timestamp) -> bool {
    task.ready().contains(&index) && task.step(index).ready_at().is_none_or(|at| at <= now)
}

/// Whether a step failed for good and took the task with it, or could not be undone.
fn is_fatal(task: &Snapshot, index: StepIndex) -> bool {
    let step = task.step(index);
    match task.phase() {
        Phase::Forward => step.outcome() == Outcome::Failed && !task.is_optional(index),
        Phase::Compensating => step.undone() == Undone::Failed,
    }
}

/// Who gave the latest order of a kind, why and when.
fn ordered(
    stored: &StoredTask,
    action: ActionKind,
) -> (Option<Author>, Option<String>, Option<Timestamp>) {
    let found = stored.rows.iter().rev().find_map(|row| {
        let Occurrence::Operated(operation) = &row.transition.what else { return None };
        (operation.action == action).then_some((&row.author, &operation.reason, row.at))
    });
    let Some((by, reason, at)) = found else { return (None, None, None) };
    (Some(by.clone()), Some(reason.clone()), Some(at))
}

fn failed(task: &Snapshot, stored: &StoredTask) -> TaskCause {
    if task.has_failed() {
        let failed = steps_that(task, |index| is_fatal(task, index));
        return match task.phase() {
            Phase::Forward => TaskCause::Failed { failed },
            Phase::Compensating => TaskCause::CompensationFailed { failed },
        };
    }
    let quarantined = stored.rows.iter().rev().find_map(|row| {
        let Occurrence::Quarantined { deliveries } = row.transition.what else { return None };
        Some(deliveries)
    });
    match quarantined {
        Some(deliveries) => TaskCause::Quarantined { deliveries },
        None => TaskCause::Failed { failed: Vec::new() },
    }
}

fn unfinished(task: &Snapshot, stored: &StoredTask, systems: &[SystemStatus]) -> TaskCause {
    let now = stored.now;
    if let Some(worker) = stored.owner {
        if task.has_failed() {
            let failed = steps_that(task, |index| is_fatal(task, index));
            return TaskCause::Failing { worker, failed };
        }
        let (lease_until, due) =
            (stored.lease_until, steps_that(task, |step| is_due(task, step, now)));
        return TaskCause::Owned { worker, lease_until, due };
    }
    let pending = stored.state == TaskState::Pending;
    let since = stored.wake_at;
    match since {
        Some(until) if until > now && pending => return TaskCause::Delayed { until },
        Some(at) if at > now => {
            let due = |step| task.step(step).ready_at().filter(|at| *at > now);
            // It may be looked at sooner, for a step that waits for a system.
            let at = task.ready().iter().filter_map(|step| due(*step)).min().unwrap_or(at);
            let retries = steps_that(task, |step| due(step).is_some());
            return TaskCause::WaitsForRetry { retries, at };
        }
        Some(_) | None => {}
    }
    // Being lost puts the task into the queue at that very time.
    let lost = stored.rows.iter().find_map(|row| {
        let Occurrence::WorkerLost { worker } = row.transition.what else { return None };
        (Some(row.at) == since).then_some(worker)
    });
    match stored.route.as_ref().and_then(Route::waits_for) {
        Some(Awaited::Handler(handler)) => {
            TaskCause::WaitsForHandler { handlers: vec![handler.to_owned()], since }
        }
        Some(Awaited::System(system)) => {
            TaskCause::WaitsForSystem(WaitForSystem::on(system, systems))
        }
        None => {
            let route = Route::of(task.template()).as_str().to_owned();
            TaskCause::WaitsForWorker { route, since, lost }
        }
    }
}

/// `None` if there is nothing to explain: it has ended and the task went on, or was cancelled.
fn step_cause(
    task: &Snapshot,
    stored: &StoredTask,
    systems: &[SystemStatus],
    index: StepIndex,
) -> Option<StepCause> {
    let step = task.step(index);
    match step.state() {
        StepState::Complete
        | StepState::Cancelled
        | StepState::Skipped
        | StepState::ResolvedManually
        | StepState::Compensated => return None,
        StepState::Error if !is_fatal(task, index) => return None,
        StepState::Error => {
            let (attempt, failure) = (step.next_attempt() - 1, step.failure().cloned());
            return Some(match task.phase() {
                Phase::Forward => StepCause::Failed { attempt, failure },
                Phase::Compensating => StepCause::CompensationFailed { attempt, failure },
            });
        }
        StepState::Blocked | StepState::Compensating => {
            let waits_for = task.waits_for(index).into_iter().map(|it| name(task, it));
            let waits_for: Vec<_> = waits_for.collect();
            if !step.is_undoing() {
                return Some(StepCause::Blocked { waits_for });
            } else if !waits_for.is_empty() {
                return Some(StepCause::UndoneLater { waits_for });
            }
        }
        StepState::Ready | StepState::InProgress => {}
    }
    if task.has_failed() || task.state().is_terminal() {
        return Some(StepCause::TaskFailed);
    }
    if let Some(at) = step.ready_at().filter(|at| *at > stored.now) {
        let limit = task.retry_limit(index);
        let (attempt, failure) = (step.counted(), step.failure().cloned());
        return Some(StepCause::WaitsForRetry { at, attempt, limit, failure });
    }
    if task.state() == TaskState::Paused {
        return Some(StepCause::TaskPaused);
    }
    if let Some(system) = decide::system_of(task, index)
        && (awaited(stored) == Some(system) || set_aside(stored, systems, system))
    {
        return Some(StepCause::WaitsForSystem(WaitForSystem::on(system, systems)));
    }
    let handler = decide::handler_of(task, index).to_owned();
    let since = step.ready_at().unwrap_or_else(|| ready_since(task, stored, index));
    Some(match stored.owner {
        Some(worker) => StepCause::WithWorker { worker, handler, since },
        None => StepCause::WaitsForWorker { handler, since },
    })
}

/// When the latest of what a step waited for was recorded.
fn ready_since(task: &Snapshot, stored: &StoredTask, index: StepIndex) -> Timestamp {
    let dag = task.template().dag();
    let undoing = task.step(index).is_undoing();
    let before = if undoing { dag.children(index) } else { dag.parents(index) };
    let begun =
        |what: &Occurrence| matches!(what, Occurrence::CompensationBegun | Occurrence::Operated(_));
    let concerns = |row: &&Recorded| match row.transition.step {
        Some(step) => step == index || before.contains(&step),
        None => undoing && begun(&row.transition.what),
    };
    let rows = stored.rows.iter().filter(concerns);
    rows.map(|row| row.at).max().unwrap_or(stored.created_at)
}
