//! The columns in which a store that keeps rows has an occurrence.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{AfterFailure, Failure, Occurrence, Operation};
use crate::Json;
use crate::action::ActionKind;

/// The columns of an [`Occurrence`], for stores that keep rows.
///
/// A result stands in a column of its own so that it is stored as it is, and everything else that
/// an occurrence says stands in `detail`, a small JSON document that no store looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OccurrenceColumns {
    /// The kind of occurrence, such as `completed`.
    pub kind: String,
    /// The result of a completed attempt, or the one that an operator gave.
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

impl Occurrence {
    /// The kind of occurrence, such as `completed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Reopened => "reopened",
            Self::Resolved { .. } => "resolved",
            Self::Skipped { .. } => "skipped",
            Self::LimitChanged { .. } => "limit_changed",
            Self::Compensated => "compensated",
            Self::CompensationFailed { .. } => "compensation_failed",
            Self::Operated(operation) => operation.action.participle(),
            Self::CompensationBegun => "compensation_begun",
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
            Self::Completed { result } | Self::Resolved { result } => (Some(result.clone()), None),
            Self::Failed { failure, next } | Self::CompensationFailed { failure, next } => {
                let detail = FailedDetail { failure: failure.clone(), next: *next };
                (None, Some(Json::of(&detail)?))
            }
            Self::Reopened | Self::Compensated | Self::CompensationBegun => (None, None),
            Self::Skipped { begun } => (None, Some(Json::of(begun)?)),
            Self::LimitChanged { limit } => (None, Some(Json::of(limit)?)),
            Self::Operated(operation) => (None, Some(Json::of(operation)?)),
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
        let result = result.ok_or_else(|| unreadable(None));
        let detail = detail.ok_or_else(|| unreadable(None));
        Ok(match kind.as_str() {
            "completed" => Self::Completed { result: result? },
            "resolved" => Self::Resolved { result: result? },
            "failed" => {
                let FailedDetail { failure, next } = read(&kind, &detail?)?;
                Self::Failed { failure, next }
            }
            "compensation_failed" => {
                let FailedDetail { failure, next } = read(&kind, &detail?)?;
                Self::CompensationFailed { failure, next }
            }
            "reopened" => Self::Reopened,
            "compensated" => Self::Compensated,
            "compensation_begun" => Self::CompensationBegun,
            "skipped" => Self::Skipped { begun: read(&kind, &detail?)? },
            "limit_changed" => Self::LimitChanged { limit: read(&kind, &detail?)? },
            "worker_lost" => Self::WorkerLost { worker: read(&kind, &detail?)? },
            "quarantined" => Self::Quarantined { deliveries: read(&kind, &detail?)? },
            of if ActionKind::ALL.iter().any(|action| action.participle() == of) => {
                let operation: Operation = read(&kind, &detail?)?;
                Self::Operated(Box::new(operation))
            }
            _ => return Err(unreadable(None)),
        })
    }
}

fn read<T: DeserializeOwned>(kind: &str, detail: &Json) -> Result<T, UnreadableRow> {
    detail.to().map_err(|error| UnreadableRow { kind: kind.to_owned(), source: Some(error) })
}
