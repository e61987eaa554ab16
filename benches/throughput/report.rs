//! What was measured, as a table for people and as JSON for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::args::{Args, Shape};
use crate::idle::{Idle, Quantiles, quantiles};
use crate::limit::Limit;
use crate::load::Load;
use crate::waiting::Waiting;

/// Everything that one call of the program measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) args: Args,
    pub(crate) runs: Vec<Run>,
    pub(crate) idle: Option<IdleReport>,
    pub(crate) fan: Vec<Fan>,
    pub(crate) waiting: Option<Waiting>,
    #[cfg(feature = "postgres")]
    pub(crate) backlog: Vec<crate::postgres::backlog::Claims>,
    #[cfg(feature = "postgres")]
    pub(crate) pickup: Option<crate::postgres::pickup::Pickup>,
}

/// One run and the limit of the machine just before it.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) limit: Limit,
    pub(crate) load: Load,
    /// Steps before the measurement, which some counters of a server include.
    pub(crate) warm_up_steps: usize,
    #[cfg(feature = "postgres")]
    pub(crate) server: Option<crate::postgres::Used>,
}

/// Times of single tasks.
#[derive(Debug, Serialize)]
pub(crate) struct IdleReport {
    pub(crate) tasks: usize,
    pub(crate) durable: Option<Quantiles>,
    pub(crate) waited: Option<Quantiles>,
}

impl From<Idle> for IdleReport {
    fn from(idle: Idle) -> Self {
        let (durable, waited) = (quantiles(&idle.durable), quantiles(&idle.waited));
        Self { tasks: idle.waited.len(), durable, waited }
    }
}

/// A wide task against single-step tasks.
#[derive(Debug, Serialize)]
pub(crate) struct Fan {
    pub(crate) wide: Duration,
    pub(crate) single: Duration,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            args: args.clone(),
            runs: Vec::new(),
            idle: None,
            fan: Vec::new(),
            waiting: None,
            #[cfg(feature = "postgres")]
            backlog: Vec::new(),
            #[cfg(feature = "postgres")]
            pickup: None,
        }
    }

    /// The table: medians, with the least and the most.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header(["figure", "median", "least", "most"]);
        for column in 1..=3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.add_throughput(&mut table);
        #[cfg(feature = "postgres")]
        crate::postgres::report::add(&mut table, &self.runs);
        if let Some(idle) = &self.idle {
            for (name, times) in [("durable", idle.durable), ("wait", idle.waited)] {
                let Some(times) = times else { continue };
                let ms = |time: Duration| format!("{:.3}", time.as_secs_f64() * 1000.0);
                let name = |percent| format!("idle: submit → {name}, {percent}, ms");
                table.add_row([name("p50"), ms(times.p50), String::new(), String::new()]);
                table.add_row([name("p99"), ms(times.p99), String::new(), String::new()]);
            }
        }
        if !self.fan.is_empty() {
            let fans = |of: fn(&Fan) -> f64| self.fan.iter().map(of).collect();
            row(&mut table, "fan: seconds", 3, fans(|fan| fan.wide.as_secs_f64()));
            row(&mut table, "as many single: seconds", 3, fans(|fan| fan.single.as_secs_f64()));
            let ratio = |fan: &Fan| fan.wide.as_secs_f64() / fan.single.as_secs_f64();
            row(&mut table, "fan / single", 2, fans(ratio));
        }
        if let Some(waiting) = &self.waiting {
            let name = "waiting task: bytes of the process".to_owned();
            let bytes = format!("{:.1}", waiting.bytes_per_task);
            table.add_row([name, bytes, String::new(), String::new()]);
        }
        #[cfg(feature = "postgres")]
        crate::postgres::report::add_others(&mut table, self);
        table
    }

    fn add_throughput(&self, table: &mut Table) {
        let mut add = |name: &str, digits: usize, of: &dyn Fn(&Run) -> Option<f64>| {
            row(table, name, digits, self.runs.iter().filter_map(of).collect());
        };
        add("tasks/s", 0, &|run| Some(run.load.tasks_per_second()));
        add("steps/s", 0, &|run| Some(run.load.steps_per_second()));
        add("machine's limit, steps/s", 0, &|run| Some(run.limit.steps_per_second));
        add("machine's limit, commits/s", 0, &|run| run.limit.commits_per_second);
        add("machine's limit, commits/s of 32 connections", 0, &|run| {
            run.limit.commits_of_many_per_second
        });
        add("machine's limit, updated rows/s", 0, &|run| run.limit.updates_per_second);
        add("share of the limit, %", 1, &|run| {
            Some(100.0 * run.load.steps_per_second() / run.limit.steps_per_second)
        });
        add("CPU per step, µs", 2, &|run| run.load.cpu_micros_per_step());
        add("… over the limit's", 2, &|run| {
            Some(run.load.cpu_micros_per_step()? / run.limit.cpu_micros_per_step?)
        });
        add("CPUs busy", 2, &|run| Some(run.load.cpu?.as_secs_f64() / run.load.took.as_secs_f64()));
        let per_step = |run: &Run, count: u64| Some(count as f64 / run.load.steps as f64);
        let per_task = |run: &Run, count: u64| Some(count as f64 / run.load.tasks as f64);
        add("transactions per step", 4, &|run| per_step(run, run.load.counts.transactions()));
        add("transactions per task", 4, &|run| per_task(run, run.load.counts.transactions()));
        add("rows written per step", 3, &|run| per_step(run, run.load.counts.rows_written()));
        add("steps per commit", 1, &|run| {
            Some(run.load.counts.rows as f64 / run.load.counts.commits as f64)
        });
        add("tasks per claim", 1, &|run| {
            Some(run.load.counts.claimed as f64 / run.load.counts.claims as f64)
        });
        add("empty claims per task", 4, &|run| per_task(run, run.load.counts.empty_claims));
        add("reads per task", 4, &|run| per_task(run, run.load.counts.reads));
        add("refused changes", 0, &|run| Some(run.load.counts.conflicts as f64));
    }
}

/// A row with the median, the least and the most; none if there are no values.
pub(crate) fn row(table: &mut Table, name: &str, digits: usize, mut values: Vec<f64>) {
    values.sort_unstable_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return };
    let median = values[values.len() / 2];
    let show = |value: f64| format!("{value:.digits$}");
    table.add_row([name.to_owned(), show(median), show(*least), show(*most)]);
}

/// What the report is about, in a line.
pub(crate) fn title(args: &Args) -> String {
    let Args { store, shape, slots, submitters, batch, .. } = args;
    let (tasks, steps) = (args.tasks(), args.tasks() * Shape::steps(*shape));
    format!(
        "{store:?}, {}: {tasks} tasks of {} steps ({steps} steps), {slots} slots, \
         {submitters} submitters in batches of {batch}, {} runs",
        shape.name(),
        shape.steps(),
        args.runs,
    )
}
