//! The shop's own SQLite files: durable, shared by several processes, and never Tasker's.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::task::JoinError;

/// Opens a file, makes it if need be, and brings its tables into being.
pub(crate) async fn open(file: &Path, tables: &[&'static str]) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered must outlive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    for table in tables {
        sqlx::raw_sql(*table).execute(&pool).await?;
    }
    Ok(pool)
}

/// Runs a piece of work to its end even if nobody waits for it any more.
///
/// A step that times out is dropped where it stands. A connection that is dropped in the middle of
/// `BEGIN` would go back to its pool inside a transaction.
pub(crate) async fn undisturbed<T, F>(work: F) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    tokio::spawn(work).await
}
