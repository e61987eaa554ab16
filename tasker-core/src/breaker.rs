//! Circuit breakers: when a system that steps depend on is left alone, and when it is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a system counts as down, and how it is tried again.
///
/// Written in a template under `dependent_systems`, by the name that its steps give as their
/// `dependent_system`. The health of a system is shared by all workers of a store, whatever
/// template a call was made for; the policy that counts is that of the template of the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemPolicy {
    /// The breaker opens when at least this share of the recent calls failed, from 0 to 1.
    pub failure_rate: f64,
    /// … of at least so many recent calls.
    pub minimum_calls: u32,
    /// Recent are at most so many calls …
    pub window_calls: u32,
    /// … and none that is older than this.
    pub window: Duration,
    /// How long the system is left alone before one call is let through as a probe, and again after
    /// each probe that fails.
    pub probe_interval: Duration,
    /// So many probes, one after the other, must succeed for the breaker to close.
    pub probes: u32,
    /// How many calls a worker process makes at once to a system of which it has seen no success
    /// lately; the number grows with every success and halves with every failure.
    pub initial_calls: u32,
}

impl Default for SystemPolicy {
    fn default() -> Self {
        Self {
            failure_rate: 0.5,
            minimum_calls: 5,
            window_calls: 10,
            window: Duration::from_secs(60),
            probe_interval: Duration::from_secs(30),
            probes: 2,
            initial_calls: 3,
        }
    }
}
