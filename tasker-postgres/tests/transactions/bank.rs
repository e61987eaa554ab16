//! A bank in the database of its tasks: accounts, and a line for every transfer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Row};
use tasker_core::{
    RetryPolicy, StepContext, StepHandler, StepResult, StepTemplate, TaskId, TaskRequest,
    TaskStatus, TaskTemplate, TaskTemplateBuilder, Tasker, Workflow, async_trait,
};
use tasker_postgres::{PostgresOptions, PostgresStore, TransactionalStep, sql_error};
use tasker_postgres_kit::{Database, Server};

/// Nothing takes this long, whatever else the machine is about.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

pub(crate) struct Bank {
    pub(crate) database: Database,
    pub(crate) pool: PgPool,
}

impl Bank {
    /// Two accounts of 1,000 each that cannot be overdrawn.
    pub(crate) async fn open() -> Self {
        let database = Server::shared().await.unwrap().database().await.unwrap();
        let pool = PgPool::connect(database.url()).await.unwrap();
        let tables = "CREATE TABLE account (id int PRIMARY KEY, cents bigint CONSTRAINT covered CHECK (cents >= 0));
                      CREATE TABLE transfer (key text, cents bigint);
                      INSERT INTO account VALUES (1, 1000), (2, 1000)";
        sqlx::raw_sql(tables).execute(&pool).await.unwrap();
        Self { database, pool }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresStore::options(self.database.url())
    }

    pub(crate) async fn store(&self) -> Arc<PostgresStore> {
        Arc::new(self.options().open().await.unwrap())
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).fetch_one(&self.pool).await.unwrap().get(0)
    }

    /// What account 1 has, and how many transfers there were.
    pub(crate) async fn state(&self) -> (i64, i64) {
        let cents = self.number("SELECT cents FROM account WHERE id = 1").await;
        assert_eq!(self.number("SELECT sum(cents)::bigint FROM account").await, 2_000);
        (cents, self.number("SELECT count(*) FROM transfer").await)
    }

    /// Waits until no session of a store is within a transaction.
    pub(crate) async fn is_quiet(&self) {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND application_name = 'tasker' AND xact_start IS NOT NULL";
        let quiet = async {
            while self.number(open).await > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        in_time(quiet).await;
    }
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap()
}

pub(crate) fn step(name: &str) -> StepTemplate {
    let retry = RetryPolicy::fixed(50, Duration::from_millis(10));
    StepTemplate::new(name).handler("transfer").retry(retry).timeout(Duration::from_secs(20))
}

pub(crate) fn single() -> TaskTemplateBuilder {
    TaskTemplate::builder("transfer").step(step("transfer"))
}

pub(crate) fn tasker(
    store: &Arc<PostgresStore>,
    template: TaskTemplateBuilder,
    handler: impl StepHandler,
) -> Tasker {
    let workflow = Workflow::new(template.build().unwrap()).step("transfer", handler);
    Tasker::builder_on(store.clone()).register(workflow).build().unwrap()
}

pub(crate) async fn submit(tasker: &Tasker) -> TaskId {
    tasker.submit(TaskRequest::new("transfer", &10).unwrap()).await.unwrap().id
}

pub(crate) async fn ended(tasker: &Tasker, task: TaskId) -> TaskStatus {
    tasker.wait(task, DEADLINE).await.unwrap()
}

/// Moves so many cents from account 1 to account 2.
pub(crate) async fn transfer(step: &StepContext, on: &mut PgConnection) -> StepResult {
    let cents: i64 = step.context()?;
    for (account, cents) in [(1, -cents), (2, cents)] {
        sqlx::query("UPDATE account SET cents = cents + $2 WHERE id = $1")
            .bind(account)
            .bind(cents)
            .execute(&mut *on)
            .await
            .map_err(sql_error)?;
    }
    let line = sqlx::query("INSERT INTO transfer VALUES ($1, $2)").bind(step.idempotency_key());
    line.bind(cents).execute(on).await.map_err(sql_error)?;
    step.complete(&cents)
}

/// Moves cents, and then does something else; the first time, or every time.
pub(crate) struct Transfer<F> {
    pub(crate) calls: Arc<AtomicUsize>,
    then: F,
}

/// What a [`Transfer`] may do after it, given the number of the call.
#[async_trait]
pub(crate) trait Then: Send + Sync + 'static {
    async fn act(&self, call: usize, step: &StepContext, on: &mut PgConnection) -> StepResult;
}

impl<F: Then> Transfer<F> {
    pub(crate) fn new(then: F) -> Self {
        Self { calls: Arc::default(), then }
    }
}

#[async_trait]
impl<F: Then> TransactionalStep for Transfer<F> {
    async fn process(&self, step: StepContext, transaction: &mut PgConnection) -> StepResult {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        transfer(&step, &mut *transaction).await?;
        self.then.act(call, &step, transaction).await
    }
}
