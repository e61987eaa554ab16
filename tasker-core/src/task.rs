//! What a task is called and the states it goes through.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of one task: a time-ordered UUID (version 7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Uuid);

/// The name of one incarnation of a worker; a worker that lost its lease comes back under a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(Uuid);

macro_rules! uuid_name {
    ($name:ident) => {
        impl $name {
            /// A new name, later than all that this process made before.
            #[expect(clippy::new_without_default, reason = "two defaults would differ")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The name as the UUID that it is.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_name!(TaskId);
uuid_name!(WorkerId);

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Stored, and no worker has taken it yet; or put back by an operator.
    Pending,
    /// A worker has taken it: its steps run, or it waits for one that is to be retried.
    InProgress,
    /// Every step has ended; an optional one may have failed (the task is then `degraded`).
    Complete,
    /// A step failed for good: an operator retries the task or leaves it.
    Error,
    /// Stopped by somebody before its end.
    Cancelled,
    /// Held up by an operator until one resumes it.
    Paused,
    /// It failed for good, or an operator asked for it: what its steps did is being undone.
    Compensating,
    /// What its steps did has been undone.
    Compensated,
    /// It failed, and a person has seen to it outside.
    ResolvedManually,
}

/// Where a step of a task stands.
///
/// Waiting for a retry is no state of its own: it is [`Ready`](Self::Ready) with a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// A parent has not succeeded yet.
    Blocked,
    /// It may run once its time has come.
    Ready,
    /// A worker is running it.
    InProgress,
    /// It succeeded and its result is stored.
    Complete,
    /// It failed for good.
    Error,
    /// The task was cancelled before the step had ended.
    Cancelled,
    /// An operator let the task go on without it.
    Skipped,
    /// An operator gave its result.
    ResolvedManually,
    /// What it did, or may have done, is to be undone or is being undone.
    Compensating,
    /// What it did has been undone.
    Compensated,
}

impl TaskState {
    /// All states, in the order of a task's life.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::InProgress,
        Self::Paused,
        Self::Complete,
        Self::Error,
        Self::Cancelled,
        Self::Compensating,
        Self::Compensated,
        Self::ResolvedManually,
    ];

    /// Whether a task may go from this state to `next`: the table that everything asks.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::InProgress | Self::Paused | Self::Cancelled),
            Self::InProgress => matches!(
                next,
                Self::Complete
                    | Self::Error
                    | Self::Compensating
                    | Self::Pending
                    | Self::Paused
                    | Self::Cancelled
            ),
            Self::Paused => matches!(next, Self::Pending | Self::Cancelled),
            Self::Error => matches!(
                next,
                Self::Pending | Self::Compensating | Self::ResolvedManually | Self::Cancelled
            ),
            Self::Complete => matches!(next, Self::Pending | Self::Compensating),
            Self::Cancelled => matches!(next, Self::Compensating),
            Self::Compensating => matches!(next, Self::Compensated | Self::Error),
            Self::Compensated => matches!(next, Self::Pending),
            Self::ResolvedManually => false,
        }
    }

    /// Whether the task has ended; only an operator moves it again.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::InProgress | Self::Paused | Self::Compensating => false,
            Self::Complete
            | Self::Error
            | Self::Cancelled
            | Self::Compensated
            | Self::ResolvedManually => true,
        }
    }

    /// Whether few tasks are in it at a time, so that a store does well to index them: neither on
    /// their way nor complete.
    pub const fn is_exceptional(self) -> bool {
        match self {
            Self::Pending | Self::InProgress | Self::Complete => false,
            Self::Paused
            | Self::Error
            | Self::Cancelled
            | Self::Compensating
            | Self::Compensated
            | Self::ResolvedManually => true,
        }
    }

    /// The name in databases, answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Complete => "complete",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::ResolvedManually => "resolved_manually",
        }
    }
}

impl StepState {
    /// All states, in the order of a step's life.
    pub const ALL: [Self; 10] = [
        Self::Blocked,
        Self::Ready,
        Self::InProgress,
        Self::Complete,
        Self::Error,
        Self::Cancelled,
        Self::Skipped,
        Self::ResolvedManually,
        Self::Compensating,
        Self::Compensated,
    ];

    /// Whether a step may go from this state to `next`: the table that everything asks.
    ///
    /// `InProgress` goes back to `Ready` for a retry, and when its worker is lost or shut down, and
    /// to `Compensating` if its end is what the task fails by. What is `Blocked` or `Ready` after it was further runs again by an operator's order, itself
    /// or what it rests on; `Cancelled` is also what did not begin before its task was compensated.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Blocked => matches!(
                next,
                Self::Ready
                    | Self::Cancelled
                    | Self::Skipped
                    | Self::ResolvedManually
                    | Self::Compensating
            ),
            Self::Ready => matches!(
                next,
                Self::InProgress
                    | Self::Blocked
                    | Self::Cancelled
                    | Self::Skipped
                    | Self::ResolvedManually
                    | Self::Compensating
            ),
            Self::InProgress => matches!(
                next,
                Self::Complete
                    | Self::Error
                    | Self::Ready
                    | Self::Blocked
                    | Self::Cancelled
                    | Self::Skipped
                    | Self::ResolvedManually
                    | Self::Compensating
            ),
            Self::Error => matches!(
                next,
                Self::Ready
                    | Self::Blocked
                    | Self::Skipped
                    | Self::ResolvedManually
                    | Self::Compensating
                    | Self::Compensated
            ),
            Self::Complete | Self::Skipped | Self::ResolvedManually => {
                matches!(next, Self::Ready | Self::Blocked | Self::Compensating)
            }
            Self::Cancelled => matches!(next, Self::Ready | Self::Blocked | Self::Compensating),
            Self::Compensating => matches!(next, Self::Compensated | Self::Error),
            Self::Compensated => matches!(next, Self::Ready | Self::Blocked),
        }
    }

    /// Whether the step has ended; only an operator moves it again.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Blocked | Self::Ready | Self::InProgress | Self::Compensating => false,
            Self::Complete
            | Self::Error
            | Self::Cancelled
            | Self::Skipped
            | Self::ResolvedManually
            | Self::Compensated => true,
        }
    }

    /// The name in answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::InProgress => "in_progress",
            Self::Complete => "complete",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::ResolvedManually => "resolved_manually",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
        }
    }
}

/// A stored name of a state that this version of Tasker does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown state `{0}`: it was written by another version of Tasker")]
pub struct UnknownState(String);

impl FromStr for TaskState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == name);
        known.ok_or_else(|| UnknownState(name.to_owned()))
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
