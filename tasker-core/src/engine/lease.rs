//! Keeps a worker alive in the store, and takes over those that are not.
//!
//! Every renewal tells when the first lease of another worker runs out. Only then is there anything
//! to take over, so only then does a worker look; as long as all are alive nobody ever does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lookout::Lookout;
use super::mail::Message;
use super::patience::Patience;
use super::{Core, Incarnation};
use crate::WorkerId;
use crate::store::{Heartbeat, Renewed, RunningStep, StoreError};

/// Dead workers taken over in one go; the rest follows at once.
const TAKE_OVER_LIMIT: usize = 16;

/// The least time that a look for dead workers may take.
const A_LOOK: Duration = Duration::from_millis(100);

/// Steps that have run this long are named in the heartbeat.
const LONG: Duration = Duration::from_secs(10);

/// Lives one incarnation after another until the worker stops and has let go of all its tasks.
pub(super) async fn run(core: Arc<Core>) {
    while !core.stop.is_cancelled() {
        let Some((incarnation, next_expiry)) = register(&core).await else { return };
        core.incarnation.send_replace(Some(incarnation.clone()));
        live(&core, &incarnation, next_expiry).await;
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
///
/// Tells when the first lease of another worker runs out as well.
async fn register(core: &Core) -> Option<(Arc<Incarnation>, Option<Duration>)> {
    let mut incarnation = Incarnation { id: WorkerId::new(), lost: CancellationToken::new() };
    let mut wait = Patience::new();
    loop {
        match renew(core, incarnation.id, Vec::new()).await {
            Ok(Renewed::Until { others_spare, next_expiry, systems, next_due, .. }) => {
                core.told_due(next_due);
                core.others_spare.store(others_spare as usize, Ordering::Relaxed);
                look_at_systems(core, systems).await;
                return Some((Arc::new(incarnation), next_expiry));
            }
            // Its first heartbeat was stored, its answer lost and its lease taken over since.
            Ok(Renewed::LeaseLost) => incarnation.id = WorkerId::new(),
            Err(error) => {
                if wait.tells() {
                    warn!(%error, "a worker cannot register yet");
                }
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
/// A worker that has died is taken over within its lease and a moment.
async fn live(core: &Core, incarnation: &Incarnation, next_expiry: Option<Duration>) {
    let period = core.settings.lease / 3;
    let mut renewals = tokio::time::interval(period);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The registration was the first sign of life.
    renewals.tick().await;
    let mut lookout = Lookout::new(incarnation.id, core.settings.poll);
    lookout.told(next_expiry);
    loop {
        tokio::select! {
            biased;
            () = incarnation.lost.cancelled() => return,
            () = core.idle.cancelled() => return,
            _ = renewals.tick() => {
                // A database that hangs must not keep the next sign of life from being given.
                let renewing = renew(core, incarnation.id, running_long(core).await);
                match tokio::time::timeout(period, renewing).await {
                    Ok(Ok(Renewed::Until { others_spare, next_expiry, systems, next_due, .. })) => {
                        core.told_due(next_due);
                        core.others_spare.store(others_spare as usize, Ordering::Relaxed);
                        look_at_systems(core, systems).await;
                        lookout.told(next_expiry);
                    }
                    Ok(Ok(Renewed::LeaseLost)) => return incarnation.lost.cancel(),
                    Ok(Err(error)) => {
                        warn!(%error, "the lease could not be renewed");
                        lookout.in_doubt();
                    }
                    Err(_) => {
                        warn!("the lease could not be renewed: the store does not answer");
                        lookout.in_doubt();
                    }
                }
            }
            () = lookout.due() => {
                let looking = core.shared.store.take_over(TAKE_OVER_LIMIT);
                match tokio::time::timeout((period / 2).max(A_LOOK), looking).await {
                    Ok(Ok(dead)) => {
                        for worker in &dead {
                            info!(%worker, "took over a worker whose lease had run out");
                        }
                        let more = dead.len() >= TAKE_OVER_LIMIT;
                        lookout.looked(more);
                        if !more {
                            // It tells whose lease is the next to run out.
                            renewals.reset_immediately();
                        }
                    }
                    Ok(Err(error)) => {
                        warn!(%error, "dead workers cannot be looked for");
                        lookout.in_doubt();
                    }
                    Err(_) => lookout.in_doubt(),
                }
            }
        }
    }
}

/// Reads how the systems stand if somebody has written that since they were last read.
async fn look_at_systems(core: &Core, sum: u64) {
    // The next sign of life does not wait for it: it is told the same and looks again.
    let _ = tokio::time::timeout(core.settings.lease / 10, core.shared.systems.heard(sum)).await;
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
