//! [`PostgresStore`]: the operations of the contract, and the tasks that run beside them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tasker_core::history::Author;
use tasker_core::store::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoreError, StoredTask, TaskChange,
    TaskQuery, TaskSummary,
};
use tasker_core::{TaskId, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::claim::{Claim, Marks};
use crate::commit::Commit;
use crate::create::{self, Ask, Create};
use crate::database::Database;
use crate::documents::{ReadDocuments, WriteDocuments};
use crate::fault::unavailable;
use crate::hint::{self, Hints};
use crate::lease::{Renew, TakeOver};
use crate::read::{Find, Load};
use crate::statements::Statements;
use crate::templates::Templates;
use crate::transactional::Steps;
use crate::{OpenError, PostgresOptions, open, retention};

/// How many submissions may wait before callers wait for room.
const WAITING: usize = 4_096;

/// A store in a PostgreSQL database, which any number of processes on any number of machines share.
///
/// What is acknowledged is on the server's disk, unless the server was told not to care
/// (`synchronous_commit`, `fsync`). Every future may be dropped: an operation that was begun then
/// happens wholly or not at all, and leaves no transaction open.
pub struct PostgresStore {
    pub(crate) database: Arc<Database>,
    /// `None` once the store is closed.
    submissions: Mutex<Option<mpsc::Sender<Ask>>>,
    beside: Vec<AbortHandle>,
}

impl PostgresStore {
    /// Opens a store with the defaults; its tables are made if they are missing.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong, and what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open(url: impl Into<String>) -> Result<Self, OpenError> {
        Self::open_with(PostgresOptions::new(url)).await
    }

    /// Options to open a store with.
    pub fn options(url: impl Into<String>) -> PostgresOptions {
        PostgresOptions::new(url)
    }

    pub(crate) async fn open_with(options: PostgresOptions) -> Result<Self, OpenError> {
        open::prepare(&options).await?;
        let runtime = Handle::current();
        // Whatever can fail comes before anything runs.
        let listening = open::listening(&options)?;
        let database = Arc::new(Database {
            pool: open::pool(&options)?,
            steps: Steps::new(open::lending(&options)?),
            sql: Statements::new(&options.schema),
            templates: Templates::default(),
            hints: Hints::new(&options.schema, options.longest_poll),
            marks: Marks::new(),
            deadline: options.deadline / 2,
            runtime: runtime.clone(),
        });
        let (submissions, arrivals) = mpsc::channel(WAITING);
        let arrivals = Arc::new(tokio::sync::Mutex::new(arrivals));
        for _ in 0..create::LANES {
            // They end by themselves, once nobody can submit any more.
            runtime.spawn(create::run(database.clone(), arrivals.clone()));
        }
        let beside = vec![
            runtime.spawn(hint::notify(database.clone())).abort_handle(),
            runtime.spawn(hint::listen(database.clone(), listening)).abort_handle(),
            runtime.spawn(retention::run(database.clone(), options.keep)).abort_handle(),
        ];
        Ok(Self { database, submissions: Mutex::new(Some(submissions)), beside })
    }

    /// Finishes what was begun, and closes the connections.
    ///
    /// Every later call fails with [`StoreError::Unavailable`]. Dropping the store does the same
    /// without waiting for it.
    pub async fn close(&self) {
        drop(self.submissions.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.beside.iter().for_each(AbortHandle::abort);
        self.database.steps.pool.close().await;
        self.database.pool.close().await;
    }
}

impl PostgresStore {
    /// Hands a request to the lanes and waits for the answer.
    async fn submit(&self, request: Create) -> Result<Vec<Created>, StoreError> {
        let closed = || unavailable("it was closed");
        let submissions = self.submissions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let submissions = submissions.ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        let asked = async {
            submissions.send(Ask { request, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        // The lanes have deadlines of their own; this one is for waiting behind others.
        let patience = self.database.deadline.saturating_mul(2);
        let asked = tokio::time::timeout(patience, asked).await;
        asked.map_err(|_| unavailable("it did not answer in time"))?
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.beside.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl StateStore for PostgresStore {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        let mut created = Vec::with_capacity(tasks.len());
        let mut tasks = tasks.into_iter();
        loop {
            let request: Vec<NewTask> = tasks.by_ref().take(create::REQUEST).collect();
            if request.is_empty() {
                return Ok(created);
            }
            created.extend(self.submit(Create { tasks: request, claimant }).await?);
        }
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.database.perform(Claim(request)).await
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        self.database.perform(Commit { author: author.clone(), changes }).await
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        self.database.perform(Renew(beat)).await
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        self.database.perform(TakeOver(limit)).await
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        self.database.perform(Load(task)).await
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        self.database.perform(Find(query)).await
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        self.database.perform(ReadDocuments(query)).await
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        self.database.perform(WriteDocuments(changes)).await
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        self.database.hints.wait(worker, max).await;
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
