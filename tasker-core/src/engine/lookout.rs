//! When a worker looks for dead ones.

use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;

use crate::WorkerId;
use crate::retry;

/// The least time between two looks, unless the first found more than it could take.
const PAUSE: Duration = Duration::from_secs(1);

/// Notes when the next look is due.
#[derive(Debug)]
pub(super) struct Lookout {
    at: Option<Instant>,
    /// After a look: when there may be another.
    not_before: Instant,
    pause: Duration,
    /// So much later than the moment of which all workers were told: the first takes over whoever
    /// is dead, and the others do not contend for it.
    late_by: Duration,
}

impl Lookout {
    pub(super) fn new(worker: WorkerId, poll: Duration) -> Self {
        let pause = poll.min(PAUSE);
        // The low bits of a version-7 UUID are random.
        let late_by = pause.mul_f64(retry::unit(worker.as_uuid().as_u64_pair().1) / 4.0);
        Self { at: None, not_before: Instant::now(), pause, late_by }
    }

    /// A renewal was told how long until the next lease runs out.
    pub(super) fn told(&mut self, next_expiry: Option<Duration>) {
        // A lease that is longer than time itself never runs out.
        let at = next_expiry
            .and_then(|wait| Instant::now().checked_add(wait.saturating_add(self.late_by)));
        self.at = at.map(|at| at.max(self.not_before));
    }

    /// A look has taken over whoever was dead; with `more`, perhaps not all of them.
    ///
    /// When the next one is due is for a renewal to tell.
    pub(super) fn looked(&mut self, more: bool) {
        let now = Instant::now();
        self.not_before = now + self.pause;
        self.at = more.then_some(now);
    }

    /// Something failed, so that it is not known whose lease runs out when.
    pub(super) fn in_doubt(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.at = Some(self.not_before);
    }

    /// Resolves when the next look is due.
    pub(super) async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => pending().await,
        }
    }
}
