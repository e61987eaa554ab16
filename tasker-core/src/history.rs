//! What happened to a task: the rows from which its state follows.
//!
//! Every step has a log of its own, numbered from 1, and so has the task itself. A row is added
//! once and never changed; two writers that both want to add row n cannot both succeed. Rows carry
//! durations; the store adds the one timestamp.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Json, StepIndex, WorkerId};

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
    /// An operator gave a failed step a new count of attempts.
    Reopened,
    /// An operator put a failed task back to work.
    Retried {
        /// Why.
        reason: String,
        /// When the task had failed.
        failed_at: Option<Timestamp>,
    },
    /// Somebody stopped the task.
    Cancelled {
        /// Why.
        reason: String,
        /// When the task had failed, if it had.
        failed_at: Option<Timestamp>,
    },
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

/// The columns of an [`Occurrence`], for stores that keep rows.
///
/// A result stands in a column of its own so that it is stored as it is, and everything else that
/// an occurrence says stands in `detail`, a small JSON document that no store looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OccurrenceColumns {
    /// The kind of occurrence, such as `completed`.
    pub kind: String,
    /// The result of a completed attempt.
    pub result: Option<Json>,
    /// The rest.
    pub detail: Option<Json>,
}

/// A stored row that this version of Tasker cannot read.
#[derive(Debug, thiserror::Error)]
#[error("a history row of kind `{kind}` cannot be read: it is damaged or of a later version")]
pub struct UnreadableRow {
    kind: String,
    #[source]
    source: Option<serde_json::Error>,
}

#[derive(Serialize, Deserialize)]
struct FailedDetail {
    failure: Failure,
    next: AfterFailure,
}

#[derive(Serialize, Deserialize)]
struct ReasonDetail {
    reason: String,
    failed_at: Option<Timestamp>,
}

impl Occurrence {
    /// The kind of occurrence, such as `completed`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Reopened => "reopened",
            Self::Retried { .. } => "retried",
            Self::Cancelled { .. } => "cancelled",
            Self::WorkerLost { .. } => "worker_lost",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// The occurrence in columns.
    ///
    /// # Errors
    /// None in practice: everything in an occurrence has a JSON form.
    pub fn to_columns(&self) -> Result<OccurrenceColumns, serde_json::Error> {
        let (result, detail) = match self {
            Self::Completed { result } => (Some(result.clone()), None),
            Self::Failed { failure, next } => {
                let detail = FailedDetail { failure: failure.clone(), next: *next };
                (None, Some(Json::of(&detail)?))
            }
            Self::Reopened => (None, None),
            Self::Retried { reason, failed_at } | Self::Cancelled { reason, failed_at } => {
                let detail = ReasonDetail { reason: reason.clone(), failed_at: *failed_at };
                (None, Some(Json::of(&detail)?))
            }
            Self::WorkerLost { worker } => (None, Some(Json::of(worker)?)),
            Self::Quarantined { deliveries } => (None, Some(Json::of(deliveries)?)),
        };
        Ok(OccurrenceColumns { kind: self.kind().to_owned(), result, detail })
    }

    /// The occurrence that some columns hold.
    ///
    /// # Errors
    /// The row is damaged, or of a kind that a later version of Tasker wrote.
    pub fn from_columns(columns: OccurrenceColumns) -> Result<Self, UnreadableRow> {
        let OccurrenceColumns { kind, result, detail } = columns;
        let unreadable = |source| UnreadableRow { kind: kind.clone(), source };
        let detail = detail.ok_or_else(|| unreadable(None));
        Ok(match kind.as_str() {
            "completed" => Self::Completed { result: result.ok_or_else(|| unreadable(None))? },
            "failed" => {
                let FailedDetail { failure, next } =
                    detail?.to().map_err(|error| unreadable(Some(error)))?;
                Self::Failed { failure, next }
            }
            "reopened" => Self::Reopened,
            "retried" => {
                let ReasonDetail { reason, failed_at } =
                    detail?.to().map_err(|error| unreadable(Some(error)))?;
                Self::Retried { reason, failed_at }
            }
            "cancelled" => {
                let ReasonDetail { reason, failed_at } =
                    detail?.to().map_err(|error| unreadable(Some(error)))?;
                Self::Cancelled { reason, failed_at }
            }
            "worker_lost" => {
                let worker = detail?.to().map_err(|error| unreadable(Some(error)))?;
                Self::WorkerLost { worker }
            }
            "quarantined" => {
                let deliveries = detail?.to().map_err(|error| unreadable(Some(error)))?;
                Self::Quarantined { deliveries }
            }
            _ => return Err(unreadable(None)),
        })
    }
}
