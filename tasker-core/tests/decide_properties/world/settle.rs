//! What is decided once attempts have ended, and whether it had to be.

use std::time::Duration;

use tasker_core::decide::{self, Report};
use tasker_core::history::{Occurrence, Recorded};
use tasker_core::store::{TaskChange, Then};
use tasker_core::{StepIndex, TaskState};

use super::World;
use crate::oracle::{self, Event};

impl World {
    pub(super) fn settle(&mut self, reports: Vec<Report>, arrived: &[Recorded]) {
        let view = self.view();
        let Some(owner) = &mut self.owner else { return };
        let before = owner.task.clone();
        let owner_is_idle = !owner.is_busy();
        let change = decide::settle(&mut owner.task, reports, arrived, self.stored.now);
        if change.rows.iter().any(|row| matches!(row.what, Occurrence::Quarantined { .. })) {
            self.events.push(Event::Quarantined);
        }
        if change.rows.iter().any(|row| matches!(row.what, Occurrence::CompensationBegun)) {
            assert!(view.failed && view.undoable && !view.undoing, "{view:?}");
            assert!(owner_is_idle, "attempts in flight finish first");
            self.events.push(Event::UndoingBegun);
        }
        self.note_moves(Some(before));
        self.apply(change);
    }

    /// Stores what was decided, after a look at whether it had to be.
    pub(super) fn apply(&mut self, change: TaskChange) {
        let (view, now) = (self.view(), self.stored.now);
        let quarantined = matches!(self.events.last(), Some(Event::Quarantined));
        let begins = matches!(self.events.last(), Some(Event::UndoingBegun));
        let rows: Vec<_> = change.rows.into_iter().map(|row| self.recorded(row)).collect();
        self.record(&rows);
        self.stored.degraded = change.degraded.unwrap_or(self.stored.degraded);
        assert_eq!(self.stored.degraded, view.degraded, "{view:?}");
        let Some(owner) = &self.owner else { return };
        let busy = owner.is_busy();
        let parked = |step: usize| owner.parked.contains(&StepIndex(step as u32));
        match change.then {
            Then::Keep => {
                let due = |(step, seen): (usize, &oracle::StepView)| {
                    seen.ready && seen.ready_at.is_none_or(|at| at <= now) && !parked(step)
                };
                let can_go_on = !view.failed && view.steps.iter().enumerate().any(due);
                assert!(busy || can_go_on, "nothing would ever happen: {view:?}");
            }
            Then::Hold { .. } => panic!("no operator asked for it"),
            Then::Queue { state, wake_in, .. } if begins => {
                assert_eq!((state, wake_in), (TaskState::Compensating, Duration::ZERO));
                self.move_task(state);
                self.queue(wake_in);
            }
            Then::Queue { state, wake_in, route } => {
                assert_eq!(state, self.state());
                assert!(!busy && !view.failed && !view.ended, "{view:?}");
                let ready = view.steps.iter().enumerate().filter(|(_, seen)| seen.ready);
                let waiting = ready.filter(|(step, _)| !parked(*step));
                match waiting.map(|(_, seen)| seen.ready_at.unwrap()).min() {
                    Some(first) => {
                        assert_eq!(now + wake_in, first, "it wakes when the first step is due");
                    }
                    None => {
                        assert!(!owner.parked.is_empty(), "nothing would ever happen: {view:?}");
                        assert!(wake_in.is_zero() && route.waits_for().is_some());
                    }
                }
                self.queue(wake_in);
            }
            Then::End { state } => {
                let expected = match view.undoing {
                    _ if view.failed || quarantined => TaskState::Error,
                    true => TaskState::Compensated,
                    false => TaskState::Complete,
                };
                assert_eq!(state, expected, "{view:?}");
                let undone = !view.failed || view.undoing || !view.undoable || quarantined;
                assert!(undone, "it should have been compensated: {view:?}");
                assert!(state == TaskState::Error || view.ended, "{view:?}");
                assert!(!busy, "attempts in flight finish first");
                self.end_task(state);
            }
        }
    }

    pub(super) fn end_task(&mut self, state: TaskState) {
        let ended_so = self.stored.ended_at.filter(|_| self.state() == state);
        self.move_task(state);
        self.stored.ended_at = Some(ended_so.unwrap_or(self.stored.now));
        self.stored.wake_at = None;
        self.stored.version += 1;
        self.owner = None;
    }
}
