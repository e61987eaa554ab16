//! Gets tasks and offered steps whenever the worker has room for them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::warn;

use super::mail::{Message, StoreClock};
use super::parked::{self, Routes, Shares};
use super::patience::Patience;
use super::rhythm::{Recovery, Rhythm};
use super::systems::Place;
use super::{Core, Incarnation, Room};
use crate::TaskId;
use crate::snapshot::Snapshot;
use crate::store::{ClaimRequest, Claimed, News, Work};

/// The most tasks that one claim asks for: larger batches cost more than they save.
const BATCH: usize = 128;

/// Claims until the worker stops.
pub(super) async fn run(core: Arc<Core>) {
    let mut incarnations = core.incarnation.subscribe();
    while !core.stop.is_cancelled() {
        let incarnation = tokio::select! {
            () = core.stop.cancelled() => return,
            found = incarnations.wait_for(lives) => match found {
                Ok(found) => found.clone(),
                Err(_) => return,
            },
        };
        let Some(incarnation) = incarnation else { continue };
        tokio::select! {
            () = claim_for(&core, &incarnation) => {}
            // An answer that is still to come is made good by retiring.
            () = core.kill.cancelled() => return,
            () = core.idle.cancelled() => return,
        }
    }
}

/// Whether the worker has a lease, as far as it knows.
fn lives(incarnation: &Option<Arc<Incarnation>>) -> bool {
    incarnation.as_ref().is_some_and(|incarnation| !incarnation.lost.is_cancelled())
}

/// Claims until the lease is lost; once the worker is to stop, only the news of what it holds.
async fn claim_for(core: &Arc<Core>, incarnation: &Arc<Incarnation>) {
    let mut patience = Patience::new();
    let mut rhythm = Rhythm::new(incarnation.id, core.settings.poll);
    let mut recovery = Recovery::new(core.settings.lease);
    let mut occasions = core.shared.systems.occasions();
    let mut routes = Routes::new(core);
    let mut shares = Shares::default();
    while !incarnation.lost.is_cancelled() {
        let most = if core.stop.is_cancelled() { 0 } else { BATCH };
        occasions.mark_unchanged();
        let mut room = shares.keep(core, most);
        if most > 0 {
            match parked::claim(core, incarnation, &shares).await {
                Ok(true) => {}
                Ok(false) => return incarnation.lost.cancel(),
                Err(error) => {
                    recovery.begin();
                    if patience.tells() {
                        warn!(%error, "no parked tasks can be claimed");
                    }
                    patience.pause().await;
                    continue;
                }
            }
        }
        // The last claim of a round is the one by which a store knows what the worker has seen.
        let kept = room.size();
        room.grow_to(most);
        let asked = room.size();
        let recovers = recovery.is_due();
        let request = ClaimRequest {
            worker: incarnation.id,
            routes: routes.at_present(core),
            tasks: room.size(),
            offers: core.room_for_offers(room.size()).min(most),
            holding: if recovers { Some(held(core).await) } else { None },
        };
        match core.shared.store.claim(request).await {
            Ok(Claimed::Work(work)) => {
                patience.reset();
                if recovers {
                    recovery.made();
                }
                let brought = work.tasks.len();
                let next_in = dispatch(core, incarnation, work, &mut room, recovers, Vec::new());
                drop(room);
                if shares.claimed(brought, asked, kept) {
                    continue;
                }
                let quiet = recovery.bound(rhythm.wait());
                // A look for somebody to probe with is no sign of work either.
                let quiet = parked::probe_in(core).map_or(quiet, |next| next.min(quiet));
                let wait = next_in.map_or(quiet, |next| next.min(quiet));
                let began = Instant::now();
                if rest(core, incarnation, wait, &mut occasions).await {
                    recovery.begin();
                }
                rhythm.waited(began.elapsed() >= quiet);
            }
            Ok(Claimed::LeaseLost) => return incarnation.lost.cancel(),
            Err(error) => {
                // Whether it claimed something is unknown.
                drop(room);
                recovery.begin();
                if patience.tells() {
                    warn!(%error, "no work can be claimed");
                }
                patience.pause().await;
            }
        }
    }
}

