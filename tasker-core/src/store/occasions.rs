//! Tells workers of one process when a claim may find something that their last one did not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::WorkerId;

/// Counts the occasions on which a claim may have begun to find something, and how many of them
/// each worker's last claim has seen. What a store's
/// [`wait_for_work`](super::StateStore::wait_for_work) is made of.
///
/// ```
/// use tasker_core::WorkerId;
/// use tasker_core::store::occasions::Occasions;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let occasions = Occasions::default();
/// let worker = WorkerId::new();
/// occasions.looks(worker);
/// occasions.arise();
/// occasions.unseen_by(worker).await;
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Occasions {
    count: watch::Sender<u64>,
    seen: Mutex<HashMap<WorkerId, u64>>,
}

impl Occasions {
    /// Something was committed that may give a worker something to do.
    pub fn arise(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    /// A worker looks at everything that there is: to be called before what it finds is read, so
    /// that what arises meanwhile counts as unseen.
    pub fn looks(&self, worker: WorkerId) {
        // Read under the lock: of two looks the later one counts.
        let mut seen = self.seen();
        let count = *self.count.borrow();
        seen.insert(worker, count);
    }

    /// A worker is gone.
    pub fn forget(&self, worker: WorkerId) {
        self.seen().remove(&worker);
    }

    /// Waits for an occasion that a worker's last look has not seen; one that has never looked
    /// waits for none that there was.
    pub async fn unseen_by(&self, worker: WorkerId) {
        let mut count = self.count.subscribe();
        let seen = self.seen().get(&worker).copied();
        let seen = seen.unwrap_or_else(|| *count.borrow());
        // The sender lives as long as this does.
        let _ = count.wait_for(|count| *count > seen).await;
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<WorkerId, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
