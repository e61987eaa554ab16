//! Measuring on PostgreSQL: where the server is, and what is asked of it beside the engine.

pub(crate) mod backlog;
mod cpu;
mod meter;
pub(crate) mod pickup;
mod place;
pub(crate) mod report;
mod statements;
pub(crate) mod worker;

use clap::Args as Arguments;
use serde::Serialize;

pub(crate) use self::meter::{Meter, Used};
pub(crate) use self::place::{HeldSnapshot, Home, Place, drop_schema};

/// What to measure on PostgreSQL.
#[derive(Clone, Debug, Arguments, Serialize)]
pub(crate) struct Args {
    /// PostgreSQL: the server; without it, one is started with PostgreSQL's own settings.
    #[arg(long, env = "DATABASE_URL")]
    #[serde(skip)]
    pub(crate) url: Option<String>,
    /// PostgreSQL: more of `postgresql.conf` for a server that is started, as name=value.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) setting: Vec<String>,
    /// PostgreSQL: connections of each process, at most.
    #[arg(long, default_value_t = 10)]
    pub(crate) connections: u32,
    /// PostgreSQL: processes that share the slots, beside this one that submits; 0 runs the steps
    /// in this one.
    #[arg(long, default_value_t = 0)]
    pub(crate) workers: usize,
    /// PostgreSQL: another session holds a snapshot from before, for as long as is measured.
    #[arg(long)]
    pub(crate) held_snapshot: bool,
    /// PostgreSQL: how fast tasks are claimed with so many waiting, in turns if there are several.
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    pub(crate) backlog: Vec<usize>,
    /// PostgreSQL: how many tasks a call claims of the backlog.
    #[arg(long, default_value_t = 100)]
    pub(crate) claim: usize,
    /// PostgreSQL: counts what an idle worker asks in so many seconds; then, how soon it picks up
    /// what somebody else submits.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle_queries: Option<u64>,
    /// PostgreSQL: the statements that took longest in all, where `pg_stat_statements` is loaded.
    #[arg(long, default_value_t = 5)]
    pub(crate) statements: usize,
    /// The schema in which this process is one of the workers.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub(crate) worker_in: Option<String>,
}
