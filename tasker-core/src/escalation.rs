//! Escalations: what needs a person, on record until one has seen to it.
//!
//! An escalation is a [document](crate::store::Document) that is written together with what it
//! is about, in one transaction, so that none is lost and none is raised for what did not happen.
//! Workers deliver it to the [sinks](EscalationSink) from there; what its document says next is
//! decided in `record`, and which tasks take too long in `overdue`, both without a clock.

mod overdue;
mod record;
mod review;
mod sentence;
mod sink;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use self::overdue::Alarm;
pub(crate) use self::record::{CLAIM_LEASE, GRACE, Record, Sinks, Told};
pub(crate) use self::review::{
    Review, ends_step, keys_of, may_concern, may_settle, review, review_of_system,
};
pub use self::sink::{EscalationSink, LogSink, SinkError, sink_fn};
use crate::history::{AfterFailure, Failure, Occurrence, Transition};
use crate::store::{Assumption, Collection, Content, DocumentChange, TaskChange};
use crate::{Json, Operator, StepIndex, TaskId};

/// What needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// Not tagged from within: that would go through a buffer in which numbers are lost when a program
// compiles `serde_json` with `arbitrary_precision`.
#[serde(rename_all = "snake_case")]
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
    /// What a step did could not be undone.
    CompensationFailed {
        /// The task.
        task: TaskId,
        /// The step.
        step: StepIndex,
        /// The number of the last attempt at it.
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
    /// The task has not ended within its template's `deadline`.
    TaskOverdue {
        /// The task.
        task: TaskId,
        /// How long it should have taken at most.
        deadline: Duration,
    },
    /// A step has not ended within its `expected_within`.
    StepOverdue {
        /// The task.
        task: TaskId,
        /// The step.
        step: StepIndex,
        /// How long it should have taken at most, retries included.
        expected_within: Duration,
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

impl Incident {
    /// The name of its kind, such as `step_failed`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::StepFailed { .. } => "step_failed",
            Self::CompensationFailed { .. } => "compensation_failed",
            Self::Quarantined { .. } => "quarantined",
            Self::TaskOverdue { .. } => "task_overdue",
            Self::StepOverdue { .. } => "step_overdue",
            Self::BreakerOpened { .. } => "breaker_opened",
        }
    }

    /// The task that it is about, if it is about one.
    pub const fn task(&self) -> Option<TaskId> {
        match self {
            Self::StepFailed { task, .. }
            | Self::CompensationFailed { task, .. }
            | Self::Quarantined { task, .. }
            | Self::TaskOverdue { task, .. }
            | Self::StepOverdue { task, .. } => Some(*task),
            Self::BreakerOpened { .. } => None,
        }
    }

    /// The step that it is about, if it is about one.
    pub const fn step(&self) -> Option<StepIndex> {
        match self {
            Self::StepFailed { step, .. }
            | Self::CompensationFailed { step, .. }
            | Self::StepOverdue { step, .. } => Some(*step),
            Self::Quarantined { .. } | Self::TaskOverdue { .. } | Self::BreakerOpened { .. } => {
                None
            }
        }
    }

    /// The number of the last attempt and how it failed, if a failure is what it is about.
    pub const fn failure(&self) -> Option<(u32, &Failure)> {
        match self {
            Self::StepFailed { attempt, failure, .. }
            | Self::CompensationFailed { attempt, failure, .. } => Some((*attempt, failure)),
            Self::Quarantined { .. }
            | Self::TaskOverdue { .. }
            | Self::StepOverdue { .. }
            | Self::BreakerOpened { .. } => None,
        }
    }

    /// The system that it is about, if it is about one.
    pub const fn system(&self) -> Option<&String> {
        match self {
            Self::BreakerOpened { system, .. } => Some(system),
            Self::StepFailed { .. }
            | Self::CompensationFailed { .. }
            | Self::Quarantined { .. }
            | Self::TaskOverdue { .. }
            | Self::StepOverdue { .. } => None,
        }
    }

    /// The document that raises it under a key, to be delivered at once.
    ///
    /// If there is one with this key, it was raised before and stays as it is.
    pub fn raise(&self, key: String) -> DocumentChange {
        // What an incident is made of always has a JSON form.
        let body = Json::of(self).unwrap_or_else(|_| Json::null());
        let due_in = Some(Duration::ZERO);
        let put = Some(Content { state: EscalationState::Open.as_str().to_owned(), due_in, body });
        DocumentChange { collection: Collection::Escalation, key, expects: None, put }
    }
}

