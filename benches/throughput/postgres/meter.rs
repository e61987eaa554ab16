//! What the server did meanwhile, as it counts itself.
//!
//! The log's position, the time of its processes and `pg_stat_statements` are exact at once. The
//! other counters are told by each session late, at its end at the latest: they are read after the
//! store was closed, and therefore include the tasks that warm it up.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::cpu::ServerProcesses;
use super::statements::{self, Statements};
use crate::Failed;

/// Reads the server's counters, on a connection of its own.
pub(crate) struct Meter {
    connection: PgConnection,
    processes: Option<ServerProcesses>,
    schema: String,
    counts_statements: bool,
    at_start: Late,
    began: Exact,
    ended: Exact,
    statements: Option<Statements>,
}

/// What the server used.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Used {
    /// The schema that was used.
    pub(crate) schema: String,
    /// Bytes of its log, of everybody on the server.
    pub(crate) wal_bytes: u64,
    /// User and system time of all its processes; `None` if it runs elsewhere.
    pub(crate) cpu: Option<Duration>,
    pub(crate) statements: Option<Statements>,
    /// Warm-up included.
    pub(crate) late: Late,
}

#[derive(Clone, Copy, Debug, Default)]
struct Exact {
    wal: i64,
    cpu: Option<Duration>,
}

/// Counters that sessions tell late.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Late {
    pub(crate) commits: i64,
    pub(crate) rollbacks: i64,
    pub(crate) deadlocks: i64,
    pub(crate) inserted: i64,
    pub(crate) updated: i64,
    /// Of the updated, those that touched no index.
    pub(crate) updated_in_page: i64,
    pub(crate) deleted: i64,
    /// Times that a vacuum went over a table.
    pub(crate) vacuums: i64,
    /// Whole pages in the log, as after a checkpoint.
    pub(crate) full_pages: i64,
    /// Checkpoints that were begun.
    pub(crate) checkpoints: i64,
}

/// A table, and its indexes, on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) table: String,
    pub(crate) table_bytes: i64,
    pub(crate) index_bytes: i64,
    pub(crate) dead_rows: i64,
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, table_bytes, index_bytes, dead_rows } = self;
        let megabytes = |bytes: &i64| *bytes as f64 / 1e6;
        let (heap, indexes) = (megabytes(table_bytes), megabytes(index_bytes));
        write!(f, "{table}: {heap:.1} MB, indexes {indexes:.1} MB, {dead_rows} dead rows")
    }
}

impl Meter {
    pub(crate) async fn start(
        mut connection: PgConnection,
        processes: Option<ServerProcesses>,
        schema: &str,
    ) -> Result<Self, Failed> {
        let counts_statements = statements::are_counted(&mut connection).await?;
        let schema = schema.to_owned();
        let (began, ended) = (Exact::default(), Exact::default());
        let at_start = late(&mut connection, &schema).await?;
        Ok(Self {
            connection,
            processes,
            schema,
            counts_statements,
            at_start,
            began,
            ended,
            statements: None,
        })
    }

    /// The measurement begins.
    pub(crate) async fn begin(&mut self) -> Result<(), Failed> {
        if self.counts_statements {
            statements::reset(&mut self.connection).await?;
        }
        self.began = self.exact().await?;
        Ok(())
    }

    /// The measurement ends.
    pub(crate) async fn end(&mut self) -> Result<(), Failed> {
        self.ended = self.exact().await?;
        if self.counts_statements {
            self.statements = Some(statements::read(&mut self.connection).await?);
        }
        Ok(())
    }

