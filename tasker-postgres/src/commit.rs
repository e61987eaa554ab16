//! Applies changes.
//!
//! What owners conclude about their tasks, which is nearly everything, takes one statement. All
//! else, and whatever that statement stumbles over, is applied [with care](careful): rows are
//! locked and read, the changes applied in memory, and what they add up to is written.

mod careful;

use std::collections::HashSet;
use std::slice;

use tasker_core::Timestamp;
use tasker_core::history::{Author, Occurrence, OccurrenceColumns};
use tasker_core::store::board::log_of;
use tasker_core::store::{Applied, Assumption, Committed, TaskChange, Then};
use uuid::Uuid;

use crate::database::{Session, Work, statement};
use crate::documents;
use crate::fault::Fault;
use crate::rows::{Columns, count, int, log_int, micros, nanos, timestamp};

/// How often the one statement is tried again when others moved tasks while it waited.
const ROUNDS: usize = 3;

/// A request to apply changes.
pub(crate) struct Commit {
    pub(crate) author: Author,
    pub(crate) changes: Vec<TaskChange>,
}

impl Work for Commit {
    type Answer = Committed;

    fn weight(&self) -> usize {
        let rows = self.changes.iter().flat_map(|change| &change.rows);
        rows.map(|row| match &row.what {
            Occurrence::Completed { result } => result.as_str().len(),
            _ => 0,
        })
        .sum()
    }

    async fn run(self, session: &mut Session<'_>) -> Result<Committed, Fault> {
        let Self { author, changes } = self;
        let raises = changes.iter().any(TaskChange::has_documents);
        let committed = match raises {
            false => at_once(session, &author, &changes).await?,
            true => raising(session, &author, &changes).await?,
        };
        let committed = match committed {
            Some(committed) => committed,
            None => careful::apply(session, &author, &changes).await?,
        };
        if gives_work(&changes) {
            session.database.hints.there_may_be_work();
        }
        Ok(committed)
    }
}

/// Applies one change within a transaction that is open, and says when; `None` if it does not hold,
/// or its author's lease is gone: then the transaction is to be rolled back.
pub(crate) async fn within(
    session: &mut Session<'_>,
    author: &Author,
    change: &TaskChange,
) -> Result<Option<Timestamp>, Fault> {
    let changes = slice::from_ref(change);
    let committed = match &change.assumes {
        Assumption::Owned { .. } => {
            let committed = at_once(session, author, changes).await?;
            if let Some(Committed::Changes { now, applied }) = &committed {
                raise(session, *now, changes, applied).await?;
            }
            committed
        }
        Assumption::OfferHeld { .. } | Assumption::Unmoved { .. } => {
            careful::within(session, author, changes).await?
        }
    };
    Ok(match committed {
        Some(Committed::Changes { now, applied }) if applied == [Applied::Yes] => Some(now),
        Some(Committed::Changes { .. } | Committed::LeaseLost) | None => None,
    })
}

/// Whether changes may give somebody something to do: a queued task, an offer, or news.
pub(crate) fn gives_work(changes: &[TaskChange]) -> bool {
    changes.iter().any(|change| {
        matches!(change.then, Then::Queue { .. })
            || !change.offers.is_empty()
            || !matches!(change.assumes, Assumption::Owned { .. })
    })
}

/// Applies what the owner of tasks concluded, with the documents that belong to it; `None` if it
/// takes more. These are so rare that the one statement for all the rest need not know of them.
async fn raising(
    session: &mut Session<'_>,
    author: &Author,
    changes: &[TaskChange],
) -> Result<Option<Committed>, Fault> {
    session.begin().await?;
    let committed = at_once(session, author, changes).await?;
    let Some(Committed::Changes { now, applied }) = &committed else {
        session.rollback().await?;
        return Ok(committed);
    };
    raise(session, *now, changes, applied).await?;
    session.commit().await?;
    Ok(committed)
}

/// Adds the documents of those changes that were applied, as of `now`.
async fn raise(
    session: &mut Session<'_>,
    now: Timestamp,
    changes: &[TaskChange],
    applied: &[Applied],
) -> Result<(), Fault> {
    let applied = changes.iter().zip(applied).filter(|(_, applied)| **applied == Applied::Yes);
    let raised = applied.flat_map(|(change, _)| change.documents()).collect();
    documents::insert(session, now.as_microsecond(), raised).await
}

