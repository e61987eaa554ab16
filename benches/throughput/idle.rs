//! How long one task takes when there is nothing else to do.

use std::time::{Duration, Instant};

use serde::Serialize;
use tasker::{TaskState, Tasker};

use crate::Failed;
use crate::args::Shape;
use crate::counting::CountingStore;

/// Times from the call of `submit`, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    /// … until the last outcome is durable.
    pub(crate) durable: Vec<Duration>,
    /// … until `wait` has answered with the whole task.
    pub(crate) waited: Vec<Duration>,
}

/// Two points of a distribution.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Quantiles of sorted times; `None` if there are none.
pub(crate) fn quantiles(sorted: &[Duration]) -> Option<Quantiles> {
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1));
    (!sorted.is_empty()).then_some(())?;
    Some(Quantiles { p50: *at(50)?, p99: *at(99)? })
}

/// Tasks that are run and not counted: the first ones pay for plans and pages.
const WARM_UP: usize = 20;

/// The longest that one task may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Submits one task after the other and waits for each.
pub(crate) async fn run(
    tasker: &Tasker,
    store: &CountingStore,
    shape: Shape,
    tasks: usize,
) -> Result<Idle, Failed> {
    let mut idle = Idle { durable: Vec::with_capacity(tasks), waited: Vec::with_capacity(tasks) };
    for number in 0..WARM_UP + tasks {
        let request = shape.request(number)?;
        let began = Instant::now();
        let receipt = tasker.submit(request).await?;
        let status = tasker.wait(receipt.id, PATIENCE).await?;
        let waited = began.elapsed();
        if status.state != TaskState::Complete {
            return Err(format!("a task that does nothing ended as {}", status.state).into());
        }
        if number >= WARM_UP {
            idle.durable.push(store.last_end().saturating_duration_since(began));
            idle.waited.push(waited);
        }
    }
    idle.durable.sort_unstable();
    idle.waited.sort_unstable();
    Ok(idle)
}
