//! What an operator does to one step.

use std::collections::BTreeSet;

use super::plan::{Plan, fatal, not_undone, reopened};
use super::refused::{Refused, instead};
use crate::action::Action;
use crate::history::{Occurrence, unstorable};
use crate::snapshot::{Outcome, Phase, Snapshot, Undone};
use crate::template::MAX_RETRY_LIMIT;
use crate::{Json, StepIndex, TaskState};

/// The most bytes that a result may have which an operator gives, as of handlers by default.
const MAX_RESULT_BYTES: usize = 1024 * 1024;

pub(super) fn of(task: &Snapshot, action: &Action, step: StepIndex) -> Result<Plan, Refused> {
    let by_hand = |what| match task.phase() {
        Phase::Forward => settle(task, action, step, what),
        Phase::Compensating => undone_by_hand(task, action, step),
    };
    match action {
        Action::RetryStep { .. } => retry(task, action, step),
        Action::RetryFrom { .. } => retry_from(task, action, step),
        Action::ResolveStep { result, .. } => {
            check_result(result)?;
            by_hand(Occurrence::Resolved { result: result.clone() })
        }
        Action::SetRetryLimit { limit, .. } => set_limit(task, action, step, *limit),
        _ => {
            let begun = task.step(step).may_have_begun();
            by_hand(Occurrence::Skipped { begun })
        }
    }
}

fn check_result(result: &Json) -> Result<(), Refused> {
    match unstorable(result, MAX_RESULT_BYTES) {
        None => Ok(()),
        Some(failure) => Err(Refused::Invalid { message: failure.message }),
    }
}

/// Where a task goes once one of its steps can go on: a paused one stays where it is.
const fn back_to_work(state: TaskState) -> TaskState {
    if matches!(state, TaskState::Paused) { TaskState::Paused } else { TaskState::Pending }
}

fn retry(task: &Snapshot, action: &Action, step: StepIndex) -> Result<Plan, Refused> {
    let illegal = |why: &str| Err(Refused::by_step(task, action.kind(), step, why));
    let again = vec![(step, Occurrence::Reopened)];
    match (task.state(), task.phase()) {
        (TaskState::Error, Phase::Compensating) => {
            if task.step(step).undone() != Undone::Failed {
                return illegal("its compensation has not failed");
            }
            others_have_not_failed(task, action, step, &not_undone(task), &[step].into())?;
            Ok(Plan::to(TaskState::Compensating).at(step, again))
        }
        (TaskState::Error | TaskState::Paused | TaskState::Complete, _) => {
            if task.step(step).outcome() != Outcome::Failed {
                return illegal("only a step that failed can, and others be run from again");
            }
            if task.state() == TaskState::Error {
                others_have_not_failed(task, action, step, &fatal(task), &[step].into())?;
            }
            let plan = Plan::to(back_to_work(task.state()));
            if !task.is_optional(step) {
                return Ok(plan.at(step, again));
            }
            let below = with_begun_descendants(task, &[step]);
            let begun = |below: &StepIndex| {
                let below = task.step(*below);
                below.outcome() != Outcome::Open || below.is_touched()
            };
            if below.iter().filter(|it| **it != step).any(begun) {
                return illegal(
                    "steps that rest on it have run without it, so run the task again from it",
                );
            }
            // Others may have begun without it and been cut off; they are to be undone all the same.
            Ok(plan.at(step, reopened(below)))
        }
        _ => illegal(instead(task)),
    }
}

fn retry_from(task: &Snapshot, action: &Action, step: StepIndex) -> Result<Plan, Refused> {
    let illegal = |why: &str| Err(Refused::by_step(task, action.kind(), step, why));
    let state = task.state();
    let moves = matches!(
        state,
        TaskState::Pending
            | TaskState::InProgress
            | TaskState::Paused
            | TaskState::Error
            | TaskState::Complete
    );
    if !moves || task.phase() != Phase::Forward {
        return illegal(instead(task));
    }
    if !task.step(step).may_have_begun() {
        return illegal("it has not begun, and will once what it waits for has succeeded");
    }
    let again = with_begun_descendants(task, &[step]);
    if state != TaskState::Paused {
        others_have_not_failed(task, action, step, &fatal(task), &again)?;
    }
    Ok(Plan::to(back_to_work(state)).at(step, reopened(again)))
}

