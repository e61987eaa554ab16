//! A store that fails when it is told to.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::history::Author;
use crate::store::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoreError, StoredTask, TaskChange,
    TaskQuery, TaskSummary,
};
use crate::{TaskId, WorkerId};

/// A [`StateStore`] that passes every call on, but for those that are to fail.
///
/// A failing call answers [`StoreError::Unavailable`]. Clones share the count and the plan. Every
/// method counts but `wait_for_work`, which cannot fail.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tasker_core::MemoryStore;
/// use tasker_core::store::{StateStore, TaskQuery};
/// use tasker_core::testing::{FaultyStore, Loss};
///
/// let store = FaultyStore::new(MemoryStore::new());
/// store.fail_call(2, Loss::OfCall);
/// store.find(TaskQuery::default()).await?;
/// store.find(TaskQuery::default()).await.unwrap_err();
/// store.find(TaskQuery::default()).await?;
/// assert_eq!((store.calls(), store.failures()), (3, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    store: S,
    plan: Arc<Mutex<Plan>>,
    /// Cancelled when a crash has happened: nothing is answered any more.
    crashed: CancellationToken,
}

/// What is lost when a call fails; the caller cannot tell the one from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The call: nothing happened.
    OfCall,
    /// The answer: it happened, and nobody is told.
    OfAnswer,
}

#[derive(Debug, Default)]
struct Plan {
    calls: usize,
    failures: usize,
    fail: Option<(usize, Loss)>,
    crash: Option<(usize, Loss)>,
    away_for: usize,
    /// The call at which it crashed.
    crashed_at: Option<&'static str>,
}

/// What becomes of one call.
enum Fate {
    Answer,
    Fail(Loss),
    Crash(Loss),
}

impl<S> FaultyStore<S> {
    /// A store that does not fail yet.
    pub fn new(store: S) -> Self {
        Self { store, plan: Arc::default(), crashed: CancellationToken::new() }
    }

    /// Lets one call fail, counted from 1, the first call of all.
    pub fn fail_call(&self, number: usize, loss: Loss) {
        self.plan().fail = Some((number, loss));
    }

    /// Lets the store be away for the next calls; none of them happens.
    pub fn fail_next(&self, calls: usize) {
        self.plan().away_for = calls;
    }

    /// Lets whoever uses this handle die at a call: neither it nor any later one is answered.
    pub(super) fn crash_at(&self, number: usize, loss: Loss) {
        self.plan().crash = Some((number, loss));
    }

    /// Returns once the crash has happened, with the name of the call.
    pub(super) async fn crash(&self) -> &'static str {
        self.crashed.cancelled().await;
        self.plan().crashed_at.unwrap_or_default()
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.plan().calls
    }

    /// How many of them failed.
    pub fn failures(&self) -> usize {
        self.plan().failures
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> Fate {
        let mut plan = self.plan();
        plan.calls += 1;
        let number = plan.calls;
        let planned = |at: Option<(usize, Loss)>| at.filter(|(at, _)| *at == number);
        if let Some((_, loss)) = planned(plan.crash) {
            return Fate::Crash(loss);
        }
        let mut failing = planned(plan.fail).map(|(_, loss)| loss);
        if plan.away_for > 0 {
            plan.away_for -= 1;
            failing = Some(Loss::OfCall);
        }
        let Some(loss) = failing else { return Fate::Answer };
        plan.failures += 1;
        Fate::Fail(loss)
    }

    async fn call<T>(
        &self,
        name: &'static str,
        effect: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.crashed.is_cancelled() {
            return pending().await;
        }
        let fate = self.fate();
        if !matches!(fate, Fate::Fail(Loss::OfCall) | Fate::Crash(Loss::OfCall)) {
            let answer = effect.await;
            if matches!(fate, Fate::Answer) {
                return answer;
            }
        }
        if let Fate::Crash(_) = fate {
            self.plan().crashed_at = Some(name);
            self.crashed.cancel();
            return pending().await;
        }
        let reason = format!("`{name}` was told to fail");
        Err(StoreError::Unavailable { reason, source: None })
    }
}

#[async_trait]
impl<S: StateStore> StateStore for FaultyStore<S> {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        self.call("create", self.store.create(tasks, claimant)).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.call("claim", self.store.claim(request)).await
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        self.call("commit", self.store.commit(author, changes)).await
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        self.call("renew", self.store.renew(beat)).await
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        self.call("take_over", self.store.take_over(limit)).await
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        self.call("load", self.store.load(task)).await
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        self.call("find", self.store.find(query)).await
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        self.call("read_documents", self.store.read_documents(query)).await
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        self.call("write_documents", self.store.write_documents(changes)).await
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        if self.crashed.is_cancelled() {
            return pending().await;
        }
        self.store.wait_for_work(worker, max).await;
    }
}
