//! A step of a snapshot, and what the steps returned.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::history::Failure;
use crate::{Json, StepIndex, StepState};

/// A step as it stands.
#[derive(Clone, Debug)]
pub struct Step {
    pub(crate) state: StepState,
    /// Rows in its log.
    pub(crate) seq: u32,
    /// Attempts settled so far.
    pub(crate) attempts: u32,
    /// Those of them that count against the limit.
    pub(crate) counted: u32,
    /// Not before this time, while it waits for a retry.
    pub(crate) ready_at: Option<Timestamp>,
    /// Whether its fallback handler has taken over.
    pub(crate) fell_back: bool,
    pub(crate) failure: Option<Failure>,
    /// Parents that have not succeeded yet.
    pub(super) waiting_for: u32,
}

impl Step {
    /// Where it stands.
    pub const fn state(&self) -> StepState {
        self.state
    }

    /// The number of the attempt that comes next, or runs.
    pub const fn next_attempt(&self) -> u32 {
        self.attempts + 1
    }

    /// The number of the row that will settle it next.
    pub const fn next_seq(&self) -> u32 {
        self.seq + 1
    }

    /// How many attempts count against the limit.
    pub const fn counted(&self) -> u32 {
        self.counted
    }

    /// While it waits for a retry: when that may start.
    pub const fn ready_at(&self) -> Option<Timestamp> {
        self.ready_at
    }

    /// How its latest failed attempt failed.
    pub const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Whether the fallback handler is the one to run.
    pub const fn fell_back(&self) -> bool {
        self.fell_back
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
}

impl Clone for Results {
    /// A copy that later results of the original do not appear in.
    fn clone(&self) -> Self {
        Self(self.0.iter().cloned().collect())
    }
}
