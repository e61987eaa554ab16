//! Reads: one task, or a page of them, each as one statement and so as one snapshot.

use tasker_core::store::{StoredTask, TaskQuery, TaskSummary};
use tasker_core::{TaskId, TaskState};

use crate::claim::whole_task;
use crate::database::{Session, Work, statement};
use crate::fault::Fault;
use crate::rows::{Columns, LINE, STANDING, count, timestamp};

/// One task.
pub(crate) struct Load(pub(crate) TaskId);

impl Work for Load {
    type Answer = Option<StoredTask>;

    async fn run(self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        let query = statement(&session.database.sql.load).bind(self.0.as_uuid());
        let rows = session.fetch(query).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let lease_until = Columns::of(first).skip(1 + STANDING + LINE).maybe_time()?;
        let lease_until = lease_until.map(timestamp).transpose()?;
        let task = whole_task(session, &rows).await?;
        Ok(Some(StoredTask { lease_until, ..task }))
    }
}

/// A page of tasks.
pub(crate) struct Find(pub(crate) TaskQuery);

impl Work for Find {
    type Answer = Vec<TaskSummary>;

    async fn run(self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        let sql = &session.database.sql;
        let page = count(self.0.page_size() as u64);
        // A partial index serves only a statement that itself says what the index does.
        let text = match (self.0.degraded, self.0.state) {
            (Some(true), _) => &sql.find_degraded,
            (_, Some(state)) if state.is_exceptional() => &sql.find_exceptional,
            (_, Some(_) | None) => &sql.find,
        };
        let query = statement(text)
            .bind(self.0.namespace)
            .bind(self.0.name)
            .bind(self.0.state.map(TaskState::as_str))
            .bind(self.0.before.map(TaskId::as_uuid))
            .bind(page)
            .bind(self.0.degraded);
        let rows = session.fetch(query).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(TaskSummary {
                    id: columns.task()?,
                    task_type: columns.next()?,
                    state: columns.next::<&str>()?.parse()?,
                    degraded: columns.next()?,
                    created_at: timestamp(columns.time()?)?,
                    ended_at: columns.maybe_time()?.map(timestamp).transpose()?,
                })
            })
            .collect()
    }
}