/// Hands the work to its owners; how long until there is more, as far as is known.
///
/// What was claimed for a system comes with the places there that were kept for it.
pub(super) fn dispatch(
    core: &Core,
    incarnation: &Arc<Incarnation>,
    work: Work,
    room: &mut Room,
    recovered: bool,
    places: Vec<Place>,
) -> Option<Duration> {
    let Work { now, tasks, offers, news, next_in } = work;
    let clock = StoreClock::told(now);
    let asked = room.size();
    // What was submitted meanwhile comes to its owner by itself.
    let arriving = if recovered { core.arriving.end_recovery() } else { HashSet::new() };
    let tasks: Vec<_> = tasks.into_iter().filter(|task| !arriving.contains(&task.id)).collect();
    // Recovered tasks come on top of what was asked for.
    room.take(tasks.len());
    let mut places = places.into_iter();
    for task in tasks {
        core.own(incarnation.clone(), Snapshot::replay(&task), clock, places.next());
    }
    for offer in offers {
        // A borrowed step takes the room of a task.
        core.held.fetch_add(1, Ordering::SeqCst);
        let (id, incarnation) = (offer.task.id, incarnation.clone());
        core.tell(id, Message::Offer { incarnation, offer: Box::new(offer), clock });
    }
    for item in news {
        let (News::Settled { task, .. } | News::Revoked { task }) = &item;
        core.tell(*task, Message::News(item.clone()));
    }
    if recovered {
        // News may have been lost with the answer as well.
        for owner in &core.owners {
            let _ = owner.send(Message::Reload);
        }
    }
    // With no room, time alone brings nothing; with more than was asked for, there is no waiting.
    next_in.filter(|_| asked > 0)
}

/// Waits for a reason to claim again; true if the answer to an earlier call was lost.
async fn rest(
    core: &Core,
    incarnation: &Incarnation,
    wait: Duration,
    occasions: &mut watch::Receiver<u64>,
) -> bool {
    let stopping = core.stop.is_cancelled();
    let full = stopping || !core.has_room();
    if !full && wait.is_zero() {
        return false;
    }
    let hint = async {
        core.shared.store.wait_for_work(incarnation.id, wait).await;
        // Where nothing can be taken only news is fetched, and not in a hurry.
        if stopping {
            tokio::time::sleep(NEWS_PAUSE).await;
        } else {
            core.until_room(1, NEWS_PAUSE).await;
        }
    };
    let lost_answer = tokio::select! {
        biased;
        () = incarnation.lost.cancelled() => return false,
        () = core.stop.cancelled(), if !stopping => return false,
        () = core.resync.notified() => true,
        () = hint => false,
        () = core.let_go.notified(), if full && !stopping => false,
        // Its sender lives as long as the worker.
        _ = occasions.changed(), if !full => false,
    };
    if !stopping {
        // A busy worker lets go of tasks one after the other: a moment's patience makes one claim
        // of several. An idle one has room enough and loses no time here.
        core.until_room(core.settings.slots.div_ceil(4).min(ENOUGH), A_MOMENT).await;
    }
    lost_answer
}

/// While the worker is full, the least time between two claims that can only bring news.
const NEWS_PAUSE: Duration = Duration::from_millis(50);

/// Room for so many tasks is worth a claim, without waiting for more.
const ENOUGH: usize = 32;

/// How long a claim waits for more room.
const A_MOMENT: Duration = Duration::from_millis(2);

/// The tasks that the owners hold, or are about to.
async fn held(core: &Core) -> Vec<TaskId> {
    // Asked for first: what arrives before the owners answer is among what they hold.
    let mut ids = core.arriving.begin_recovery();
    for owner in &core.owners {
        let (answer, answered) = oneshot::channel();
        if owner.send(Message::List { answer }).is_ok() {
            ids.extend(answered.await.unwrap_or_default());
        }
    }
    ids
}
