//! Deletes tasks that ended long ago, and all that is known of them, in small batches.

use std::sync::LazyLock;
use std::time::Duration;

use tasker_core::store::StoreError;
use tasker_core::{TaskId, TaskState};
use uuid::Uuid;

use crate::SqliteStore;
use crate::bulk::{Bulk, Values};
use crate::fault::Fault;
use crate::rows::Columns;
use crate::session::{Ask, Session};
use crate::writer::Operation;

/// How many tasks are looked at for each that may be deleted at once.
const WIDTH: usize = 10;

/// The most tasks that one transaction deletes.
const LARGEST: usize = 10_000;

/// Tasks that went well, or are nobody's concern any more.
const ENDED: [TaskState; 4] = [
    TaskState::Complete,
    TaskState::Cancelled,
    TaskState::Compensated,
    TaskState::ResolvedManually,
];

static ESCALATIONS: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/delete_escalations.sql")));
static ALARMS: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/delete_alarms.sql")));

impl SqliteStore {
    /// Deletes tasks that completed, were cancelled or compensated, or that a person has seen to,
    /// longer ago than this, with their history and their idempotency keys, and says how many.
    /// Escalations that were raised for them and are resolved go with them.
    ///
    /// Failed tasks wait for a person: see [`delete_failed`](Self::delete_failed). The oldest go
    /// first, at most `batch` (1 to 10,000; some 100 do well) at once, and other writes of this
    /// process come between. Dropping the future ends it after the batch under way. A key that is
    /// gone can be used again, and submits another task. The file does not become smaller: what is
    /// free is used for new tasks.
    ///
    /// # Errors
    /// The file cannot be written; the batches before are deleted.
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
        self.delete([TaskState::Error; 4], older_than, batch).await
    }

    async fn delete(
        &self,
        states: [TaskState; 4],
        older_than: Duration,
        batch: usize,
    ) -> Result<u64, StoreError> {
        let size = batch.clamp(1, LARGEST);
        let mut sweep = Sweep { states, older_than, behind: Uuid::nil(), size };
        let mut deleted = 0;
        loop {
            let swept = self.ask(sweep, Operation::Delete).await?;
            deleted += swept.deleted;
            match swept.last {
                Some(last) => sweep.behind = last.as_uuid(),
                None => return Ok(deleted),
            }
        }
    }
}

/// A batch.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    states: [TaskState; 4],
    older_than: Duration,
    behind: Uuid,
    size: usize,
}

/// What became of a batch.
pub(crate) struct Swept {
    deleted: u64,
    /// The last task that was looked at; `None` if there is nothing more.
    last: Option<TaskId>,
}

pub(crate) async fn delete(
    session: &mut Session<'_>,
    asks: &mut [Ask<Sweep, Swept>],
) -> Result<(), Fault> {
    for Ask { request, outcome, .. } in asks {
        *outcome = Some(delete_batch(session, *request).await?);
    }
    Ok(())
}

async fn delete_batch(session: &mut Session<'_>, sweep: Sweep) -> Result<Swept, Fault> {
    let age = i64::try_from(sweep.older_than.as_micros()).unwrap_or(i64::MAX);
    let before = session.now.saturating_sub(age).max(0);
    // What was submitted from that time on has ids from this one on.
    let youngest = Uuid::from_u128(u128::from(before.unsigned_abs() / 1_000) << 80);
    let bind = |up_to: Uuid| {
        let mut values = Values::default();
        values.put_task(sweep.behind.into()).put_task(up_to.into());
        values.put(before);
        for state in sweep.states {
            values.put(state.as_str());
        }
        values
    };
    let mut values = bind(youngest);
    values.put(i64::try_from(sweep.size * WIDTH).unwrap_or(i64::MAX));
    let rows = session.fetch(include_str!("../queries/select_old.sql"), values).await?;
    let mut due = Vec::new();
    let mut last = None;
    for row in &rows {
        let mut columns = Columns::of(row);
        let task = columns.task()?;
        last = Some(task);
        if columns.next()? {
            due.push(task);
        }
        if due.len() == sweep.size {
            break;
        }
    }
    if let Some(last) = last.filter(|_| !due.is_empty()) {
        session.run(include_str!("../queries/delete_ended.sql"), bind(last.as_uuid())).await?;
        session.run_bulk(&ALARMS, &due, |values, task| _ = values.put(task.to_string())).await?;
        // What comes after a slash is less than what comes after a zero.
        let of_task = |values: &mut Values, task: &TaskId| {
            values.put(format!("{task}/")).put(format!("{task}0"));
        };
        session.run_bulk(&ESCALATIONS, &due, of_task).await?;
    }
    Ok(Swept { deleted: due.len() as u64, last })
}
