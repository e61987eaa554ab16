//! What happened to a task: the rows from which its state follows.
//!
//! Every step has a log of its own, numbered from 1, and so has the task itself. A row is added
//! once and never changed; two writers that both want to add row n cannot both succeed. Rows carry
//! durations; the store adds the one timestamp.

mod columns;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::columns::{OccurrenceColumns, UnreadableRow};
use crate::action::ActionKind;
use crate::{Json, StepIndex, StepState, TaskState, WorkerId};

/// A row of a task's history as `decide` concludes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// Whose log the row belongs to: a step's, or with `None` the task's own.
    pub step: Option<StepIndex>,
    /// The number of the row in that log, from 1; unique there.
    pub seq: u32,
    /// The attempt that the row settles, from 1; 0 where it settles none.
    pub attempt: u32,
    /// How long the attempt ran.
    pub ran_for: Duration,
    /// What happened.
    pub what: Occurrence,
}

/// A row of a task's history as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recorded {
    /// When it was recorded, by the store's clock. An attempt began `ran_for` earlier.
    pub at: Timestamp,
    /// Who recorded it.
    pub author: Author,
    /// The row.
    pub transition: Transition,
}

impl Recorded {
    /// When the attempt that the row settles began; `None` where it settles none.
    pub fn began_at(&self) -> Option<Timestamp> {
        if self.transition.attempt == 0 {
            return None;
        }
        self.at.checked_sub(self.transition.ran_for).ok()
    }
}

/// Who writes to a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// One incarnation of a worker; its lease is checked with every write.
    Worker(WorkerId),
    /// A person, or a program that acts for one, by the name it gave.
    Operator(String),
}

/// What happened to a step or to a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Occurrence {
    /// A step's attempt succeeded.
    Completed {
        /// What the handler returned.
        result: Json,
    },
    /// A step's attempt failed.
    Failed {
        /// Why.
        failure: Failure,
        /// What follows from it.
        next: AfterFailure,
    },
    /// A step is to run again, with a new count of attempts: an operator wants it to.
    Reopened,
    /// An operator gave a step's result.
    Resolved {
        /// What the operator gave.
        result: Json,
    },
    /// An operator lets the task go on without a step.
    Skipped {
        /// Whether the step may have begun.
        begun: bool,
    },
    /// An operator changed how often a step is attempted.
    LimitChanged {
        /// All attempts of one count together.
        limit: u32,
    },
    /// What a step did was undone: by its compensation, or with attempt 0 by a person.
    Compensated,
    /// An attempt to undo what a step did failed.
    CompensationFailed {
        /// Why.
        failure: Failure,
        /// What follows from it.
        next: AfterFailure,
    },
    /// An operator acted on the task.
    Operated(Box<Operation>),
    /// The task failed for good, and what its steps did is undone from here on.
    CompensationBegun,
    /// The worker that owned the task was lost; another one takes it over.
    WorkerLost {
        /// The incarnation whose lease ran out.
        worker: WorkerId,
    },
    /// The task was taken out of circulation because it kept losing its workers.
    Quarantined {
        /// How often in a row a worker was lost with the task before anything was recorded.
        deliveries: u32,
    },
}

/// What an operator did, and what it changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// What was done.
    pub action: ActionKind,
    /// To which step, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepIndex>,
    /// Why.
    pub reason: String,
    /// What tells a repetition from another order, if the operator said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OrderKey>,
    /// When the task had ended, if it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// What was.
    pub before: Aspect,
    /// What is from then on.
    pub after: Aspect,
}

/// What tells that an order is the repetition of one that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderKey {
    /// What the operator calls the order.
    pub key: String,
    /// A digest of what was ordered.
    pub digest: String,
}

/// The side of a task that an operator's action changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aspect {
    /// The state of the task.
    pub state: TaskState,
    /// The state of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepState>,
    /// The attempts at the step that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How often the step is attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The input of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Json>,
    /// The result of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// Until when the task was not to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
}

impl Aspect {
    /// The state of the task and no more.
    pub const fn of(state: TaskState) -> Self {
        Self {
            state,
            step: None,
            attempts: None,
            limit: None,
            context: None,
            result: None,
            wake_at: None,
        }
    }
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterFailure {
    /// Another attempt, this long after the failure was recorded.
    RetryIn(Duration),
    /// The step's fallback handler takes over.
    FallBack,
    /// The system that the step depends on was found to be down: the attempt does not count, and
    /// another one follows once the system is well.
    WaitForSystem,
    /// No further attempt: the step has failed for good.
    GiveUp,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// How it failed; decides whether it may be retried.
    pub class: FailureClass,
    /// A code for programs, such as `CARD_DECLINED`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The handler says that another attempt may succeed.
    Retryable,
    /// The handler says that no attempt will succeed.
    Permanent,
    /// The attempt took longer than the step's time-out; retryable.
    TimedOut,
    /// The handler panicked; retryable.
    Panicked,
    /// The result could not be stored (too large, a NUL character); permanent.
    Unstorable,
}

impl FailureClass {
    /// Whether another attempt may succeed.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Retryable | Self::TimedOut | Self::Panicked => true,
            Self::Permanent | Self::Unstorable => false,
        }
    }

    /// The name in answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::Unstorable => "unstorable",
        }
    }
}

/// Why a result cannot be stored, if it cannot.
pub(crate) fn unstorable(result: &Json, max_bytes: usize) -> Option<Failure> {
    let bytes = result.as_str().len();
    let (code, message) = if bytes > max_bytes {
        let message = format!(
            "the result has {bytes} bytes of JSON and {max_bytes} are allowed: \
             store it elsewhere and return where"
        );
        ("RESULT_TOO_LARGE", message)
    } else if result.has_nul() {
        ("RESULT_HAS_NUL", "the result has a NUL character, which cannot be stored".to_owned())
    } else {
        return None;
    };
    Some(Failure { class: FailureClass::Unstorable, code: code.to_owned(), message })
}
