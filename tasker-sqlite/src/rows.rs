//! How ids, times and history are written to rows and read back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, TypeInfo, ValueRef};
use tasker_core::history::{Author, Occurrence, OccurrenceColumns, Recorded, Transition};
use tasker_core::store::board::{OWN_LOG, Standing};
use tasker_core::store::{Route, StoredTask};
use tasker_core::{Json, Priority, StepIndex, TaskId, TaskTemplate, WorkerId};
use uuid::Uuid;

use crate::bulk::Values;
use crate::fault::Fault;

/// The kind of row 0 of a task's own log, which holds the task's input.
pub(crate) const SUBMITTED: &str = "submitted";

/// The columns of a row, read from left to right.
pub(crate) struct Columns<'r> {
    row: &'r SqliteRow,
    at: usize,
}

impl<'r> Columns<'r> {
    pub(crate) fn of(row: &'r SqliteRow) -> Self {
        Self { row, at: 0 }
    }

    /// Passes over the columns of `task`.
    pub(crate) fn skip_task(&mut self) {
        self.at += TASK_COLUMNS;
    }

    pub(crate) fn next<T: Decode<'r, Sqlite>>(&mut self) -> Result<T, Fault> {
        let value = self.row.try_get_unchecked(self.at)?;
        self.at += 1;
        Ok(value)
    }

    pub(crate) fn task(&mut self) -> Result<TaskId, Fault> {
        self.next().and_then(uuid).map(TaskId::from)
    }

    pub(crate) fn worker(&mut self) -> Result<WorkerId, Fault> {
        self.next().and_then(uuid).map(WorkerId::from)
    }

    pub(crate) fn maybe_worker(&mut self) -> Result<Option<WorkerId>, Fault> {
        let bytes: Option<&[u8]> = self.next()?;
        bytes.map(uuid).transpose().map(|id| id.map(WorkerId::from))
    }

    pub(crate) fn json(&mut self) -> Result<Option<Json>, Fault> {
        let text: Option<&str> = self.next()?;
        Ok(text.map(Json::from_stored))
    }

    fn author(&mut self) -> Result<Author, Fault> {
        let is_text = self.row.try_get_raw(self.at)?.type_info().name() == "TEXT";
        if is_text { self.next().map(Author::Operator) } else { self.worker().map(Author::Worker) }
    }
}

fn uuid(bytes: &[u8]) -> Result<Uuid, Fault> {
    Uuid::from_slice(bytes).map_err(|_| Fault::Unreadable("an id is no UUID".to_owned()))
}

impl Values {
    pub(crate) fn put_task(&mut self, id: TaskId) -> &mut Self {
        self.put(id.as_uuid().as_bytes().as_slice())
    }

    pub(crate) fn put_worker(&mut self, id: WorkerId) -> &mut Self {
        self.put(id.as_uuid().as_bytes().as_slice())
    }

    pub(crate) fn put_maybe_worker(&mut self, id: Option<WorkerId>) -> &mut Self {
        self.put(id.map(|id| id.as_uuid().as_bytes().to_vec()))
    }

    pub(crate) fn put_author(&mut self, author: &Author) -> &mut Self {
        match author {
            Author::Worker(id) => self.put_worker(*id),
            Author::Operator(name) => self.put(name.as_str()),
        }
    }
}

/// How many columns of `task` the queries name.
const TASK_COLUMNS: usize = 11;

/// Reads the columns of `task` in the order in which all queries name them.
pub(crate) fn read_standing(columns: &mut Columns<'_>) -> Result<(TaskId, Standing), Fault> {
    let id = columns.task()?;
    let standing = Standing {
        template: columns.next()?,
        priority: Priority::from_stored(columns.next()?)?,
        state: columns.next::<&str>()?.parse()?,
        degraded: columns.next()?,
        version: columns.next::<i64>()?.unsigned_abs(),
        owner: columns.maybe_worker()?,
        route: columns.next::<Option<&str>>()?.map(Arc::from),
        wake_at: columns.next()?,
        created_at: columns.next()?,
        ended_at: columns.next()?,
    };
    Ok((id, standing))
}

/// A row of history as it is stored: the task's input, or something that happened.
pub(crate) enum Line {
    Input(Json),
    Happened(Recorded),
}

/// Reads the columns of `history` in the order in which all queries name them.
pub(crate) fn read_line(columns: &mut Columns<'_>) -> Result<(TaskId, Line), Fault> {
    let task = columns.task()?;
    let step: i64 = columns.next()?;
    let seq: u32 = columns.next()?;
    let at: i64 = columns.next()?;
    let author = columns.author()?;
    let attempt: u32 = columns.next()?;
    let ran_for: i64 = columns.next()?;
    let kind: &str = columns.next()?;
    let result = columns.json()?;
    let detail = columns.json()?;
    if step == OWN_LOG && seq == 0 {
        let input = result.ok_or_else(|| Fault::Unreadable("a task has no input".to_owned()))?;
        return Ok((task, Line::Input(input)));
    }
    let kind = kind.to_owned();
    let transition = Transition {
        step: u32::try_from(step).ok().map(StepIndex),
        seq,
        attempt,
        ran_for: Duration::from_nanos(ran_for.unsigned_abs()),
        what: Occurrence::from_columns(OccurrenceColumns { kind, result, detail })?,
    };
    Ok((task, Line::Happened(Recorded { at: timestamp(at)?, author, transition })))
}

/// A task under way to whoever asked for it; its history is yet to come.
pub(crate) struct Unfolding {
    pub(crate) id: TaskId,
    standing: Standing,
    template: Arc<TaskTemplate>,
    input: Option<Json>,
    rows: Vec<Recorded>,
}

impl Unfolding {
    pub(crate) fn new(id: TaskId, standing: Standing, template: Arc<TaskTemplate>) -> Self {
        Self { id, standing, template, input: None, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, line: Line) {
        match line {
            Line::Input(input) => self.input = Some(input),
            Line::Happened(row) => self.rows.push(row),
        }
    }

    pub(crate) fn finish(self, now: i64) -> Result<StoredTask, Fault> {
        let Self { id, standing, template, input, rows } = self;
        let last_route = standing.route.map_or_else(|| Route::of(&template), Route::from_stored);
        Ok(StoredTask {
            id,
            template,
            context: input.ok_or_else(|| Fault::Unreadable("a task has no input".to_owned()))?,
            priority: standing.priority,
            state: standing.state,
            degraded: standing.degraded,
            version: standing.version,
            owner: standing.owner,
            lease_until: None,
            created_at: timestamp(standing.created_at)?,
            ended_at: standing.ended_at.map(timestamp).transpose()?,
            wake_at: standing.wake_at.map(timestamp).transpose()?,
            route: standing.wake_at.map(|_| last_route),
            now: timestamp(now)?,
            rows,
        })
    }
}

/// A time as it is in the API.
pub(crate) fn timestamp(micros: i64) -> Result<Timestamp, Fault> {
    Timestamp::from_microsecond(micros)
        .map_err(|_| Fault::Unreadable("a time is out of range".to_owned()))
}

/// How long it is from now until a time; zero if it has come.
pub(crate) fn until(now: i64, at: i64) -> Duration {
    Duration::from_micros(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}

/// A span in a row.
pub(crate) fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// A count in a row; versions never come near the end of the range.
pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
