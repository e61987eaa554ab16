//! Reads: one task, or a page of them, each as one statement and so as one snapshot.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqlitePool;
use tasker_core::store::{StoredTask, TaskQuery, TaskSummary};
use tasker_core::{TaskId, TaskState};

use crate::bulk::Values;
use crate::fault::Fault;
use crate::rows::{Columns, Unfolding, count, read_line, read_standing, timestamp};
use crate::templates::Templates;

pub(crate) async fn load(
    readers: &SqlitePool,
    templates: &Templates,
    task: TaskId,
) -> Result<Option<StoredTask>, Fault> {
    let mut values = Values::default();
    values.put_task(task);
    let mut connection = readers.acquire().await?;
    let query = sqlx::query_with(include_str!("../queries/load.sql"), values.finish()?);
    let rows = query.fetch_all(&mut *connection).await?;
    let now = Timestamp::now().as_microsecond();
    let Some(first) = rows.first() else { return Ok(None) };
    let (id, standing) = read_standing(&mut Columns::of(first))?;
    let template = templates.get(&mut connection, standing.template).await?;
    let mut unfolding = Unfolding::new(id, standing, template);
    for row in &rows {
        let mut columns = Columns::of(row);
        columns.skip_task();
        unfolding.add(read_line(&mut columns)?.1);
    }
    let lease_until: Option<i64> = first.try_get("lease_until")?;
    let lease_until = lease_until.map(timestamp).transpose()?;
    Ok(Some(StoredTask { lease_until, ..unfolding.finish(now)? }))
}

pub(crate) async fn find(
    readers: &SqlitePool,
    query: &TaskQuery,
) -> Result<Vec<TaskSummary>, Fault> {
    let mut values = Values::default();
    values.put(query.namespace.as_deref()).put(query.name.as_deref());
    values.put(query.state.map(TaskState::as_str));
    values.put(query.before.map(|id| id.as_uuid().as_bytes().to_vec()));
    values.put(count(query.page_size() as u64)).put(query.degraded);
    // SQLite uses a partial index only where the statement itself says what the index does.
    let text = match (query.degraded, query.state) {
        (Some(true), _) => include_str!("../queries/find_degraded.sql"),
        (_, Some(state)) if state.is_exceptional() => {
            include_str!("../queries/find_exceptional.sql")
        }
        (_, Some(_) | None) => include_str!("../queries/find.sql"),
    };
    let mut connection = readers.acquire().await?;
    let rows = sqlx::query_with(text, values.finish()?).fetch_all(&mut *connection).await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::of(row);
            Ok(TaskSummary {
                id: columns.task()?,
                task_type: columns.next()?,
                state: columns.next::<&str>()?.parse()?,
                degraded: columns.next()?,
                created_at: timestamp(columns.next()?)?,
                ended_at: columns.next::<Option<i64>>()?.map(timestamp).transpose()?,
            })
        })
        .collect()
}
