//! Claims tasks that wait for a system, no more than it may be called at once.
//!
//! The tasks of a system that is well, or of which none are known to wait, are claimed with all
//! others. A system of which more wait than it may be called is set apart: its routes leave that
//! claim and have one of their own whenever there are places, so that nothing is taken only to be
//! put back. One whose breaker is open is set apart too, and a single task is taken to probe with.
//! While there is also more of everything else than room, each gets its share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::claim::dispatch;
use super::{Core, Incarnation, Room};
use crate::store::{ClaimRequest, Claimed, Route, StoreError};

/// The routes that are claimed together, but for those that are set apart.
pub(super) struct Routes {
    apart: Vec<bool>,
    routes: Arc<BTreeSet<Route>>,
}

impl Routes {
    pub(super) fn new(core: &Core) -> Self {
        let apart = vec![true; core.systems.len()];
        Self { apart, routes: core.routes.clone() }
    }

    pub(super) fn at_present(&mut self, core: &Core) -> Arc<BTreeSet<Route>> {
        let apart: Vec<_> = core.systems.iter().map(|it| it.turn.is_set_apart()).collect();
        if apart != self.apart {
            let together = core.systems.iter().zip(&apart).filter(|(_, apart)| !**apart);
            let together = together.flat_map(|(served, _)| served.routes.iter());
            self.routes = Arc::new(core.routes.iter().chain(together).cloned().collect());
            self.apart = apart;
        }
        self.routes.clone()
    }
}

/// Whose turn it is: a worker that has more to do than room for it takes some of each.
#[derive(Debug, Default)]
pub(super) struct Shares {
    round: usize,
    /// The last claim of what waits for no system brought all that was asked for.
    more_together: bool,
}

impl Shares {
    /// Room that the systems leave to what is claimed together, if there is more of that.
    pub(super) fn keep(&mut self, core: &Arc<Core>, most: usize) -> Room {
        self.round = self.round.wrapping_add(1);
        let apart = core.systems.iter().filter(|served| served.turn.is_set_apart()).count();
        let all = apart + 1;
        // Where only one has room, it is another's each time.
        let share = (core.room() + self.round % all) / all;
        let wanted = apart > 0 && self.more_together;
        Room::reserve(core, if wanted { share.min(most) } else { 0 })
    }

    /// So many of so many were claimed together; true if the systems may have the room that is left.
    pub(super) fn claimed(&mut self, tasks: usize, of: usize, kept: usize) -> bool {
        self.more_together = tasks == of;
        kept > tasks
    }
}

/// Claims for each system that is set apart and has places; false if the lease is gone.
pub(super) async fn claim(
    core: &Arc<Core>,
    incarnation: &Arc<Incarnation>,
    shares: &Shares,
) -> Result<bool, StoreError> {
    let (before, after) = core.systems.split_at(shares.round % core.systems.len().max(1));
    for served in after.iter().chain(before).filter(|served| served.turn.is_set_apart()) {
        // Places that it has no room for are another worker's.
        if !core.has_room() {
            break;
        }
        let mut places = served.turn.take_places(core.settings.slots);
        let mut room = Room::reserve(core, places.len());
        places.truncate(room.size());
        if places.is_empty() {
            continue;
        }
        let request = ClaimRequest {
            worker: incarnation.id,
            routes: served.routes.clone(),
            tasks: places.len(),
            offers: 0,
            holding: None,
        };
        match core.shared.store.claim(request).await? {
            Claimed::LeaseLost => return Ok(false),
            Claimed::Work(work) => {
                if work.tasks.len() < places.len() {
                    served.turn.found_too_few();
                }
                dispatch(core, incarnation, work, &mut room, false, places);
            }
        }
    }
    Ok(true)
}

/// How long until a task is to be claimed to probe a system with.
pub(super) fn probe_in(core: &Core) -> Option<Duration> {
    // A worker without room is told when it has some.
    let room = core.has_room();
    let systems = core.systems.iter().filter(|_| room);
    systems.filter_map(|served| served.turn.probe_in()).min()
}
