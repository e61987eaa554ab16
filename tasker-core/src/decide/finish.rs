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
    let wait = match wake_at {
        None => Duration::ZERO,
        Some(at) => match at.and_then(|at| Duration::try_from(at.duration_since(now)).ok()) {
            Some(wait) if !wait.is_zero() => wait,
            Some(_) | None => return Then::Keep,
        },
    };
    let template = task.template();
    let soon = wait.is_zero();
    let system = parked.and_then(|(step, _)| template.step(*step).dependent_system.as_deref());
    let (wake_in, route) = match (parked, system) {
        (Some((step, want)), Some(system))
            if soon && *want != Want::Handler || *want == Want::Turn =>
        {
            (Duration::ZERO, Route::to_system(template, system, handler_of(task, *step)))
        }
        // Neither is to wait for the other: not the retry until the system is well, and not what
        // the system holds up until the retry is due.
        (Some((_, Want::System)), Some(system)) => {
            (wait.min(template.system_policy(system).probe_interval), Route::of(template))
        }
        // What the others want comes after the steps that can go on without them.
        (Some((step, Want::Handler)), _) if soon => {
            (Duration::ZERO, Route::to_handler(template, handler_of(task, *step)))
        }
        (Some(_) | None, _) => (wait, Route::of(template)),
    };
    Then::Queue { state, wake_in, route }
}

fn end(task: &mut Snapshot, state: TaskState) -> Then {
    task.set_state(state);
    Then::End { state }
}
