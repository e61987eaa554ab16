//! How long to wait before the store is asked again, and how often to say so.

use std::time::Duration;

use backoff::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// Waits that grow from 50 milliseconds to 2 seconds, with jitter, without end.
#[derive(Debug)]
pub(super) struct Patience {
    waits: ExponentialBackoff,
    told: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { waits: waits(), told: None }
    }

    /// Waits a little longer than the last time.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.waits.next().unwrap_or(LONGEST)).await;
    }

    /// Whether a failure is to be told of: the first, and one of those that follow in some time.
    pub(super) fn tells(&mut self) -> bool {
        let tells = self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if tells {
            self.told = Some(Instant::now());
        }
        tells
    }

    /// Starts with short waits again.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

/// While a store is away, every loop says so this often.
const TOLD_EVERY: Duration = Duration::from_secs(30);

const LONGEST: Duration = Duration::from_secs(2);

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST)
        .with_jitter()
        .without_max_times()
        .build()
}
