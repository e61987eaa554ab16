//! Keeps a worker alive in the store, and takes over those that are not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::mail::Message;
use super::patience::Patience;
use super::{Core, Incarnation};
use crate::WorkerId;
use crate::store::{Heartbeat, Renewed, RunningStep, StoreError};

/// Dead workers taken over in one go; the rest follows with the next heartbeat.
const TAKE_OVER_LIMIT: usize = 16;

/// The least time that a look for dead workers may take.
const A_LOOK: Duration = Duration::from_millis(100);

/// Steps that have run this long are named in the heartbeat.
const LONG: Duration = Duration::from_secs(10);

/// Lives one incarnation after another until the worker stops and has let go of all its tasks.
pub(super) async fn run(core: Arc<Core>) {
    while !core.stop.is_cancelled() {
        let Some(incarnation) = register(&core).await else { return };
        core.incarnation.send_replace(Some(incarnation.clone()));
        live(&core, &incarnation).await;
        if incarnation.lost.is_cancelled() {
            core.incarnation.send_replace(None);
            warn!(worker = %incarnation.id, "the lease was lost: starting anew under another name");
        } else {
            retire(&core, &incarnation).await;
            core.incarnation.send_replace(None);
            return;
        }
    }
}

/// Registers under a new name, however long the store is away; `None` if the worker is stopped.
async fn register(core: &Core) -> Option<Arc<Incarnation>> {
    let mut incarnation = Incarnation { id: WorkerId::new(), lost: CancellationToken::new() };
    let mut wait = Patience::new();
    loop {
        match renew(core, incarnation.id, Vec::new()).await {
            Ok(Renewed::Until { .. }) => return Some(Arc::new(incarnation)),
            // Its first heartbeat was stored, its answer lost and its lease taken over since.
            Ok(Renewed::LeaseLost) => incarnation.id = WorkerId::new(),
            Err(error) => {
                warn!(%error, "a worker cannot register yet");
                tokio::select! {
                    () = wait.pause() => {}
                    () = core.stop.cancelled() => return None,
                }
            }
        }
    }
}

/// Renews the lease until it is lost, or until the stopped worker has let go of all its tasks.
///
/// Dead workers are looked for at every poll, so that they are replaced within a lease and a poll.
async fn live(core: &Core, incarnation: &Incarnation) {
    let period = core.settings.lease / 3;
    let mut renewals = ticks(period);
    let mut looks = ticks(core.settings.poll);
    loop {
        tokio::select! {
            biased;
            () = incarnation.lost.cancelled() => return,
            () = core.idle.cancelled() => return,
            _ = renewals.tick() => {
                // A database that hangs must not keep the next sign of life from being given.
                let renewing = renew(core, incarnation.id, running_long(core).await);
                match tokio::time::timeout(period, renewing).await {
                    Ok(Ok(Renewed::Until { others_spare, .. })) => {
                        core.others_spare.store(others_spare as usize, Ordering::Relaxed);
                    }
                    Ok(Ok(Renewed::LeaseLost)) => return incarnation.lost.cancel(),
                    Ok(Err(error)) => warn!(%error, "the lease could not be renewed"),
                    Err(_) => warn!("the lease could not be renewed: the store does not answer"),
                }
            }
            _ = looks.tick() => {
                let looking = core.shared.store.take_over(TAKE_OVER_LIMIT);
                match tokio::time::timeout((period / 2).max(A_LOOK), looking).await {
                    Ok(Ok(dead)) => {
                        for worker in dead {
                            info!(%worker, "took over a worker whose lease had run out");
                        }
                    }
                    Ok(Err(error)) => warn!(%error, "dead workers cannot be looked for"),
                    // The next look comes soon.
                    Err(_) => {}
                }
            }
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Gives the lease up, so that nobody waits for it to run out.
async fn retire(core: &Core, incarnation: &Incarnation) {
    let beat = heartbeat(core, incarnation.id, None, Vec::new());
    if let Err(error) = core.shared.store.renew(beat).await {
        warn!(%error, "the worker could not sign off: its lease runs out by itself");
    }
}

async fn renew(
    core: &Core,
    id: WorkerId,
    running: Vec<RunningStep>,
) -> Result<Renewed, StoreError> {
    core.shared.store.renew(heartbeat(core, id, Some(core.settings.lease), running)).await
}

fn heartbeat(
    core: &Core,
    worker: WorkerId,
    lease: Option<Duration>,
    running: Vec<RunningStep>,
) -> Heartbeat {
    let spare = if core.stop.is_cancelled() { 0 } else { core.slots.available_permits() };
    let spare = u32::try_from(spare).unwrap_or(u32::MAX);
    Heartbeat { worker, name: core.settings.name.clone(), lease, spare, running }
}

/// Has every owner look after its attempts, and collects those that have been running for long.
async fn running_long(core: &Core) -> Vec<RunningStep> {
    let mut long = Vec::new();
    for owner in &core.owners {
        let (answer, answered) = oneshot::channel();
        if owner.send(Message::Inspect { longer_than: LONG, answer }).is_err() {
            continue;
        }
        // An owner that waits for the store answers later; the sign of life does not wait for it.
        let soon = core.settings.lease / 10;
        if let Ok(Ok(found)) = tokio::time::timeout(soon, answered).await {
            long.extend(found);
        }
    }
    long
}
