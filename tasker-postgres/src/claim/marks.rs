//! How far the head of the queue is known to be gone.
//!
//! A row that was taken stays in the table and its index until no session can see it any more; one
//! that holds an old snapshot (a backup, a report) makes every claim wade through all that was
//! taken since. So a store remembers where the last claim ended and begins there. It forgets that
//! twice a second, because a task may be queued behind the mark: by somebody whose clock was read
//! earlier, or by a claim that was rolled back.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tasker_core::Priority;
use tasker_core::store::Route;
use tokio::time::Instant;

use super::ClaimedTask;
use crate::rows::At;

/// For how long a mark is believed.
const BELIEVED: Duration = Duration::from_millis(500);

/// Tasks of one route and priority, in the order in which they are claimed.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) route: Arc<str>,
    pub(super) priority: Priority,
    /// There is nothing before this time.
    pub(super) mark: i64,
}

/// The marks of all lanes.
#[derive(Debug)]
pub(crate) struct Marks(Mutex<Known>);

#[derive(Debug)]
struct Known {
    since: Instant,
    by_lane: HashMap<(Arc<str>, i16), i64>,
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Known { since: Instant::now(), by_lane: HashMap::new() }))
    }

    /// The lanes of some routes, and whether any of them has a mark.
    pub(super) fn lanes(&self, routes: &BTreeSet<Route>) -> (Vec<Lane>, bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.since.elapsed() >= BELIEVED {
            known.by_lane.clear();
            known.since = Instant::now();
        }
        let mut lanes = Vec::with_capacity(routes.len() * Priority::ALL.len());
        for route in routes {
            let route: Arc<str> = route.as_str().into();
            for priority in Priority::ALL {
                let key = (Arc::clone(&route), priority.to_stored());
                let mark = known.by_lane.get(&key).copied().unwrap_or(At::MIN.0);
                lanes.push(Lane { route: Arc::clone(&route), priority, mark });
            }
        }
        (lanes, !known.by_lane.is_empty())
    }

    /// Notes from where tasks were taken: before the last of each lane there is nothing.
    pub(super) fn note(&self, taken: &[ClaimedTask]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for task in taken {
            let lane = (task.route.as_str().into(), task.priority);
            let mark = known.by_lane.entry(lane).or_insert(task.queued_for);
            *mark = (*mark).max(task.queued_for);
        }
    }

    /// Something may stand before the marks.
    pub(super) fn forget(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_lane.clear();
        known.since = Instant::now();
    }
}
