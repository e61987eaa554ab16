//! How many calls a process makes to one system at once.
//!
//! A system that has just come back must not get all at once what has been waiting for it, and
//! nobody can say beforehand how much it bears. So the calls start few, become one more with every
//! success, which doubles them with every round trip, and half as many with a failure.

use tokio::time::Instant;

use crate::breaker::SystemPolicy;

#[derive(Debug)]
pub(super) struct Allowance {
    policy: SystemPolicy,
    most: usize,
    in_flight: usize,
    last_call: Instant,
}

impl Allowance {
    pub(super) fn new(policy: &SystemPolicy) -> Self {
        let most = first(policy);
        Self { policy: policy.clone(), most, in_flight: 0, last_call: Instant::now() }
    }

    pub(super) const fn policy(&self) -> &SystemPolicy {
        &self.policy
    }

    /// The step that is about to call says what holds.
    pub(super) fn follow(&mut self, policy: &SystemPolicy) {
        if self.policy != *policy {
            self.policy = policy.clone();
            if self.in_flight == 0 {
                self.start_anew();
            }
        }
    }

    /// Takes a place, if there is one.
    pub(super) fn take(&mut self, slots: usize) -> bool {
        // What it bore long ago says little.
        if self.in_flight == 0 && self.last_call.elapsed() >= self.policy.window {
            self.start_anew();
        }
        let free = self.has_free() || self.is_unlimited(slots);
        if free {
            self.in_flight += 1;
            self.last_call = Instant::now();
        }
        free
    }

    pub(super) fn give_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    #[cfg(feature = "testing")]
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) const fn has_free(&self) -> bool {
        self.in_flight < self.most
    }

    /// A call succeeded; with `wanted` there would have been more to call.
    pub(super) fn succeeded(&mut self, wanted: bool) {
        self.last_call = Instant::now();
        // Who makes one call at a time has not shown that the system bears a hundred.
        if wanted || 2 * self.in_flight >= self.most {
            self.most = self.most.saturating_add(1);
        }
    }

    pub(super) fn failed(&mut self) {
        self.last_call = Instant::now();
        self.most = (self.most / 2).max(1);
    }

    pub(super) fn start_anew(&mut self) {
        self.most = first(&self.policy);
    }

    pub(super) const fn is_unlimited(&self, slots: usize) -> bool {
        self.most >= slots
    }
}

fn first(policy: &SystemPolicy) -> usize {
    (policy.initial_calls as usize).max(1)
}
