//! Keeps a worker busy for minutes, and tells each as it ends: what slows down shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Failed;
use crate::args::Args;
use crate::counting::CountingStore;
use crate::load::{self, Goal, Load};
use crate::system::{Places, System};

const MINUTE: Duration = Duration::from_secs(60);

/// Runs tasks for so many minutes.
pub(crate) async fn run(
    system: &System,
    args: &Args,
    places: &Places,
    minutes: u64,
) -> Result<Load, Failed> {
    let teller = tell(system, args, places, minutes).await?;
    let end = Instant::now() + MINUTE * u32::try_from(minutes)?;
    let load = load::run(system, args, args.shape, Goal::Time(end)).await?;
    teller.await??;
    Ok(load)
}

/// Prints a line for each minute.
async fn tell(
    system: &System,
    args: &Args,
    places: &Places,
    minutes: u64,
) -> Result<JoinHandle<Result<(), Failed>>, Failed> {
    #[cfg(feature = "postgres")]
    let mut meter = system.meter(places).await?;
    #[cfg(not(feature = "postgres"))]
    let Places {} = places;
    let (store, steps) = (Arc::clone(&system.store), args.shape.steps() as u64);
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + MINUTE, MINUTE);
    Ok(tokio::spawn(async move {
        let mut before = (store.ended(), Instant::now());
        for minute in 1..=minutes {
            every.tick().await;
            let rate = rate(&store, &mut before);
            println!("minute {minute}: {rate:.0} tasks/s, {:.0} steps/s", rate * steps as f64);
            #[cfg(feature = "postgres")]
            if let Some(meter) = &mut meter {
                for size in meter.sizes().await? {
                    println!("    {size}");
                }
            }
        }
        Ok(())
    }))
}

/// Tasks ended in a second, since the last look.
fn rate(store: &CountingStore, before: &mut (u64, Instant)) -> f64 {
    let now = (store.ended(), Instant::now());
    let (tasks, time) = (now.0 - before.0, now.1 - before.1);
    *before = now;
    tasks as f64 / time.as_secs_f64()
}
