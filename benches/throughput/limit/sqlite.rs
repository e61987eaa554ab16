//! What the disk does at most through SQLite: the rows of the engine, with no engine around them.

use std::time::Instant;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use tasker::TaskId;

use super::{LONG_ENOUGH, Limit};
use crate::args::{Args, Durability};
use crate::{Failed, usage};

/// Rows in one transaction, as busy commits have.
const ROWS: usize = 100;

const TABLE: &str = "CREATE TABLE history (
    task BLOB NOT NULL, step INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
    author BLOB NOT NULL, kind TEXT NOT NULL, result TEXT, PRIMARY KEY (task, step, seq)
) STRICT, WITHOUT ROWID";

/// Inserts outcomes a hundred in a transaction, then one in a transaction.
pub(super) async fn measure(args: &Args) -> Result<Limit, Failed> {
    let dir = tempfile::tempdir_in(&args.dir)?;
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("limit.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match args.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        });
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query(TABLE).execute(&mut connection).await?;
    let (began, cpu) = (Instant::now(), usage::cpu_time());
    let mut rows = 0;
    while began.elapsed() < LONG_ENOUGH {
        insert(&mut connection, ROWS).await?;
        rows += ROWS;
    }
    let what = "insert the outcome of each step, a hundred in a transaction";
    let mut limit = Limit::of(what, rows, began.elapsed(), usage::cpu_since(cpu));
    let began = Instant::now();
    let mut commits = 0;
    while began.elapsed() < LONG_ENOUGH {
        insert(&mut connection, 1).await?;
        commits += 1;
    }
    limit.commits_per_second = Some(f64::from(commits) / began.elapsed().as_secs_f64());
    connection.close().await?;
    Ok(limit)
}

/// Inserts so many outcomes with one statement, which is one transaction.
async fn insert(connection: &mut SqliteConnection, rows: usize) -> Result<(), Failed> {
    let mut statement = sqlx::QueryBuilder::new("INSERT INTO history ");
    let tasks: Vec<_> = (0..rows.div_ceil(5)).map(|_| TaskId::new().as_uuid()).collect();
    let author = TaskId::new().as_uuid();
    statement.push_values(0..rows, |mut row, number| {
        row.push_bind(tasks[number / 5].as_bytes().to_vec())
            .push_bind((number % 5) as i64)
            .push_bind(1i64)
            .push_bind(1_700_000_000_000_000i64)
            .push_bind(author.as_bytes().to_vec())
            .push_bind("completed")
            .push_bind("null");
    });
    statement.build().execute(connection).await?;
    Ok(())
}
