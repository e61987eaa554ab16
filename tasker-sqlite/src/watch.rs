//! Waiting for work without asking the database all the time.
//!
//! What this store writes itself wakes waiters at once. What other processes write is noticed by
//! looking at SQLite's change counter, at first often, then less so, and only while somebody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::writer::Operation;

const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// Counts the occasions on which a claim may have begun to find something.
#[derive(Debug)]
pub(crate) struct Watch {
    occasions: watch::Sender<u64>,
    /// How many of them the last transaction has seen.
    seen: AtomicU64,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { occasions: watch::Sender::new(0), seen: AtomicU64::new(0) }
    }

    pub(crate) fn there_may_be_work(&self) {
        self.occasions.send_modify(|count| *count += 1);
    }

    /// A claim has just looked at everything that there is.
    pub(crate) fn looked(&self) {
        self.seen.store(*self.occasions.borrow(), Ordering::Release);
    }

    /// Waits for an occasion that no claim has seen yet.
    pub(crate) async fn wait(&self, max: Duration, writer: &mpsc::WeakSender<Operation>) {
        let mut occasions = self.occasions.subscribe();
        let seen = self.seen.load(Ordering::Acquire);
        let give_up_at = Instant::now() + max;
        let mut pause = FIRST_LOOK;
        loop {
            let look_at = (Instant::now() + pause).min(give_up_at);
            let occasion = occasions.wait_for(|count| *count > seen);
            match tokio::time::timeout_at(look_at, occasion).await {
                Err(_) if look_at < give_up_at => {
                    // If the writer is so busy that it has no room, it will see for itself.
                    if let Some(writer) = writer.upgrade() {
                        _ = writer.try_send(Operation::Look);
                    }
                    pause = (pause * 5 / 4).min(LONGEST_LOOK);
                }
                _ => return,
            }
        }
    }
}
