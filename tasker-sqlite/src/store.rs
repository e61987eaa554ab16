//! [`SqliteStore`]: hands writes to the writer and reads to the readers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqlitePool;
use tasker_core::history::Author;
use tasker_core::store::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoreError, StoredTask, TaskChange,
    TaskQuery, TaskSummary,
};
use tasker_core::{TaskId, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::commit::Commit;
use crate::create::Create;
use crate::fault::unavailable;
use crate::known::Known;
use crate::session::Ask;
use crate::templates::Templates;
use crate::watch::Watch;
use crate::writer::{Operation, Writer};
use crate::{OpenError, SqliteOptions, documents, open, read};

/// How many operations may wait for the writer before callers wait for room.
const WAITING: usize = 4_096;

/// A store in one SQLite file, which any number of stores and processes on one machine may share.
///
/// What is acknowledged is on the disk (see [`Synchronous`](crate::Synchronous)). The file must be
/// on a local disk: SQLite's locks do not work over a network. Writes of all callers that arrive
/// together are committed together. Every future may be dropped: an operation that was handed over
/// then happens wholly or not at all.
pub struct SqliteStore {
    path: PathBuf,
    /// `None` once the store is closed.
    writer: Mutex<Option<mpsc::Sender<Operation>>>,
    running: Mutex<Option<JoinHandle<()>>>,
    readers: SqlitePool,
    templates: Arc<Templates>,
    watch: Arc<Watch>,
    deadline: Duration,
}

impl SqliteStore {
    /// Opens a store with the defaults; the file is made if it is missing.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with which file, and what to do.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(SqliteOptions::new(path)).await
    }

    /// Options to open a store with.
    pub fn options(path: impl AsRef<Path>) -> SqliteOptions {
        SqliteOptions::new(path)
    }

    pub(crate) async fn open_with(options: SqliteOptions) -> Result<Self, OpenError> {
        let first = open::prepare(&options).await?;
        let templates = Arc::new(Templates::default());
        let watch = Arc::new(Watch::default());
        let (sender, arrivals) = mpsc::channel(WAITING);
        let writer = Writer {
            options: open::writing(&options),
            connection: Some(first),
            known: Known::default(),
            templates: Arc::clone(&templates),
            watch: Arc::clone(&watch),
            deadline: options.deadline,
            clock: 0,
        };
        Ok(Self {
            readers: open::readers(&options),
            path: options.path,
            writer: Mutex::new(Some(sender)),
            running: Mutex::new(Some(tokio::spawn(writer.run(arrivals)))),
            templates,
            watch,
            deadline: options.deadline,
        })
    }

    /// Finishes what was handed over, and closes the file.
    ///
    /// Every later call fails with [`StoreError::Unavailable`]. Dropping the store does the same
    /// without waiting for it.
    pub async fn close(&self) {
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            _ = running.await;
        }
        self.readers.close().await;
    }

    fn writer(&self) -> Option<mpsc::Sender<Operation>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands an operation over and waits for the answer, but no longer than the deadline.
    pub(crate) async fn ask<Q, A>(
        &self,
        request: Q,
        operation: impl FnOnce(Ask<Q, A>) -> Operation,
    ) -> Result<A, StoreError> {
        let writer = self.writer().ok_or_else(|| unavailable("it was closed"))?;
        let (answer, answered) = oneshot::channel();
        let operation = operation(Ask { request, answer, outcome: None });
        let asked = async {
            let handed_over = writer.send(operation).await;
            handed_over.map_err(|_| unavailable("it was closed"))?;
            answered.await.map_err(|_| unavailable("it was closed"))?
        };
        // Waiting for the lock alone may take the deadline; the writer then says so itself.
        let patience = self.deadline.saturating_mul(2);
        let answer = tokio::time::timeout(patience, asked).await;
        answer.map_err(|_| unavailable("it did not answer in time"))?
    }
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        self.ask(Create { tasks, claimant }, Operation::Create).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.ask(request, Operation::Claim).await
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        self.ask(Commit { author: author.clone(), changes }, Operation::Commit).await
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        self.ask(beat, Operation::Renew).await
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        self.ask(limit, Operation::TakeOver).await
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        let loaded = read::load(&self.readers, &self.templates, task);
        let loaded = tokio::time::timeout(self.deadline, loaded).await;
        let loaded = loaded.map_err(|_| unavailable("it did not answer in time"))?;
        loaded.map_err(|fault| fault.to_store_error())
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        let found = tokio::time::timeout(self.deadline, read::find(&self.readers, &query)).await;
        let found = found.map_err(|_| unavailable("it did not answer in time"))?;
        found.map_err(|fault| fault.to_store_error())
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        let found =
            tokio::time::timeout(self.deadline, documents::read(&self.readers, &query)).await;
        let found = found.map_err(|_| unavailable("it did not answer in time"))?;
        found.map_err(|fault| fault.to_store_error())
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        self.ask(changes, Operation::Write).await
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        // Weak, so that whoever waits does not keep a closed store open.
        match self.writer().map(|writer| writer.downgrade()) {
            Some(writer) => self.watch.wait(worker, max, &writer).await,
            None => tokio::time::sleep(max).await,
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}
