//! Tasks that are being stored as the worker's own: it will own them before it holds them.
//!
//! A claim that recovers what lost answers handed out must not take them for such.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::TaskId;

/// The tasks that are on their way from submissions to their owners.
#[derive(Debug, Default)]
pub(super) struct Arriving(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    now: HashSet<TaskId>,
    /// Those that set out since a recovery began, if one is under way.
    since: Option<HashSet<TaskId>>,
}

impl Arriving {
    /// A task is about to be stored.
    pub(super) fn sets_out(&self, task: TaskId) {
        let mut known = self.known();
        known.now.insert(task);
        if let Some(since) = &mut known.since {
            since.insert(task);
        }
    }

    /// Its owner was told of it, or it is not known what became of it.
    pub(super) fn is_through(&self, task: TaskId) {
        self.known().now.remove(&task);
    }

    /// A recovery begins: the tasks that it must leave alone.
    pub(super) fn begin_recovery(&self) -> Vec<TaskId> {
        let mut known = self.known();
        known.since = Some(HashSet::new());
        known.now.iter().copied().collect()
    }

    /// It has ended: the tasks that it may have found although they set out only meanwhile.
    pub(super) fn end_recovery(&self) -> HashSet<TaskId> {
        self.known().since.take().unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
