//! The transaction of one attempt at a step.
//!
//! It has a connection of a pool that only such steps use, because they keep it for as long as
//! they like: the workers' own operations never wait for them. A connection that is given up, by
//! being dropped or after a failure, is closed, and the server then rolls back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection, PgTransaction, Postgres};
use tasker_core::history::Author;
use tasker_core::store::TaskChange;
use tasker_core::{StepError, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use crate::commit;
use crate::database::{Database, Session, statement};
use crate::fault::Fault;
use crate::rows::Columns;
use crate::sql_error::{is_outcome_unknown, sql_error};

/// The longest limit that the server knows, in milliseconds.
const LONGEST: u128 = i32::MAX as u128;

/// The connections of transactional steps.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) pool: PgPool,
    turns: Arc<Semaphore>,
}

impl Steps {
    pub(crate) fn new(pool: PgPool) -> Self {
        let turns = usize::try_from(pool.options().get_max_connections()).unwrap_or(1);
        Self { pool, turns: Arc::new(Semaphore::new(turns)) }
    }

    /// Resolves once the store is closed.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        self.pool.close_event()
    }
}

/// The failure of a step whose store was closed.
pub(super) fn closed() -> StepError {
    sql_error(sqlx::Error::PoolClosed)
}

/// A connection for one attempt; dropping it closes it.
pub(super) struct Lent {
    database: Arc<Database>,
    connection: Option<PoolConnection<Postgres>>,
    _turn: OwnedSemaphorePermit,
}

impl Lent {
    /// Waits for its turn.
    pub(super) async fn wait(database: &Arc<Database>) -> Result<Self, StepError> {
        let turn = Arc::clone(&database.steps.turns).acquire_owned().await;
        let turn = turn.map_err(|_| closed())?;
        // On the runtime of the connections: the handlers' may end before them.
        let database = Arc::clone(database);
        let lent = database.runtime.clone().spawn(async move {
            let connection = database.steps.pool.acquire().await?;
            Ok::<_, Fault>(Self { database, connection: Some(connection), _turn: turn })
        });
        lent.await.map_err(|_| closed())?.map_err(|fault| fault.to_step_error())
    }

    #[allow(clippy::expect_used, reason = "only what consumes `self` takes it")]
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it was not given back")
    }

    /// Lets another step have it.
    pub(super) fn give_back(mut self) {
        let connection = self.connection.take();
        // What the pool does with it, it does in the current runtime.
        let _entered = self.database.runtime.enter();
        drop(connection);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _entered = self.database.runtime.enter();
            connection.close_on_drop();
            drop(connection);
        }
    }
}

/// How a commit ended.
pub(super) enum End {
    Committed,
    /// It certainly was not committed.
    Failed(StepError),
    /// The answer was lost.
    Unknown,
}

/// A transaction on a lent connection. If it is dropped, the connection is to be closed.
pub(super) struct Open<'c> {
    database: &'c Database,
    transaction: PgTransaction<'c>,
    marker: String,
}

impl<'c> Open<'c> {
    pub(super) async fn begin(
        database: &'c Database,
        connection: &'c mut PgConnection,
        deadline: Instant,
    ) -> Result<Self, StepError> {
        let marker = Uuid::now_v7().to_string();
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        let begin = database.sql.begin_step.replace("{marker}", &marker);
        let begin = begin.replace("{idle}", &left.as_millis().min(LONGEST).to_string());
        // By way of sqlx, which then knows that what a handler begins is a savepoint in it.
        let begun = connection.begin_with(AssertSqlSafe(begin));
        let transaction = tokio::time::timeout(database.deadline, begun).await;
        let transaction = transaction.map_err(|_| Fault::TooLate.to_step_error())?;
        let transaction = transaction.map_err(|error| Fault::from(error).to_step_error())?;
        Ok(Self { database, transaction, marker })
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Records a step's success in it, and says as of when; `None` if that is refused.
    pub(super) async fn record(
        &mut self,
        author: &Author,
        change: &TaskChange,
    ) -> Result<Option<Timestamp>, StepError> {
        let mut session = Session::within(self.database, &mut self.transaction);
        let recorded = async {
            // The handler has had the connection for itself.
            let same = statement(&session.database.sql.is_same_step).bind(self.marker.clone());
            let row = session.fetch_one(same).await?;
            if !Columns::of(&row).next::<bool>()? {
                return Ok(Err(ended()));
            }
            commit::within(&mut session, author, change).await.map(Ok)
        };
        let recorded = tokio::time::timeout(self.database.deadline, recorded).await;
        recorded.unwrap_or(Err(Fault::TooLate)).map_err(|fault| fault.to_step_error())?
    }

    /// Commits it.
    pub(super) async fn commit(self) -> End {
        let committed = self.transaction.commit();
        match tokio::time::timeout(self.database.deadline, committed).await {
            Ok(Ok(())) => End::Committed,
            Ok(Err(error)) if !is_outcome_unknown(&error) => End::Failed(sql_error(error)),
            Ok(Err(_)) | Err(_) => End::Unknown,
        }
    }

    /// Undoes everything; true if the connection is as good as before.
    pub(super) async fn roll_back(self) -> bool {
        let rolled_back = self.transaction.rollback();
        matches!(tokio::time::timeout(self.database.deadline, rolled_back).await, Ok(Ok(())))
    }
}

/// The failure of a handler that did what is not its business.
pub(super) fn ended() -> StepError {
    let message = "the handler ended the transaction that its success was to be recorded in: \
                   leave COMMIT and ROLLBACK to the store";
    StepError::permanent("TRANSACTION_ENDED", message)
}