/// The incident that a row of a task's history is, and the key under which it is raised.
fn incident(task: TaskId, row: &Transition) -> Option<(String, Incident)> {
    let incident = match &row.what {
        Occurrence::Failed { failure, next: AfterFailure::GiveUp } => {
            let (step, attempt, failure) = (row.step?, row.attempt, failure.clone());
            Incident::StepFailed { task, step, attempt, failure }
        }
        Occurrence::CompensationFailed { failure, next: AfterFailure::GiveUp } => {
            let (step, attempt, failure) = (row.step?, row.attempt, failure.clone());
            Incident::CompensationFailed { task, step, attempt, failure }
        }
        Occurrence::Quarantined { deliveries } => {
            Incident::Quarantined { task, deliveries: *deliveries }
        }
        _ => return None,
    };
    Some((row_key(task, row), incident))
}

impl TaskChange {
    /// The documents that are written with the change: the escalations that it raises, and the
    /// notice that others may be over.
    ///
    /// One that exists already stays as it is; that is no conflict.
    pub fn documents(&self) -> Vec<DocumentChange> {
        let raised = self.rows.iter().filter_map(|row| incident(self.task, row));
        let raised = raised.map(|(key, incident)| incident.raise(key));
        raised.chain(self.notice()).collect()
    }

    /// Whether there are [any](Self::documents), so that somebody has something to look at.
    pub fn has_documents(&self) -> bool {
        self.review || self.rows.iter().any(|row| incident(self.task, row).is_some())
    }

    /// Makes somebody look at what was raised for the task, should who wrote the change not live to
    /// do so.
    pub(crate) fn notice(&self) -> Option<DocumentChange> {
        if !self.review {
            return None;
        }
        let id = self.task;
        // No row and no version comes twice.
        let key = match (self.rows.last(), &self.assumes) {
            (Some(row), _) => row_key(id, row),
            (None, Assumption::Owned { version } | Assumption::Unmoved { version }) => {
                format!("{id}/{version}")
            }
            (None, Assumption::OfferHeld { step, seq }) => format!("{id}/{}/{seq}", step.0),
        };
        Some(notice(key))
    }
}

/// An alarm that is due at once: something about what its key begins with, or names, has changed.
pub(crate) fn notice(key: String) -> DocumentChange {
    let put = Some(Alarm::default().content(Some(Duration::ZERO)));
    DocumentChange { collection: Collection::Alarm, key, expects: None, put }
}

/// The key of what a row of a task's history is about.
fn row_key(task: TaskId, row: &Transition) -> String {
    let log = row.step.map_or_else(|| "-".to_owned(), |step| step.0.to_string());
    format!("{task}/{log}/{}", row.seq)
}

/// Something that needs a person; its [`Display`](std::fmt::Display) is a sentence.
///
/// It has names, times and failures, never a context or a result. Serialised, it has `id` (its
/// key), `kind`, `sentence`, `state`, `raised_at`, and where they apply `task`, `task_type`, `step`
/// (its name), `attempt`, `failure`, `system`, `acknowledged` and `resolved`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Escalation {
    /// Its name, which says what it is about; the same for every delivery.
    pub key: String,
    /// What needs a person.
    pub incident: Incident,
    /// Whether somebody has seen to it.
    pub state: EscalationState,
    /// The kind of the task, written `namespace/name@version`, as long as the task is stored.
    pub task_type: Option<String>,
    /// The name of the step, as long as the task is stored.
    pub step: Option<String>,
    /// Whether the task goes on without that step: its `on_failure` is `continue`.
    pub optional: bool,
    /// When it was raised, by the store's clock.
    pub raised_at: Timestamp,
    /// Who has taken note of it.
    pub acknowledged: Option<SeenTo>,
    /// Who has settled it: a person, or `tasker` because what it was about is over.
    pub resolved: Option<SeenTo>,
    /// What became of telling each sink, by its name.
    pub deliveries: BTreeMap<String, Delivery>,
}

/// Whether somebody has seen to an escalation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EscalationState {
    /// Nobody has; it is delivered until every sink has it.
    Open,
    /// Somebody has taken note of it; it is delivered no more.
    Acknowledged,
    /// It is settled, by somebody or because what it was about is over; whoever was told of it is
    /// told that, once.
    Resolved,
}

impl EscalationState {
    /// The name in databases and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// Who has seen to an escalation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenTo {
    /// A name that says who it was.
    pub by: String,
    /// What they had to say.
    pub note: String,
    /// When, by the store's clock.
    pub at: Timestamp,
}

impl SeenTo {
    pub(crate) fn by(operator: &Operator, at: Timestamp) -> Self {
        Self::new(&operator.name, &operator.reason, at)
    }

    fn new(by: &str, note: &str, at: Timestamp) -> Self {
        Self { by: tidy(by), note: tidy(note), at }
    }
}

/// What became of telling a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// How often it was tried, one that is under way or was cut off included.
    pub attempts: u32,
    /// When the sink had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// When the sink had it that it is resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// How the latest attempt failed that did, or that no worker has the sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
}

/// A text from outside as every store takes it: of one line and not too long.
fn tidy(text: &str) -> String {
    const MOST: usize = 500;
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(MOST).collect()
}
