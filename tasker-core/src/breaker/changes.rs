//! How a breaker changes: with calls that ended, with probes, by operators.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Admission, Breaker, BreakerState, Call, Cause, ManualChange, Open, Probe, SystemPolicy,
};
use crate::WorkerId;
use crate::history::Failure;

/// How many manual changes are kept.
const KEPT_CHANGES: usize = 20;

/// A time so much later, or the last there is.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Breaker {
    /// Adds calls that ended, of which `last` is the last that failed; true if it opens.
    ///
    /// An open breaker does not change: what was under way when it opened says nothing new.
    pub fn merge(
        &mut self,
        calls: &[Call],
        last: &Failure,
        policy: &SystemPolicy,
        now: Timestamp,
    ) -> bool {
        if self.is_open() {
            return false;
        }
        self.recent.extend_from_slice(calls);
        self.recent.sort_by_key(|call| call.at);
        self.recent.retain(|call| later(call.at, policy.window) > now);
        let surplus = self.recent.len().saturating_sub(policy.window_calls as usize);
        self.recent.drain(..surplus);
        let calls = self.recent.len();
        let failures = self.recent.iter().filter(|call| call.failed).count();
        let enough = failures > 0 && calls >= policy.minimum_calls as usize;
        if !enough || (failures as f64) < policy.failure_rate * calls as f64 {
            return false;
        }
        let cause = Cause::Failures { calls, failures, last: last.clone() };
        self.open(cause, Some(later(now, policy.probe_interval)), now);
        true
    }

    /// Takes the right to probe for some time; `None` if it is not to be had now.
    pub fn begin_probe(&mut self, by: WorkerId, takes: Duration, now: Timestamp) -> Option<Probe> {
        if self.admission(now) != Admission::Probe {
            return None;
        }
        self.probes_begun += 1;
        let probe = Probe { number: self.probes_begun, by, until: later(now, takes) };
        self.open.as_mut()?.probe = Some(probe);
        Some(probe)
    }

    /// The probe that is under way, or was lost and not followed by another.
    pub fn probe(&self) -> Option<Probe> {
        self.open.as_ref()?.probe
    }

    /// The system answered a probe; true if that closes the breaker.
    ///
    /// Nothing changes if the probe counts as lost and another one was begun, as below.
    pub fn probe_succeeded(&mut self, probe: Probe, policy: &SystemPolicy, now: Timestamp) -> bool {
        let Some(open) = self.of_probe(probe) else { return false };
        open.probe = None;
        open.succeeded += 1;
        if open.succeeded < policy.probes {
            open.next_probe = Some(now);
            return false;
        }
        self.close(now);
        true
    }

    /// A probe failed, or its handler did: the system is left alone for another while.
    pub fn probe_failed(
        &mut self,
        probe: Probe,
        failure: &Failure,
        policy: &SystemPolicy,
        now: Timestamp,
    ) {
        let Some(open) = self.of_probe(probe) else { return };
        open.probe = None;
        open.succeeded = 0;
        open.next_probe = Some(later(now, policy.probe_interval));
        if let Cause::Failures { last, .. } = &mut open.cause {
            *last = failure.clone();
        }
    }

    /// A probe was not made after all: another one may begin at once.
    pub fn probe_dropped(&mut self, probe: Probe) {
        if let Some(open) = self.of_probe(probe) {
            open.probe = None;
        }
    }

    /// Opens it until an operator resets it; false if one has done so before.
    pub fn trip(&mut self, by: &str, reason: &str, now: Timestamp) -> bool {
        if matches!(self.cause(), Some(Cause::Tripped { .. })) {
            return false;
        }
        let cause = Cause::Tripped { by: by.to_owned(), reason: reason.to_owned() };
        self.open(cause, None, now);
        self.note(by, reason, BreakerState::Open, now);
        true
    }

    /// Closes it; false if it is closed.
    pub fn reset(&mut self, by: &str, reason: &str, now: Timestamp) -> bool {
        if !self.is_open() {
            return false;
        }
        self.close(now);
        self.note(by, reason, BreakerState::Closed, now);
        true
    }

    /// What a probe is about, while it is the one that counts; one of a breaker that was tripped
    /// meanwhile is none.
    fn of_probe(&mut self, probe: Probe) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| open.probe == Some(probe) && open.next_probe.is_some())
    }

    fn open(&mut self, cause: Cause, next_probe: Option<Timestamp>, now: Timestamp) {
        self.recent.clear();
        self.open = Some(Open { cause, next_probe, succeeded: 0, probe: None, raised: None });
        self.since = Some(now);
    }

    fn close(&mut self, now: Timestamp) {
        self.recent.clear();
        self.open = None;
        self.since = Some(now);
    }

    fn note(&mut self, by: &str, reason: &str, to: BreakerState, at: Timestamp) {
        let surplus = (self.changes.len() + 1).saturating_sub(KEPT_CHANGES);
        self.changes.drain(..surplus);
        self.changes.push(ManualChange { at, by: by.to_owned(), reason: reason.to_owned(), to });
    }
}
