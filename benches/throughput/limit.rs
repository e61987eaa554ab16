//! What the machine does at most: the same work with no engine around it.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::args::{Args, StoreKind};
use crate::system::Places;
use crate::{Failed, usage};

/// The least that a step costs on this machine, in this minute.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limit {
    /// What was done.
    pub(crate) what: &'static str,
    /// How often in a second.
    pub(crate) steps_per_second: f64,
    /// User and system time for each step, in microseconds.
    pub(crate) cpu_micros_per_step: Option<f64>,
    /// For a store on disk: commits of one row in a second.
    pub(crate) commits_per_second: Option<f64>,
    /// On a server: those of 32 connections together.
    pub(crate) commits_of_many_per_second: Option<f64>,
    /// On a server: rows updated in a second, a hundred in a transaction.
    pub(crate) updates_per_second: Option<f64>,
}

impl Limit {
    fn of(what: &'static str, steps: usize, took: Duration, cpu: Option<Duration>) -> Self {
        let steps_per_second = steps as f64 / took.as_secs_f64();
        let cpu_micros_per_step = cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / steps as f64);
        Self {
            what,
            steps_per_second,
            cpu_micros_per_step,
            commits_per_second: None,
            commits_of_many_per_second: None,
            updates_per_second: None,
        }
    }
}

/// How long each measurement goes on.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// Measures the limit that belongs to a store.
pub(crate) async fn measure(args: &Args, places: &Places) -> Result<Limit, Failed> {
    #[cfg(not(feature = "postgres"))]
    let Places {} = places;
    match args.store {
        StoreKind::Memory => memory().await,
        #[cfg(feature = "sqlite")]
        StoreKind::Sqlite => sqlite::measure(args).await,
        #[cfg(feature = "postgres")]
        StoreKind::Postgres => postgres::measure(places.postgres()?).await,
    }
}

/// Futures that are spawned before the first is joined.
const SPAWNED: usize = 64;

/// On every processor, a future is spawned for each step and puts one row into a map.
async fn memory() -> Result<Limit, Failed> {
    let (began, cpu) = (Instant::now(), usage::cpu_time());
    let mut processors = JoinSet::new();
    for _ in 0..std::thread::available_parallelism()?.get() {
        processors.spawn(spawn_and_insert(began + LONG_ENOUGH));
    }
    let mut steps = 0;
    while let Some(done) = processors.join_next().await {
        steps += done??;
    }
    let what = "spawn a future and insert into a map, for each step";
    Ok(Limit::of(what, steps, began.elapsed(), usage::cpu_since(cpu)))
}

/// Results by task and step.
type Rows = HashMap<(usize, usize), Arc<str>>;

async fn spawn_and_insert(until: Instant) -> Result<usize, Failed> {
    let rows: Arc<Mutex<Rows>> = Arc::default();
    let mut steps = 0;
    while Instant::now() < until {
        let mut spawned = JoinSet::new();
        for step in steps..steps + SPAWNED {
            let rows = rows.clone();
            spawned.spawn(async move {
                let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                rows.insert((step / 5, step % 5), "null".into());
            });
        }
        while let Some(joined) = spawned.join_next().await {
            joined?;
        }
        steps += SPAWNED;
    }
    Ok(steps)
}
