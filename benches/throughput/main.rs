//! Measures the engine on a store: steps per second, time of a lone task, cost of each step.
//!
//! `cargo bench --bench throughput -- --help` says what can be asked; `docs/performance.md` says
//! what the figures mean and what they were.

mod args;
mod counting;
mod idle;
mod limit;
mod load;
#[cfg(feature = "postgres")]
mod postgres;
mod report;
mod shape;
mod soak;
mod system;
mod usage;
mod waiting;

use std::time::Duration;

use clap::Parser;

use self::args::{Args, Shape};
use self::load::Goal;
use self::report::{Fan, Report, Run};
use self::system::{Places, System};

/// Nothing here can be mended: whatever fails is shown.
type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args = Args::parse();
    #[cfg(feature = "postgres")]
    if let Some(schema) = &args.postgres.worker_in {
        return postgres::worker::run(&args, schema).await;
    }
    println!("{}", report::title(&args));
    let places = Places::find(&args).await?;
    let mut report = Report::new(&args);
    for _ in 0..args.runs {
        if args.compare_fan {
            report.fan.push(compare_fan(&args, &places).await?);
        } else {
            report.runs.push(run(&args, &places).await?);
        }
    }
    if args.idle > 0 {
        let system = System::start(&args, &places, &[args.shape]).await?;
        let idle = idle::run(&system.tasker, &system.store, args.shape, args.idle).await?;
        report.idle = Some(idle.into());
        system.stop().await?.clear().await?;
    }
    if args.waiting > 0 {
        let system = System::start(&args, &places, &[args.shape]).await?;
        report.waiting = waiting::run(&system.tasker, args.shape, args.waiting).await?;
        system.stop().await?.clear().await?;
    }
    #[cfg(feature = "postgres")]
    {
        report.backlog = postgres::backlog::run(&args, &places).await?;
        report.pickup = postgres::pickup::run(&args, &places).await?;
    }
    println!("{}", report.table());
    #[cfg(feature = "postgres")]
    if let Some(statements) = postgres::report::statements(&report) {
        println!("{statements}");
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

/// The limit, and then the load on a new store.
async fn run(args: &Args, places: &Places) -> Result<Run, Failed> {
    let limit = limit::measure(args, places).await?;
    let system = System::start(args, places, &[args.shape]).await?;
    #[cfg(feature = "postgres")]
    let mut meter = system.meter(places).await?;
    load::run(&system, args, args.shape, Goal::Tasks(args.warm_up)).await?;
    #[cfg(feature = "postgres")]
    let _held = postgres::HeldSnapshot::wanted(args, places).await?;
    #[cfg(feature = "postgres")]
    if let Some(meter) = &mut meter {
        meter.begin().await?;
    }
    let load = match args.minutes {
        Some(minutes) => soak::run(&system, args, places, minutes).await?,
        None => load::run(&system, args, args.shape, Goal::Tasks(args.tasks())).await?,
    };
    #[cfg(feature = "postgres")]
    if let Some(meter) = &mut meter {
        meter.end().await?;
    }
    let stopped = system.stop().await?;
    #[cfg(feature = "postgres")]
    let server = match meter {
        Some(meter) => Some(meter.finish(!args.submit_only).await?),
        None => None,
    };
    stopped.clear().await?;
    Ok(Run {
        limit,
        load,
        warm_up_steps: args.warm_up * args.shape.steps(),
        #[cfg(feature = "postgres")]
        server,
    })
}

/// One wide task, and as many single-step tasks as it has steps, on a store each.
async fn compare_fan(args: &Args, places: &Places) -> Result<Fan, Failed> {
    let mut took = [Duration::ZERO; 2];
    let loads = [(args.shape, 1), (Shape::Single, args.shape.steps())];
    for (took, (shape, tasks)) in took.iter_mut().zip(loads) {
        let system = System::start(args, places, &[args.shape, Shape::Single]).await?;
        load::run(&system, args, Shape::Single, Goal::Tasks(args.warm_up)).await?;
        *took = load::run(&system, args, shape, Goal::Tasks(tasks)).await?.took;
        system.stop().await?.clear().await?;
    }
    let [wide, single] = took;
    Ok(Fan { wide, single })
}
