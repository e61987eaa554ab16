//! Stores tasks within a transaction of the caller's own: they exist if and only if what else the
//! transaction writes does.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use tasker_core::store::{Created, NewTask, StoreError};
use tasker_core::{Receipt, SubmitError, TaskRequest, Tasker};

use crate::PostgresStore;
use crate::create::{Arrival, Keys, keys_of, store};
use crate::database::{Session, Work, statement};
use crate::fault::{Fault, unavailable};

impl PostgresStore {
    /// Submits a task within the caller's own transaction: it is stored, and workers hear of it,
    /// when that commits; after a rollback nothing was submitted.
    ///
    /// ```no_run
    /// # use tasker_core::{Receipt, TaskRequest, Tasker};
    /// # use tasker_postgres::PostgresStore;
    /// # async fn order(
    /// #     store: &PostgresStore, tasker: &Tasker, pool: &sqlx::PgPool,
    /// # ) -> Result<Receipt, Box<dyn std::error::Error>> {
    /// let mut transaction = pool.begin().await?;
    /// let order = sqlx::query("INSERT INTO orders (customer) VALUES ($1)").bind("Ada");
    /// order.execute(&mut *transaction).await?;
    /// let request = TaskRequest::new("order", &("Ada", 7))?;
    /// let receipt = store.submit_in(tasker, &mut transaction, request).await?;
    /// transaction.commit().await?;
    /// # Ok(receipt)
    /// # }
    /// ```
    ///
    /// What [`create_in`](Self::create_in) says of transactions holds here too.
    ///
    /// # Errors
    /// Those of [`Tasker::submit`]. After [`SubmitError::Store`] the transaction can only be rolled
    /// back; the others leave it as it was.
    pub async fn submit_in(
        &self,
        tasker: &Tasker,
        transaction: &mut PgConnection,
        request: TaskRequest,
    ) -> Result<Receipt, SubmitError> {
        let task = tasker.prepare(request).await?;
        let created = self.create_in(transaction, vec![task.clone()]).await?;
        match created.first() {
            Some(created) => Receipt::of(&task, created),
            None => Err(unavailable("it gave no answer for a new task").into()),
        }
    }

    /// Stores tasks within the caller's own transaction, and answers as
    /// [`StateStore::create`](tasker_core::StateStore::create) does.
    ///
    /// The tasks come from [`Tasker::prepare`], and [`Receipt::of`] reads the answers. They count
    /// as submitted when the transaction began. A connection without an open transaction commits
    /// by itself, one request at a time or a part of it.
    ///
    /// The connection is of the same database as the store, which need not be its own pool, with a
    /// user that may write the tables; no time limit but the caller's is set. An idempotency key
    /// that another open transaction uses is waited for. Of several transactions with the same
    /// keys, let each use them in one order, or one of them may end as a deadlock. In isolation
    /// `REPEATABLE READ` or stricter a key that somebody used meanwhile is a conflict of
    /// transactions. Every worker is notified by the commit, and notifications make commits queue
    /// up behind each other: [`Tasker::submit`] is faster where no transaction is needed.
    ///
    /// # Errors
    /// The database failed. The transaction can only be rolled back, unless it was never asked.
    pub async fn create_in(
        &self,
        transaction: &mut PgConnection,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Created>, StoreError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        // On a connection of ours: templates are cached, so they have to be there for good.
        let tasks = Arc::new(tasks);
        let keys = self.database.perform(StoreTemplates(Arc::clone(&tasks))).await?;
        let session = &mut Session::within(&self.database, transaction);
        create(session, &tasks, &keys).await.map_err(|fault| fault.to_store_error())
    }
}

async fn create(
    session: &mut Session<'_>,
    tasks: &[NewTask],
    keys: &Keys,
) -> Result<Vec<Created>, Fault> {
    let arrivals = tasks.iter().map(|task| Arrival { request: 0, task, claimant: None, keys });
    let created = store(session, &arrivals.collect::<Vec<_>>()).await?;
    if created.iter().any(|created| matches!(created, Created::New { .. })) {
        let (channel, what) = session.database.hints.announcement();
        let announce = statement(&session.database.sql.announce);
        session.run(announce.bind(channel.to_owned()).bind(what)).await?;
    }
    Ok(created)
}

/// Stores the templates of some tasks, where they are new.
struct StoreTemplates(Arc<Vec<NewTask>>);

impl Work for StoreTemplates {
    type Answer = Keys;

    async fn run(self, session: &mut Session<'_>) -> Result<Keys, Fault> {
        keys_of(session, self.0.iter()).await
    }
}
