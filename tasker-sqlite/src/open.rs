//! Opening the file: connections, the schema, and what can be wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backoff::{BackoffBuilder, ExponentialBuilder};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row};
use tokio::time::Instant;

use crate::fault::Fault;
use crate::{SqliteOptions, Synchronous};

/// The version of the schema that this version of Tasker reads and writes, kept in the file's
/// `user_version`. sqlx's migrations take no lock on SQLite, so processes that start together
/// would run them twice.
const SCHEMA_VERSION: i64 = 1;

/// Marks the file as ours: "Task" in the header's `application_id`.
const APPLICATION_ID: i64 = 0x5461_736b;

/// Each turn of waiting for another process's lock; see `Writer::begin`.
const BUSY_TIMEOUT: Duration = Duration::from_millis(15);

/// Why a store could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that is to hold the file is missing.
    #[error("cannot open {path}: its directory does not exist; create it or name another file")]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("cannot open {path}: it is not a database of Tasker; name another file")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version of Tasker.
    #[error(
        "cannot open {path}: its schema has version {found} and this program knows up to \
         {known}; run a later version of the program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// The file or its directory cannot be written.
    #[error(
        "cannot write to {path}: give this user the right to write to the file and its directory"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Another process kept the file locked for longer than the deadline.
    #[error("cannot open {path}: another process keeps it locked; try again")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written for another reason.
    #[error("cannot open {path}: {reason}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What SQLite says of it.
        reason: String,
    },
}

/// How the connection that writes is configured.
pub(crate) fn writing(options: &SqliteOptions) -> SqliteConnectOptions {
    let synchronous = match options.synchronous {
        Synchronous::Full => SqliteSynchronous::Full,
        Synchronous::Normal => SqliteSynchronous::Normal,
    };
    reading(options)
        .read_only(false)
        .create_if_missing(true)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(synchronous)
        // No row refers to another by a foreign key.
        .foreign_keys(false)
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "67108864")
        .pragma("cache_size", "-65536")
        // Rows cross from the connection's thread in one go.
        .row_buffer_size(1_024)
}

fn reading(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&options.path)
        .read_only(true)
        .busy_timeout(options.deadline)
        .pragma("temp_store", "memory")
        .statement_cache_capacity(256)
        .disable_statement_logging()
        .thread_name(|id| format!("tasker-sqlite-{id}"))
}

/// The connections that read.
pub(crate) fn readers(options: &SqliteOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(options.readers)
        .acquire_timeout(options.deadline)
        .test_before_acquire(false)
        .connect_lazy_with(reading(options))
}

/// A connection to a file that has the schema.
pub(crate) async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, Fault> {
    Ok(options.connect().await?)
}

/// Opens the file, makes it a store if it is new, and checks that it is one.
pub(crate) async fn prepare(options: &SqliteOptions) -> Result<SqliteConnection, OpenError> {
    let path = &options.path;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if directory.is_some_and(|directory| !directory.is_dir()) {
        return Err(OpenError::NoDirectory { path: path.clone() });
    }
    let give_up_at = Instant::now() + options.deadline;
    let turns = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(2))
        .with_max_delay(Duration::from_millis(50))
        .with_jitter()
        .without_max_times();
    let mut turns = turns.build();
    loop {
        match try_prepare(options).await {
            Err(Trouble::Fault(fault)) if fault.is_busy() => {
                if Instant::now() >= give_up_at {
                    return Err(OpenError::Locked { path: path.clone() });
                }
                tokio::time::sleep(turns.next().unwrap_or(BUSY_TIMEOUT)).await;
            }
            Err(Trouble::Fault(fault)) => return Err(explain(path, &fault)),
            Err(Trouble::Refused(error)) => return Err(error),
            Ok(connection) => return Ok(connection),
        }
    }
}

enum Trouble {
    Fault(Fault),
    Refused(OpenError),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Fault(error.into())
    }
}

async fn try_prepare(options: &SqliteOptions) -> Result<SqliteConnection, Trouble> {
    // A page holds a typical result, and the mode is the file's for good.
    let mut connection =
        writing(options).page_size(8_192).journal_mode(SqliteJournalMode::Wal).connect().await?;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
    let row = sqlx::query(include_str!("../queries/schema_version.sql"))
        .fetch_one(&mut connection)
        .await?;
    let (ours, version, tables): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let path = || options.path.clone();
    match (ours, version) {
        (0, 0) if tables == 0 => {
            sqlx::raw_sql(include_str!("../queries/schema_1.sql")).execute(&mut connection).await?;
            let mark = format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(&mut connection).await?;
            sqlx::query("COMMIT").execute(&mut connection).await?;
            return Ok(connection);
        }
        (APPLICATION_ID, SCHEMA_VERSION) => {}
        (APPLICATION_ID, found) => {
            let newer = OpenError::Newer { path: path(), found, known: SCHEMA_VERSION };
            return Err(Trouble::Refused(newer));
        }
        _ => return Err(Trouble::Refused(OpenError::NotOurs { path: path() })),
    }
    sqlx::query("ROLLBACK").execute(&mut connection).await?;
    Ok(connection)
}

fn explain(path: &Path, fault: &Fault) -> OpenError {
    let path = path.to_owned();
    match fault.code().map(|code| code & 0xff) {
        Some(26) => OpenError::NotOurs { path },
        Some(8 | 14) => OpenError::ReadOnly { path },
        _ => OpenError::Failed { path, reason: fault.to_store_error().to_string() },
    }
}
