//! What a task's owner may do with it: run it, offer parts of it, give it back.

use std::time::Duration;

use jiff::Timestamp;

use crate::snapshot::{Phase, Snapshot};
use crate::store::{NewOffer, Route, Then};
use crate::{OnFailure, StepIndex, TaskState};

/// How often in a row a worker may be lost with a task before anything was recorded.
///
/// A step that kills its process would otherwise go round for ever, and take other tasks with it.
pub const MAX_DELIVERIES: u32 = 10;

/// Whether a task that was claimed has steps to run and nothing to be written first.
pub fn may_run(task: &Snapshot, now: Timestamp) -> bool {
    let due = |step: &StepIndex| task.step(*step).ready_at().is_none_or(|at| at <= now);
    !task.has_failed()
        && task.lost() < MAX_DELIVERIES
        && !task.state().is_terminal()
        && task.ready().iter().any(due)
}

/// What becomes of a task that its owner will not go on with: another worker can at once.
pub fn hand_back(task: &Snapshot) -> Then {
    let (wake_in, route) = (Duration::ZERO, Route::of(task.template()));
    Then::Queue { state: state_in_hand(task), wake_in, route }
}

/// The state of a task that a worker has, or had and put back.
pub(super) fn state_in_hand(task: &Snapshot) -> TaskState {
    match task.phase() {
        Phase::Forward => TaskState::InProgress,
        Phase::Compensating => TaskState::Compensating,
    }
}

/// Offers of steps that the owner has taken and cannot run soon.
pub fn offers(task: &Snapshot, steps: &[StepIndex]) -> Vec<NewOffer> {
    let offer = |&step| NewOffer {
        step,
        seq: task.step(step).next_seq(),
        route: Route::to_handler(task.template(), handler_of(task, step)),
        needs: task.template().dag().ancestors(step).into_iter().collect(),
    };
    steps.iter().map(offer).collect()
}

/// The system that a step is to call next, if it names one; a fallback handler calls another.
pub fn system_of(task: &Snapshot, step: StepIndex) -> Option<&str> {
    let system = task.template().step(step).dependent_system.as_deref();
    let step = task.step(step);
    system.filter(|_| step.is_undoing() || !step.fell_back())
}

/// The name of the handler that is to run a step next.
pub fn handler_of(task: &Snapshot, step: StepIndex) -> &str {
    let template = task.template().step(step);
    if task.step(step).is_undoing()
        && let Some(handler) = &template.compensate_with
    {
        return handler;
    }
    match &template.on_failure {
        OnFailure::Fallback(handler) if task.step(step).fell_back() => handler,
        OnFailure::Fallback(_) | OnFailure::Fail | OnFailure::Continue => &template.handler,
    }
}
