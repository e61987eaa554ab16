//! Whose turn it is to take the parked tasks of a system.
//!
//! Each worker claims on its own routes, so that one which finds none there says nothing about those
//! of another.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Place, Right, System, View};
use crate::breaker::Admission;

/// What a worker knows of the tasks that wait for a system; each takes those of its own routes.
#[derive(Debug, Default)]
pub(super) struct Taker {
    /// Tasks are known to wait, on its routes or on those of another.
    pub(super) backlogged: bool,
    /// It has been looking since the last one was parked.
    pub(super) looks: bool,
    /// Nobody was found to probe with, so that there is no looking before this.
    pub(super) nobody_until: Option<Instant>,
}

/// A worker's part in taking the parked tasks of a system, until it is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Turn {
    system: Arc<System>,
    taker: u64,
}

impl Taker {
    /// Whether it has not just looked in vain for somebody to probe with.
    pub(super) fn may_find(&self) -> bool {
        self.nobody_until.is_none_or(|at| at <= Instant::now())
    }
}

impl Turn {
    pub(in crate::engine) fn new(system: Arc<System>) -> Self {
        let mut view = system.view();
        let taker = view.takers.last_key_value().map_or(0, |(last, _)| last + 1);
        let backlogged = view.is_backlogged();
        view.takers.insert(taker, Taker { backlogged, ..Taker::default() });
        drop(view);
        Self { system, taker }
    }

    /// Whether the system's parked tasks are to be claimed by themselves, no more than there are
    /// places.
    pub(in crate::engine) fn is_set_apart(&self) -> bool {
        let view = self.system.view();
        let backlogged = view.takers.get(&self.taker).is_some_and(|taker| taker.backlogged);
        let limited = backlogged && !view.allowance.is_unlimited(self.system.slots());
        view.breaker.is_open() || limited
    }

    /// Places for parked tasks that are about to be claimed.
    pub(in crate::engine) fn take_places(&self, most: usize) -> Vec<Place> {
        let mut view = self.system.view();
        let now = view.clock.now();
        let rights: Vec<_> = match view.breaker.admission(now) {
            Admission::Go => {
                let slots = self.system.slots();
                let taken = (0..most).take_while(|_| view.allowance.take(slots));
                taken.map(|_| Right::Call).collect()
            }
            Admission::Probe if most > 0 && view.may_probe() && self.may_find(&view) => {
                view.begin_probing();
                vec![Right::Probe(None)]
            }
            Admission::Probe | Admission::Wait(_) => Vec::new(),
        };
        if let Some(taker) = view.takers.get_mut(&self.taker) {
            taker.looks = true;
        }
        drop(view);
        let system = || self.system.clone();
        rights.into_iter().map(|right| Place { system: system(), right }).collect()
    }

    /// A claim brought fewer tasks than there were places: no more wait for this worker, unless one
    /// was parked meanwhile.
    pub(in crate::engine) fn found_too_few(&self) {
        let mut view = self.system.view();
        let interval = view.allowance.policy().probe_interval;
        let nobody_until = view.breaker.is_open().then(|| Instant::now() + interval);
        if let Some(taker) = view.takers.get_mut(&self.taker).filter(|taker| taker.looks) {
            taker.backlogged = false;
            taker.nobody_until = nobody_until;
        }
    }

    /// How long until a parked task should be claimed to probe with.
    pub(in crate::engine) fn probe_in(&self) -> Option<Duration> {
        let view = self.system.view();
        let due = view.breaker.next_probe()?.duration_since(view.clock.now());
        let due = Duration::try_from(due).unwrap_or_default();
        let nobody_until = view.takers.get(&self.taker).and_then(|taker| taker.nobody_until);
        let not_before = [nobody_until, view.away_until, view.probing].into_iter().flatten().max();
        let wait = not_before.map(|at| at.saturating_duration_since(Instant::now()));
        Some(due.max(wait.unwrap_or_default()))
    }

    fn may_find(&self, view: &View) -> bool {
        view.takers.get(&self.taker).is_some_and(Taker::may_find)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.system.view().takers.remove(&self.taker);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use jiff::Timestamp;

    use super::super::{StoreClock, Systems};
    use super::*;
    use crate::MemoryStore;
    use crate::breaker::SystemPolicy;
    use crate::history::{Failure, FailureClass};

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_ends_is_followed_by_another() {
        let policy = SystemPolicy { minimum_calls: 1, ..SystemPolicy::default() };
        let systems = Systems::new(Arc::new(MemoryStore::new()), []);
        let turn = Turn::new(systems.get("bank"));
        let (code, message) = ("DOWN".to_owned(), String::new());
        let failure = Failure { class: FailureClass::Retryable, code, message };
        turn.system.view().clock = StoreClock::told(Timestamp::now());
        turn.system.write_failure(&*systems.store, &failure, &policy).await.unwrap();
        assert!(turn.take_places(1).is_empty());
        tokio::time::sleep(turn.probe_in().unwrap()).await;
        let blocked = turn.take_places(1);
        assert_eq!((blocked.len(), turn.take_places(1).len()), (1, 0));
        tokio::time::sleep(turn.probe_in().unwrap()).await;
        assert_eq!(turn.take_places(1).len(), 1);
    }
}
