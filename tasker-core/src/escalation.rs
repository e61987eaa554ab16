//! Escalations: what needs a person, on record until one has seen to it.
//!
//! An escalation is a [document](crate::store::Document) that is written together with what it
//! is about, in one transaction, so that none is lost and none is raised for what did not happen.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::history::{AfterFailure, Failure, Occurrence};
use crate::store::{Collection, Content, DocumentChange, TaskChange};
use crate::{Json, StepIndex, TaskId};

/// What needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Incident {
    /// A step failed for good.
    StepFailed {
        /// The task.
        task: TaskId,
        /// The step.
        step: StepIndex,
        /// The number of its last attempt.
        attempt: u32,
        /// How that failed.
        failure: Failure,
    },
    /// The task was taken out of circulation because it kept losing its workers.
    Quarantined {
        /// The task.
        task: TaskId,
        /// How often in a row a worker was lost with it.
        deliveries: u32,
    },
    /// The breaker of a system opened: steps that depend on it wait until it is well.
    BreakerOpened {
        /// The system.
        system: String,
        /// When.
        since: Timestamp,
        /// Why, in words.
        reason: String,
    },
}

impl TaskChange {
    /// The escalations that the change raises: documents that are written with it.
    ///
    /// One that exists already stays as it is; that is no conflict.
    pub fn escalations(&self) -> Vec<DocumentChange> {
        let raised = self.rows.iter().filter_map(|row| {
            let incident = match &row.what {
                Occurrence::Failed { failure, next: AfterFailure::GiveUp } => {
                    Incident::StepFailed {
                        task: self.task,
                        step: row.step?,
                        attempt: row.attempt,
                        failure: failure.clone(),
                    }
                }
                Occurrence::Quarantined { deliveries } => {
                    Incident::Quarantined { task: self.task, deliveries: *deliveries }
                }
                _ => return None,
            };
            let log = row.step.map_or_else(|| "-".to_owned(), |step| step.0.to_string());
            Some((format!("{}/{log}/{}", self.task, row.seq), incident))
        });
        let raised = raised.filter_map(|(key, incident)| {
            let body = Json::of(&incident).ok()?;
            let due_in = Some(std::time::Duration::ZERO);
            let put = Some(Content { state: "open".to_owned(), due_in, body });
            Some(DocumentChange { collection: Collection::Escalation, key, expects: None, put })
        });
        raised.collect()
    }
}
