//! A step of a snapshot, folded from its own log alone, and what the steps returned.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::history::{AfterFailure, Failure, Occurrence, Transition};
use crate::{Json, StepIndex, StepState};

/// A step as it stands.
#[derive(Clone, Debug)]
pub struct Step {
    /// How it shows: follows from its log, its neighbours and the task.
    pub(super) state: StepState,
    /// Whether the owner has taken it to run.
    pub(super) taken: bool,
    /// Whether what it did is to be undone, is being undone, or was.
    pub(super) undoing: bool,
    /// Parents that have not succeeded yet.
    pub(super) waiting_for: u32,
    log: Log,
}

/// What a step's own log says.
#[derive(Clone, Debug, Default)]
struct Log {
    /// Rows in it.
    seq: u32,
    outcome: Outcome,
    undone: Undone,
    forward: Tally,
    back: Tally,
    fell_back: bool,
    /// In place of the template's, if an operator changed it.
    limit: Option<u32>,
    /// Whether it may have had an effect that was not undone, whatever its outcome is now.
    touched: bool,
    /// How often what it did was undone.
    rounds: u32,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    #[default]
    Open,
    Complete,
    Failed,
    Resolved,
    Skipped,
}

/// What became of undoing a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Undone {
    #[default]
    No,
    Failed,
    Yes,
}

/// The attempts at a step, or at undoing it.
#[derive(Clone, Debug, Default)]
struct Tally {
    attempts: u32,
    /// Those of them that count against the limit.
    counted: u32,
    /// Not before this time, while it waits for a retry.
    ready_at: Option<Timestamp>,
    failure: Option<Failure>,
}

impl Tally {
    fn settle(&mut self, attempt: u32) {
        self.ready_at = None;
        if attempt > 0 {
            self.attempts = self.attempts.max(attempt);
            self.counted += 1;
        }
    }

    fn fail(&mut self, attempt: u32, failure: &Failure, next: AfterFailure, at: Timestamp) {
        self.settle(attempt);
        self.failure = Some(failure.clone());
        match next {
            AfterFailure::RetryIn(wait) => self.ready_at = at.checked_add(wait).ok(),
            AfterFailure::WaitForSystem => self.counted = self.counted.saturating_sub(1),
            AfterFailure::FallBack => self.counted = 0,
            AfterFailure::GiveUp => {}
        }
    }

    fn reopen(&mut self) {
        self.counted = 0;
        self.ready_at = None;
    }
}

impl Step {
    pub(super) fn new() -> Self {
        Self {
            state: StepState::Blocked,
            taken: false,
            undoing: false,
            waiting_for: 0,
            log: Log::default(),
        }
    }

    /// Folds one more row of its log into it.
    pub(super) fn fold(&mut self, row: &Transition, at: Timestamp) {
        let log = &mut self.log;
        log.seq = log.seq.max(row.seq);
        match &row.what {
            Occurrence::Completed { .. } => {
                log.forward.settle(row.attempt);
                log.forward.failure = None;
                log.outcome = Outcome::Complete;
                log.touched = true;
            }
            Occurrence::Failed { failure, next } => {
                log.forward.fail(row.attempt, failure, *next, at);
                log.touched = true;
                match next {
                    AfterFailure::FallBack => log.fell_back = true,
                    AfterFailure::GiveUp => log.outcome = Outcome::Failed,
                    AfterFailure::RetryIn(_) | AfterFailure::WaitForSystem => {}
                }
            }
            Occurrence::Resolved { .. } => {
                log.forward.ready_at = None;
                log.forward.failure = None;
                log.outcome = Outcome::Resolved;
                log.touched = true;
            }
            Occurrence::Skipped { begun } => {
                log.forward.ready_at = None;
                log.outcome = Outcome::Skipped;
                log.touched |= begun;
            }
            Occurrence::Reopened if log.undone == Undone::Failed => {
                log.undone = Undone::No;
                log.back.reopen();
            }
            Occurrence::Reopened => {
                // Only what had begun is reopened, and what was undone has no effect any more.
                log.touched = log.undone == Undone::No;
                log.undone = Undone::No;
                log.outcome = Outcome::Open;
                log.fell_back = false;
                log.forward.reopen();
                log.back.reopen();
            }
            Occurrence::Compensated => {
                log.back.settle(row.attempt);
                log.back.failure = None;
                log.undone = Undone::Yes;
                log.rounds += 1;
            }
            Occurrence::CompensationFailed { failure, next } => {
                log.back.fail(row.attempt, failure, *next, at);
                if *next == AfterFailure::GiveUp {
                    log.undone = Undone::Failed;
                }
            }
            Occurrence::LimitChanged { limit } => log.limit = Some(*limit),
            Occurrence::Operated(_)
            | Occurrence::CompensationBegun
            | Occurrence::WorkerLost { .. }
            | Occurrence::Quarantined { .. } => {}
        }
    }

