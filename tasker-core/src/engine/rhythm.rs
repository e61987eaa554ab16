//! When a worker claims although nothing was hinted.

use std::time::Duration;

use tokio::time::Instant;

use crate::WorkerId;
use crate::retry;

/// How long the first wait after work lasts.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Waits for a hint that double from a second to the worker's poll.
///
/// A hint is most easily lost where there is much to hint at: of two workers that share a store
/// handle, one may be about to wait while the other takes it. So the first waits are short, and
/// only who has long had nothing to do looks rarely.
#[derive(Debug)]
pub(super) struct Rhythm {
    next: Duration,
    poll: Duration,
    seed: u64,
}

impl Rhythm {
    pub(super) fn new(worker: WorkerId, poll: Duration) -> Self {
        // The low bits of a version-7 UUID are random.
        Self { next: poll.min(FIRST_WAIT), poll, seed: worker.as_uuid().as_u64_pair().1 }
    }

    /// How long to wait; up to a tenth less than it could be, so that many workers do not keep step.
    pub(super) fn wait(&mut self) -> Duration {
        self.seed = self.seed.wrapping_add(1);
        self.next.mul_f64(1.0 - retry::unit(self.seed) / 10.0)
    }

    /// The wait is over: to its end, or because of something.
    pub(super) fn waited(&mut self, to_the_end: bool) {
        let next = if to_the_end { self.next.saturating_mul(2) } else { FIRST_WAIT };
        self.next = next.min(self.poll);
    }
}

/// After an answer was lost: the least time between two looks for what the call has handed out.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Looks for what calls have handed out whose answers were lost.
///
/// A call that was given up may still be on its way to the database, and take effect after a look
/// that found nothing. So the looks go on for a lease, after which the database has long given up
/// on it too. Each costs a claim, so the time between them doubles: what took effect late is found
/// after as long again. The claims between them are plain ones.
#[derive(Debug)]
pub(super) struct Recovery {
    lease: Duration,
    next: Option<Instant>,
    lost_at: Instant,
}

impl Recovery {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, next: None, lost_at: Instant::now() }
    }

    /// An answer was lost.
    pub(super) fn begin(&mut self) {
        self.lost_at = Instant::now();
        self.next = Some(self.lost_at);
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= Instant::now())
    }

    /// A look was made.
    pub(super) fn made(&mut self) {
        let passed = self.lost_at.elapsed();
        let pause = passed.max(BETWEEN_LOOKS).min(self.lease.saturating_sub(passed));
        self.next = (passed < self.lease).then(|| Instant::now() + pause);
    }

    /// A wait that is no longer than until the next look.
    pub(super) fn bound(&self, wait: Duration) -> Duration {
        let next = self.next.map(|next| next.saturating_duration_since(Instant::now()));
        next.map_or(wait, |next| next.min(wait))
    }
}
