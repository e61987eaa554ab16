//! What the writer need not read, because it wrote it itself and nobody has written since.
//!
//! SQLite tells whether another connection has committed; then all of this is forgotten, and so it
//! is when a transaction is rolled back. A store that has its file for itself never reads a task's
//! row before it changes it.

use std::collections::{HashMap, HashSet};

use tasker_core::store::board::Standing;
use tasker_core::{TaskId, WorkerId};

/// Above this many tasks the cache starts anew.
const CAPACITY: usize = 100_000;

/// True statements about the database, as long as nobody else writes.
#[derive(Default)]
pub(crate) struct Known {
    data_version: Option<i64>,
    owned: HashMap<TaskId, Standing>,
    living: HashSet<WorkerId>,
    /// Whether there may be any offer, and any news.
    pub(crate) extras: Option<Extras>,
}

/// Whether the tables that are mostly empty have rows.
#[derive(Clone, Copy)]
pub(crate) struct Extras {
    pub(crate) offers: bool,
    pub(crate) news: bool,
}

impl Known {
    /// Takes SQLite's word on whether another connection has written; true if one has.
    pub(crate) fn observe(&mut self, data_version: i64) -> bool {
        let others_wrote = self.data_version != Some(data_version);
        if others_wrote {
            self.forget();
            self.data_version = Some(data_version);
        }
        others_wrote
    }

    pub(crate) fn forget(&mut self) {
        self.owned.clear();
        self.living.clear();
        self.extras = None;
    }

    /// On a new connection the counter of commits starts anew.
    pub(crate) fn forget_connection(&mut self) {
        self.forget();
        self.data_version = None;
    }

    pub(crate) fn standing(&self, task: TaskId) -> Option<&Standing> {
        self.owned.get(&task)
    }

    /// Remembers where a task stands if it has an owner, who will soon write to it.
    pub(crate) fn stands(&mut self, task: TaskId, standing: Standing) {
        if standing.owner.is_none() {
            self.owned.remove(&task);
            return;
        }
        if self.owned.len() >= CAPACITY {
            self.owned.clear();
        }
        self.owned.insert(task, standing);
    }

    pub(crate) fn lives(&self, worker: WorkerId) -> bool {
        self.living.contains(&worker)
    }

    pub(crate) fn is_alive(&mut self, worker: WorkerId) {
        self.living.insert(worker);
    }
}
