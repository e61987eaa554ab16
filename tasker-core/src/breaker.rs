//! Circuit breakers: when a system that steps depend on is left alone, and when it is tried again.
//!
//! Pure: a [`Breaker`] is what all workers know together of one system, kept as a document of
//! [`Collection::System`](crate::store::Collection::System) by compare and swap; what happened goes
//! in with the time, the next state comes out. Who calls, and how many calls are made at once, is
//! the workers' business.

mod changes;
mod status;
mod verdict;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::status::SystemStatus;
pub use self::verdict::{Verdict, verdict};
use crate::WorkerId;
use crate::history::Failure;

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

/// What is known together of one system that steps depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// While it is closed: the recent calls, oldest first. Successes are told with the next failure
    /// only, so that a healthy system costs no writes.
    recent: Vec<Call>,
    open: Option<Open>,
    /// When it last opened or closed.
    since: Option<Timestamp>,
    /// How many probes were begun in its life; tells one from another.
    probes_begun: u64,
    /// What operators did to it, oldest first: the last few.
    changes: Vec<ManualChange>,
}

/// A call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Call {
    /// When.
    pub at: Timestamp,
    /// Whether it counts against the system.
    pub failed: bool,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls are made.
    Closed,
    /// No call is made.
    Open,
    /// It is open, and one call at a time finds out whether the system is well again.
    HalfOpen,
}

/// Why a breaker opened, and when it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    cause: Cause,
    /// When the next probe may begin; `None` if it stays open until an operator resets it.
    next_probe: Option<Timestamp>,
    /// How many probes succeeded in a row.
    succeeded: u32,
    probe: Option<Probe>,
    /// The number in the key of the escalation that says so, if one was raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raised: Option<u64>,
}

/// Why a breaker is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Too many calls failed.
    Failures {
        /// Of so many recent calls …
        calls: usize,
        /// … so many failed.
        failures: usize,
        /// How the last of them failed, or the last probe.
        last: Failure,
    },
    /// An operator opened it.
    Tripped {
        /// The operator.
        by: String,
        /// Why.
        reason: String,
    },
}

/// The right to make one call to a system whose breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its number.
    pub number: u64,
    /// Who makes it.
    pub by: WorkerId,
    /// When it counts as lost.
    pub until: Timestamp,
}

/// What an operator did to a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualChange {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What it became.
    pub to: BreakerState,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Go,
    /// It may, as a probe, by whoever is the first to [begin](Breaker::begin_probe) it.
    Probe,
    /// Not before this time; `None`: not until an operator resets the breaker.
    Wait(Option<Timestamp>),
}

impl Breaker {
    /// Where it stands.
    pub const fn state(&self) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(Open { probe: None, succeeded: 0, .. }) => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Whether only probes are let through.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When it last opened or closed; `None` if it never did.
    pub const fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Why it is open.
    pub const fn cause(&self) -> Option<&Cause> {
        match &self.open {
            Some(open) => Some(&open.cause),
            None => None,
        }
    }

    /// When the next probe may begin, while it is open and not until an operator resets it. One
    /// that is under way counts as lost then.
    pub fn next_probe(&self) -> Option<Timestamp> {
        let open = self.open.as_ref()?;
        let next = open.next_probe?;
        Some(open.probe.map_or(next, |probe| probe.until.max(next)))
    }

    /// The number in the key of the escalation that was raised when it opened, while it is open.
    pub(crate) fn raised(&self) -> Option<u64> {
        self.open.as_ref()?.raised
    }

    /// Takes note of the number in the key of the escalation that is raised.
    pub(crate) fn note_raised(&mut self, number: u64) {
        if let Some(open) = &mut self.open {
            open.raised = Some(number);
        }
    }

    /// The recent calls, as far as they were told, oldest first.
    pub fn recent(&self) -> &[Call] {
        &self.recent
    }

    /// What operators did to it, oldest first.
    pub fn changes(&self) -> &[ManualChange] {
        &self.changes
    }

    /// Whether a call may be made now.
    pub fn admission(&self, now: Timestamp) -> Admission {
        if self.open.is_none() {
            return Admission::Go;
        }
        match self.next_probe() {
            Some(at) if at <= now => Admission::Probe,
            at => Admission::Wait(at),
        }
    }
}

impl BreakerState {
    /// The name in databases and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl std::fmt::Display for BreakerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failures { calls, failures, last: Failure { code, message, .. } } => write!(
                f,
                "{failures} of {calls} recent calls failed, the last with {code} ({message})"
            ),
            Self::Tripped { by, reason } => write!(f, "opened by {by}: {reason}"),
        }
    }
}
