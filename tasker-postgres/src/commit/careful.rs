//! Applies any changes, one after the other in memory, while nobody else can touch what they are
//! about.
//!
//! Locks are taken in one order, which all statements of this crate follow: workers, queue, tasks,
//! offers, documents. Whoever takes a task from a living owner first waits for that worker's
//! commits to end and keeps new ones out, so a check and what is written because of it are one act.

mod write;

use std::collections::{BTreeSet, HashMap, HashSet};

use tasker_core::history::Author;
use tasker_core::store::board::{Board, Offer, Standing, log_of};
use tasker_core::store::{Applied, Assumption, Committed, TaskChange, Then};
use tasker_core::{TaskId, WorkerId};
use uuid::Uuid;

use self::write::{Places, write};
use crate::database::{Session, statement};
use crate::fault::Fault;
use crate::rows::{Columns, int, log_int, timestamp};

/// How often it starts anew because a task changed hands before it could be locked.
const ROUNDS: usize = 8;

pub(super) async fn apply(
    session: &mut Session<'_>,
    author: &Author,
    changes: &[TaskChange],
) -> Result<Committed, Fault> {
    for _ in 0..ROUNDS {
        session.begin().await?;
        match within(session, author, changes).await {
            Ok(Some(committed @ Committed::Changes { .. })) => {
                session.commit().await?;
                return Ok(committed);
            }
            Ok(Some(Committed::LeaseLost)) => {
                session.rollback().await?;
                return Ok(Committed::LeaseLost);
            }
            Ok(None) => session.rollback().await?,
            // By an attempt of the same worker whose answer was lost, and which was committed after
            // its rows were looked for: the next look sees them.
            Err(fault) if fault.is_duplicate() => session.rollback().await?,
            Err(fault) => return Err(fault),
        }
    }
    Err(Fault::Contended)
}

/// Does it in the transaction that is open; `None` if a task changed hands before it could be
/// locked.
pub(super) async fn within(
    session: &mut Session<'_>,
    author: &Author,
    changes: &[TaskChange],
) -> Result<Option<Committed>, Fault> {
    if let Author::Worker(worker) = author {
        let lock = statement(&session.database.sql.lock_author).bind(worker.as_uuid());
        if session.fetch(lock).await?.is_empty() {
            return Ok(Some(Committed::LeaseLost));
        }
    }
    let Some((now, mut board)) = read(session, author, changes).await? else { return Ok(None) };
    let mut applied = Vec::with_capacity(changes.len());
    for change in changes {
        let holds = board.apply(author, change);
        applied.push(if holds { Applied::Yes } else { Applied::Conflict });
    }
    write(session, now, board.finish()).await?;
    Ok(Some(Committed::Changes { now: timestamp(now)?, applied }))
}

/// Locks and reads all that the changes may assume something about; `None` if a task changed hands
/// meanwhile.
async fn read<'a>(
    session: &mut Session<'_>,
    author: &Author,
    changes: &[TaskChange],
) -> Result<Option<(i64, Board<'a>)>, Fault> {
    // Settling an offered step leaves the task's own row alone; the offer's is locked.
    let only_settles = |change: &TaskChange| {
        let by_holder = matches!(change.assumes, Assumption::OfferHeld { .. });
        by_holder && change.then == Then::Keep && change.degraded.is_none()
    };
    let tasks_of = |settling: bool| -> BTreeSet<TaskId> {
        let changes = changes.iter().filter(|change| only_settles(change) == settling);
        changes.map(|change| change.task).collect()
    };
    let moving = tasks_of(false);
    let settling: BTreeSet<TaskId> = tasks_of(true).difference(&moving).copied().collect();
    let (mut now, mut tasks) = (None, HashMap::new());
    if !moving.is_empty() {
        let (time, unlocked) = standings(session, &moving, false).await?;
        let locked = lock(session, author, &unlocked).await?;
        // What is not there any more was deleted meanwhile.
        (_, tasks) = standings(session, &moving, true).await?;
        if !tasks.iter().all(|(task, standing)| locked.cover(author, *task, standing)) {
            return Ok(None);
        }
        now = time;
    }
    let offers = lock_offers(session, changes).await?;
    if now.is_none() || !settling.is_empty() {
        // Not before: while its offer is locked, a task cannot go to another owner, who would not
        // hear of what was settled.
        let (time, standings) = standings(session, &settling, false).await?;
        now = time;
        tasks.extend(standings);
    }
    let now = now.ok_or(sqlx::Error::RowNotFound)?;
    let mut board = Board::new(now);
    for (task, standing) in tasks {
        board.place(task, standing);
    }
    for (task, offer) in offers {
        board.place_offer(task, offer);
    }
    place_rows(session, changes, &mut board).await?;
    Ok(Some((now, board)))
}

