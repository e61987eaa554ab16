//! What must be true of a task's record when the storm is over.

use std::collections::BTreeMap;

use super::operators::{Answer, Order};
use super::world::{Effect, UNDONE};
use crate::history::{AfterFailure, Occurrence, Operation, Transition};
use crate::snapshot::{Outcome, Phase, Snapshot, Undone};
use crate::store::StoredTask;
use crate::{StepIndex, StepState, TaskState};

/// Checks one task; says what is wrong with it.
pub(super) fn check(
    task: &StoredTask,
    effects: &BTreeMap<String, Effect>,
    orders: &[Order],
) -> Result<(), String> {
    let mut logs: BTreeMap<Option<StepIndex>, Vec<&Transition>> = BTreeMap::new();
    for row in &task.rows {
        logs.entry(row.transition.step).or_default().push(&row.transition);
    }
    for (step, log) in &logs {
        let in_log = |error| format!("the log of {step:?}: {error}");
        check_numbers(log).map_err(in_log)?;
        check_rounds(log).map_err(in_log)?;
    }
    let snapshot = Snapshot::replay(task);
    check_summary(task, &snapshot)?;
    check_effects(task, &snapshot, &logs, effects)?;
    check_orders(task, orders)
}

/// Rows, and the attempts that they settle, are numbered without a gap.
fn check_numbers(log: &[&Transition]) -> Result<(), String> {
    let (mut forward, mut back) = (0, 0);
    for (row, seq) in log.iter().zip(1..) {
        if row.seq != seq {
            return Err(format!("row {seq} has the number {}", row.seq));
        }
        let attempts = match &row.what {
            Occurrence::Completed { .. } | Occurrence::Failed { .. } => &mut forward,
            Occurrence::Compensated if row.attempt == 0 => continue,
            Occurrence::Compensated | Occurrence::CompensationFailed { .. } => &mut back,
            _ => continue,
        };
        *attempts += 1;
        if row.attempt != *attempts {
            return Err(format!("attempt {attempts} has the number {}", row.attempt));
        }
    }
    Ok(())
}

/// Nothing ends twice, and nothing is undone twice, before it is reopened; nothing that was undone is
/// done under the same key.
fn check_rounds(log: &[&Transition]) -> Result<(), String> {
    let (mut ended, mut undone) = (false, false);
    for row in log {
        match &row.what {
            Occurrence::Reopened => (ended, undone) = (false, false),
            Occurrence::Completed { .. } | Occurrence::Failed { .. } if ended || undone => {
                return Err(format!("{row:?} comes after its end"));
            }
            Occurrence::Failed { failure, .. } if failure.code == UNDONE => {
                return Err("an attempt under a key that was undone".to_owned());
            }
            Occurrence::Completed { .. }
            | Occurrence::Failed { next: AfterFailure::GiveUp, .. }
            | Occurrence::Resolved { .. }
            | Occurrence::Skipped { .. } => ended = true,
            Occurrence::Compensated | Occurrence::CompensationFailed { .. } if undone => {
                return Err(format!("{row:?} comes after it was undone"));
            }
            Occurrence::Compensated => undone = true,
            _ => {}
        }
    }
    Ok(())
}

/// What is stored of a task in short is what follows from its rows.
fn check_summary(task: &StoredTask, snapshot: &Snapshot) -> Result<(), String> {
    let states: Vec<_> = snapshot.steps().iter().map(|step| step.state()).collect();
    let forward = snapshot.phase() == Phase::Forward;
    let fits = match task.state {
        TaskState::Complete => forward && !snapshot.has_failed() && snapshot.open() == 0,
        TaskState::Compensated => !forward && !snapshot.has_failed() && snapshot.open() == 0,
        TaskState::Error => {
            let last = task.rows.iter().filter(|row| row.transition.step.is_none());
            let last = last.max_by_key(|row| row.transition.seq).map(|row| &row.transition.what);
            snapshot.has_failed() || matches!(last, Some(Occurrence::Quarantined { .. }))
        }
        TaskState::Cancelled => states.iter().all(|state| state.is_terminal()),
        TaskState::ResolvedManually => true,
        TaskState::Pending
        | TaskState::InProgress
        | TaskState::Paused
        | TaskState::Compensating => false,
    };
    if !fits {
        return Err(format!("it is {} with steps that are {states:?}", task.state));
    }
    if task.degraded != snapshot.degraded() {
        return Err(format!("degraded: {} is stored", task.degraded));
    }
    if task.owner.is_some() || task.wake_at.is_some() || task.ended_at.is_none() {
        return Err("it has ended and is held or queued".to_owned());
    }
    Ok(())
}

