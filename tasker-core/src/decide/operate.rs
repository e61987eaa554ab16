//! What an operator, or a program that acts for one, does to a task.

use std::time::Duration;

use jiff::Timestamp;

use crate::history::{Occurrence, Transition};
use crate::snapshot::Snapshot;
use crate::store::{Assumption, Route, TaskChange, Then};
use crate::{StepIndex, StepState, TaskState};

/// An action that the state of the task does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task is {state}, so it cannot be {action}")]
pub struct Illegal {
    /// Where the task stands.
    pub state: TaskState,
    /// What was asked for, as a participle.
    pub action: &'static str,
}

/// Stops a task: nothing of it starts any more, and what still runs is not recorded.
///
/// # Errors
/// The task is complete or cancelled.
pub fn cancel(task: &mut Snapshot, reason: &str, now: Timestamp) -> Result<TaskChange, Illegal> {
    let state = task.state();
    if !state.may_become(TaskState::Cancelled) {
        return Err(Illegal { state, action: "cancelled" });
    }
    let failed_at = task.ended_at();
    let row = task.own_row(Occurrence::Cancelled { reason: reason.to_owned(), failed_at });
    let assumes = Assumption::Unmoved { version: task.version() };
    task.apply(&row, now);
    task.set_state(TaskState::Cancelled);
    let then = Then::End { state: TaskState::Cancelled, degraded: task.degraded() };
    Ok(TaskChange { task: task.id(), assumes, rows: vec![row], offers: Vec::new(), then })
}

/// Puts a failed task back to work: its failed steps get a new count of attempts, and steps that
/// are complete stay so.
///
/// # Errors
/// The task has not failed.
pub fn retry(task: &mut Snapshot, reason: &str, now: Timestamp) -> Result<TaskChange, Illegal> {
    let state = task.state();
    if !state.may_become(TaskState::Pending) {
        return Err(Illegal { state, action: "retried" });
    }
    let retried = Occurrence::Retried { reason: reason.to_owned(), failed_at: task.ended_at() };
    let mut rows = vec![task.own_row(retried)];
    for (index, step) in (0u32..).map(StepIndex).zip(task.steps()) {
        // A step that may fail without the task stays failed: the task has gone on without it.
        let optional = task.template().step(index).on_failure == crate::OnFailure::Continue;
        if step.state() == StepState::Error && !optional {
            rows.push(Transition {
                step: Some(index),
                seq: step.next_seq(),
                attempt: 0,
                ran_for: Duration::ZERO,
                what: Occurrence::Reopened,
            });
        }
    }
    let assumes = Assumption::Unmoved { version: task.version() };
    for row in &rows {
        task.apply(row, now);
    }
    task.set_state(TaskState::Pending);
    let route = Route::of(task.template());
    let then = Then::Queue { state: TaskState::Pending, wake_in: Duration::ZERO, route };
    Ok(TaskChange { task: task.id(), assumes, rows, offers: Vec::new(), then })
}
