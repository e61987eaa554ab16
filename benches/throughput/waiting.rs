//! What a task that waits costs the process that could run it.

use std::time::Duration;

use serde::Serialize;
use tasker::{TaskRequest, Tasker};

use crate::args::Shape;
use crate::{Failed, load, usage};

/// Growth of the process while tasks were stored that start in days.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Waiting {
    pub(crate) tasks: usize,
    /// Bytes that each of the last nine tenths added; negative if memory was given back.
    pub(crate) bytes_per_task: f64,
}

const DAYS: Duration = Duration::from_secs(3 * 24 * 3600);

/// Tasks stored together.
const BATCH: usize = 100;

/// Stores tasks that wait, beside a running worker; `None` where memory cannot be measured.
pub(crate) async fn run(
    tasker: &Tasker,
    shape: Shape,
    tasks: usize,
) -> Result<Option<Waiting>, Failed> {
    // The first tenth pays for caches and buffers that do not grow any more.
    let first = tasks / 10;
    store(tasker, shape, first).await?;
    let before = usage::resident_bytes();
    store(tasker, shape, tasks - first).await?;
    let Some((after, before)) = usage::resident_bytes().zip(before) else { return Ok(None) };
    let bytes_per_task = (after as f64 - before as f64) / (tasks - first) as f64;
    Ok(Some(Waiting { tasks, bytes_per_task }))
}

async fn store(tasker: &Tasker, shape: Shape, tasks: usize) -> Result<(), Failed> {
    let mut number = 0;
    while number < tasks {
        let end = tasks.min(number + BATCH);
        let delayed = |number| shape.request(number).map(|request| request.delay(DAYS));
        let requests: Result<Vec<TaskRequest>, _> = (number..end).map(delayed).collect();
        load::accepted(tasker.submit_all(requests?).await?)?;
        number = end;
    }
    Ok(())
}
