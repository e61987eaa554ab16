//! Which escalations are over: what they are about has been answered or has settled by itself.
//!
//! Pure: how a task or a system stands goes in with what was raised about it, what becomes of that
//! comes out. Nothing here touches what somebody has resolved.

use std::time::Duration;

use jiff::Timestamp;

use super::overdue::{Overdue, deadline_key, overdue, step_key, times_moved};
use super::{Alarm, Incident, Record, SeenTo, incident};
use crate::breaker::{Breaker, BreakerState, Cause, ManualChange};
use crate::history::{AfterFailure, Author, Occurrence, Operation, Recorded, Transition};
use crate::snapshot::{Outcome, Snapshot, Step, Undone};
use crate::store::{Document, DocumentChange, Documents, StoredTask, Then};
use crate::{StepIndex, TaskState};

/// Who has resolved what nobody had to.
const TASKER: &str = "tasker";

/// A clock that lags, or a commit that is slow, must not let what was overdue look as if it had been
/// in time: so much earlier somebody looks.
const SLACK: Duration = Duration::from_secs(60);

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

/// Whether something may have been raised for a task, so that acting on it may be the answer.
pub(crate) fn may_concern(task: &Snapshot) -> bool {
    let failed = |step: &Step| step.outcome() == Outcome::Failed || step.undone() == Undone::Failed;
    task.state() == TaskState::Error
        || task.template().deadline().is_some()
        || task.template().steps().iter().any(|step| step.expected_within.is_some())
        || task.steps().iter().any(failed)
}

/// Whether rows that a task's owner adds, and what becomes of the task with them, may settle
/// something that was raised for it.
pub(crate) fn may_settle(
    task: &Snapshot,
    rows: &[Transition],
    then: &Then,
    now: Timestamp,
) -> bool {
    let age = Duration::try_from(now.duration_since(task.created_at())).unwrap_or_default();
    let late = |limit: Duration| age >= limit.saturating_sub(SLACK.min(limit / 2));
    let in_time = |step: StepIndex| {
        let template = task.template().steps().get(step.get());
        template.and_then(|template| template.expected_within).is_none_or(|limit| !late(limit))
    };
    let step_settles =
        |row: &Transition| row.step.is_some_and(|step| !in_time(step)) && ends_step(&row.what);
    rows.iter().any(step_settles)
        || match then {
            // A failed task needs a person, however late it is.
            Then::Keep | Then::Queue { .. } | Then::Hold { .. } => false,
            Then::End { state: TaskState::Error, .. } => false,
            Then::End { state: TaskState::Complete | TaskState::Compensated } => {
                task.template().deadline().is_some_and(late)
            }
            Then::End { .. } => true,
        }
}

/// Whether a step has ended with a row of its log, or has been undone.
pub(crate) const fn ends_step(what: &Occurrence) -> bool {
    matches!(
        what,
        Occurrence::Completed { .. }
            | Occurrence::Failed { next: AfterFailure::GiveUp, .. }
            | Occurrence::Compensated
            | Occurrence::CompensationFailed { next: AfterFailure::GiveUp, .. }
    )
}

/// Whether an operator has acted on a failed step with a row of its log.
const fn is_action(what: &Occurrence) -> bool {
    matches!(what, Occurrence::Reopened | Occurrence::Resolved { .. } | Occurrence::Skipped { .. })
}

/// What a look at a task comes to.
#[derive(Debug)]
pub(crate) struct Review {
    /// Escalations to be raised, and to be resolved.
    pub(crate) changes: Vec<DocumentChange>,
    /// When to look again, if ever.
    pub(crate) next_check: Option<Duration>,
}

/// Brings what was raised about a task in line with how it stands.
///
/// `raised` is what there is of the [keys](keys_of).
pub(crate) fn review(stored: &StoredTask, alarm: Alarm, raised: &Documents) -> Review {
    let task = Snapshot::replay(stored);
    let mut changes = Vec::new();
    for document in &raised.found {
        // One that another version of Tasker wrote is for a person.
        let Ok(mut record) = Record::read(document) else { continue };
        if let Some((by, note)) = answer(document, &record.incident, stored, &task)
            && record.resolve(SeenTo::new(&by, &note, raised.now))
        {
            record.name(stored);
            changes.extend(record.replaces(document, raised.now).ok());
        }
    }
    let Overdue { raise, next_check } = overdue(stored, alarm);
    let known = |key: &String| raised.found.iter().any(|document| document.key == *key);
    let raise = raise.into_iter().filter(|(key, _)| !known(key));
    let before = changes.len();
    changes.extend(raise.map(|(key, incident)| incident.raise(key)));
    // Whoever ends the task at this moment does not know of what is raised at this moment: the next
    // look sees both.
    let raises = changes.len() > before;
    Review { changes, next_check: if raises { Some(Duration::ZERO) } else { next_check } }
}

