//! How long to wait before the store is asked again.

use std::time::Duration;

use backoff::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Waits that grow from 50 milliseconds to 2 seconds, with jitter, without end.
#[derive(Debug)]
pub(super) struct Patience {
    waits: ExponentialBackoff,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { waits: waits() }
    }

    /// Waits a little longer than the last time.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.waits.next().unwrap_or(LONGEST)).await;
    }

    /// Starts with short waits again.
    pub(super) fn reset(&mut self) {
        self.waits = waits();
    }
}

const LONGEST: Duration = Duration::from_secs(2);

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST)
        .with_jitter()
        .without_max_times()
        .build()
}
