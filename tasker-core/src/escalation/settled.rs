//! Which escalations about a task somebody's action on it has answered.

use super::overdue::{deadline_key, step_key, times_moved};
use super::{Incident, incident};
use crate::snapshot::Snapshot;
use crate::store::StoredTask;
use crate::{StepIndex, StepState, TaskState};

/// The keys of all that may have been raised for a task so far.
pub(crate) fn keys_of(stored: &StoredTask) -> Vec<String> {
    let id = stored.id;
    let recorded = stored.rows.iter().filter_map(|row| incident(id, &row.transition));
    let mut keys: Vec<_> = recorded.map(|(key, _)| key).collect();
    keys.extend(stored.template.deadline().map(|_| deadline_key(id)));
    for (index, template) in (0u32..).map(StepIndex).zip(stored.template.steps()) {
        if template.expected_within.is_some() {
            let times = 0..=times_moved(stored, index);
            keys.extend(times.map(|time| step_key(id, index, time)));
        }
    }
    keys
}

/// Whether what was raised for a task stands as it did, now that somebody has acted on the task.
pub(crate) fn still_stands(incident: &Incident, after: &Snapshot) -> bool {
    // Who pauses a task, or edits a failed one, has not settled yet why it needs a person.
    let waits = matches!(after.state(), TaskState::Error | TaskState::Paused);
    match incident {
        Incident::StepFailed { step, .. } => match after.state() {
            TaskState::Cancelled
            | TaskState::Compensating
            | TaskState::Compensated
            | TaskState::ResolvedManually => false,
            // Of two steps that failed, one may have been retried.
            TaskState::Pending
            | TaskState::InProgress
            | TaskState::Paused
            | TaskState::Complete
            | TaskState::Error => {
                let step = after.steps().get(step.get());
                step.is_some_and(|step| step.state() == StepState::Error)
            }
        },
        Incident::CompensationFailed { .. }
        | Incident::Quarantined { .. }
        | Incident::TaskOverdue { .. }
        | Incident::StepOverdue { .. } => waits,
        Incident::BreakerOpened { .. } => true,
    }
}
