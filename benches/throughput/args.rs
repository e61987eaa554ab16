//! What to measure: the command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Measures how many durable steps a worker makes, and how long one task takes on an idle system.
///
/// Every figure is given beside what the same machine does in the same run without the engine.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "throughput")]
pub(crate) struct Args {
    /// Where tasks live.
    #[arg(long, value_enum, default_value = "memory")]
    pub(crate) store: StoreKind,
    /// What a task is made of.
    #[arg(long, value_enum, default_value = "diamond5")]
    pub(crate) shape: Shape,
    /// Tasks in each run; by default as many as make some 200,000 steps.
    #[arg(long)]
    pub(crate) tasks: Option<usize>,
    /// Steps that the worker runs at once, and tasks that it holds.
    #[arg(long, default_value_t = 256)]
    pub(crate) slots: usize,
    /// How many submit at the same time.
    #[arg(long, default_value_t = 2)]
    pub(crate) submitters: usize,
    /// Tasks handed in together; 1 submits each by itself.
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: usize,
    /// Tasks that are stored and have not ended, at most: the submitters wait for the worker.
    #[arg(long, default_value_t = 4000)]
    pub(crate) in_flight: usize,
    /// Tasks that run before each measurement and do not count.
    #[arg(long, default_value_t = 1000)]
    pub(crate) warm_up: usize,
    /// Runs, each on a new store; the median is reported, and the least and the most.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Tasks of which one after the other is submitted to an idle worker and waited for.
    #[arg(long, default_value_t = 500)]
    pub(crate) idle: usize,
    /// Measures the shape against as many single-step tasks as it has steps.
    #[arg(long)]
    pub(crate) compare_fan: bool,
    /// Stores this many tasks that wait for days, and tells what each costs the process.
    #[arg(long, default_value_t = 0)]
    pub(crate) waiting: usize,
    /// Submits and runs nothing: how fast are tasks stored?
    #[arg(long)]
    pub(crate) submit_only: bool,
    /// Instead of a number of tasks: keeps the worker busy for so long, a line for each minute.
    #[arg(long, value_name = "MINUTES")]
    pub(crate) minutes: Option<u64>,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    pub(crate) postgres: crate::postgres::Args,
    /// What a commit of the file waits for.
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) durability: Durability,
    /// Where the file is made, or the server that is started: on the disk that is to be measured,
    /// not in memory.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub(crate) dir: PathBuf,
    /// Also writes the report as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub(crate) bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreKind {
    /// In this process.
    Memory,
    /// In a file.
    #[cfg(feature = "sqlite")]
    Sqlite,
    /// On a server.
    #[cfg(feature = "postgres")]
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durability {
    /// The disk: what is acknowledged survives a power cut.
    Full,
    /// The operating system: what is acknowledged survives a crash of the process.
    Normal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// One step.
    Single,
    /// One step that names the system it depends on, which is well.
    Calling,
    /// Five steps, one after the other.
    Chain5,
    /// Five steps: one, three beside each other, one.
    Diamond5,
    /// One step, 1,000 beside each other, one.
    Fan1000,
    /// One step, 10,000 beside each other, one.
    Fan10000,
}

impl Args {
    /// Tasks of one run.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.unwrap_or(200_000usize.div_ceil(self.shape.steps()))
    }
}
