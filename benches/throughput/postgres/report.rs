//! The server's own figures, as rows of the table.

use std::fmt::Write;

use comfy_table::Table;

use super::Used;
use super::backlog::Claims;
use crate::report::{Report, Run, row};

/// Adds what the server used in each run.
pub(crate) fn add(table: &mut Table, runs: &[Run]) {
    let mut add = |name: &str, digits: usize, of: &dyn Fn(&Run, &Used) -> Option<f64>| {
        let values = runs.iter().filter_map(|run| of(run, run.server.as_ref()?));
        row(table, name, digits, values.collect());
    };
    let steps = |run: &Run| run.load.steps as f64;
    let all_steps = |run: &Run| (run.load.steps + run.warm_up_steps) as f64;
    add("server: CPU per step, µs", 1, &|run, used| {
        Some(used.cpu?.as_secs_f64() * 1e6 / steps(run))
    });
    add("server: CPUs busy", 2, &|run, used| {
        Some(used.cpu?.as_secs_f64() / run.load.took.as_secs_f64())
    });
    add("server: WAL per step, bytes", 0, &|run, used| Some(used.wal_bytes as f64 / steps(run)));
    add("server: statements per step", 4, &|run, used| {
        Some(used.statements.as_ref()?.calls as f64 / steps(run))
    });
    add("server: time in statements per step, µs", 1, &|run, used| {
        Some(used.statements.as_ref()?.milliseconds * 1e3 / steps(run))
    });
    add("server: commits per step *", 4, &|run, used| {
        Some(used.late.commits as f64 / all_steps(run))
    });
    add("server: rows inserted per step *", 3, &|run, used| {
        Some(used.late.inserted as f64 / all_steps(run))
    });
    add("server: rows updated per step *", 3, &|run, used| {
        Some(used.late.updated as f64 / all_steps(run))
    });
    add("server: … of them without the indexes *", 3, &|run, used| {
        Some(used.late.updated_in_page as f64 / all_steps(run))
    });
    add("server: rows deleted per step *", 3, &|run, used| {
        Some(used.late.deleted as f64 / all_steps(run))
    });
    add("server: whole pages in the WAL *", 0, &|_, used| Some(used.late.full_pages as f64));
    add("server: checkpoints *", 0, &|_, used| Some(used.late.checkpoints as f64));
    add("server: vacuums *", 0, &|_, used| Some(used.late.vacuums as f64));
    add("server: rollbacks *", 0, &|_, used| Some(used.late.rollbacks as f64));
    add("server: deadlocks *", 0, &|_, used| Some(used.late.deadlocks as f64));
}

/// Adds how fast tasks are claimed, and what an idle worker asks.
pub(crate) fn add_others(table: &mut Table, report: &Report) {
    for claims in &report.backlog {
        let Claims { waiting, together, held_snapshot, tasks_per_second } = claims;
        let beside = if *held_snapshot { ", beside a held snapshot" } else { "" };
        let name = |what| format!("{what}/s with {waiting} waiting, {together} each{beside}");
        let calls = tasks_per_second.iter().map(|rate| rate / *together as f64).collect();
        row(table, &name("tasks claimed"), 0, tasks_per_second.clone());
        row(table, &name("claims"), 0, calls);
    }
    if let Some(pickup) = &report.pickup {
        let statements = pickup.statements_per_minute.into_iter().collect();
        let commits = pickup.commits_per_minute.into_iter().collect();
        row(table, "idle worker: statements a minute", 1, statements);
        row(table, "idle worker: commits a minute", 1, commits);
        if let Some(times) = pickup.picked_up {
            for (name, time) in [("p50", times.p50), ("p99", times.p99)] {
                let name = format!("submitted elsewhere → handler runs, {name}, ms");
                row(table, &name, 3, vec![time.as_secs_f64() * 1e3]);
            }
        }
    }
}

/// The statements that took longest in the last run.
pub(crate) fn statements(report: &Report) -> Option<String> {
    let run = report.runs.last()?;
    let used = run.server.as_ref()?;
    let all = used.statements.as_ref()?;
    let mut text = String::from("statements of the last run, longest in all first:\n");
    for statement in all.longest.iter().take(report.args.postgres.statements) {
        let calls = statement.calls.max(1) as f64;
        writeln!(
            text,
            "{:5.1} % {:8} calls {:9.3} ms {:8.1} rows {:9.0} B WAL {:7.0} pages each  {}",
            100.0 * statement.milliseconds / all.milliseconds,
            statement.calls,
            statement.milliseconds / calls,
            statement.rows as f64 / calls,
            statement.wal_bytes / calls,
            statement.pages as f64 / calls,
            statement.title(&used.schema),
        )
        .ok()?;
    }
    Some(text)
}