/// The time, which a locking look tells only of tasks that there are, and where tasks stand.
async fn standings(
    session: &mut Session<'_>,
    tasks: &BTreeSet<TaskId>,
    locking: bool,
) -> Result<(Option<i64>, HashMap<TaskId, Standing>), Fault> {
    let tasks: Vec<Uuid> = tasks.iter().map(|task| task.as_uuid()).collect();
    let sql = &session.database.sql;
    let query = statement(if locking { &sql.lock_tasks } else { &sql.select_tasks });
    let rows = session.fetch(query.bind(tasks)).await?;
    let mut now = None;
    let mut standings = HashMap::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(row);
        now = Some(columns.time()?);
        if Columns::of(row).skip(1).maybe_task()?.is_none() {
            continue;
        }
        let (task, standing) = columns.standing()?;
        standings.insert(task, standing);
    }
    Ok((now, standings))
}

/// What was locked beside the tasks themselves.
struct Locked {
    owners: HashSet<WorkerId>,
    /// Queued tasks, and since when they may be claimed.
    queued: HashMap<TaskId, i64>,
}

impl Locked {
    /// Whether nobody can touch a task that stands so: its owner cannot commit, and if it is queued
    /// nobody can claim it.
    fn cover(&self, author: &Author, task: TaskId, standing: &Standing) -> bool {
        let owned_by_another = standing.owner.filter(|owner| *author != Author::Worker(*owner));
        owned_by_another.is_none_or(|owner| self.owners.contains(&owner))
            && standing.wake_at.is_none_or(|at| self.queued.get(&task) == Some(&at))
    }
}

/// Keeps out the owners of tasks, and those who would claim them.
async fn lock(
    session: &mut Session<'_>,
    author: &Author,
    tasks: &HashMap<TaskId, Standing>,
) -> Result<Locked, Fault> {
    let owners: HashSet<WorkerId> = tasks
        .values()
        .filter_map(|standing| standing.owner)
        .filter(|owner| *author != Author::Worker(*owner))
        .collect();
    if !owners.is_empty() {
        let ids: Vec<Uuid> = owners.iter().map(|owner| owner.as_uuid()).collect();
        session.run(statement(&session.database.sql.lock_owners).bind(ids)).await?;
    }
    let mut places = Places::default();
    for (task, standing) in tasks {
        let Some(wake_at) = standing.wake_at else { continue };
        let route = standing.route.as_ref();
        places.put(session, *task, route, standing.template, standing.priority, wake_at).await?;
    }
    let mut queued = HashMap::new();
    if !places.is_empty() {
        let query = places.bind(statement(&session.database.sql.lock_queue));
        for row in &session.fetch(query).await? {
            let mut columns = Columns::of(row);
            queued.insert(columns.task()?, columns.time()?);
        }
    }
    Ok(Locked { owners, queued })
}

/// Locks the offers of the tasks of which a change concerns offers.
async fn lock_offers<'a>(
    session: &mut Session<'_>,
    changes: &[TaskChange],
) -> Result<Vec<(TaskId, Offer<'a>)>, Fault> {
    let tasks = changes.iter().filter(|change| change.concerns_offers());
    let tasks: BTreeSet<TaskId> = tasks.map(|change| change.task).collect();
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let tasks: Vec<Uuid> = tasks.into_iter().map(TaskId::as_uuid).collect();
    let query = statement(&session.database.sql.lock_offers).bind(tasks);
    let mut offers = Vec::new();
    for row in &session.fetch(query).await? {
        let mut columns = Columns::of(row);
        let (task, step, seq) = (columns.task()?, columns.log()?, columns.number()?);
        offers.push((task, Offer::stored(step, seq, columns.maybe_worker()?)));
    }
    Ok(offers)
}

async fn place_rows(
    session: &mut Session<'_>,
    changes: &[TaskChange],
    board: &mut Board<'_>,
) -> Result<(), Fault> {
    let (mut task, mut step, mut seq) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        let rows = change.rows.iter().map(|row| (row.step, row.seq));
        let offers = change.offers.iter().map(|offer| (Some(offer.step), offer.seq));
        for (log, number) in rows.chain(offers) {
            task.push(change.task.as_uuid());
            step.push(log_int(log_of(log)));
            seq.push(int(number));
        }
    }
    if task.is_empty() {
        return Ok(());
    }
    let query = statement(&session.database.sql.select_present).bind(task).bind(step).bind(seq);
    for row in &session.fetch(query).await? {
        let mut columns = Columns::of(row);
        board.place_row(columns.task()?, columns.log()?, columns.number()?);
    }
    Ok(())
}
