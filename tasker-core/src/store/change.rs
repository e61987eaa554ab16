//! What `decide` concludes about a task, in the form in which a store applies it.

use std::time::Duration;

use jiff::Timestamp;

#[cfg(doc)]
use super::News;
use super::Route;
use crate::history::Transition;
use crate::{StepIndex, TaskId, TaskState};

/// What `decide` concluded about one task, and what it assumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskChange {
    /// The task.
    pub task: TaskId,
    /// What must be true for the change to be applied.
    pub assumes: Assumption,
    /// Rows to add; each must be new.
    pub rows: Vec<Transition>,
    /// Steps to offer to other workers. Where the change lets the task go they are withdrawn at
    /// once, and say no more than that none of the rows that they are for may exist.
    pub offers: Vec<NewOffer>,
    /// What becomes of the task.
    pub then: Then,
    /// Whether the task goes on, or has ended, without something that was asked of it: a step that
    /// failed, was skipped, or was done in another way. `None`: as before.
    pub degraded: Option<bool>,
    /// Whether something that was raised for the task may be over with this, so that a
    /// [notice](Self::documents) is to be written.
    pub review: bool,
}

impl TaskChange {
    /// Whether it changes nothing, so that nobody needs to write it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.offers.is_empty()
            && self.then == Then::Keep
            && self.degraded.is_none()
    }

    /// Whether it makes, settles or withdraws offers, so that a store has to know those that stand.
    pub fn concerns_offers(&self) -> bool {
        let by_holder = matches!(self.assumes, Assumption::OfferHeld { .. });
        by_holder || !self.offers.is_empty() || self.then != Then::Keep
    }
}

/// What must be true for a change to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assumption {
    /// The author owns the task at this version.
    Owned {
        /// The version.
        version: u64,
    },
    /// The author holds the offer of this step for this row.
    OfferHeld {
        /// The step.
        step: StepIndex,
        /// The row.
        seq: u32,
    },
    /// Nobody has claimed, released, finished or operated on the task since it was read.
    Unmoved {
        /// The version.
        version: u64,
    },
}

/// What becomes of a task with a change.
///
/// All but `Keep` make the version one higher, take the task from its owner (who is told by
/// [`News::Revoked`] unless it is the author) and withdraw its offers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// It stays with its owner.
    Keep,
    /// It is queued and may be claimed after a while.
    Queue {
        /// Its state from now on.
        state: TaskState,
        /// How long until it may be claimed.
        wake_in: Duration,
        /// Who may claim it.
        route: Route,
    },
    /// It waits for a person: it is in no queue and has not ended.
    Hold {
        /// Its state from now on.
        state: TaskState,
    },
    /// It has ended: it is in no queue any more. One that had ended in this very state keeps the
    /// time at which it did.
    End {
        /// Its state from now on.
        state: TaskState,
    },
}

/// What became of the changes of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The author's lease is gone; nothing was applied.
    LeaseLost,
    /// Each change was applied or left out, in the order in which they were given.
    Changes {
        /// The store's clock.
        now: Timestamp,
        /// One for each change.
        applied: Vec<Applied>,
    },
}

/// What became of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is durable.
    Yes,
    /// What it assumed was false; nothing of it was written. Reload, decide again.
    Conflict,
}

/// A step that its task's owner offers to other workers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewOffer {
    /// The step.
    pub step: StepIndex,
    /// The row of the step's log that settling it will write.
    pub seq: u32,
    /// Who may run it.
    pub route: Route,
    /// The steps whose rows the handler may want to read.
    pub needs: Vec<StepIndex>,
}
