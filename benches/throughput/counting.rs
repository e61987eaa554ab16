//! A store that counts what the engine asks of the one behind it, and sees every task end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tasker::store::{
    Applied, ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoreError, StoredTask, TaskChange,
    TaskQuery, TaskSummary, Then,
};
use tasker::{TaskId, WorkerId, history::Author};
use tokio::sync::Notify;

/// Passes everything on, and counts.
pub(crate) struct CountingStore {
    inner: Arc<dyn StateStore>,
    counted: Counters,
    ended: Notify,
    last_end: Mutex<Instant>,
}

#[derive(Default)]
struct Counters {
    creates: AtomicU64,
    claims: AtomicU64,
    empty_claims: AtomicU64,
    commits: AtomicU64,
    renewals: AtomicU64,
    reads: AtomicU64,
    created: AtomicU64,
    claimed: AtomicU64,
    changes: AtomicU64,
    rows: AtomicU64,
    released: AtomicU64,
    ended: AtomicU64,
    conflicts: AtomicU64,
}

/// What was counted, up to a moment or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Calls that write, each one transaction.
    pub(crate) creates: u64,
    pub(crate) claims: u64,
    pub(crate) commits: u64,
    pub(crate) renewals: u64,
    /// Claims that found nothing.
    pub(crate) empty_claims: u64,
    /// Calls that only read.
    pub(crate) reads: u64,
    /// Tasks stored.
    pub(crate) created: u64,
    /// Tasks handed to a worker.
    pub(crate) claimed: u64,
    /// Changes applied.
    pub(crate) changes: u64,
    /// Rows of history added.
    pub(crate) rows: u64,
    /// Tasks queued again.
    pub(crate) released: u64,
    /// Tasks ended.
    pub(crate) ended: u64,
    /// Changes refused.
    pub(crate) conflicts: u64,
}

impl Counts {
    /// Calls that write something.
    pub(crate) const fn transactions(&self) -> u64 {
        self.creates + self.claims - self.empty_claims + self.commits + self.renewals
    }

    /// Rows inserted or updated: a task when it is stored, claimed, released and ended.
    pub(crate) const fn rows_written(&self) -> u64 {
        self.created + self.claimed + self.rows + self.released + self.ended
    }

    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            creates: self.creates - earlier.creates,
            claims: self.claims - earlier.claims,
            commits: self.commits - earlier.commits,
            renewals: self.renewals - earlier.renewals,
            empty_claims: self.empty_claims - earlier.empty_claims,
            reads: self.reads - earlier.reads,
            created: self.created - earlier.created,
            claimed: self.claimed - earlier.claimed,
            changes: self.changes - earlier.changes,
            rows: self.rows - earlier.rows,
            released: self.released - earlier.released,
            ended: self.ended - earlier.ended,
            conflicts: self.conflicts - earlier.conflicts,
        }
    }
}

impl CountingStore {
    pub(crate) fn new(inner: Arc<dyn StateStore>) -> Self {
        let last_end = Mutex::new(Instant::now());
        Self { inner, counted: Counters::default(), ended: Notify::new(), last_end }
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = &self.counted;
        Counts {
            creates: read(&of.creates),
            claims: read(&of.claims),
            commits: read(&of.commits),
            renewals: read(&of.renewals),
            empty_claims: read(&of.empty_claims),
            reads: read(&of.reads),
            created: read(&of.created),
            claimed: read(&of.claimed),
            changes: read(&of.changes),
            rows: read(&of.rows),
            released: read(&of.released),
            ended: read(&of.ended),
            conflicts: read(&of.conflicts),
        }
    }

    /// Adds what another process counted.
    #[cfg(feature = "postgres")]
    pub(crate) fn add(&self, more: &Counts) {
        let to = |counter: &AtomicU64, count: u64| {
            counter.fetch_add(count, Ordering::AcqRel);
        };
        let of = &self.counted;
        to(&of.creates, more.creates);
        to(&of.claims, more.claims);
        to(&of.empty_claims, more.empty_claims);
        to(&of.commits, more.commits);
        to(&of.renewals, more.renewals);
        to(&of.reads, more.reads);
        to(&of.created, more.created);
        to(&of.claimed, more.claimed);
        to(&of.changes, more.changes);
        to(&of.rows, more.rows);
        to(&of.released, more.released);
        to(&of.conflicts, more.conflicts);
        self.end(more.ended);
    }

    fn end(&self, tasks: u64) {
        if tasks > 0 {
            *self.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            self.counted.ended.fetch_add(tasks, Ordering::AcqRel);
            self.ended.notify_waiters();
        }
    }

    /// Tasks that have ended so far.
    pub(crate) fn ended(&self) -> u64 {
        self.counted.ended.load(Ordering::Acquire)
    }

    /// When the last task ended.
    pub(crate) fn last_end(&self) -> Instant {
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves once this many tasks have ended.
    pub(crate) async fn until_ended(&self, tasks: u64) {
        loop {
            let told = self.ended.notified();
            tokio::pin!(told);
            // Listens before the look, so that an end between the two is not missed.
            told.as_mut().enable();
            if self.ended() >= tasks {
                return;
            }
            told.await;
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::AcqRel);
}

#[async_trait]
impl StateStore for CountingStore {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        add(&self.counted.creates, 1);
        let created = self.inner.create(tasks, claimant).await?;
        let claimed = |new: &&Created| matches!(new, Created::New { claimed: Some(_), .. });
        add(&self.counted.created, created.len());
        add(&self.counted.claimed, created.iter().filter(claimed).count());
        Ok(created)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        add(&self.counted.claims, 1);
        let claimed = self.inner.claim(request).await?;
        if let Claimed::Work(work) = &claimed {
            add(&self.counted.claimed, work.tasks.len());
            let empty = work.tasks.is_empty() && work.offers.is_empty() && work.news.is_empty();
            add(&self.counted.empty_claims, usize::from(empty));
        }
        Ok(claimed)
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        add(&self.counted.commits, 1);
        let change = |change: &TaskChange| (change.rows.len(), kind(&change.then));
        let asked: Vec<_> = changes.iter().map(change).collect();
        let committed = self.inner.commit(author, changes).await?;
        if let Committed::Changes { applied, .. } = &committed {
            let mut ended = 0;
            for ((rows, then), applied) in asked.into_iter().zip(applied) {
                if *applied == Applied::Conflict {
                    add(&self.counted.conflicts, 1);
                    continue;
                }
                add(&self.counted.changes, 1);
                add(&self.counted.rows, rows);
                add(&self.counted.released, usize::from(then == Kind::Queue));
                ended += u64::from(then == Kind::End);
            }
            self.end(ended);
        }
        Ok(committed)
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        add(&self.counted.renewals, 1);
        self.inner.renew(beat).await
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        add(&self.counted.reads, 1);
        self.inner.take_over(limit).await
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        add(&self.counted.reads, 1);
        self.inner.load(task).await
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        add(&self.counted.reads, 1);
        self.inner.find(query).await
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        add(&self.counted.reads, 1);
        self.inner.read_documents(query).await
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        add(&self.counted.commits, 1);
        self.inner.write_documents(changes).await
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        self.inner.wait_for_work(worker, max).await;
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Keep,
    Queue,
    End,
}

const fn kind(then: &Then) -> Kind {
    match then {
        Then::Keep => Kind::Keep,
        Then::Queue { .. } | Then::Hold { .. } => Kind::Queue,
        Then::End { .. } => Kind::End,
    }
}
