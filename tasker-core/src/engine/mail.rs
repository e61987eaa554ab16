//! What the loops of a worker tell its owners.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Incarnation;
use super::attempt::Ended;
use super::systems::Place;
use crate::snapshot::Snapshot;
use crate::store::{News, OfferedStep, RunningStep};
use crate::{StepIndex, TaskId};

/// What an owner is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A task is yours.
    Own {
        incarnation: Arc<Incarnation>,
        task: Box<Snapshot>,
        clock: StoreClock,
        place: Option<Place>,
    },
    /// A step of somebody else's task is yours to run.
    Offer { incarnation: Arc<Incarnation>, offer: Box<OfferedStep>, clock: StoreClock },
    /// Another process did something to a task of yours.
    News(News),
    /// An attempt has ended.
    Ended { task: TaskId, step: StepIndex, run: u64, ran_for: Duration, ended: Ended },
    /// News may have been lost: read again whatever you share with others.
    Reload,
    /// Which tasks do you hold?
    List { answer: oneshot::Sender<Vec<TaskId>> },
    /// Which steps have been running for long?
    Inspect { longer_than: Duration, answer: oneshot::Sender<Vec<RunningStep>> },
}

/// The store's clock, carried on by this process's own since it was last told.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreClock {
    told: Timestamp,
    at: Instant,
}

impl StoreClock {
    /// A clock that was told this moment.
    pub(super) fn told(now: Timestamp) -> Self {
        Self { told: now, at: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.told.checked_add(self.at.elapsed()).unwrap_or(self.told)
    }
}
