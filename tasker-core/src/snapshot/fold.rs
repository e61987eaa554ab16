//! A task's rows, folded: each log by itself, then what follows from them together.

use jiff::Timestamp;

use super::{Outcome, Phase, Snapshot, Undone};
use crate::TaskState;
use crate::history::{Occurrence, Operation, Transition};
use crate::store::StoredTask;

impl Snapshot {
    /// The task that a store read back: its graph folded with its history.
    pub fn replay(stored: &StoredTask) -> Self {
        let template = stored.template.clone();
        let mut task = Self::blank(stored.id, template, stored.context.clone(), stored.version);
        task.state = stored.state;
        task.created_at = stored.created_at;
        task.marked_degraded = stored.degraded;
        task.ended_at = stored.ended_at;
        task.wake_at = stored.wake_at;
        for row in &stored.rows {
            task.fold(&row.transition, row.at);
        }
        // The logs are independent of each other but for this: a loss counts as long as nothing
        // was recorded after it.
        let losses = |what: &Occurrence| matches!(what, Occurrence::WorkerLost { .. });
        let settled = stored.rows.iter().filter(|row| !losses(&row.transition.what));
        let settled = settled.map(|row| row.at).max();
        let lost = stored.rows.iter().filter(|row| losses(&row.transition.what));
        task.lost = lost.filter(|row| settled.is_none_or(|at| row.at > at)).count() as u32;
        task.derive();
        task
    }

    /// Folds one more row into the task.
    pub(crate) fn apply(&mut self, row: &Transition, at: Timestamp) {
        let mut stale = false;
        self.note(row, at, &mut stale);
        self.catch_up(stale);
    }

    /// Folds one of several rows into the task, after which it may be stale until it
    /// [catches up](Self::catch_up): to work out anew what follows from all logs costs as much as
    /// the task is large, so it is done once for all of them.
    pub(crate) fn note(&mut self, row: &Transition, at: Timestamp, stale: &mut bool) {
        let Some(index) = row.step else {
            self.fold(row, at);
            // A lost worker changes nothing about a step, and is the only row that is not rare.
            return match row.what {
                Occurrence::WorkerLost { .. } => self.lost += 1,
                _ => *stale = true,
            };
        };
        // A damaged history must not take down who reads it.
        let Some(step) = self.steps.get(index.get()) else { return };
        let runs = step.outcome() == Outcome::Open && step.waiting_for == 0;
        let undoes = step.undoing && step.undone() == Undone::No && step.waits_below == 0;
        self.lost = 0;
        self.fold(row, at);
        let moves = self.state != TaskState::Cancelled && !*stale;
        match (self.phase, &row.what) {
            (Phase::Forward, Occurrence::Completed { .. } | Occurrence::Failed { .. })
                if runs && moves =>
            {
                self.follow(index);
            }
            (
                Phase::Compensating,
                Occurrence::Compensated | Occurrence::CompensationFailed { .. },
            ) if undoes && moves => self.follow_undoing(index),
            _ => {
                self.untake(index);
                *stale = true;
            }
        }
    }

    /// Works out what follows from rows that were noted.
    pub(crate) fn catch_up(&mut self, stale: bool) {
        if stale {
            self.derive();
        }
    }

    /// Folds one more row into the log that it belongs to, and no further.
    fn fold(&mut self, row: &Transition, at: Timestamp) {
        let Some(index) = row.step else {
            self.seq = self.seq.max(row.seq);
            match &row.what {
                Occurrence::Operated(operation) => self.fold_operation(operation),
                Occurrence::CompensationBegun => {
                    self.phase = Phase::Compensating;
                    self.lost = 0;
                }
                _ => {}
            }
            return;
        };
        let Some(step) = self.steps.get_mut(index.get()) else { return };
        step.fold(row, at);
        match &row.what {
            Occurrence::Completed { result } | Occurrence::Resolved { result } => {
                self.results.set(index, result.clone());
            }
            // What is undone anew keeps its result; what runs again loses it.
            Occurrence::Reopened if step.outcome() == Outcome::Open => self.results.clear(index),
            Occurrence::Compensated => self.rounds += 1,
            _ => {}
        }
    }

    fn fold_operation(&mut self, operation: &Operation) {
        let Operation { before, after, key, .. } = operation;
        self.lost = 0;
        self.turn(after.state);
        if let Some(context) = &after.context {
            self.context = context.clone();
        }
        if after.state != TaskState::Paused {
            self.held_until = None;
        } else if before.state != TaskState::Paused {
            self.held_until = before.wake_at;
        }
        self.orders.extend(key.clone());
    }
}
