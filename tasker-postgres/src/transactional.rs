//! Steps whose handlers get the transaction in which their success is recorded, so that what they
//! do to the database happens exactly once.

mod transaction;

use std::slice;
use std::sync::Arc;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tasker_core::{StepContext, StepHandler, StepResult, async_trait};

pub(crate) use self::transaction::Steps;
use self::transaction::{End, Lent, Open, ended};
use crate::PostgresStore;
use crate::commit;
use crate::database::Database;

/// The code of a step that works in the database of the tasks.
///
/// It is given a transaction, and its success is recorded in that transaction: its effects on the
/// database and the row that says so become durable together, or neither does. So they happen
/// exactly once, whatever crashes, however often the handler is called. What it changes elsewhere
/// happens at least once, as in every [`StepHandler`].
///
/// [`PostgresStore::transactional`] makes a step handler of it.
///
/// ```no_run
/// use sqlx::PgConnection;
/// use tasker_core::{
///     StepContext, StepResult, StepTemplate, TaskTemplate, Tasker, Workflow, async_trait,
/// };
/// use tasker_postgres::{PostgresStore, TransactionalStep, sql_error};
///
/// struct Debit;
///
/// #[async_trait]
/// impl TransactionalStep for Debit {
///     async fn process(&self, step: StepContext, transaction: &mut PgConnection) -> StepResult {
///         let (account, cents): (i64, i64) = step.context()?;
///         sqlx::query("UPDATE account SET cents = cents - $2 WHERE id = $1")
///             .bind(account)
///             .bind(cents)
///             .execute(transaction)
///             .await
///             .map_err(sql_error)?;
///         step.complete(&cents)
///     }
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::open("postgres://app@db.example/app").await?;
/// let template = TaskTemplate::builder("payment").step(StepTemplate::new("debit")).build()?;
/// let workflow = Workflow::new(template).step("debit", store.transactional(Debit));
/// let tasker = Tasker::builder(store).register(workflow).build()?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait TransactionalStep: Send + Sync + 'static {
    /// Makes one attempt at the step, in a transaction (`READ COMMITTED`) that is open.
    ///
    /// If it succeeds the transaction is committed; if it fails, panics, times out or is not wanted
    /// any more, it is rolled back. After an error of the database nothing but a rollback is
    /// possible: return it, by [`sql_error`](crate::sql_error), or set a savepoint first
    /// ([`Connection::begin`](sqlx::Connection::begin) does). A handler that ends the transaction
    /// itself fails with `TRANSACTION_ENDED`, permanently, but what it committed is committed.
    ///
    /// A lock is waited for no longer than `lock_timeout`, two seconds unless the handler says
    /// otherwise (`SET LOCAL`). Between two statements no more time may pass than the step's
    /// time-out, heartbeats or not. Leave the session as it was: a setting beyond the transaction,
    /// or a lock of the session, would meet other steps.
    async fn process(&self, step: StepContext, transaction: &mut PgConnection) -> StepResult;
}

impl PostgresStore {
    /// A handler that does its work in the transaction in which its success is recorded.
    ///
    /// It is for tasks in this store. How many run at once is limited by
    /// [`transactional_steps`](crate::PostgresOptions::transactional_steps); what waits for its
    /// turn does so in its own time.
    ///
    /// If the answer to the commit is lost, the worker asks the store what became of it. If the
    /// worker has lost the task, nothing is written. Closing the store rolls back what is under way.
    pub fn transactional<H: TransactionalStep>(&self, handler: H) -> impl StepHandler + use<H> {
        Transactional { database: Arc::clone(&self.database), handler }
    }
}

struct Transactional<H> {
    database: Arc<Database>,
    handler: H,
}

#[async_trait]
impl<H: TransactionalStep> StepHandler for Transactional<H> {
    async fn process(&self, step: StepContext) -> StepResult {
        let closed = self.database.steps.closed();
        tokio::select! {
            ended = self.attempt(step) => ended,
            () = closed => Err(transaction::closed()),
        }
    }
}

impl<H: TransactionalStep> Transactional<H> {
    /// If it is dropped the transaction is rolled back at once.
    async fn attempt(&self, step: StepContext) -> StepResult {
        let mut lent = Lent::wait(&self.database).await?;
        let (result, sound) = self.attempt_on(lent.connection(), step).await;
        if sound {
            lent.give_back();
        }
        result
    }

    /// What it comes to, and whether the connection is as good as before.
    async fn attempt_on(&self, on: &mut PgConnection, step: StepContext) -> (StepResult, bool) {
        let mut open = match Open::begin(&self.database, on, step.deadline()).await {
            Ok(open) => open,
            Err(error) => return (Err(error), false),
        };
        let output = match self.handler.process(step.clone(), open.connection()).await {
            Ok(output) => output,
            Err(error) => return (Err(error), open.roll_back().await),
        };
        let completion = match step.completion(output) {
            Ok(completion) => completion,
            Err(output) => return (Ok(output), open.roll_back().await),
        };
        match open.record(completion.author(), completion.change()).await {
            Ok(Some(at)) => match open.commit().await {
                // Something that the handler began in it would have been committed instead of it.
                End::Committed if on.is_in_transaction() => (Err(ended()), false),
                End::Committed => {
                    if commit::gives_work(slice::from_ref(completion.change())) {
                        self.database.hints.there_may_be_work();
                    }
                    (Ok(completion.recorded(at)), true)
                }
                End::Failed(error) => (Err(error), false),
                End::Unknown => (Ok(completion.unknown()), false),
            },
            Ok(None) => (Ok(completion.refused()), open.roll_back().await),
            Err(error) => (Err(error), false),
        }
    }
}
