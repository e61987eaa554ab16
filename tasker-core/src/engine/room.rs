//! How many tasks a worker holds: room is reserved before a task is asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::mail::StoreClock;
use super::{Core, Incarnation};
use crate::TaskId;
use crate::snapshot::Snapshot;

/// Room for some tasks; what is not filled is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    core: Arc<Core>,
    size: usize,
    /// The task that is being stored to fill it.
    expected: Option<TaskId>,
}

impl Room {
    /// Reserves room for up to `most` tasks; for none once the worker is to stop.
    pub(crate) fn reserve(core: &Arc<Core>, most: usize) -> Self {
        let slots = core.settings.slots;
        let mut size = 0;
        let grow = |held: usize| {
            size = slots.saturating_sub(held).min(most);
            (size > 0).then_some(held + size)
        };
        // The check for the stop comes after the reservation, and the check for idleness after the
        // stop: one of the two sees the other.
        if core.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grow).is_err() {
            size = 0;
        }
        let mut room = Self { core: core.clone(), size, expected: None };
        if core.stop.is_cancelled() {
            room.shrink_to(0);
        }
        room
    }

    /// For how many tasks.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// A task is about to be stored for the worker.
    pub(crate) fn expecting(mut self, task: TaskId) -> Self {
        self.core.arriving.sets_out(task);
        self.expected = Some(task);
        self
    }

    /// Fills one place with a task that was just stored for the worker.
    pub(crate) fn fill(mut self, incarnation: Arc<Incarnation>, task: Snapshot, now: Timestamp) {
        self.take(1);
        self.core.own(incarnation, task, StoreClock::told(now), None);
    }

    /// After a call whose answer was lost: the store is asked what it had handed out.
    pub(crate) fn lost_answer(self) {
        let core = self.core.clone();
        // It is no longer expected, so it is recovered.
        drop(self);
        core.resync.notify_one();
    }

    /// Fills places; tasks beyond the room that there was count as well.
    pub(super) fn take(&mut self, tasks: usize) {
        if tasks > self.size {
            self.core.held.fetch_add(tasks - self.size, Ordering::SeqCst);
        }
        self.size = self.size.saturating_sub(tasks);
    }

    /// Reserves more, so that there is room for up to `most` tasks.
    pub(super) fn grow_to(&mut self, most: usize) {
        let mut more = Self::reserve(&self.core, most.saturating_sub(self.size));
        self.size += std::mem::take(&mut more.size);
    }

    pub(super) fn shrink_to(&mut self, size: usize) {
        let back = self.size.saturating_sub(size);
        self.size -= back;
        self.core.release(back);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(task) = self.expected {
            self.core.arriving.is_through(task);
        }
        self.shrink_to(0);
    }
}

impl Core {
    /// Gives room back.
    pub(super) fn release(&self, tasks: usize) {
        if tasks > 0 {
            self.held.fetch_sub(tasks, Ordering::SeqCst);
            self.let_go.notify_one();
            self.check_idle();
        }
    }

    /// Once the worker is to stop and holds nothing, its loops end.
    pub(super) fn check_idle(&self) {
        if self.stop.is_cancelled() && self.held.load(Ordering::SeqCst) == 0 {
            self.idle.cancel();
        }
    }

    /// How many offered steps to ask for beside so many tasks: what is borrowed should run at once.
    pub(super) fn room_for_offers(&self, tasks: usize) -> usize {
        let free = self.slots.available_permits();
        free.saturating_sub(tasks).max(free.div_ceil(4))
    }

    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    pub(super) fn room(&self) -> usize {
        self.settings.slots.saturating_sub(self.held.load(Ordering::SeqCst))
    }

    /// Waits until there is room for so many tasks, at most `max`.
    pub(super) async fn until_room(&self, tasks: usize, max: Duration) {
        if self.room() >= tasks {
            return;
        }
        let enough = async {
            while self.room() < tasks {
                self.let_go.notified().await;
            }
        };
        // Too little room in time is ordinary.
        let _ = tokio::time::timeout(max, enough).await;
    }
}
