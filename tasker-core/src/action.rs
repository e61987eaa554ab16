//! What an operator does to a task.

mod form;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::form::{ActionFault, ActionForm};
use crate::{Fingerprint, Json};

/// What a person, or a program that acts for one, wants done to a task.
///
/// [`Tasker::operate`](crate::Tasker::operate) carries it out; the guide for operators says when
/// each is legal. Steps go by their names.
///
/// ```
/// use tasker_core::Action;
///
/// let action: Action = serde_json::from_str(r#"{"action":"skip_step","step":"send"}"#)?;
/// assert_eq!(action, Action::SkipStep { step: "send".to_owned() });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", try_from = "ActionForm")]
#[non_exhaustive]
pub enum Action {
    /// Stops the task: nothing of it starts any more, and what still runs is not recorded.
    Cancel,
    /// Puts a task back to work that has failed: its failed steps get a new count of attempts. One
    /// whose compensation failed goes on compensating; one that was compensated runs again.
    Retry,
    /// Gives one failed step a new count of attempts.
    RetryStep {
        /// The step.
        step: String,
    },
    /// Runs a step again, and every step that rests on it and may have begun; their results go.
    RetryFrom {
        /// The step.
        step: String,
    },
    /// Gives the result of a step that has not succeeded; the task goes on with it. A compensation
    /// that failed counts as done.
    ResolveStep {
        /// The step.
        step: String,
        /// The result that steps which rest on it read.
        result: Json,
    },
    /// Lets the task go on without a step; it is degraded from then on. A compensation that failed
    /// counts as done.
    SkipStep {
        /// The step.
        step: String,
    },
    /// Gives the task another input, from here on.
    EditContext {
        /// The input; the template's schema must allow it.
        context: Json,
    },
    /// Holds the task up: what runs is told to stop and runs again, uncounted, once it is resumed.
    Pause,
    /// Lets a paused task go on.
    Resume,
    /// Changes how often a step is attempted.
    SetRetryLimit {
        /// The step.
        step: String,
        /// All attempts of one count together, the first included.
        limit: u32,
    },
    /// Undoes what the steps of a task did.
    Compensate,
    /// Says that a person has seen to a failed task outside; nothing of it runs again.
    Resolve,
}

/// Which kind of [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as the actions of the same names")]
pub enum ActionKind {
    Cancel,
    Retry,
    RetryStep,
    RetryFrom,
    ResolveStep,
    SkipStep,
    EditContext,
    Pause,
    Resume,
    SetRetryLimit,
    Compensate,
    Resolve,
}

impl Action {
    /// Which kind it is.
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::Cancel => ActionKind::Cancel,
            Self::Retry => ActionKind::Retry,
            Self::RetryStep { .. } => ActionKind::RetryStep,
            Self::RetryFrom { .. } => ActionKind::RetryFrom,
            Self::ResolveStep { .. } => ActionKind::ResolveStep,
            Self::SkipStep { .. } => ActionKind::SkipStep,
            Self::EditContext { .. } => ActionKind::EditContext,
            Self::Pause => ActionKind::Pause,
            Self::Resume => ActionKind::Resume,
            Self::SetRetryLimit { .. } => ActionKind::SetRetryLimit,
            Self::Compensate => ActionKind::Compensate,
            Self::Resolve => ActionKind::Resolve,
        }
    }

    /// The step that it is about.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::RetryStep { step }
            | Self::RetryFrom { step }
            | Self::ResolveStep { step, .. }
            | Self::SkipStep { step }
            | Self::SetRetryLimit { step, .. } => Some(step),
            Self::Cancel
            | Self::Retry
            | Self::EditContext { .. }
            | Self::Pause
            | Self::Resume
            | Self::Compensate
            | Self::Resolve => None,
        }
    }

    /// A digest that tells an action that is repeated from another one.
    pub(crate) fn digest(&self) -> String {
        // By way of a value, which sorts keys; whatever is an action has a JSON form.
        let form = serde_json::to_value(self).map(|value| value.to_string()).unwrap_or_default();
        Fingerprint::of(form.as_bytes()).to_string()
    }
}

impl ActionKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Cancel,
        Self::Retry,
        Self::RetryStep,
        Self::RetryFrom,
        Self::ResolveStep,
        Self::SkipStep,
        Self::EditContext,
        Self::Pause,
        Self::Resume,
        Self::SetRetryLimit,
        Self::Compensate,
        Self::Resolve,
    ];

    /// The name in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::RetryStep => "retry_step",
            Self::RetryFrom => "retry_from",
            Self::ResolveStep => "resolve_step",
            Self::SkipStep => "skip_step",
            Self::EditContext => "edit_context",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::SetRetryLimit => "set_retry_limit",
            Self::Compensate => "compensate",
            Self::Resolve => "resolve",
        }
    }

    /// What a history says that happened.
    pub const fn participle(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Retry => "retried",
            Self::RetryStep => "step_retried",
            Self::RetryFrom => "retried_from_step",
            Self::ResolveStep => "step_resolved",
            Self::SkipStep => "step_skipped",
            Self::EditContext => "context_edited",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::SetRetryLimit => "retry_limit_set",
            Self::Compensate => "compensation_ordered",
            Self::Resolve => "resolved_manually",
        }
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
