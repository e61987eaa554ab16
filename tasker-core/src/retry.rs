//! When a failed attempt may be made again: a pure function of policy, attempt and a seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a step may be attempted, and the wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Whether a retryable failure is retried at all; the first attempt is made in any case.
    pub retryable: bool,
    /// All attempts together, the first included; at least 1.
    pub limit: u32,
    /// The wait before the next attempt.
    pub backoff: Backoff,
}

/// The wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// How the wait grows.
    pub strategy: Strategy,
    /// The wait after the first attempt.
    pub base: Duration,
    /// What each further exponential wait is multiplied by; at least 1.
    pub multiplier: f64,
    /// No wait is longer, a server's `retry_after` included.
    pub max: Duration,
    /// How far a wait may differ, as a part of it, from 0 to 1: 0.25 is ±25 %.
    pub jitter: f64,
}

/// How the wait grows from one attempt to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// `base × multiplier^(n−1)` after attempt n.
    Exponential,
    /// `base × n` after attempt n.
    Linear,
    /// `base` after every attempt.
    Fixed,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retryable: true, limit: 3, backoff: Backoff::default() }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            strategy: Strategy::Exponential,
            base: Duration::from_secs(1),
            multiplier: 2.0,
            max: Duration::from_secs(60),
            jitter: 0.25,
        }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    pub fn none() -> Self {
        Self { retryable: false, limit: 1, ..Self::default() }
    }

    /// Up to `limit` attempts, all with the same wait between them and no jitter.
    pub fn fixed(limit: u32, wait: Duration) -> Self {
        let backoff = Backoff {
            strategy: Strategy::Fixed,
            base: wait,
            max: wait,
            jitter: 0.0,
            ..Backoff::default()
        };
        Self { retryable: true, limit, backoff }
    }

    /// Whether another attempt may follow when `made` attempts count against the limit.
    pub const fn allows_another(&self, made: u32) -> bool {
        self.retryable && made < self.limit
    }

    /// The most attempts of one count, the first included.
    pub(crate) const fn most_attempts(&self) -> u32 {
        if self.retryable { self.limit } else { 1 }
    }
}

impl Backoff {
    /// The wait after attempt number `attempt` (from 1), spread by `seed`.
    ///
    /// The same seed gives the same wait, so a decision can be repeated; different tasks have
    /// different seeds, so a crowd that failed together does not come back together. The wait is
    /// never shorter than `retry_after`, and neither is longer than [`max`](Self::max).
    pub fn delay(&self, attempt: u32, retry_after: Option<Duration>, seed: u64) -> Duration {
        let max = self.max.as_secs_f64();
        let n = attempt.max(1);
        let base = self.base.as_secs_f64();
        let wait = match self.strategy {
            Strategy::Fixed => base,
            Strategy::Linear => base * f64::from(n),
            // Overflow goes to infinity and is capped in the next line.
            Strategy::Exponential => base * self.multiplier.max(1.0).powf(f64::from(n - 1)),
        };
        let wait = if wait.is_finite() { wait.min(max) } else { max };
        let spread = wait * (1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * unit(seed) - 1.0));
        let asked = retry_after.unwrap_or_default().min(self.max);
        // Whole milliseconds survive every store's rounding.
        let wait = Duration::from_millis((spread.clamp(0.0, max) * 1e3).round() as u64);
        wait.max(asked)
    }
}

/// A number from 0 up to 1, spread by the seed.
pub(crate) const fn unit(seed: u64) -> f64 {
    // The upper 53 bits are what such a number has room for.
    (mix(seed) >> 11) as f64 / (1u64 << 53) as f64
}

/// Spreads a seed over all 64 bits (the finaliser of SplitMix64).
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Strategy};

    fn seconds(backoff: &Backoff, attempt: u32) -> f64 {
        backoff.delay(attempt, None, 7).as_secs_f64()
    }

    #[test]
    fn the_wait_grows_as_its_strategy_says_and_stops_at_the_cap() {
        let exact = Backoff { jitter: 0.0, ..Backoff::default() };
        for (strategy, expected) in [
            (Strategy::Exponential, [1.0, 2.0, 4.0, 60.0]),
            (Strategy::Linear, [1.0, 2.0, 3.0, 60.0]),
            (Strategy::Fixed, [1.0, 1.0, 1.0, 1.0]),
        ] {
            let backoff = Backoff { strategy, ..exact };
            let waits = [1, 2, 3, u32::MAX].map(|attempt| seconds(&backoff, attempt));
            assert_eq!(waits, expected, "{strategy:?}");
        }
    }

    #[test]
    fn jitter_spreads_within_its_bounds_and_is_reproducible() {
        let backoff = Backoff { base: Duration::from_secs(8), ..Backoff::default() };
        let waits: Vec<_> = (0..1000).map(|seed| backoff.delay(1, None, seed)).collect();
        let (low, high) = (Duration::from_secs(6), Duration::from_secs(10));
        assert!(waits.iter().all(|wait| (low..=high).contains(wait)));
        assert!(waits.iter().any(|wait| wait.as_secs_f64() < 6.5));
        assert!(waits.iter().any(|wait| wait.as_secs_f64() > 9.5));
        assert_eq!(backoff.delay(1, None, 3), backoff.delay(1, None, 3));
    }

    #[test]
    fn a_server_is_heard_up_to_the_cap() {
        let backoff = Backoff::default();
        let asked = Some(Duration::from_secs(30));
        assert_eq!(backoff.delay(1, asked, 1), Duration::from_secs(30));
        let asked = Some(Duration::from_secs(86_400));
        assert_eq!(backoff.delay(1, asked, 1), Duration::from_secs(60));
    }
}
