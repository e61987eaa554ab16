//! How ids, times and history are written to rows and read back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, TypeInfo, ValueRef};
use tasker_core::history::{Author, Occurrence, OccurrenceColumns, Recorded, Transition};
use tasker_core::store::StoredTask;
use tasker_core::{Json, StepIndex, TaskId, TaskState, TaskTemplate, WorkerId};
use uuid::Uuid;

use crate::bulk::Values;
use crate::fault::Fault;

/// Whose log a task's own rows are in.
pub(crate) const OWN_LOG: i64 = -1;

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
        self.at += Standing::COLUMNS;
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

/// Where a task stands: its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) template: i64,
    pub(crate) state: TaskState,
    pub(crate) degraded: bool,
    pub(crate) version: u64,
    pub(crate) owner: Option<WorkerId>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) wake_at: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) ended_at: Option<i64>,
}

impl Standing {
    const COLUMNS: usize = 10;

    /// Reads the columns of `task` in the order in which all queries name them.
    pub(crate) fn read(columns: &mut Columns<'_>) -> Result<(TaskId, Self), Fault> {
        let id = columns.task()?;
        let template = columns.next()?;
        let state = columns.next::<&str>()?.parse()?;
        let degraded = columns.next()?;
        let version = columns.next::<i64>()?.unsigned_abs();
        let owner = columns.maybe_worker()?;
        let route = columns.next::<Option<&str>>()?.map(Arc::from);
        let wake_at = columns.next()?;
        let created_at = columns.next()?;
        let ended_at = columns.next()?;
        let standing = Self {
            template,
            state,
            degraded,
            version,
            owner,
            route,
            wake_at,
            created_at,
            ended_at,
        };
        Ok((id, standing))
    }
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
        Ok(StoredTask {
            id,
            template,
            context: input.ok_or_else(|| Fault::Unreadable("a task has no input".to_owned()))?,
            state: standing.state,
            degraded: standing.degraded,
            version: standing.version,
            owner: standing.owner,
            created_at: timestamp(standing.created_at)?,
            ended_at: standing.ended_at.map(timestamp).transpose()?,
            wake_at: standing.wake_at.map(timestamp).transpose()?,
            now: timestamp(now)?,
            rows,
        })
    }
}

/// A log's number in the table.
pub(crate) fn log_of(step: Option<StepIndex>) -> i64 {
    step.map_or(OWN_LOG, |step| i64::from(step.0))
}

/// A time as it is in the API.
pub(crate) fn timestamp(micros: i64) -> Result<Timestamp, Fault> {
    Timestamp::from_microsecond(micros)
        .map_err(|_| Fault::Unreadable("a time is out of range".to_owned()))
}

/// The time that is a while after another, never too early and never out of range.
pub(crate) fn after(now: i64, wait: Duration) -> i64 {
    let micros = i64::try_from(wait.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    now.saturating_add(micros).min(Timestamp::MAX.as_microsecond())
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
