//! What follows from the end of an attempt.

use std::time::Duration;

use jiff::Timestamp;

use super::finish::conclude;
use crate::escalation::{ends_step, may_settle};
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
    /// Whether a failure was the fault of a system that was found to be down, so that the attempt
    /// does not count.
    pub spared: bool,
}

/// An attempt that has begun: where its end will be recorded, and what that assumes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    task: TaskId,
    assumes: Assumption,
    step: StepIndex,
    seq: u32,
    attempt: u32,
    /// Whether it undoes what the step did.
    undoes: bool,
    /// Whether there is a time within which the step is to end.
    limited: bool,
}

impl Begun {
    /// An attempt at a step of a task that the caller owns.
    pub(crate) fn of_own(task: &Snapshot, step: StepIndex) -> Self {
        Self::new(task, step, Assumption::Owned { version: task.version() })
    }

    /// An attempt at a step that another worker offered.
    pub(crate) fn of_offered(task: &Snapshot, step: StepIndex) -> Self {
        let seq = task.step(step).next_seq();
        Self::new(task, step, Assumption::OfferHeld { step, seq })
    }

    fn new(task: &Snapshot, step: StepIndex, assumes: Assumption) -> Self {
        let now = task.step(step);
        let (seq, attempt, undoes) = (now.next_seq(), now.next_attempt(), now.is_undoing());
        let limited = task.template().step(step).expected_within.is_some();
        Self { task: task.id(), assumes, step, seq, attempt, undoes, limited }
    }

    /// The row that its success adds to its step's log.
    pub(crate) fn success(&self, ran_for: Duration, result: Json) -> Transition {
        let Self { step, seq, attempt, .. } = *self;
        // What undoes a step leaves no result: those that there are stay readable.
        let what = match self.undoes {
            true => Occurrence::Compensated,
            false => Occurrence::Completed { result },
        };
        Transition { step: Some(step), seq, attempt, ran_for, what }
    }

    /// Adds that row, and nothing else: what follows for the task is its owner's to decide.
    pub(crate) fn record(&self, row: Transition) -> TaskChange {
        let Self { task, assumes, limited, .. } = *self;
        // How long the step has waited is not known here: whoever looks finds out.
        let review = limited && ends_step(&row.what);
        let (rows, then) = (vec![row], Then::Keep);
        TaskChange { task, assumes, rows, offers: Vec::new(), then, degraded: None, review }
    }
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
    let mut stale = false;
    for row in arrived {
        let known = |step| task.step(step).next_seq() > row.transition.seq;
        if !row.transition.step.is_none_or(known) {
            task.note(&row.transition, row.at, &mut stale);
        }
    }
    let mut rows = Vec::with_capacity(reports.len());
    for report in reports {
        if let Some(row) = row(task, report) {
            task.note(&row, now, &mut stale);
            rows.push(row);
        }
    }
    task.catch_up(stale);
    let then = conclude(task, now, &mut rows);
    let review = may_settle(task, &rows, &then, now);
    let (offers, degraded) = (Vec::new(), task.mark_degraded());
    TaskChange { task: task.id(), assumes, rows, offers, then, degraded, review }
}

/// Settles an attempt of a step that another worker offered.
///
/// `task` needs to know the rows of the step itself only; what follows for the task is the
/// owner's to decide. `None` if the attempt was settled already.
pub fn settle_offer(task: &Snapshot, report: Report) -> Option<TaskChange> {
    let begun = Begun::of_offered(task, report.step);
    Some(begun.record(row(task, report)?))
}

/// The row that an attempt adds to its step's log.
fn row(task: &Snapshot, report: Report) -> Option<Transition> {
    let Report { step, seq, ran_for, outcome, retry_after, spared } = report;
    let before = task.step(step);
    if seq != before.next_seq() || before.state().is_terminal() {
        return None;
    }
    let begun = Begun::of_own(task, step);
    Some(match outcome {
        Ok(result) => begun.success(ran_for, result),
        Err(failure) => {
            let next = match spared {
                true => AfterFailure::WaitForSystem,
                false => after_failure(task, step, &failure, retry_after),
            };
            let what = match begun.undoes {
                true => Occurrence::CompensationFailed { failure, next },
                false => Occurrence::Failed { failure, next },
            };
            Transition { step: Some(step), seq, attempt: begun.attempt, ran_for, what }
        }
    })
}

fn after_failure(
    task: &Snapshot,
    index: StepIndex,
    failure: &Failure,
    retry_after: Option<Duration>,
) -> AfterFailure {
    let (template, step) = (task.template().step(index), task.step(index));
    let made = step.counted() + 1;
    if failure.class.is_retryable() && made < task.retry_limit(index) {
        let seed = seed(task.id(), index, step.next_attempt());
        return AfterFailure::RetryIn(template.retry.backoff.delay(made, retry_after, seed));
    }
    match &template.on_failure {
        OnFailure::Fallback(_) if !step.fell_back() && !step.is_undoing() => AfterFailure::FallBack,
        OnFailure::Fallback(_) | OnFailure::Fail | OnFailure::Continue => AfterFailure::GiveUp,
    }
}

/// Spreads the retries of different tasks, steps and attempts, reproducibly.
fn seed(task: TaskId, step: StepIndex, attempt: u32) -> u64 {
    let (high, low) = task.as_uuid().as_u64_pair();
    high ^ low.rotate_left(17) ^ (u64::from(step.0) << 32) ^ u64::from(attempt)
}
