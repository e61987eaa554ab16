//! How ids, times and history are written to rows and read back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type};
use tasker_core::history::{Author, Occurrence, OccurrenceColumns, Recorded, Transition};
use tasker_core::store::board::{OWN_LOG, Standing};
use tasker_core::store::{Route, StoredTask};
use tasker_core::{Json, Priority, StepIndex, TaskId, TaskTemplate, WorkerId};
use uuid::Uuid;

use crate::fault::Fault;

/// The kind of row 0 of a task's own log, which holds the task's input.
const SUBMITTED: &str = "submitted";

/// Microseconds from 1970, where we count from, to 2000, where PostgreSQL does.
const EPOCH: i64 = 946_684_800_000_000;

/// A time, in microseconds since 1970 (UTC); a `timestamptz` in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(pub(crate) i64);

impl At {
    /// Before everything.
    pub(crate) const MIN: Self = Self(0);
}

impl Type<Postgres> for At {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for At {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for At {
    fn encode_by_ref(
        &self,
        buffer: &mut PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0.saturating_sub(EPOCH), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for At {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros: i64 = Decode::<Postgres>::decode(value)?;
        Ok(Self(micros.saturating_add(EPOCH)))
    }
}

/// The columns of a row, read from left to right.
pub(crate) struct Columns<'r> {
    row: &'r PgRow,
    at: usize,
}

impl<'r> Columns<'r> {
    pub(crate) fn of(row: &'r PgRow) -> Self {
        Self { row, at: 0 }
    }

    pub(crate) fn skip(&mut self, columns: usize) -> &mut Self {
        self.at += columns;
        self
    }

    pub(crate) fn next<T: Decode<'r, Postgres>>(&mut self) -> Result<T, Fault> {
        let value = self.row.try_get_unchecked(self.at)?;
        self.at += 1;
        Ok(value)
    }

    pub(crate) fn time(&mut self) -> Result<i64, Fault> {
        self.next().map(|At(micros)| micros)
    }

    pub(crate) fn maybe_time(&mut self) -> Result<Option<i64>, Fault> {
        Ok(self.next::<Option<At>>()?.map(|At(micros)| micros))
    }

    pub(crate) fn task(&mut self) -> Result<TaskId, Fault> {
        self.next::<Uuid>().map(TaskId::from)
    }

    pub(crate) fn maybe_task(&mut self) -> Result<Option<TaskId>, Fault> {
        Ok(self.next::<Option<Uuid>>()?.map(TaskId::from))
    }

    pub(crate) fn worker(&mut self) -> Result<WorkerId, Fault> {
        self.next::<Uuid>().map(WorkerId::from)
    }

    pub(crate) fn maybe_worker(&mut self) -> Result<Option<WorkerId>, Fault> {
        Ok(self.next::<Option<Uuid>>()?.map(WorkerId::from))
    }

    pub(crate) fn json(&mut self) -> Result<Option<Json>, Fault> {
        let text: Option<&str> = self.next()?;
        Ok(text.map(Json::from_stored))
    }

    /// A count or a position; the schema has no negative ones but [`OWN_LOG`].
    pub(crate) fn number(&mut self) -> Result<u32, Fault> {
        Ok(self.next::<i32>()?.unsigned_abs())
    }

    /// A log's number.
    pub(crate) fn log(&mut self) -> Result<i64, Fault> {
        Ok(i64::from(self.next::<i32>()?))
    }

    fn author(&mut self) -> Result<Author, Fault> {
        let (worker, operator): (Option<Uuid>, Option<&str>) = (self.next()?, self.next()?);
        match worker {
            Some(worker) => Ok(Author::Worker(worker.into())),
            None => Ok(Author::Operator(operator.unwrap_or_default().to_owned())),
        }
    }

    /// Reads the columns of `task` in the order in which all queries name them.
    pub(crate) fn standing(&mut self) -> Result<(TaskId, Standing), Fault> {
        let id = self.task()?;
        let template = i64::from(self.next::<i32>()?);
        let state = self.next::<&str>()?.parse()?;
        let degraded = self.next()?;
        let priority = Priority::from_stored(self.next()?)?;
        let version = self.next::<i64>()?.unsigned_abs();
        let owner = self.maybe_worker()?;
        let route = self.next::<Option<&str>>()?.map(Arc::from);
        let wake_at = self.maybe_time()?;
        let created_at = self.time()?;
        let ended_at = self.maybe_time()?;
        let standing = Standing {
            template,
            priority,
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

    /// Reads the columns of `history` in the order in which all queries name them; `None` where an
    /// outer join found no row.
    pub(crate) fn line(&mut self) -> Result<Option<Line>, Fault> {
        if self.maybe_task()?.is_none() {
            return Ok(None);
        }
        let (step, seq) = (self.log()?, self.number()?);
        let at = self.time()?;
        let author = self.author()?;
        let attempt = self.number()?;
        let ran_for: i64 = self.next()?;
        let kind: &str = self.next()?;
        let (result, detail) = (self.json()?, self.json()?);
        if step == OWN_LOG && seq == 0 && kind == SUBMITTED {
            let input =
                result.ok_or_else(|| Fault::Unreadable("a task has no input".to_owned()))?;
            return Ok(Some(Line::Input(input)));
        }
        let kind = kind.to_owned();
        let transition = Transition {
            step: u32::try_from(step).ok().map(StepIndex),
            seq,
            attempt,
            ran_for: Duration::from_nanos(ran_for.unsigned_abs()),
            what: Occurrence::from_columns(OccurrenceColumns { kind, result, detail })?,
        };
        Ok(Some(Line::Happened(Recorded { at: timestamp(at)?, author, transition })))
    }
}

/// How many columns [`Columns::standing`] reads.
pub(crate) const STANDING: usize = 11;

/// How many columns [`Columns::line`] reads, the task's id before them included.
pub(crate) const LINE: usize = 11;

/// A line of a task's history: its input, or something that happened.
pub(crate) enum Line {
    Input(Json),
    Happened(Recorded),
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

    pub(crate) fn with_input(mut self, input: Json) -> Self {
        self.input = Some(input);
        self
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

/// A wait as statements take it: whole microseconds, rounded up, at most some 7,000 years, which
/// is beyond the last time that there is.
pub(crate) fn micros(wait: Duration) -> i64 {
    const LONGEST: i64 = 250_000_000_000_000_000;
    i64::try_from(wait.as_nanos().div_ceil(1_000)).unwrap_or(LONGEST).min(LONGEST)
}

/// A span in a row.
pub(crate) fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// A count in a row; versions never come near the end of the range.
pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A position, a number of a row or an attempt in a row; templates and histories are far smaller.
pub(crate) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A log's number in a row.
pub(crate) fn log_int(log: i64) -> i32 {
    i32::try_from(log).unwrap_or(i32::MAX)
}

/// One parameter of a statement over many rows.
pub(crate) fn column<'a, T, C>(rows: &'a [T], of: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}
