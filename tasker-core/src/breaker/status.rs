//! How a system stands, for people and programs.

use jiff::Timestamp;
use serde::Serialize;

use super::{Breaker, BreakerState, ManualChange};

/// How a system stands that steps depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SystemStatus {
    /// Its name.
    pub name: String,
    /// Where its breaker stands.
    pub state: BreakerState,
    /// Since when it is open, or closed; `None` if it never was open.
    pub since: Option<Timestamp>,
    /// Why it is open.
    pub reason: Option<String>,
    /// When the next probe may begin, while it is open; `None` if an operator has to reset it. If a
    /// probe is under way, when it counts as lost.
    pub next_probe: Option<Timestamp>,
    /// While it is closed: how many recent calls are on record. Successes are recorded together
    /// with the next failure only.
    pub recent_calls: usize,
    /// How many of them failed.
    pub recent_failures: usize,
    /// What operators did, oldest first: the last twenty.
    pub changes: Vec<ManualChange>,
}

impl SystemStatus {
    /// How the system with a name stands.
    pub fn of(name: impl Into<String>, breaker: &Breaker) -> Self {
        Self {
            name: name.into(),
            state: breaker.state(),
            since: breaker.since(),
            reason: breaker.cause().map(ToString::to_string),
            next_probe: breaker.next_probe(),
            recent_calls: breaker.recent().len(),
            recent_failures: breaker.recent().iter().filter(|call| call.failed).count(),
            changes: breaker.changes().to_vec(),
        }
    }
}
