//! What an idle worker asks of the server, and how soon it picks up what somebody else submits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tasker::{
    StepContext, StepTemplate, TaskRequest, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};

use super::place;
use super::statements::Statement;
use crate::Failed;
use crate::args::Args;
use crate::idle::{Quantiles, quantiles};
use crate::system::Places;

/// Until the worker has found out that there is nothing to do, and sessions have told what they
/// did while it was busy.
const CALM: Duration = Duration::from_secs(12);

/// Between two tasks.
const PAUSE: Duration = Duration::from_millis(50);

const PATIENCE: Duration = Duration::from_secs(60);

/// What was counted while nothing was to be done, and measured afterwards.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pickup {
    pub(crate) seconds: u64,
    /// Where `pg_stat_statements` is loaded.
    pub(crate) statements_per_minute: Option<f64>,
    pub(crate) statements: Vec<Statement>,
    /// Where it is not: those of everybody in the database, autovacuum and this program included.
    pub(crate) commits_per_minute: Option<f64>,
    /// From the call of another process's `submit` until the handler runs.
    pub(crate) picked_up: Option<Quantiles>,
}

/// Watches an idle worker, then submits to it through another store.
pub(crate) async fn run(args: &Args, places: &Places) -> Result<Option<Pickup>, Failed> {
    let Some(seconds) = args.postgres.idle_queries else { return Ok(None) };
    let place = places.postgres()?;
    let home = place.store(args.postgres.connections).await?;
    let started: Started = Arc::default();
    let worker = tasker(home.store.clone(), &started)?.worker().slots(args.slots).start();
    // Another store, as another process would have; its connections do not count while idle.
    let schema = home.schema.name();
    tokio::time::sleep(CALM).await;
    let mut meter = place.meter(schema).await?;
    meter.begin().await?;
    let commits = meter.late().await?.commits;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let all = meter.statements().await?;
    let commits = meter.late().await?.commits - commits;
    let minutes = seconds as f64 / 60.0;
    let other = Arc::new(place::open(&home.url, schema, 2).await?);
    let times = submit(&tasker(other.clone(), &started)?, &started, args.idle.max(100)).await?;
    other.close().await;
    worker.shutdown(Duration::from_secs(10)).await;
    home.clear().await?;
    Ok(Some(Pickup {
        seconds,
        statements_per_minute: all.as_ref().map(|all| all.calls as f64 / minutes),
        commits_per_minute: all.is_none().then_some(commits as f64 / minutes),
        statements: all.map(|all| all.longest).unwrap_or_default(),
        picked_up: quantiles(&times),
    }))
}

/// When a handler last began.
type Started = Arc<Mutex<Option<Instant>>>;

fn tasker(store: Arc<tasker::PostgresStore>, started: &Started) -> Result<Tasker, Failed> {
    let template = TaskTemplate::builder("pickup").step(StepTemplate::new("a")).build()?;
    let started = Arc::clone(started);
    let handler = step_fn(move |_: StepContext| {
        *started.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        async { Ok(()) }
    });
    let workflow = Workflow::new(template).step("a", handler);
    Ok(Tasker::builder_on(store).register(workflow).build()?)
}

/// One task after the other; the times until the handler ran, sorted.
async fn submit(tasker: &Tasker, started: &Started, tasks: usize) -> Result<Vec<Duration>, Failed> {
    let mut times = Vec::with_capacity(tasks);
    for number in 0..tasks {
        let request = TaskRequest::new("pickup", &number)?;
        let began = Instant::now();
        let receipt = tasker.submit(request).await?;
        let status = tasker.wait(receipt.id, PATIENCE).await?;
        let start = started.lock().unwrap_or_else(PoisonError::into_inner).take();
        let start = start.filter(|_| status.state == TaskState::Complete);
        times.push(start.ok_or("a task ended although no handler ran")?.duration_since(began));
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_unstable();
    Ok(times)
}