/// Applies what the owner of tasks concluded, with one statement, but for the documents that belong
/// to it; `None` if it takes more.
async fn at_once(
    session: &mut Session<'_>,
    author: &Author,
    changes: &[TaskChange],
) -> Result<Option<Committed>, Fault> {
    let Author::Worker(worker) = author else { return Ok(None) };
    let Some(arrays) = Arrays::of(changes)? else { return Ok(None) };
    for _ in 0..ROUNDS {
        let query = statement(&session.database.sql.commit)
            .bind(worker.as_uuid())
            .bind(&arrays.task)
            .bind(&arrays.version)
            .bind(&arrays.fate)
            .bind(&arrays.state)
            .bind(&arrays.degraded)
            .bind(&arrays.delay)
            .bind(&arrays.route)
            .bind(&arrays.change)
            .bind(&arrays.step)
            .bind(&arrays.seq)
            .bind(&arrays.attempt)
            .bind(&arrays.ran_for)
            .bind(arrays.what.iter().map(|what| what.kind.as_str()).collect::<Vec<_>>())
            .bind(arrays.texts(|what| what.result.as_ref().map(|json| json.as_str())))
            .bind(arrays.texts(|what| what.detail.as_ref().map(|json| json.as_str())));
        let row = match session.fetch_one(query).await {
            // A row exists already: which change it belongs to takes a closer look.
            Err(fault) if fault.is_duplicate() => return Ok(None),
            row => row?,
        };
        let mut columns = Columns::of(&row);
        let (now, alive, current): (i64, bool, bool) =
            (columns.time()?, columns.next()?, columns.next()?);
        if !alive {
            return Ok(Some(Committed::LeaseLost));
        }
        if !current {
            continue;
        }
        let numbers: Vec<i64> = columns.next()?;
        let mut applied = vec![Applied::Conflict; changes.len()];
        for number in numbers {
            let place = usize::try_from(number - 1).ok().and_then(|at| arrays.places.get(at));
            if let Some(place) = place.and_then(|place| applied.get_mut(*place)) {
                *place = Applied::Yes;
            }
        }
        return Ok(Some(Committed::Changes { now: timestamp(now)?, applied }));
    }
    Ok(None)
}

/// The parameters of the one statement. The changes are sorted by task, so that two statements with
/// the same tasks never wait for each other.
#[derive(Default)]
struct Arrays<'a> {
    /// Where each change stands in what was asked for.
    places: Vec<usize>,
    task: Vec<Uuid>,
    version: Vec<i64>,
    fate: Vec<i16>,
    state: Vec<Option<&'static str>>,
    degraded: Vec<Option<bool>>,
    delay: Vec<Option<i64>>,
    route: Vec<Option<&'a str>>,
    change: Vec<i64>,
    step: Vec<i32>,
    seq: Vec<i32>,
    attempt: Vec<i32>,
    ran_for: Vec<i64>,
    what: Vec<OccurrenceColumns>,
}

impl<'a> Arrays<'a> {
    /// `None` if the changes are not all of the kind that one statement applies: an owner's, one for
    /// each task, without offers, none of which marks a task that stays where it is.
    fn of(changes: &'a [TaskChange]) -> Result<Option<Self>, Fault> {
        let mut tasks = HashSet::with_capacity(changes.len());
        let plain = |change: &TaskChange| {
            let marks = change.then == Then::Keep && change.degraded.is_some();
            change.offers.is_empty() && !marks
        };
        if !changes.iter().all(|change| plain(change) && tasks.insert(change.task)) {
            return Ok(None);
        }
        let mut sorted: Vec<(usize, &TaskChange)> = changes.iter().enumerate().collect();
        sorted.sort_by_key(|(_, change)| change.task);
        let mut arrays = Self::default();
        for (place, change) in sorted {
            let Assumption::Owned { version } = change.assumes else { return Ok(None) };
            arrays.put(place, change, version)?;
        }
        Ok(Some(arrays))
    }

    fn put(&mut self, place: usize, change: &'a TaskChange, version: u64) -> Result<(), Fault> {
        self.places.push(place);
        self.task.push(change.task.as_uuid());
        self.version.push(count(version));
        let (fate, state, delay, route) = match &change.then {
            Then::Keep => (0, None, None, None),
            Then::Queue { state, wake_in, route } => {
                (1, Some(state), Some(micros(*wake_in)), Some(route.as_str()))
            }
            Then::Hold { state } => (3, Some(state), None, None),
            Then::End { state } => (2, Some(state), None, None),
        };
        self.fate.push(fate);
        self.state.push(state.map(|state| state.as_str()));
        self.degraded.push(change.degraded);
        self.delay.push(delay);
        self.route.push(route);
        let number = count(self.places.len() as u64);
        for row in &change.rows {
            self.change.push(number);
            self.step.push(log_int(log_of(row.step)));
            self.seq.push(int(row.seq));
            self.attempt.push(int(row.attempt));
            self.ran_for.push(nanos(row.ran_for));
            self.what.push(row.what.to_columns()?);
        }
        Ok(())
    }

    fn texts<'s>(
        &'s self,
        text: impl Fn(&'s OccurrenceColumns) -> Option<&'s str>,
    ) -> Vec<Option<&'s str>> {
        self.what.iter().map(text).collect()
    }
}
