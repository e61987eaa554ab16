//! Keeps a worker busy: submits as fast as it ends what it has.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tasker::{Receipt, SubmitError, Tasker};
use tokio::task::JoinSet;

use crate::Failed;
use crate::args::{Args, Shape};
use crate::counting::{CountingStore, Counts};
use crate::system::System;

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

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// After so many tasks.
    Tasks(usize),
    /// At this time: what is stored is run to its end.
    Time(Instant),
}

impl Goal {
    /// Of a batch that begins with task `first`, how many are wanted.
    fn batch(self, first: usize, batch: usize) -> Range<usize> {
        match self {
            Self::Tasks(tasks) => first..tasks.min(first + batch),
            Self::Time(end) if Instant::now() < end => first..first + batch,
            Self::Time(_) => 0..0,
        }
    }
}

/// Runs tasks until it is enough, at most `in_flight` of them at a time.
pub(crate) async fn run(
    system: &System,
    args: &Args,
    shape: Shape,
    goal: Goal,
) -> Result<Load, Failed> {
    let System { tasker, store, .. } = system;
    let (counted, cpu) = (store.counts(), system.cpu_time());
    let progress = show_progress(store.clone(), goal);
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut submitters = JoinSet::new();
    for _ in 0..args.submitters.max(1) {
        let (tasker, store, next) = (tasker.clone(), store.clone(), next.clone());
        let batch = args.batch.max(1);
        let in_flight = if args.submit_only { usize::MAX } else { args.in_flight };
        submitters.spawn(async move {
            let mut submitted = 0;
            loop {
                let numbers = goal.batch(next.fetch_add(batch, Ordering::Relaxed), batch);
                if numbers.is_empty() {
                    return Ok::<_, Failed>(submitted);
                }
                let most_open = in_flight.max(numbers.len());
                let free = numbers.end.saturating_sub(most_open) as u64;
                store.until_ended(counted.ended + free).await;
                submitted += numbers.len();
                submit(&tasker, shape, numbers).await?;
            }
        });
    }
    let mut tasks = 0;
    while let Some(submitted) = submitters.join_next().await {
        tasks += submitted??;
    }
    if !args.submit_only {
        store.until_ended(counted.ended + tasks as u64).await;
    }
    let took = began.elapsed();
    progress.finish_and_clear();
    let cpu = system.cpu_time().zip(cpu).map(|(now, before)| now.saturating_sub(before));
    let counts = store.counts().since(&counted);
    Ok(Load { tasks, steps: tasks * shape.steps(), took, cpu, counts })
}

async fn submit(tasker: &Tasker, shape: Shape, numbers: Range<usize>) -> Result<(), Failed> {
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
fn show_progress(store: Arc<CountingStore>, goal: Goal) -> ProgressBar {
    let bar = match goal {
        Goal::Tasks(tasks) => ProgressBar::new(tasks as u64),
        Goal::Time(_) => ProgressBar::no_length(),
    };
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
