//! Runs operations on connections of the pool, each to its end whether or not its caller waits.
//!
//! An operation runs in a task of its own: a caller that is dropped at any await leaves no
//! statement half sent and no transaction open, and the connection goes back to the pool in the
//! state in which it came.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};
use tasker_core::TaskTemplate;
use tasker_core::store::StoreError;
use tokio::runtime::Handle;

use crate::claim::Marks;
use crate::fault::{Fault, unavailable};
use crate::hint::Hints;
use crate::statements::Statements;
use crate::templates::Templates;
use crate::transactional::Steps;

/// A statement with its parameters.
pub(crate) type Statement = Query<'static, Postgres, PgArguments>;

/// What an operation sends may take this much longer: 2 MB a second, a slow network.
const BYTES_PER_MICROSECOND: usize = 2;

/// A database, and what is known of it.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) steps: Steps,
    pub(crate) sql: Statements,
    pub(crate) templates: Templates,
    pub(crate) hints: Hints,
    pub(crate) marks: Marks,
    /// How long an operation may take.
    pub(crate) deadline: Duration,
    /// Where operations run: on the runtime that the connections were made on.
    pub(crate) runtime: Handle,
}

/// An operation: some statements on one connection.
pub(crate) trait Work: Send + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// How many bytes of results and inputs it sends.
    fn weight(&self) -> usize {
        0
    }

    /// Does it. A failure in an open transaction is rolled back by closing the connection.
    fn run(
        self,
        session: &mut Session<'_>,
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// A connection, for one operation.
pub(crate) struct Session<'a> {
    pub(crate) database: &'a Database,
    pub(crate) connection: &'a mut PgConnection,
    /// Whether a transaction of several statements is open.
    open: bool,
}

impl Database {
    /// Does some work and answers; to the caller the deadline is over everything.
    pub(crate) async fn perform<W: Work>(
        self: &Arc<Self>,
        work: W,
    ) -> Result<W::Answer, StoreError> {
        let database = Arc::clone(self);
        let performed = self.runtime.spawn(async move { database.perform_here(work).await });
        match performed.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fault)) => Err(fault.to_store_error()),
            Err(error) if error.is_panic() => Err(unavailable("the operation panicked")),
            Err(_) => Err(unavailable("its runtime has stopped")),
        }
    }

    /// Does some work in the current task, which must not be dropped meanwhile.
    pub(crate) async fn perform_here<W: Work>(&self, work: W) -> Result<W::Answer, Fault> {
        let transfer = Duration::from_micros((work.weight() / BYTES_PER_MICROSECOND) as u64);
        let mut lent = Lent { connection: self.pool.acquire().await?, sound: false };
        let mut session = Session { database: self, connection: &mut lent.connection, open: false };
        let performed =
            tokio::time::timeout(self.deadline + transfer, work.run(&mut session)).await;
        let open = session.open;
        match performed {
            Ok(Ok(_)) if open => Err(Fault::Contended),
            Ok(Ok(answer)) => {
                lent.sound = true;
                Ok(answer)
            }
            Ok(Err(fault)) => {
                lent.sound = !open && fault.spares_the_connection();
                Err(fault)
            }
            Err(_) => Err(Fault::TooLate),
        }
    }
}

/// A connection of the pool. Unless it is known to be as good as before, dropping it closes it: an
/// operation that panicked, or was dropped, may have left a transaction open.
struct Lent {
    connection: PoolConnection<Postgres>,
    sound: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.sound {
            self.connection.close_on_drop();
        }
    }
}

impl<'a> Session<'a> {
    /// For an operation within a transaction that somebody else has opened and will end.
    pub(crate) fn within(database: &'a Database, connection: &'a mut PgConnection) -> Self {
        Self { database, connection, open: false }
    }

    pub(crate) async fn run(&mut self, statement: Statement) -> Result<u64, Fault> {
        Ok(statement.execute(&mut *self.connection).await?.rows_affected())
    }

    pub(crate) async fn fetch(&mut self, statement: Statement) -> Result<Vec<PgRow>, Fault> {
        Ok(statement.fetch_all(&mut *self.connection).await?)
    }

    pub(crate) async fn fetch_one(&mut self, statement: Statement) -> Result<PgRow, Fault> {
        Ok(statement.fetch_one(&mut *self.connection).await?)
    }

    /// Opens a transaction of several statements.
    pub(crate) async fn begin(&mut self) -> Result<(), Fault> {
        self.open = true;
        let begin = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.database.sql.begin)));
        begin.execute(&mut *self.connection).await?;
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Result<(), Fault> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await?;
        self.open = false;
        Ok(())
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), Fault> {
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection).await?;
        self.open = false;
        Ok(())
    }

    /// The template with a key.
    pub(crate) async fn template(&mut self, key: i64) -> Result<Arc<TaskTemplate>, Fault> {
        let Database { templates, sql, .. } = self.database;
        templates.get(self.connection, sql, key).await
    }
}

/// A statement without parameters yet.
pub(crate) fn statement(text: &Arc<str>) -> Statement {
    sqlx::query(AssertSqlSafe(Arc::clone(text)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use sqlx::Row;
    use tasker_postgres_kit::Server;

    use super::*;
    use crate::PostgresOptions;

    /// Which session of the server it is on.
    struct WhichSession;

    impl Work for WhichSession {
        type Answer = i32;

        async fn run(self, session: &mut Session<'_>) -> Result<i32, Fault> {
            let row = session.fetch_one(sqlx::query("SELECT pg_backend_pid()")).await?;
            Ok(row.get(0))
        }
    }

    /// Panics in a transaction.
    struct Breaks;

    impl Work for Breaks {
        type Answer = ();

        async fn run(self, session: &mut Session<'_>) -> Result<(), Fault> {
            session.begin().await?;
            panic!("on purpose")
        }
    }

    #[tokio::test]
    async fn nobody_gets_a_connection_whose_operation_panicked() {
        let schema = Server::shared().await.unwrap().schema();
        let options = PostgresOptions::new(schema.url()).schema(schema.name()).connections(1);
        let store = options.open().await.unwrap();
        let before = store.database.perform(WhichSession).await.unwrap();
        assert_eq!(store.database.perform(WhichSession).await.unwrap(), before);
        store.database.perform(Breaks).await.unwrap_err();
        assert_ne!(store.database.perform(WhichSession).await.unwrap(), before);
    }
}
