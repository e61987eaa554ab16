//! Why an operator's action is refused, and what can be done instead.

use std::fmt;

use crate::action::ActionKind;
use crate::snapshot::{Phase, Snapshot};
use crate::template::ContextFault;
use crate::{StepIndex, StepState, TaskState};

/// Why an action was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The state of the task, or of the step, does not allow it, perhaps since a moment ago.
    #[error(transparent)]
    Illegal(Box<Illegal>),
    /// The task is not as the operator saw it: look at it again.
    #[error(
        "the task has moved since you looked at it: it is {state} now, at version {found} and no \
         longer {expected}"
    )]
    Moved {
        /// The version that the operator had looked at.
        expected: u64,
        /// Its version.
        found: u64,
        /// Its state.
        state: TaskState,
    },
    /// The key was used for another action on this task: use a new one.
    #[error("the key `{key}` was used for another action on this task")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The task has no step of that name.
    #[error("the task has no step `{step}`; it has {}", known.join(", "))]
    UnknownStep {
        /// What was asked for.
        step: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The new context does not satisfy the template's schema.
    #[error("the context is not valid: {}", list(.0))]
    InvalidContext(Vec<ContextFault>),
    /// What was handed in cannot be taken.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
}

/// An action that the state of the task does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Illegal {
    /// What was asked for.
    pub action: ActionKind,
    /// Where the task stands.
    pub state: TaskState,
    /// The step that it was asked of, and where that stands.
    pub step: Option<(String, StepState)>,
    /// What stands in the way, and what can be done instead.
    pub instead: String,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, state, step, instead } = self;
        match step {
            Some((name, step)) => write!(f, "step `{name}` is {step} and the task {state}")?,
            None => write!(f, "the task is {state}")?,
        }
        let done = match action {
            ActionKind::RetryStep => "retried",
            ActionKind::RetryFrom => "retried from that step",
            ActionKind::ResolveStep | ActionKind::Resolve => "resolved",
            ActionKind::SkipStep => "skipped",
            ActionKind::EditContext => "given another context",
            ActionKind::SetRetryLimit => "given another retry limit",
            ActionKind::Compensate => "compensated",
            ActionKind::Cancel | ActionKind::Retry | ActionKind::Pause | ActionKind::Resume => {
                action.participle()
            }
        };
        write!(f, ", so it cannot be {done}: {instead}")
    }
}

fn list(faults: &[ContextFault]) -> String {
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}

impl Refused {
    /// The state of the task is in the way.
    pub(super) fn by_task(task: &Snapshot, action: ActionKind) -> Self {
        Self::illegal(task, action, None, instead(task).to_owned())
    }

    /// The state of a step is in the way, or that of its task.
    pub(super) fn by_step(
        task: &Snapshot,
        action: ActionKind,
        step: StepIndex,
        instead: impl Into<String>,
    ) -> Self {
        Self::illegal(task, action, Some(step), instead.into())
    }

    fn illegal(
        task: &Snapshot,
        action: ActionKind,
        step: Option<StepIndex>,
        instead: String,
    ) -> Self {
        let step =
            step.map(|index| (task.template().step(index).name.clone(), task.step(index).state()));
        Self::Illegal(Box::new(Illegal { action, state: task.state(), step, instead }))
    }
}

/// What can be done with a task as it stands.
pub(super) fn instead(task: &Snapshot) -> &'static str {
    match (task.state(), task.phase()) {
        (TaskState::Pending | TaskState::InProgress, _) => {
            "it can be paused or cancelled, and its steps resolved or skipped"
        }
        (TaskState::Paused, _) => "it can be resumed or cancelled",
        (TaskState::Complete, _) => "it can be run again from a step, or compensated",
        (TaskState::Error, Phase::Forward) => {
            "it can be retried, cancelled, compensated or resolved"
        }
        (TaskState::Error, Phase::Compensating) => {
            "it can be retried, so that it goes on being compensated, or resolved"
        }
        (TaskState::Cancelled, _) => "it can be compensated",
        (TaskState::Compensating, _) => "wait until what it did is undone, or that has failed",
        (TaskState::Compensated, _) => "it can be retried",
        (TaskState::ResolvedManually, _) => "a person has closed it, so submit another one",
    }
}