    const fn tally(&self) -> &Tally {
        if self.undoing { &self.log.back } else { &self.log.forward }
    }

    /// Where it stands.
    pub const fn state(&self) -> StepState {
        self.state
    }

    /// Whether it is to be undone, or was: all that is said of attempts is then about those.
    pub const fn is_undoing(&self) -> bool {
        self.undoing
    }

    /// Whether the owner has taken it to run.
    pub const fn is_taken(&self) -> bool {
        self.taken
    }

    /// The number of the attempt that comes next, or runs.
    pub const fn next_attempt(&self) -> u32 {
        self.tally().attempts + 1
    }

    /// The number of the row that will settle it next.
    pub const fn next_seq(&self) -> u32 {
        self.log.seq + 1
    }

    /// How many attempts count against the limit.
    pub const fn counted(&self) -> u32 {
        self.tally().counted
    }

    /// While it waits for a retry: when that may start.
    pub const fn ready_at(&self) -> Option<Timestamp> {
        self.tally().ready_at
    }

    /// How its latest failed attempt failed.
    pub const fn failure(&self) -> Option<&Failure> {
        self.tally().failure.as_ref()
    }

    /// Whether the fallback handler is the one to run.
    pub const fn fell_back(&self) -> bool {
        self.log.fell_back
    }

    /// How many attempts at the step itself have ended, those that count, and how the latest one
    /// failed if it did: whatever is being undone.
    pub const fn forward(&self) -> (u32, u32, Option<&Failure>) {
        let Tally { attempts, counted, failure, .. } = &self.log.forward;
        (*attempts, *counted, failure.as_ref())
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        self.log.outcome
    }

    pub(crate) const fn undone(&self) -> Undone {
        self.log.undone
    }

    pub(crate) const fn limit(&self) -> Option<u32> {
        self.log.limit
    }

    /// Whether rows say that it has begun and was not undone since.
    pub(crate) const fn is_touched(&self) -> bool {
        self.log.touched
    }

    /// Whether it has begun as far as is on record, or may have since nothing holds it up.
    pub(crate) fn may_have_begun(&self) -> bool {
        self.log.outcome != Outcome::Open || self.log.touched || self.waiting_for == 0
    }

    pub(super) const fn rounds(&self) -> u32 {
        self.log.rounds
    }
}

/// What the steps of a task returned, each set once.
///
/// Starting a step costs the same whatever it rests on: its attempt shares the results of the task
/// and looks up what it asks for.
#[derive(Debug)]
pub(crate) struct Results(pub(super) Arc<[OnceLock<Json>]>);

impl Results {
    pub(super) fn none(steps: usize) -> Self {
        Self((0..steps).map(|_| OnceLock::new()).collect())
    }

    pub(crate) fn get(&self, step: StepIndex) -> Option<&Json> {
        self.0[step.get()].get()
    }

    pub(super) fn set(&self, step: StepIndex, result: Json) {
        // A step completes once; its row is unique.
        let _ = self.0[step.get()].set(result);
    }

    /// Forgets a result; attempts that share the results keep it.
    pub(super) fn clear(&mut self, step: StepIndex) {
        if self.get(step).is_none() {
            return;
        }
        if Arc::get_mut(&mut self.0).is_none() {
            *self = self.clone();
        }
        let own = Arc::get_mut(&mut self.0).and_then(|results| results.get_mut(step.get()));
        own.and_then(OnceLock::take);
    }
}

impl Clone for Results {
    /// A copy that later results of the original do not appear in.
    fn clone(&self) -> Self {
        Self(self.0.iter().cloned().collect())
    }
}
