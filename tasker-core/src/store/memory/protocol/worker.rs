//! What a worker of the model remembers: an owner of tasks without its loops.
//!
//! It follows `engine::owner` and `engine::settle` step by step; whatever it decides, it asks
//! `decide`.

use std::hash::{Hash, Hasher};

use jiff::Timestamp;

use crate::decide::{self, Report};
use crate::history::{Failure, FailureClass, Recorded};
use crate::snapshot::Snapshot;
use crate::store::{Applied, News, StoredTask, TaskChange};
use crate::{Json, StepIndex, WorkerId};

/// A step and the row of its log that settling it writes.
pub(super) type Attempt = (StepIndex, u32);

/// One incarnation of a worker.
#[derive(Clone, Hash)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) held: Option<Held>,
    /// Offered steps that it has claimed.
    pub(super) borrowed: Vec<Borrowed>,
    /// The commit that it waits for.
    pub(super) commit: Option<Transaction>,
    /// Whether the answer to its last claim was lost.
    pub(super) recover: bool,
}

/// The task, as its owner holds it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) snapshot: Snapshot,
    /// Taken, and waiting for a slot.
    pub(super) queue: Vec<StepIndex>,
    pub(super) running: Vec<Attempt>,
    /// Offered to others.
    pub(super) theirs: Vec<Attempt>,
    pub(super) ended: Vec<(Attempt, bool)>,
    pub(super) arrived: Vec<Recorded>,
    pub(super) offers: Vec<StepIndex>,
    /// Steps whose success may yet turn up on record.
    pub(super) in_doubt: Vec<StepIndex>,
    /// Whether it is to be decided on.
    pub(super) pending: bool,
    /// Whether it is to be read again.
    pub(super) stale: bool,
}

/// A step of another owner's task.
#[derive(Clone)]
pub(super) struct Borrowed {
    pub(super) snapshot: Snapshot,
    pub(super) attempt: Attempt,
    pub(super) progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    Queued,
    Running,
    Ended { succeeded: bool },
}

/// A commit in the database.
#[derive(Clone, Hash)]
pub(super) struct Transaction {
    pub(super) author: WorkerId,
    pub(super) change: TaskChange,
    pub(super) stage: Stage,
}

#[derive(Clone, Hash)]
pub(super) enum Stage {
    /// The lease was checked, and what a change assumes that does not touch it.
    Begun { admitted: bool, holds: bool },
    /// It has taken effect or was refused; the answer is on its way.
    Done(Answer),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Applied,
    Conflict,
    LeaseLost,
}

impl From<Applied> for Answer {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Yes => Self::Applied,
            Applied::Conflict => Self::Conflict,
        }
    }
}

impl Worker {
    pub(super) fn new(id: WorkerId) -> Self {
        Self { id, held: None, borrowed: Vec::new(), commit: None, recover: false }
    }

    pub(super) fn hear(&mut self, news: News) {
        let Some(held) = &mut self.held else { return };
        match news {
            News::Settled { row, .. } => {
                let attempt = row.transition.step.map(|step| (step, row.transition.seq));
                held.theirs.retain(|theirs| Some(*theirs) != attempt);
                held.running.retain(|running| Some(*running) != attempt);
                held.arrived.push(row);
                held.pending = true;
            }
            News::Revoked { .. } => held.stale = true,
        }
    }
}

impl Held {
    pub(super) fn new(stored: &StoredTask, now: Timestamp) -> Self {
        let mut held = Self {
            snapshot: Snapshot::replay(stored),
            queue: Vec::new(),
            running: Vec::new(),
            theirs: Vec::new(),
            ended: Vec::new(),
            arrived: Vec::new(),
            offers: Vec::new(),
            in_doubt: Vec::new(),
            pending: false,
            stale: false,
        };
        if decide::may_run(&held.snapshot, now) {
            held.take_runnable(now);
        } else {
            held.pending = true;
        }
        held
    }

    pub(super) fn take_runnable(&mut self, now: Timestamp) {
        self.queue.extend(self.snapshot.take_runnable(now));
    }

    pub(super) fn decide(&mut self, now: Timestamp) -> TaskChange {
        self.pending = false;
        let ended = std::mem::take(&mut self.ended);
        let reports = ended.into_iter().map(|(attempt, ok)| report(attempt, ok)).collect();
        let arrived = std::mem::take(&mut self.arrived);
        let mut change = decide::settle(&mut self.snapshot, reports, &arrived, now);
        change.offers = decide::offers(&self.snapshot, &std::mem::take(&mut self.offers));
        change
    }

    /// Goes on from what is stored; what runs, runs on.
    pub(super) fn reload(&mut self, stored: &StoredTask) {
        let mut snapshot = Snapshot::replay(stored);
        self.arrived.clear();
        let mut wanted = |attempt: &Attempt| {
            let wanted = snapshot.step(attempt.0).next_seq() == attempt.1;
            if wanted {
                snapshot.take(attempt.0);
            }
            wanted
        };
        self.running.retain(&mut wanted);
        self.theirs.retain(wanted);
        self.offers.retain(|step| self.theirs.iter().any(|theirs| theirs.0 == *step));
        self.snapshot = snapshot;
        self.queue.clear();
        self.stale = false;
        self.pending = true;
    }
}

pub(super) fn report((step, seq): Attempt, succeeded: bool) -> Report {
    let failed = || {
        let (code, message) = (String::new(), String::new());
        Failure { class: FailureClass::Retryable, code, message }
    };
    let outcome = if succeeded { Ok(Json::null()) } else { Err(failed()) };
    Report {
        step,
        seq,
        ran_for: std::time::Duration::ZERO,
        outcome,
        retry_after: None,
        spared: false,
    }
}

fn hash_snapshot<H: Hasher>(snapshot: &Snapshot, hasher: &mut H) {
    (snapshot.version(), snapshot.state(), snapshot.lost(), snapshot.degraded()).hash(hasher);
    for step in snapshot.steps() {
        (step.state(), step.next_seq(), step.counted(), step.ready_at()).hash(hasher);
    }
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hash_snapshot(&self.snapshot, hasher);
        (&self.queue, &self.running, &self.theirs, &self.ended).hash(hasher);
        (&self.arrived, &self.offers, &self.in_doubt, self.pending, self.stale).hash(hasher);
    }
}

impl Hash for Borrowed {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hash_snapshot(&self.snapshot, hasher);
        (self.attempt, self.progress).hash(hasher);
    }
}
