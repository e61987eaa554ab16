//! What an action would change, or why it must not.

use std::time::Duration;

use jiff::Timestamp;

use super::refused::Refused;
use super::steps;
use crate::action::Action;
use crate::decide::compensate;
use crate::history::Occurrence;
use crate::snapshot::{Outcome, Phase, Snapshot, Undone};
use crate::{Json, StepIndex, TaskState};

/// What an action changes.
pub(super) struct Plan {
    /// The task's state from then on.
    pub(super) state: TaskState,
    /// How long until it may be claimed, if it is queued.
    pub(super) wake_in: Duration,
    /// The step that the action is about.
    pub(super) step: Option<StepIndex>,
    /// What happens to steps.
    pub(super) rows: Vec<(StepIndex, Occurrence)>,
    /// The task's new input.
    pub(super) context: Option<Json>,
}

impl Plan {
    pub(super) const fn to(state: TaskState) -> Self {
        let wake_in = Duration::ZERO;
        Self { state, wake_in, step: None, rows: Vec::new(), context: None }
    }

    pub(super) fn at(self, step: StepIndex, rows: Vec<(StepIndex, Occurrence)>) -> Self {
        Self { step: Some(step), rows, ..self }
    }
}

pub(super) fn of(task: &Snapshot, action: &Action, now: Timestamp) -> Result<Plan, Refused> {
    let (state, phase) = (task.state(), task.phase());
    let illegal = || Err(Refused::by_task(task, action.kind()));
    let mut plan = match action {
        Action::Cancel if state.may_become(TaskState::Cancelled) && phase == Phase::Forward => {
            Plan::to(TaskState::Cancelled)
        }
        Action::Pause if state.may_become(TaskState::Paused) => Plan::to(TaskState::Paused),
        Action::Resume if state == TaskState::Paused => {
            let wake_in = until(task.held_until(), now);
            return Ok(Plan { wake_in, ..Plan::to(TaskState::Pending) });
        }
        Action::Resolve if state.may_become(TaskState::ResolvedManually) => {
            Plan::to(TaskState::ResolvedManually)
        }
        Action::Compensate
            if state.may_become(TaskState::Compensating)
                && state.is_terminal()
                && phase == Phase::Forward =>
        {
            if !compensate::is_called_for(task) {
                let message = "no step of the task that may have begun says how it is undone";
                return Err(Refused::Invalid { message: message.to_owned() });
            }
            Plan::to(TaskState::Compensating)
        }
        Action::Cancel | Action::Pause | Action::Resume | Action::Resolve | Action::Compensate => {
            return illegal();
        }
        Action::Retry => match (state, phase) {
            (TaskState::Error, Phase::Forward) => retry_failed(task),
            (TaskState::Error, Phase::Compensating) => retry_compensation(task),
            (TaskState::Compensated, _) => run_again(task),
            _ => return illegal(),
        },
        Action::EditContext { context } => match state {
            TaskState::Pending | TaskState::Paused | TaskState::Error | TaskState::Compensated => {
                task.template().check_context(context).map_err(Refused::InvalidContext)?;
                Plan { context: Some(context.clone()), ..Plan::to(state) }
            }
            _ => return illegal(),
        },
        Action::RetryStep { step }
        | Action::RetryFrom { step }
        | Action::ResolveStep { step, .. }
        | Action::SkipStep { step }
        | Action::SetRetryLimit { step, .. } => {
            let Some(index) = task.template().index_of(step) else {
                let names = task.template().steps().iter().map(|step| step.name.clone());
                let known = names.take(LISTED).collect();
                return Err(Refused::UnknownStep { step: step.clone(), known });
            };
            steps::of(task, action, index)?
        }
    };
    if (state, plan.state) == (TaskState::Pending, TaskState::Pending) {
        // It goes on waiting for the time at which it may start.
        plan.wake_in = until(task.wake_at(), now);
    }
    Ok(plan)
}

/// So many names of steps are told to who asks for one that there is not.
const LISTED: usize = 100;

fn until(at: Option<Timestamp>, now: Timestamp) -> Duration {
    let wait = at.map(|at| at.duration_since(now));
    wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default()
}

/// All steps of a task.
pub(super) fn indices(task: &Snapshot) -> impl Iterator<Item = StepIndex> + use<> {
    (0u32..).map(StepIndex).take(task.steps().len())
}

/// The steps that failed for good and take the task with them.
pub(super) fn fatal(task: &Snapshot) -> Vec<StepIndex> {
    let failed = |index: &StepIndex| {
        // A step that may fail without the task stays failed: the task has gone on without it.
        task.step(*index).outcome() == Outcome::Failed && !task.is_optional(*index)
    };
    indices(task).filter(failed).collect()
}

/// The steps that could not be undone.
pub(super) fn not_undone(task: &Snapshot) -> Vec<StepIndex> {
    let failed = |index: &StepIndex| task.step(*index).undone() == Undone::Failed;
    indices(task).filter(failed).collect()
}

pub(super) fn reopened(steps: impl IntoIterator<Item = StepIndex>) -> Vec<(StepIndex, Occurrence)> {
    steps.into_iter().map(|step| (step, Occurrence::Reopened)).collect()
}

fn retry_failed(task: &Snapshot) -> Plan {
    Plan { rows: reopened(fatal(task)), ..Plan::to(TaskState::Pending) }
}

fn retry_compensation(task: &Snapshot) -> Plan {
    Plan { rows: reopened(not_undone(task)), ..Plan::to(TaskState::Compensating) }
}

/// What was undone runs again, with all that rests on it.
fn run_again(task: &Snapshot) -> Plan {
    let undone = indices(task).filter(|index| task.step(*index).undone() == Undone::Yes);
    let mut again = steps::with_begun_descendants(task, &undone.collect::<Vec<_>>());
    again.extend(fatal(task));
    Plan { rows: reopened(again), ..Plan::to(TaskState::Pending) }
}
