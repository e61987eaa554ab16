//! Whether a task goes on, waits or has ended.

use std::time::Duration;

use jiff::Timestamp;

use super::compensate;
use super::start::{MAX_DELIVERIES, handler_of, state_in_hand};
use crate::TaskState;
use crate::history::{Occurrence, Transition};
use crate::snapshot::{Phase, Snapshot, Want};
use crate::store::{Route, Then};

/// What becomes of a task, given what is left of it; the snapshot follows.
///
/// A row of the task's own log that belongs to it is added to `rows`.
pub(super) fn conclude(task: &mut Snapshot, now: Timestamp, rows: &mut Vec<Transition>) -> Then {
    if task.running() > 0 {
        return Then::Keep;
    }
    if task.lost() >= MAX_DELIVERIES {
        let row = task.own_row(Occurrence::Quarantined { deliveries: task.lost() });
        task.apply(&row, now);
        rows.push(row);
        return end(task, TaskState::Error);
    }
    if task.has_failed() {
        if task.phase() == Phase::Compensating || !compensate::is_called_for(task) {
            return end(task, TaskState::Error);
        }
        let row = task.own_row(Occurrence::CompensationBegun);
        task.apply(&row, now);
        rows.push(row);
        let state = TaskState::Compensating;
        task.set_state(state);
        return Then::Queue { state, wake_in: Duration::ZERO, route: Route::of(task.template()) };
    }
    if task.open() == 0 {
        return match task.phase() {
            Phase::Forward => end(task, TaskState::Complete),
            Phase::Compensating => end(task, TaskState::Compensated),
        };
    }
    let state = state_in_hand(task);
    let wake_at = task.ready().iter().map(|step| task.step(*step).ready_at()).min();
    // A turn comes soon; a system gets well some day; a worker with the handler may never come.
    let parked = task.parked().iter().min_by_key(|(_, want)| match want {
        Want::Turn => 0,
        Want::System => 1,
        Want::Handler => 2,
    });
    match (wake_at, parked) {
        (Some(None), _) => Then::Keep,
        (Some(Some(at)), _) if at <= now => Then::Keep,
        // What the others want comes after the steps that can go on without them.
        (None, Some((step, want))) => {
            let template = task.template();
            let system = template.step(*step).dependent_system.as_deref();
            let route = match (want, system) {
                (Want::System | Want::Turn, Some(system)) => Route::to_system(template, system),
                (Want::System | Want::Turn, None) => Route::of(template),
                (Want::Handler, _) => Route::to_handler(template, handler_of(task, *step)),
            };
            Then::Queue { state, wake_in: Duration::ZERO, route }
        }
        (wake_at, _) => {
            let wait = wake_at.flatten().map(|at| at.duration_since(now));
            let wake_in = wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
            Then::Queue { state, wake_in, route: Route::of(task.template()) }
        }
    }
}

fn end(task: &mut Snapshot, state: TaskState) -> Then {
    task.set_state(state);
    Then::End { state }
}
