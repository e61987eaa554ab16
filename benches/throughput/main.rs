//! Measures the engine on a store: steps per second, time of a lone task, cost of each step.
//!
//! `cargo bench --bench throughput -- --help` says what can be asked; `docs/performance.md` says
//! what the figures mean and what they were.

mod args;
mod counting;
mod idle;
mod limit;
mod load;
mod report;
mod shape;
mod usage;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
#[cfg(feature = "sqlite")]
use tasker::sqlite::{SqliteOptions, Synchronous};
use tasker::store::StateStore;
use tasker::{MemoryStore, Tasker, Worker};
use tempfile::TempDir;

#[cfg(feature = "sqlite")]
use self::args::Durability;
use self::args::{Args, Shape, StoreKind};
use self::counting::CountingStore;
use self::report::{Fan, Report, Run};

/// Nothing here can be mended: whatever fails is shown.
type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args = Args::parse();
    println!("{}", report::title(&args));
    let mut report =
        Report { runs: Vec::new(), idle: None, fan: Vec::new(), waiting: None, args: args.clone() };
    for _ in 0..args.runs {
        if args.compare_fan {
            report.fan.push(compare_fan(&args).await?);
            continue;
        }
        let limit = limit::measure(&args).await?;
        let system = System::start(&args, &[args.shape]).await?;
        let System { tasker, store, .. } = &system;
        load::run(tasker, store, &args, args.shape, args.warm_up).await?;
        let load = load::run(tasker, store, &args, args.shape, args.tasks()).await?;
        report.runs.push(Run { limit, load });
        system.stop().await;
    }
    if args.idle > 0 {
        let system = System::start(&args, &[args.shape]).await?;
        let idle = idle::run(&system.tasker, &system.store, args.shape, args.idle).await?;
        report.idle = Some(idle.into());
        system.stop().await;
    }
    if args.waiting > 0 {
        let system = System::start(&args, &[args.shape]).await?;
        report.waiting = waiting::run(&system.tasker, args.shape, args.waiting).await?;
        system.stop().await;
    }
    println!("{}", report.table());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

/// One wide task, and as many single-step tasks as it has steps, on a store each.
async fn compare_fan(args: &Args) -> Result<Fan, Failed> {
    let mut took = [Duration::ZERO; 2];
    let loads = [(args.shape, 1), (Shape::Single, args.shape.steps())];
    for (took, (shape, tasks)) in took.iter_mut().zip(loads) {
        let system = System::start(args, &[args.shape, Shape::Single]).await?;
        let System { tasker, store, .. } = &system;
        load::run(tasker, store, args, Shape::Single, args.warm_up).await?;
        *took = load::run(tasker, store, args, shape, tasks).await?.took;
        system.stop().await;
    }
    let [wide, single] = took;
    Ok(Fan { wide, single })
}

/// A new store, an engine on it and a worker.
struct System {
    tasker: Tasker,
    store: Arc<CountingStore>,
    worker: Worker,
    /// Removed last.
    _dir: Option<TempDir>,
}

impl System {
    async fn start(args: &Args, shapes: &[Shape]) -> Result<Self, Failed> {
        let (store, dir) = open(args).await?;
        let store = Arc::new(CountingStore::new(store));
        let tasker = shape::tasker(store.clone(), shapes)?;
        let worker = tasker.worker().slots(args.slots).start();
        Ok(Self { tasker, store, worker, _dir: dir })
    }

    async fn stop(self) {
        self.worker.shutdown(Duration::from_secs(10)).await;
    }
}

async fn open(args: &Args) -> Result<(Arc<dyn StateStore>, Option<TempDir>), Failed> {
    match args.store {
        StoreKind::Memory => Ok((Arc::new(MemoryStore::new()), None)),
        #[cfg(feature = "sqlite")]
        StoreKind::Sqlite => {
            let dir = tempfile::tempdir_in(&args.dir)?;
            let options = SqliteOptions::new(dir.path().join("tasks.db"));
            let synchronous = match args.durability {
                Durability::Full => Synchronous::Full,
                Durability::Normal => Synchronous::Normal,
            };
            Ok((Arc::new(options.synchronous(synchronous).open().await?), Some(dir)))
        }
    }
}
