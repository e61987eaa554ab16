//! A reproducible source of choices, and of changes that a worker or an operator may want.

use std::time::Duration;

use jiff::Timestamp;

use super::HOURS;
use crate::history::{
    AfterFailure, Aspect, Failure, FailureClass, Occurrence, Operation, Transition,
};
use crate::store::{
    Assumption, Collection, Content, Document, DocumentChange, NewOffer, Route, StoredTask,
    TaskChange, Then,
};
use crate::{ActionKind, Json, StepIndex, TaskState};

/// An xorshift generator: no dependency, and the same choices everywhere.
pub(in crate::testing) struct Dice(u64);

impl Dice {
    pub(in crate::testing) const fn new(seed: u64) -> Self {
        // Spread over all bits; zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(in crate::testing) const fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % sides as u64) as usize
    }

    pub(in crate::testing) const fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(in crate::testing) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len().max(1))).copied()
    }

    /// A change of a task; what it assumes may be false, and its rows may exist.
    pub(super) fn change(&mut self, task: &StoredTask) -> TaskChange {
        let stale = u64::from(self.chance(15));
        let version = task.version.saturating_sub(stale);
        let step = self.step();
        let assumes = match self.below(6) {
            0 => Assumption::Unmoved { version },
            1 | 2 => Assumption::OfferHeld { step, seq: self.seq(task, Some(step)) },
            _ => Assumption::Owned { version },
        };
        let mut rows: Vec<Transition> = Vec::new();
        for _ in 0..self.below(3) {
            let row = self.row(task);
            if rows.iter().all(|other| (other.step, other.seq) != (row.step, row.seq)) {
                rows.push(row);
            }
        }
        if let Assumption::OfferHeld { step, seq } = assumes {
            rows = vec![Transition { step: Some(step), seq, ..self.row(task) }];
            return TaskChange {
                task: task.id,
                assumes,
                rows,
                offers: Vec::new(),
                then: Then::Keep,
                degraded: None,
                review: self.chance(20),
            };
        }
        let mut offers = Vec::new();
        if self.chance(40) {
            let seq = self.seq(task, Some(step));
            let route = Route::to_handler(&task.template, "charge");
            offers.push(NewOffer { step, seq, route, needs: vec![self.step()] });
        }
        let (then, review) = (self.then(task), self.chance(20));
        let degraded = self.chance(20).then(|| self.chance(50));
        TaskChange { task: task.id, assumes, rows, offers, then, degraded, review }
    }

    /// A change of a document; what it expects may be false.
    pub(super) fn document(&mut self, known: &[Document]) -> DocumentChange {
        let document = self.pick(&known.iter().collect::<Vec<_>>()).filter(|_| self.chance(70));
        let (collection, key, version) = match document {
            Some(it) => (it.collection, it.key.clone(), Some(it.version)),
            None => (Collection::ALL[self.below(4)], ["a", "b"][self.below(2)].to_owned(), None),
        };
        let expects = match self.below(6) {
            0 => None,
            1 => version.map(|version| version + 1),
            _ => version,
        };
        let due_in = [None, Some(Duration::ZERO), Some(HOURS)][self.below(3)];
        let (state, body) = (["set", "open"][self.below(2)].to_owned(), Json::null());
        let put = self.chance(80).then_some(Content { state, due_in, body });
        DocumentChange { collection, key, expects, put }
    }

    fn step(&mut self) -> StepIndex {
        StepIndex(self.below(3) as u32)
    }

    /// As a rule the next number of a log.
    fn seq(&mut self, task: &StoredTask, step: Option<StepIndex>) -> u32 {
        let rows = task.rows.iter().filter(|row| row.transition.step == step);
        let next = rows.map(|row| row.transition.seq).max().unwrap_or(0) + 1;
        if self.chance(15) { next.saturating_sub(1).max(1) } else { next }
    }

    fn row(&mut self, task: &StoredTask) -> Transition {
        let ran_for = Duration::from_micros(self.below(5_000_000) as u64);
        let text = "päckchen \"1\"\n".to_owned();
        let (own, what) = match self.below(10) {
            0 => (true, order(ActionKind::Cancel, text, None)),
            1 => (true, Occurrence::Quarantined { deliveries: 10 }),
            2 => {
                let failed_at = self.chance(50).then_some(Timestamp::UNIX_EPOCH);
                (true, order(ActionKind::Retry, text, failed_at))
            }
            3 => (false, Occurrence::Reopened),
            4..=6 => {
                let wait = Duration::from_millis(self.below(60_000) as u64);
                let next =
                    [AfterFailure::RetryIn(wait), AfterFailure::FallBack, AfterFailure::GiveUp];
                let next = next[self.below(3)];
                let class =
                    [FailureClass::Retryable, FailureClass::TimedOut, FailureClass::Permanent];
                let class = class[self.below(3)];
                let failure = Failure { class, code: "DECLINED".to_owned(), message: text };
                (false, Occurrence::Failed { failure, next })
            }
            _ => {
                let result = [Json::null(), Json::from_stored(r#"{"b":1.50,"a":[ ]}"#)];
                (false, Occurrence::Completed { result: result[self.below(2)].clone() })
            }
        };
        let step = (!own).then(|| self.step());
        let seq = self.seq(task, step);
        let settles = matches!(what, Occurrence::Completed { .. } | Occurrence::Failed { .. });
        let attempt = if settles { seq } else { 0 };
        let ran_for = if settles { ran_for } else { Duration::ZERO };
        Transition { step, seq, attempt, ran_for, what }
    }

    fn then(&mut self, task: &StoredTask) -> Then {
        match self.below(8) {
            0 => Then::Queue {
                state: [TaskState::InProgress, TaskState::Pending, TaskState::Compensating]
                    [self.below(6) / 2],
                wake_in: if self.chance(50) { Duration::ZERO } else { HOURS },
                route: match self.chance(80) {
                    true => Route::of(&task.template),
                    false => Route::to_handler(&task.template, "charge"),
                },
            },
            2 if self.chance(40) => Then::Hold { state: TaskState::Paused },
            1 => {
                let states = [
                    TaskState::Complete,
                    TaskState::Error,
                    TaskState::Cancelled,
                    TaskState::Compensated,
                    TaskState::ResolvedManually,
                ];
                Then::End { state: states[self.below(5)] }
            }
            _ => Then::Keep,
        }
    }
}

/// What an operator did for a reason.
fn order(action: ActionKind, reason: String, ended_at: Option<Timestamp>) -> Occurrence {
    let (before, after) = (Aspect::of(TaskState::Error), Aspect::of(TaskState::Pending));
    let operation = Operation { action, step: None, reason, key: None, ended_at, before, after };
    Occurrence::Operated(Box::new(operation))
}