    /// Everything, after the store was closed; fails if a task is lost.
    pub(crate) async fn finish(mut self, all_complete: bool) -> Result<Used, Failed> {
        let began = Instant::now();
        if all_complete {
            self.check_complete().await?;
        }
        loop {
            let late = late(&mut self.connection, &self.schema).await?;
            let sessions = sqlx::query(
                "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'tasker'",
            );
            let sessions: i64 = sessions.fetch_one(&mut self.connection).await?.get(0);
            // Another store may be open on this server; ten seconds are enough for idle ones.
            if sessions == 0 || began.elapsed() > Duration::from_secs(12) {
                // What the last of them told has arrived by now.
                let late = if sessions == 0 { self.late().await? } else { late };
                return Ok(self.used(&late));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn check_complete(&mut self) -> Result<(), Failed> {
        let other = format!("SELECT count(*) FROM {}.task WHERE state <> 'complete'", self.schema);
        let other = sqlx::query(AssertSqlSafe(other));
        match other.fetch_one(&mut self.connection).await?.get::<i64, _>(0) {
            0 => Ok(()),
            other => Err(format!("{other} tasks are not complete although they ended").into()),
        }
    }

    fn used(self, late: &Late) -> Used {
        let cpu = self.ended.cpu.zip(self.began.cpu);
        Used {
            schema: self.schema,
            wal_bytes: u64::try_from(self.ended.wal - self.began.wal).unwrap_or(0),
            cpu: cpu.map(|(ended, began)| ended.saturating_sub(began)),
            statements: self.statements,
            late: late.since(&self.at_start),
        }
    }

    /// What sessions have told so far.
    pub(crate) async fn late(&mut self) -> Result<Late, Failed> {
        late(&mut self.connection, &self.schema).await
    }

    /// Statements since [`begin`](Self::begin), if they are counted.
    pub(crate) async fn statements(&mut self) -> Result<Option<Statements>, Failed> {
        if !self.counts_statements {
            return Ok(None);
        }
        Ok(Some(statements::read(&mut self.connection).await?))
    }

    /// How large the tables are.
    pub(crate) async fn sizes(&mut self) -> Result<Vec<Sizes>, Failed> {
        let sizes = sqlx::query(
            "SELECT relname::text, pg_table_size(relid), pg_indexes_size(relid), n_dead_tup
            FROM pg_stat_user_tables
            WHERE schemaname = $1 AND pg_total_relation_size(relid) > 1000000
            ORDER BY relname",
        );
        let rows = sizes.bind(&self.schema).fetch_all(&mut self.connection).await?;
        let size = |row: &sqlx::postgres::PgRow| Sizes {
            table: row.get(0),
            table_bytes: row.get(1),
            index_bytes: row.get(2),
            dead_rows: row.get(3),
        };
        Ok(rows.iter().map(size).collect())
    }

    async fn exact(&mut self) -> Result<Exact, Failed> {
        let wal = sqlx::query("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint /* pg_stat */");
        let wal = wal.fetch_one(&mut self.connection).await?.get(0);
        Ok(Exact { wal, cpu: self.processes.and_then(ServerProcesses::cpu_time) })
    }
}

async fn late(connection: &mut PgConnection, schema: &str) -> Result<Late, Failed> {
    let version = sqlx::query("SELECT current_setting('server_version_num')::int /* pg_stat */");
    let version: i32 = version.fetch_one(&mut *connection).await?.get(0);
    let checkpoints = match version {
        ..170_000 => "SELECT checkpoints_timed + checkpoints_req FROM pg_stat_bgwriter",
        _ => "SELECT num_timed + num_requested FROM pg_stat_checkpointer",
    };
    let checkpoints = sqlx::query(checkpoints).fetch_one(&mut *connection).await?.get(0);
    let row = sqlx::query(
        "SELECT d.xact_commit, d.xact_rollback, d.deadlocks, t.*, (SELECT wal_fpi FROM pg_stat_wal)
        FROM pg_stat_database AS d,
            (
                SELECT coalesce(sum(n_tup_ins), 0)::bigint, coalesce(sum(n_tup_upd), 0)::bigint,
                    coalesce(sum(n_tup_hot_upd), 0)::bigint, coalesce(sum(n_tup_del), 0)::bigint,
                    coalesce(sum(vacuum_count + autovacuum_count), 0)::bigint
                FROM pg_stat_user_tables
                WHERE schemaname = $1
            ) AS t
        WHERE d.datname = current_database()",
    );
    let row = row.bind(schema).fetch_one(connection).await?;
    Ok(Late {
        commits: row.get(0),
        rollbacks: row.get(1),
        deadlocks: row.get(2),
        inserted: row.get(3),
        updated: row.get(4),
        updated_in_page: row.get(5),
        deleted: row.get(6),
        vacuums: row.get(7),
        full_pages: row.get(8),
        checkpoints,
    })
}

impl Late {
    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            commits: self.commits - earlier.commits,
            rollbacks: self.rollbacks - earlier.rollbacks,
            deadlocks: self.deadlocks - earlier.deadlocks,
            inserted: self.inserted - earlier.inserted,
            updated: self.updated - earlier.updated,
            updated_in_page: self.updated_in_page - earlier.updated_in_page,
            deleted: self.deleted - earlier.deleted,
            vacuums: self.vacuums - earlier.vacuums,
            full_pages: self.full_pages - earlier.full_pages,
            checkpoints: self.checkpoints - earlier.checkpoints,
        }
    }
}
