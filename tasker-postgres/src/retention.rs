//! Deletes tasks that ended long ago, and all that is known of them, in small batches.

use std::sync::Arc;
use std::time::Duration;

use tasker_core::TaskState;
use tasker_core::store::StoreError;
use uuid::Uuid;

use crate::PostgresStore;
use crate::database::{Database, Session, Work, statement};
use crate::fault::Fault;
use crate::rows::{Columns, micros};

/// How many tasks are looked at for each that may be deleted at once.
const WIDTH: usize = 10;

/// The most tasks that one transaction deletes.
const LARGEST: usize = 10_000;

/// The longest age that can be asked for: what is older does not exist.
const LONGEST: Duration = Duration::from_secs(1_000 * 365 * 24 * 3600);

/// How many tasks a transaction in the background deletes, and the rest after it.
const BATCH: usize = 500;
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest and the longest time between two rounds in the background.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);
const LONGEST_ROUND: Duration = Duration::from_secs(3600);

/// Tasks that went well, or are nobody's concern any more.
const ENDED: &[TaskState] = &[
    TaskState::Complete,
    TaskState::Cancelled,
    TaskState::Compensated,
    TaskState::ResolvedManually,
];

/// Tasks that wait for a person.
const FAILED: &[TaskState] = &[TaskState::Error];

impl PostgresStore {
    /// Deletes tasks that completed, were cancelled or compensated, or that a person has seen to,
    /// longer ago than this, with their history and their idempotency keys, and says how many.
    /// Escalations that were raised for them and are resolved go with them.
    ///
    /// Failed tasks wait for a person: see [`delete_failed`](Self::delete_failed). The oldest go
    /// first, at most `batch` (1 to 10,000; some 500 do well) in one transaction. What somebody
    /// works on at this moment is left for the next call. Workers, operators and other calls of
    /// this may go on meanwhile; dropping the future ends it after the batch under way. A key that
    /// is gone can be used again, and submits another task. A task counts as old by its id as well:
    /// one whose submitter's clock was ahead is deleted that much later.
    ///
    /// # Errors
    /// The database failed; the batches before are deleted.
    pub async fn delete_ended(
        &self,
        older_than: Duration,
        batch: usize,
    ) -> Result<u64, StoreError> {
        self.delete(ENDED, older_than, batch).await
    }

    /// Deletes failed tasks in the same way. After that nobody can retry them.
    ///
    /// # Errors
    /// As for [`delete_ended`](Self::delete_ended).
    pub async fn delete_failed(
        &self,
        older_than: Duration,
        batch: usize,
    ) -> Result<u64, StoreError> {
        self.delete(FAILED, older_than, batch).await
    }

    async fn delete(
        &self,
        states: &'static [TaskState],
        older_than: Duration,
        batch: usize,
    ) -> Result<u64, StoreError> {
        let mut sweep = Sweep::new(states, older_than, batch);
        let mut deleted = 0;
        loop {
            let swept = self.database.perform(sweep).await?;
            deleted += swept.deleted;
            match swept.last {
                Some(last) => sweep.behind = last,
                None => return Ok(deleted),
            }
        }
    }
}

/// For how long ended tasks are kept, if not for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keep {
    pub(crate) ended: Option<Duration>,
    pub(crate) failed: Option<Duration>,
}

/// Deletes what need not be kept, without end.
pub(crate) async fn run(database: Arc<Database>, keep: Keep) {
    let Some(shortest) = keep.ended.into_iter().chain(keep.failed).min() else { return };
    let round = (shortest / 10).clamp(SHORTEST_ROUND, LONGEST_ROUND);
    // Processes that start together do not look together.
    tokio::time::sleep(round.mul_f64(fraction())).await;
    loop {
        for (states, age) in [(ENDED, keep.ended), (FAILED, keep.failed)] {
            if let Some(age) = age {
                sweep(&database, states, age).await;
            }
        }
        tokio::time::sleep(round.mul_f64(0.75 + fraction() / 2.0)).await;
    }
}

/// Deletes what there is, unless another process is at it.
async fn sweep(database: &Arc<Database>, states: &'static [TaskState], older_than: Duration) {
    let mut sweep = Sweep { alone: true, ..Sweep::new(states, older_than, BATCH) };
    let mut deleted = 0;
    loop {
        match database.perform(sweep).await {
            Ok(swept) => {
                deleted += swept.deleted;
                let Some(last) = swept.last else { break };
                sweep.behind = last;
            }
            Err(error) => {
                tracing::warn!(%error, deleted, "ended tasks are not deleted until the next round");
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    if deleted > 0 {
        tracing::debug!(deleted, "tasks that ended long ago are deleted");
    }
}

/// Between 0 and 1, another one each time.
fn fraction() -> f64 {
    f64::from(u32::try_from(Uuid::now_v7().as_u128() % 1024).unwrap_or(0)) / 1024.0
}

/// A batch.
#[derive(Clone, Copy)]
struct Sweep {
    states: &'static [TaskState],
    older_than: Duration,
    behind: Uuid,
    size: usize,
    /// Whether to give way to another process.
    alone: bool,
}

impl Sweep {
    fn new(states: &'static [TaskState], older_than: Duration, size: usize) -> Self {
        let (older_than, size) = (older_than.min(LONGEST), size.clamp(1, LARGEST));
        Self { states, older_than, behind: Uuid::nil(), size, alone: false }
    }
}

/// What became of a batch.
struct Swept {
    deleted: u64,
    /// The last task that was looked at; `None` if there is nothing more.
    last: Option<Uuid>,
}

impl Work for Sweep {
    type Answer = Swept;

    async fn run(self, session: &mut Session<'_>) -> Result<Swept, Fault> {
        let sql = &session.database.sql;
        session.begin().await?;
        if self.alone {
            let name = session.database.hints.retention();
            let row = session.fetch_one(statement(&sql.try_retention).bind(name)).await?;
            if !Columns::of(&row).next::<bool>()? {
                session.rollback().await?;
                return Ok(Swept { deleted: 0, last: None });
            }
        }
        let states: Vec<&str> = self.states.iter().map(|state| state.as_str()).collect();
        let int = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let select = statement(&sql.select_ended)
            .bind(self.behind)
            .bind(micros(self.older_than))
            .bind(states.clone())
            .bind(int(self.size * WIDTH))
            .bind(int(self.size));
        let row = session.fetch_one(select).await?;
        let mut columns = Columns::of(&row);
        let (seen, due): (Option<Uuid>, Vec<Uuid>) = (columns.next()?, columns.next()?);
        // Behind the last one that was brought there may be more that was seen.
        let last = if due.len() < self.size { seen } else { due.last().copied() };
        let mut deleted = 0;
        if !due.is_empty() {
            let delete = statement(&sql.delete_ended);
            let delete = delete.bind(due).bind(micros(self.older_than)).bind(states);
            deleted = session.run(delete).await?;
        }
        session.commit().await?;
        Ok(Swept { deleted, last })
    }
}