/// What counts as done has been done and not undone; what was undone is undone, once.
fn check_effects(
    task: &StoredTask,
    snapshot: &Snapshot,
    logs: &BTreeMap<Option<StepIndex>, Vec<&Transition>>,
    effects: &BTreeMap<String, Effect>,
) -> Result<(), String> {
    for (index, template) in (0u32..).map(StepIndex).zip(task.template.steps()) {
        let (name, step) = (&template.name, snapshot.step(index));
        let none = Vec::new();
        let log = logs.get(&Some(index)).unwrap_or(&none);
        let own = effects.iter().filter(|(_, it)| it.task == task.id && it.step == *name);
        let own: Vec<_> = own.collect();
        if let Some((key, effect)) = own.iter().find(|(_, effect)| effect.undone_by.len() > 1) {
            return Err(format!("`{key}` is undone twice: {effect:?}"));
        }
        let stands = snapshot.phase() == Phase::Forward && step.outcome() == Outcome::Complete;
        let result = snapshot.result(index).map(|key| key.as_str().trim_matches('"'));
        if stands && !result.and_then(|key| effects.get(key)).is_some_and(is_live) {
            return Err(format!("`{name}` is complete, and {result:?} is not live: {own:?}"));
        }
        let by_hand = log.iter().any(|row| row.what == Occurrence::Compensated && row.attempt == 0);
        if template.compensate_with.is_none() || by_hand {
            continue;
        }
        let live = own.iter().filter(|(_, effect)| is_live(effect)).count();
        let is_undone = task.state == TaskState::Compensated || step.undone() == Undone::Yes;
        if live > usize::from(!is_undone) {
            return Err(format!("`{name}`, {:?}, has live effects: {own:?}", step.state()));
        }
        if is_undone && step.state() == StepState::Complete {
            return Err(format!("`{name}` is complete in a task that is {}", task.state));
        }
    }
    Ok(())
}

fn is_live(effect: &Effect) -> bool {
    effect.is_done && effect.undone_by.is_empty()
}

/// Each order that was accepted is on record once, and no other.
fn check_orders(task: &StoredTask, orders: &[Order]) -> Result<(), String> {
    let mut recorded: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for row in &task.rows {
        if let Occurrence::Operated(operation) = &row.transition.what {
            let (before, after) = (operation.before.state, operation.after.state);
            if before != after && !before.may_become(after) {
                return Err(format!("{operation:?} leads from {before} to {after}"));
            }
            recorded.entry(&operation.reason).or_default().push(operation);
        }
    }
    for order in orders.iter().filter(|order| order.task == task.id) {
        let found = recorded.remove(order.reason.as_str()).unwrap_or_default();
        let fits = match order.answer {
            Answer::Accepted => found.len() == 1,
            Answer::Refused => found.is_empty(),
            Answer::Unknown => found.len() <= 1,
        };
        if !fits || found.iter().any(|operation| operation.action != order.kind) {
            return Err(format!("{order:?} is on record as {found:?}"));
        }
    }
    match recorded.into_keys().find(|reason| *reason != super::calm::REASON) {
        None => Ok(()),
        Some(reason) => Err(format!("{reason} is on record, and nobody gave it")),
    }
}