/// Who has answered what was raised about a task, and how; `None` if it stands as it did.
fn answer(
    raised: &Document,
    incident: &Incident,
    stored: &StoredTask,
    task: &Snapshot,
) -> Option<(String, String)> {
    let ended = || match stored.state {
        TaskState::Cancelled
        | TaskState::Complete
        | TaskState::Compensated
        | TaskState::ResolvedManually => Some(by_end(stored)),
        TaskState::Pending
        | TaskState::InProgress
        | TaskState::Paused
        | TaskState::Compensating
        | TaskState::Error => None,
    };
    // The key of what was recorded ends in the number of its row.
    let seq = || raised.key.rsplit('/').next()?.parse::<u32>().ok();
    match incident {
        Incident::StepFailed { step, .. } => {
            let acted = by_row(stored, *step, seq()?, is_action);
            let undoes = |row: &Recorded, operation: &Operation| {
                row.at >= raised.created_at && operation.after.state == TaskState::Compensating
            };
            // A task that went on without the step, or was undone by itself, has not what it was
            // submitted for: that wants looking at still.
            let given_up =
                matches!(stored.state, TaskState::Cancelled | TaskState::ResolvedManually);
            let ended = || ended().filter(|_| given_up);
            acted.or_else(|| by_operation(stored, undoes)).or_else(ended)
        }
        Incident::CompensationFailed { step, .. } => {
            let answered =
                |what: &Occurrence| is_action(what) || matches!(what, Occurrence::Compensated);
            by_row(stored, *step, seq()?, answered).or_else(ended)
        }
        Incident::Quarantined { .. } => {
            let seq = seq()?;
            by_operation(stored, |row, operation| {
                row.transition.seq > seq && operation.after.state != TaskState::Error
            })
        }
        Incident::TaskOverdue { .. } => moved_on(stored, raised.created_at).or_else(ended),
        Incident::StepOverdue { step, .. } => {
            let template = stored.template.steps().get(step.get())?;
            let state = task.step(*step).state();
            let ended_itself = || {
                let note = format!("step `{}` has ended ({state})", template.name);
                state.is_terminal().then(|| (TASKER.to_owned(), note))
            };
            moved_on(stored, raised.created_at).or_else(ended_itself).or_else(ended)
        }
        Incident::BreakerOpened { .. } => None,
    }
}

/// The first to act on a task since a time such that it goes on: who pauses it, or edits a failed
/// one, has not settled yet why it needs a person.
fn moved_on(stored: &StoredTask, since: Timestamp) -> Option<(String, String)> {
    by_operation(stored, |row, operation| {
        let waits = matches!(operation.after.state, TaskState::Error | TaskState::Paused);
        row.at >= since && !waits
    })
}

/// Who has added the first row of a step's log after one that answers it, and why.
fn by_row(
    stored: &StoredTask,
    step: StepIndex,
    after: u32,
    answers: impl Fn(&Occurrence) -> bool,
) -> Option<(String, String)> {
    let own = stored.rows.iter().filter(|row| row.transition.step == Some(step));
    let mut later = own.filter(|row| row.transition.seq > after);
    let row = later.find(|row| answers(&row.transition.what))?;
    // An action is one commit: its rows are of one time.
    let same = |other: &Recorded, _: &Operation| other.at == row.at && other.author == row.author;
    let note = || (TASKER.to_owned(), "the step was tried again".to_owned());
    Some(by_operation(stored, same).unwrap_or_else(note))
}

/// Who has brought a task to its end, and why.
fn by_end(stored: &StoredTask) -> (String, String) {
    let ends = |_: &Recorded, operation: &Operation| operation.after.state == stored.state;
    let note = || (TASKER.to_owned(), format!("the task has ended ({})", stored.state));
    by_operation(stored, ends).unwrap_or_else(note)
}

/// Who did the first of an operator's actions of some kind, and why.
fn by_operation(
    stored: &StoredTask,
    is: impl Fn(&Recorded, &Operation) -> bool,
) -> Option<(String, String)> {
    stored.rows.iter().find_map(|row| match (&row.transition.what, &row.author) {
        (Occurrence::Operated(operation), Author::Operator(name)) if is(row, operation) => {
            Some((name.clone(), operation.reason.clone()))
        }
        _ => None,
    })
}

/// Resolves what was raised when the breaker of a system opened, if that is over; `None` if it
/// stands.
pub(crate) fn review_of_system(
    document: &Document,
    breaker: &Breaker,
    now: Timestamp,
) -> Option<DocumentChange> {
    let mut record = Record::read(document).ok()?;
    let Incident::BreakerOpened { system, since, .. } = &record.incident else { return None };
    let (by, note) = match breaker.cause() {
        Some(Cause::Tripped { by, reason }) => (by.clone(), reason.clone()),
        Some(Cause::Failures { .. }) if breaker.since() == Some(*since) => return None,
        Some(Cause::Failures { .. }) | None => {
            let closed = |change: &&ManualChange| {
                change.to == BreakerState::Closed && Some(change.at) == breaker.since()
            };
            match breaker.changes().iter().rev().find(closed) {
                Some(change) => (change.by.clone(), change.reason.clone()),
                None => (TASKER.to_owned(), format!("`{system}` answers again")),
            }
        }
    };
    record.resolve(SeenTo::new(&by, &note, now)).then(|| record.replaces(document, now).ok())?
}

#[cfg(test)]
mod tests;
