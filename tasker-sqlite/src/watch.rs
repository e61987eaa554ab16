//! Waiting for work without asking the database all the time.
//!
//! What this store writes itself wakes waiters at once. What other processes write is noticed by
//! looking at SQLite's change counter, at first often, then less so, and only while somebody waits.

use std::pin::pin;
use std::time::Duration;

use tasker_core::WorkerId;
use tasker_core::store::occasions::Occasions;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::writer::Operation;

const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// Tells when a claim may have begun to find something.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) occasions: Occasions,
}

impl Watch {
    /// Waits for an occasion that a worker's last claim has not seen.
    pub(crate) async fn wait(
        &self,
        worker: WorkerId,
        max: Duration,
        writer: &mpsc::WeakSender<Operation>,
    ) {
        let mut occasion = pin!(self.occasions.unseen_by(worker));
        let give_up_at = Instant::now() + max;
        let mut pause = FIRST_LOOK;
        loop {
            let look_at = (Instant::now() + pause).min(give_up_at);
            match tokio::time::timeout_at(look_at, &mut occasion).await {
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
