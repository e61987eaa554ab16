//! The statements that a server spent its time on, as `pg_stat_statements` counts them.

use serde::Serialize;
use sqlx::{PgConnection, Row};

use crate::Failed;

/// A statement, and what it cost so far.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) calls: i64,
    pub(crate) milliseconds: f64,
    pub(crate) rows: i64,
    pub(crate) wal_bytes: f64,
    /// Pages of 8 kB that were looked at.
    pub(crate) pages: i64,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Statements {
    /// How often any was executed: at least one for each message that asked something.
    pub(crate) calls: i64,
    pub(crate) milliseconds: f64,
    /// The longest in all, longest first.
    pub(crate) longest: Vec<Statement>,
}

/// Whether the server counts.
pub(crate) async fn are_counted(connection: &mut PgConnection) -> Result<bool, Failed> {
    let counted = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')",
    );
    Ok(counted.fetch_one(connection).await?.get(0))
}

/// Counts from zero.
pub(crate) async fn reset(connection: &mut PgConnection) -> Result<(), Failed> {
    sqlx::query("SELECT pg_stat_statements_reset()").execute(connection).await?;
    Ok(())
}

/// What was counted in this database; what this program itself asked of `pg_stat…` is left out.
pub(crate) async fn read(connection: &mut PgConnection) -> Result<Statements, Failed> {
    let all = sqlx::query(
        "SELECT query, calls, total_exec_time, rows, wal_bytes::float8,
            shared_blks_hit + shared_blks_read
        FROM pg_stat_statements
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND query NOT LIKE '%pg_stat%'
        ORDER BY total_exec_time DESC",
    );
    let longest: Vec<_> = all
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| Statement {
            text: row.get(0),
            calls: row.get(1),
            milliseconds: row.get(2),
            rows: row.get(3),
            wal_bytes: row.get(4),
            pages: row.get(5),
        })
        .collect();
    let calls = longest.iter().map(|statement| statement.calls).sum();
    let milliseconds = longest.iter().map(|statement| statement.milliseconds).sum();
    Ok(Statements { calls, milliseconds, longest })
}

impl Statement {
    /// The start of it, on one line.
    pub(crate) fn title(&self, schema: &str) -> String {
        let text =
            self.text.replace(&format!("\"{schema}\"."), "").replace(&format!("{schema}."), "");
        let words: Vec<_> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .flat_map(str::split_whitespace)
            .collect();
        words.join(" ").chars().take(100).collect()
    }
}
