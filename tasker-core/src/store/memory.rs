//! The store in memory: for tests and for tasks that may be lost with their process.
//!
//! A real implementation on tokio's clock, so that paused time drives leases and retries. All that
//! it does is in `state`, without a clock or a lock, where the protocol is model-checked.

#[cfg(test)]
mod protocol;
pub(crate) mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::Instant;

use self::state::State;
use super::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoreError, StoredTask, TaskChange,
    TaskQuery, TaskSummary,
};
use crate::history::Author;
use crate::store::occasions::Occasions;
use crate::{TaskId, WorkerId};

/// A [`StateStore`] that keeps everything in this process; clones share what they keep.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tasker_core::store::{StateStore, TaskQuery};
/// use tasker_core::MemoryStore;
///
/// let store = MemoryStore::new();
/// assert!(store.find(TaskQuery::default()).await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    occasions: Occasions,
    began: (Instant, Timestamp),
}

impl MemoryStore {
    /// An empty store.
    ///
    /// # Panics
    /// Outside a tokio runtime, whose clock it uses.
    pub fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            occasions: Occasions::default(),
            began: (Instant::now(), Timestamp::now()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Wall-clock time at the start, carried on by tokio's clock.
    fn now(&self) -> Timestamp {
        let (instant, timestamp) = self.shared.began;
        timestamp.checked_add(instant.elapsed()).unwrap_or(Timestamp::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one change and tells whoever waits if there may be something to do.
    fn write<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let mut state = self.state();
        // Read under the lock, so that time does not run backwards from one change to the next.
        let answer = change(&mut state, self.now());
        let news = std::mem::take(&mut state.has_news);
        drop(state);
        if news {
            self.shared.occasions.arise();
        }
        answer
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        Ok(self.write(|state, now| state.create(tasks, claimant, now)))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.shared.occasions.looks(request.worker);
        Ok(self.write(|state, now| state.claim(&request, now)))
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        Ok(self.write(|state, now| state.commit(author, changes, now)))
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        let renewed = self.write(|state, now| state.renew(&beat, now));
        if renewed == Renewed::LeaseLost || beat.lease.is_none() {
            self.shared.occasions.forget(beat.worker);
        }
        Ok(renewed)
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        Ok(self.write(|state, now| state.take_over(limit, now)))
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        let state = self.state();
        // Read under the lock, so that it is not earlier than what is read.
        Ok(state.load(task, self.now()).map(|task| state.with_lease(task)))
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        Ok(self.state().find(&query))
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        let state = self.state();
        Ok(state.read_documents(&query, self.now()))
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        Ok(self.write(|state, now| state.write_documents(changes, now)))
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        // Time running out is as good an answer as a hint.
        let _ = tokio::time::timeout(max, self.shared.occasions.unseen_by(worker)).await;
    }
}
