//! The task as stored, and as its owner has it, against the oracle.

use tasker_core::decide;
use tasker_core::history::Recorded;
use tasker_core::snapshot::Snapshot;
use tasker_core::store::StoredTask;
use tasker_core::{StepCause, StepIndex, StepState, TaskCause, TaskState, Why, WorkerId};

use super::World;
use crate::oracle::{Event, View};

impl World {
    /// Holds what is stored, in several orders, and what the owner made of it step by step against
    /// the oracle.
    pub(super) fn compare(&self) {
        let view = self.view();
        let replayed = Snapshot::replay(&self.stored);
        self.compare_with(&view, &replayed, &[], &[]);
        self.explain(&replayed);
        let turn = self.stored.now.as_millisecond() % 3;
        self.compare_with(&view, &Snapshot::replay(&self.reordered(turn)), &[], &[]);
        if let Some(owner) = &self.owner {
            let taken = [&owner.queue[..], &owner.running[..]].concat();
            self.compare_with(&view, &owner.task, &taken, &owner.parked);
            for (one, other) in owner.task.steps().iter().zip(replayed.steps()) {
                assert_eq!(one.failure(), other.failure());
                assert_eq!(one.next_seq(), other.next_seq());
            }
            assert_eq!(owner.task.version(), replayed.version());
        }
        if self.state().is_terminal() {
            assert_eq!(self.stored.degraded, view.degraded);
        }
    }

    /// Whatever is not complete has a reason, and so has each of its steps that has not ended.
    fn explain(&self, task: &Snapshot) {
        let owner = self.owner.as_ref().map(|_| WorkerId::new());
        let why = Why::of(&StoredTask { owner, ..self.stored.clone() });
        let is_well = matches!(
            self.state(),
            TaskState::Complete | TaskState::Compensated | TaskState::ResolvedManually
        );
        assert_eq!(why.is_none(), is_well, "{:?}", self.stored);
        let Some(why) = why else { return };
        for (step, template) in task.steps().iter().zip(task.template().steps()) {
            let found = why.steps.iter().find(|it| it.step == template.name);
            assert!(found.is_some() || step.state().is_terminal(), "{}: {why:?}", template.name);
            match found.map(|it| &it.cause) {
                Some(StepCause::Blocked { waits_for }) => {
                    assert_eq!(step.state(), StepState::Blocked);
                    assert!(!waits_for.is_empty(), "{}: {why:?}", template.name);
                }
                Some(StepCause::UndoneLater { waits_for }) => {
                    assert_eq!(step.state(), StepState::Compensating);
                    assert!(!waits_for.is_empty(), "{}: {why:?}", template.name);
                }
                _ => {}
            }
        }
        let undoing = self.state() == TaskState::Compensating;
        let cause = match &why.cause {
            TaskCause::Compensating { now, .. } => {
                assert!(undoing, "{why:?}");
                &**now
            }
            cause => {
                assert!(!undoing, "{why:?}");
                cause
            }
        };
        let queued = self.owner.is_none() && (undoing || self.state() == TaskState::InProgress);
        let waits = matches!(cause, TaskCause::WaitsForRetry { .. });
        assert_eq!(waits, queued && self.stored.wake_at > Some(self.stored.now), "{why:?}");
        let names_worker = matches!(cause, TaskCause::Owned { .. } | TaskCause::Failing { .. });
        assert_eq!(owner.is_some(), names_worker, "{why:?}");
        assert_eq!(self.state() == TaskState::Paused, matches!(cause, TaskCause::Paused { .. }));
    }

    fn compare_with(
        &self,
        view: &View,
        task: &Snapshot,
        taken: &[StepIndex],
        parked: &[StepIndex],
    ) {
        assert_eq!(task.has_failed(), view.failed);
        assert_eq!(task.degraded(), view.degraded);
        assert_eq!(task.state(), self.state());
        for (index, (step, expected)) in (0u32..).zip(task.steps().iter().zip(&view.steps)) {
            let index = StepIndex(index);
            let state = match expected.state {
                StepState::Ready if taken.contains(&index) => StepState::InProgress,
                state => state,
            };
            assert_eq!(step.state(), state, "step {index:?}");
            assert_eq!(step.next_attempt() - 1, expected.attempts, "step {index:?}");
            assert_eq!(step.counted(), expected.counted, "step {index:?}");
            assert_eq!(task.retry_limit(index), expected.limit, "step {index:?}");
            let most = self.most_attempts(index.get());
            assert!(step.counted() <= most, "step {index:?}");
            assert_eq!(step.fell_back(), expected.fell_back, "step {index:?}");
            assert_eq!(step.ready_at(), expected.ready_at, "step {index:?}");
            assert_eq!(task.result(index).is_some(), expected.has_result, "step {index:?}");
        }
        let held = [taken, parked].concat();
        let waits = (0u32..)
            .zip(&view.steps)
            .filter(|(index, seen)| seen.ready && !held.contains(&StepIndex(*index)));
        // Nothing more begins in a task that has failed or ended.
        let begins = !self.state().is_terminal() && !view.failed;
        let next_due = waits.filter_map(|(_, seen)| seen.ready_at).min().filter(|_| begins);
        assert_eq!(task.next_due(), next_due);
        let runs = !held.is_empty();
        let now = self.stored.now;
        let due =
            view.steps.iter().any(|seen| seen.ready && seen.ready_at.is_none_or(|at| at <= now));
        let lives = !self.state().is_terminal() && !view.failed;
        let may_run = lives && due && view.lost < decide::MAX_DELIVERIES as usize;
        assert!(runs || decide::may_run(task, now) == may_run, "{view:?}");
    }

    /// The highest limit that the step ever had.
    fn most_attempts(&self, index: usize) -> u32 {
        let limits = self.events.iter().filter_map(|event| match event {
            Event::Limited { step, limit } if *step == index => Some(*limit),
            _ => None,
        });
        limits.chain([self.rules[index].limit]).max().unwrap()
    }

    /// The same history, each log in its order but the logs one after the other in another.
    fn reordered(&self, turn: i64) -> StoredTask {
        let mut stored = self.stored.clone();
        let mix = |row: &Recorded| {
            let log = row.transition.step.map_or(0, |step| step.0 + 1);
            match turn {
                0 => u32::MAX - log,
                1 => log,
                _ => log.wrapping_mul(0x9e37_79b9).rotate_left(7),
            }
        };
        stored.rows.sort_by_key(mix);
        stored
    }
}
