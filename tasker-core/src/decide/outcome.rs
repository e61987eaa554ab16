//! What follows from the end of an attempt.

use std::time::Duration;

use jiff::Timestamp;

use super::finish::conclude;
use crate::history::{AfterFailure, Failure, Occurrence, Recorded, Transition};
use crate::snapshot::Snapshot;
use crate::store::{Assumption, TaskChange, Then};
use crate::{Json, OnFailure, StepIndex, TaskId};

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The step.
    pub step: StepIndex,
    /// The row of its log that the attempt was to write.
    pub seq: u32,
    /// How long it ran.
    pub ran_for: Duration,
    /// What it came to.
    pub outcome: Result<Json, Failure>,
    /// The wait that a failure's cause asked for.
    pub retry_after: Option<Duration>,
}

/// Settles attempts of the steps of one task that the caller owns, and says what becomes of it.
///
/// `arrived` are rows that other workers have added. A report of an attempt that was settled
/// already is left out, and so is a row that the task knows.
pub fn settle(
    task: &mut Snapshot,
    reports: Vec<Report>,
    arrived: &[Recorded],
    now: Timestamp,
) -> TaskChange {
    let assumes = Assumption::Owned { version: task.version() };
    for row in arrived {
        let known = |step| task.step(step).next_seq() > row.transition.seq;
        if !row.transition.step.is_none_or(known) {
            task.apply(&row.transition, row.at);
        }
    }
    let mut rows = Vec::with_capacity(reports.len());
    for report in reports {
        if let Some(row) = row(task, report) {
            task.apply(&row, now);
            rows.push(row);
        }
    }
    let then = conclude(task, now, &mut rows);
    TaskChange { task: task.id(), assumes, rows, offers: Vec::new(), then }
}

/// Settles an attempt of a step that another worker offered.
///
/// `task` needs to know the rows of the step itself only; what follows for the task is the
/// owner's to decide. `None` if the attempt was settled already.
pub fn settle_offer(task: &Snapshot, report: Report) -> Option<TaskChange> {
    let assumes = Assumption::OfferHeld { step: report.step, seq: report.seq };
    let rows = vec![row(task, report)?];
    Some(TaskChange { task: task.id(), assumes, rows, offers: Vec::new(), then: Then::Keep })
}

/// The row that an attempt adds to its step's log.
fn row(task: &Snapshot, report: Report) -> Option<Transition> {
    let Report { step, seq, ran_for, outcome, retry_after } = report;
    let before = task.step(step);
    if seq != before.next_seq() || before.state().is_terminal() {
        return None;
    }
    let attempt = before.next_attempt();
    let what = match outcome {
        Ok(result) => Occurrence::Completed { result },
        Err(failure) => {
            let next = after_failure(task, step, &failure, retry_after);
            Occurrence::Failed { failure, next }
        }
    };
    Some(Transition { step: Some(step), seq, attempt, ran_for, what })
}

fn after_failure(
    task: &Snapshot,
    index: StepIndex,
    failure: &Failure,
    retry_after: Option<Duration>,
) -> AfterFailure {
    let (template, step) = (task.template().step(index), task.step(index));
    let made = step.counted() + 1;
    if failure.class.is_retryable() && template.retry.allows_another(made) {
        let seed = seed(task.id(), index, step.next_attempt());
        return AfterFailure::RetryIn(template.retry.backoff.delay(made, retry_after, seed));
    }
    match &template.on_failure {
        OnFailure::Fallback(_) if !step.fell_back() => AfterFailure::FallBack,
        OnFailure::Fallback(_) | OnFailure::Fail | OnFailure::Continue => AfterFailure::GiveUp,
    }
}

/// Spreads the retries of different tasks, steps and attempts, reproducibly.
fn seed(task: TaskId, step: StepIndex, attempt: u32) -> u64 {
    let (high, low) = task.as_uuid().as_u64_pair();
    high ^ low.rotate_left(17) ^ (u64::from(step.0) << 32) ^ u64::from(attempt)
}
