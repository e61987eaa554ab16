//! Keeps a worker busy: submits as fast as it ends what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tasker::{Receipt, SubmitError, Tasker};
use tokio::task::JoinSet;

use crate::args::{Args, Shape};
use crate::counting::{CountingStore, Counts};
use crate::{Failed, usage};

/// What one run came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) steps: usize,
    /// From the first submission to the last end.
    pub(crate) took: Duration,
    /// User and system time of the process meanwhile.
    pub(crate) cpu: Option<Duration>,
    pub(crate) counts: Counts,
}

impl Load {
    pub(crate) fn tasks_per_second(&self) -> f64 {
        self.tasks as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn cpu_micros_per_step(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() * 1e6 / self.steps as f64)
    }
}

/// Runs `tasks` tasks, at most `in_flight` of them at a time.
pub(crate) async fn run(
    tasker: &Tasker,
    store: &Arc<CountingStore>,
    args: &Args,
    shape: Shape,
    tasks: usize,
) -> Result<Load, Failed> {
    let (counted, cpu) = (store.counts(), usage::cpu_time());
    let progress = show_progress(store.clone(), tasks);
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut submitters = JoinSet::new();
    for _ in 0..args.submitters.max(1) {
        let (tasker, store, next) = (tasker.clone(), store.clone(), next.clone());
        let (batch, in_flight) = (args.batch.max(1), args.in_flight);
        submitters.spawn(async move {
            loop {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                let numbers = first..tasks.min(first + batch);
                if numbers.is_empty() {
                    return Ok::<_, Failed>(());
                }
                let most_open = in_flight.max(numbers.len());
                let free = numbers.end.saturating_sub(most_open) as u64;
                store.until_ended(counted.ended + free).await;
                submit(&tasker, shape, numbers).await?;
            }
        });
    }
    while let Some(submitted) = submitters.join_next().await {
        submitted??;
    }
    store.until_ended(counted.ended + tasks as u64).await;
    let took = began.elapsed();
    progress.finish_and_clear();
    let cpu = usage::cpu_since(cpu);
    let counts = store.counts().since(&counted);
    Ok(Load { tasks, steps: tasks * shape.steps(), took, cpu, counts })
}

async fn submit(
    tasker: &Tasker,
    shape: Shape,
    numbers: std::ops::Range<usize>,
) -> Result<(), Failed> {
    if numbers.len() == 1 {
        tasker.submit(shape.request(numbers.start)?).await?;
        return Ok(());
    }
    let requests: Result<Vec<_>, _> = numbers.map(|number| shape.request(number)).collect();
    accepted(tasker.submit_all(requests?).await?)
}

/// Fails with the first task that was refused.
pub(crate) fn accepted(answers: Vec<Result<Receipt, SubmitError>>) -> Result<(), Failed> {
    answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(Into::into))
}

/// A bar on a terminal, nothing elsewhere; it goes on until it is finished.
fn show_progress(store: Arc<CountingStore>, tasks: usize) -> ProgressBar {
    let bar = ProgressBar::new(tasks as u64);
    let style = ProgressStyle::with_template("{elapsed:>4} {bar:40} {pos}/{len} tasks {per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    if !bar.is_hidden() {
        let (bar, before) = (bar.clone(), store.ended());
        tokio::spawn(async move {
            while !bar.is_finished() {
                bar.set_position(store.ended() - before);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    bar
}