/// Refuses where steps other than those that run again would keep the task from going on.
fn others_have_not_failed(
    task: &Snapshot,
    action: &Action,
    step: StepIndex,
    failed: &[StepIndex],
    again: &BTreeSet<StepIndex>,
) -> Result<(), Refused> {
    let others = failed.iter().filter(|step| !again.contains(step));
    let names: Vec<_> =
        others.map(|step| format!("`{}`", task.template().step(*step).name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let why = format!("{} failed too, so retry the task", names.join(", "));
    Err(Refused::by_step(task, action.kind(), step, why))
}

/// Steps, and those that rest on them and may have begun.
pub(super) fn with_begun_descendants(task: &Snapshot, steps: &[StepIndex]) -> BTreeSet<StepIndex> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = steps.to_vec();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend_from_slice(task.template().dag().children(next));
            if task.step(next).may_have_begun() {
                found.insert(next);
            }
        }
    }
    found
}

/// Settles a step by hand.
fn settle(
    task: &Snapshot,
    action: &Action,
    step: StepIndex,
    what: Occurrence,
) -> Result<Plan, Refused> {
    let illegal = |why: &str| Err(Refused::by_step(task, action.kind(), step, why));
    let state = match task.state() {
        // Others that failed keep the task where it is, until the last of them is seen to.
        TaskState::Error if fatal(task).iter().any(|failed| *failed != step) => TaskState::Error,
        TaskState::Pending | TaskState::InProgress | TaskState::Paused | TaskState::Error => {
            back_to_work(task.state())
        }
        _ => return illegal(instead(task)),
    };
    match task.step(step).outcome() {
        Outcome::Open | Outcome::Failed => Ok(Plan::to(state).at(step, vec![(step, what)])),
        Outcome::Complete | Outcome::Resolved | Outcome::Skipped => {
            illegal("it has ended, and the task can be run again from it")
        }
    }
}

/// A person has undone what the compensation of a step could not.
fn undone_by_hand(task: &Snapshot, action: &Action, step: StepIndex) -> Result<Plan, Refused> {
    let moves = matches!(task.state(), TaskState::Error | TaskState::Compensating);
    if !moves || task.step(step).undone() != Undone::Failed {
        let why = "the task is being compensated, and only a compensation that failed can";
        return Err(Refused::by_step(task, action.kind(), step, why));
    }
    let left = not_undone(task).iter().any(|failed| *failed != step);
    let state = if left { task.state() } else { TaskState::Compensating };
    Ok(Plan::to(state).at(step, vec![(step, Occurrence::Compensated)]))
}

fn set_limit(
    task: &Snapshot,
    action: &Action,
    step: StepIndex,
    limit: u32,
) -> Result<Plan, Refused> {
    if !(1..=MAX_RETRY_LIMIT).contains(&limit) {
        let message = format!("the retry limit must be from 1 to {MAX_RETRY_LIMIT}");
        return Err(Refused::Invalid { message });
    }
    let illegal = |why: &str| Err(Refused::by_step(task, action.kind(), step, why));
    let state = match task.state() {
        TaskState::InProgress => TaskState::Pending,
        TaskState::Cancelled | TaskState::Compensated | TaskState::ResolvedManually => {
            return illegal(instead(task));
        }
        state => state,
    };
    let now = task.step(step);
    let goes_on = match task.phase() {
        Phase::Forward => matches!(now.outcome(), Outcome::Open | Outcome::Failed),
        Phase::Compensating => now.is_undoing() && now.undone() != Undone::Yes,
    };
    if !goes_on {
        return illegal("no attempt at it will be made");
    }
    Ok(Plan::to(state).at(step, vec![(step, Occurrence::LimitChanged { limit })]))
}
