//! Hands out work: queued tasks, offered steps and news.
//!
//! One statement takes queued tasks and says whether there is anything else, which is seldom. What
//! cannot be read, because it is damaged or of a later version, is reported and set aside for
//! somebody who can: it never keeps a worker from the rest.

mod marks;
mod offers;

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use tasker_core::history::Recorded;
use tasker_core::store::board::{Standing, rank};
use tasker_core::store::{ClaimRequest, Claimed, News, OfferedStep, StoredTask, Work as Found};
use tasker_core::{Json, Priority, TaskId, WorkerId};
use uuid::Uuid;

use self::marks::Lane;
pub(crate) use self::marks::Marks;
use crate::database::{Session, Work, statement};
use crate::fault::{Fault, unless_unreadable};
use crate::rows::{At, Columns, Line, STANDING, Unfolding, count, micros, timestamp, until};

/// For how long nobody looks again at what cannot be read.
const SET_ASIDE: Duration = Duration::from_secs(60);

/// How often one claim chooses again instead of what it had to set aside.
const ROUNDS: usize = 8;

/// While others take what is due, how long until there may be more.
const A_MOMENT: Duration = Duration::from_millis(2);

/// A request for work.
pub(crate) struct Claim(pub(crate) ClaimRequest);

impl Work for Claim {
    type Answer = Claimed;

    async fn run(self, session: &mut Session<'_>) -> Result<Claimed, Fault> {
        let Self(mut request) = self;
        let hints = &session.database.hints;
        let worker = request.worker;
        hints.looks(worker);
        let Claimed::Work(mut work) = look(session, &request).await? else {
            hints.is_gone(worker);
            return Ok(Claimed::LeaseLost);
        };
        if !will_be_back(&request, &work) && !hints.is_noted(worker) {
            // Whoever gives work from now on sees that the worker waits; whoever did so before has
            // committed it by now, or will look after that commit whether anybody waits.
            note_waiting(session, worker, true).await?;
            hints.noted(worker);
            hints.looks(worker);
            request.tasks = request.tasks.saturating_sub(work.tasks.len());
            request.offers = request.offers.saturating_sub(work.offers.len());
            request.holding = None;
            let Claimed::Work(more) = look(session, &request).await? else {
                hints.is_gone(worker);
                return Ok(Claimed::LeaseLost);
            };
            work.now = more.now;
            work.next_in = more.next_in;
            work.tasks.extend(more.tasks);
            work.offers.extend(more.offers);
            work.news.extend(more.news);
        } else if will_be_back(&request, &work) && hints.stops_waiting(worker) {
            // A notification too many does no harm.
            _ = note_waiting(session, worker, false).await;
        }
        hints.found(worker, !is_empty(&work));
        Ok(Claimed::Work(work))
    }
}

/// Whether the worker has taken all that it asked for and left more, so that it comes again without
/// waiting for a hint.
fn will_be_back(request: &ClaimRequest, work: &Found) -> bool {
    request.tasks > 0 && work.next_in == Some(Duration::ZERO)
}

fn is_empty(work: &Found) -> bool {
    work.tasks.is_empty() && work.offers.is_empty() && work.news.is_empty()
}

/// Notes in the database whether a worker waits to be notified.
async fn note_waiting(
    session: &mut Session<'_>,
    worker: WorkerId,
    waits: bool,
) -> Result<(), Fault> {
    let mark = statement(&session.database.sql.mark_waiting);
    session.run(mark.bind(worker.as_uuid()).bind(waits)).await?;
    Ok(())
}

/// Looks once at all there is.
async fn look(session: &mut Session<'_>, request: &ClaimRequest) -> Result<Claimed, Fault> {
    let mut tasks = left_over(session, request).await?;
    let mut wanted = request.tasks;
    let mut answer = None;
    for _ in 0..ROUNDS {
        let Some(taken) = take(session, request, wanted).await? else {
            return Ok(Claimed::LeaseLost);
        };
        let all = taken.tasks.len() == taken.claimed;
        wanted = wanted.saturating_sub(taken.tasks.len());
        tasks.extend(taken.tasks);
        answer = Some(taken.rest);
        if all || wanted == 0 {
            break;
        }
    }
    let Some(rest) = answer else { return Err(Fault::Contended) };
    let news = if rest.news { take_news(session, request.worker).await? } else { Vec::new() };
    let offers = if rest.offers || request.holding.is_some() {
        offers::take(session, request, rest.offers).await?
    } else {
        Vec::<OfferedStep>::new()
    };
    let now = timestamp(rest.now)?;
    Ok(Claimed::Work(Found { now, tasks, offers, news, next_in: rest.next_in }))
}

/// What a look at the queue came to.
struct Taken {
    /// How many tasks were taken, and those of them that can be read.
    claimed: usize,
    tasks: Vec<StoredTask>,
    rest: Rest,
}

/// What there is beside the tasks that were taken.
struct Rest {
    now: i64,
    next_in: Option<Duration>,
    news: bool,
    offers: bool,
}

/// Makes the first `wanted` tasks the worker's; `None` if the worker is gone.
async fn take(
    session: &mut Session<'_>,
    request: &ClaimRequest,
    wanted: usize,
) -> Result<Option<Taken>, Fault> {
    let marks = &session.database.marks;
    let (mut lanes, mut marked) = marks.lanes(&request.routes);
    let mut claimed = Vec::new();
    loop {
        let rows = ask(session, request, wanted - claimed.len(), &lanes).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let mut columns = Columns::of(first);
        let (now, alive, more): (i64, bool, bool) =
            (columns.time()?, columns.next()?, columns.next()?);
        let next_at = columns.maybe_time()?;
        let (news, offers) = (columns.next()?, columns.next()?);
        if !alive {
            return Ok(None);
        }
        read_claimed(&rows, &mut claimed)?;
        if marked && claimed.len() < wanted {
            // Something may stand before the marks after all.
            marks.forget();
            (lanes, marked) = marks.lanes(&request.routes);
            continue;
        }
        if more && claimed.len() >= wanted {
            marks.note(&claimed);
        }
        let next_in = match (more, next_at) {
            (true, _) if claimed.len() >= wanted => Some(Duration::ZERO),
            (true, _) => Some(A_MOMENT),
            (false, next_at) => next_at.map(|at| until(now, at)),
        };
        let count = claimed.len();
        let tasks = unfold(session, request.worker, claimed, now).await?;
        let rest = Rest { now, next_in, news, offers };
        return Ok(Some(Taken { claimed: count, tasks, rest }));
    }
}

async fn ask(
    session: &mut Session<'_>,
    request: &ClaimRequest,
    wanted: usize,
    lanes: &[Lane],
) -> Result<Vec<PgRow>, Fault> {
    let routes: Vec<String> =
        request.routes.iter().map(|route| route.as_str().to_owned()).collect();
    let query = statement(&session.database.sql.claim)
        .bind(request.worker.as_uuid())
        .bind(i32::try_from(wanted).unwrap_or(i32::MAX - 1))
        .bind(routes)
        .bind(lanes.iter().map(|lane| &*lane.route).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.priority.to_stored()).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| -rank(lane.priority, 0)).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| At(lane.mark)).collect::<Vec<_>>());
    session.fetch(query).await
}

/// A task that was taken out of the queue; its history is yet to come.
struct ClaimedTask {
    id: TaskId,
    standing: Result<Standing, Fault>,
    input: Json,
    /// Where it stood in the queue: its route, its priority and its time.
    route: String,
    priority: i16,
    queued_for: i64,
}

/// How many columns of an answer stand before the task's.
const HEADER: usize = 6;

fn read_claimed(rows: &[PgRow], tasks: &mut Vec<ClaimedTask>) -> Result<(), Fault> {
    for row in rows {
        let mut columns = Columns::of(row);
        let Some(id) = columns.skip(HEADER).maybe_task()? else { continue };
        let standing = Columns::of(row).skip(HEADER).standing().map(|(_, standing)| standing);
        let mut columns = Columns::of(row);
        columns.skip(HEADER + STANDING);
        let input = columns.json()?.unwrap_or_else(Json::null);
        let (route, priority) = (columns.next()?, columns.next()?);
        let queued_for = columns.time()?;
        tasks.push(ClaimedTask { id, standing, input, route, priority, queued_for });
    }
    tasks.sort_by_key(|task| {
        let known = Priority::from_stored(task.priority).unwrap_or_default();
        (rank(known, task.queued_for), task.id)
    });
    Ok(())
}

/// Adds the histories, without the tasks that cannot be read, which are queued again for later, and
/// without those that somebody has moved meanwhile.
async fn unfold(
    session: &mut Session<'_>,
    worker: WorkerId,
    claimed: Vec<ClaimedTask>,
    now: i64,
) -> Result<Vec<StoredTask>, Fault> {
    let mut unfolding: Vec<Option<Unfolding>> = Vec::with_capacity(claimed.len());
    let mut routes = Vec::with_capacity(claimed.len());
    let mut old = Vec::new();
    for ClaimedTask { id, standing, input, route, .. } in claimed {
        let standing = unless_unreadable(id, standing)?;
        let task = match standing {
            Some(standing) => {
                let template = session.template(standing.template).await;
                // A task that nobody had or touched before has no history.
                if standing.version > 1 || standing.route.is_some() {
                    old.push((unfolding.len(), id, standing.version));
                }
                unless_unreadable(id, template)?
                    .map(|template| Unfolding::new(id, standing, template).with_input(input))
            }
            None => None,
        };
        unfolding.push(task);
        routes.push((id, route));
    }
    let moved = add_histories(session, &mut unfolding, &old).await?;
    let mut tasks = Vec::with_capacity(unfolding.len());
    for (place, (task, (id, route))) in unfolding.into_iter().zip(routes).enumerate() {
        if moved.contains(&place) {
            continue;
        }
        let task = task.map(|task| task.finish(now)).transpose();
        match unless_unreadable(id, task)?.flatten() {
            Some(task) => tasks.push(task),
            None => set_aside(session, id, worker, route).await?,
        }
    }
    Ok(tasks)
}

/// Reads the histories of tasks that may have one; those that were moved meanwhile are told.
async fn add_histories(
    session: &mut Session<'_>,
    unfolding: &mut [Option<Unfolding>],
    old: &[(usize, TaskId, u64)],
) -> Result<Vec<usize>, Fault> {
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = old.iter().map(|(_, id, _)| id.as_uuid()).collect();
    let versions: Vec<i64> = old.iter().map(|(.., version)| count(*version)).collect();
    let mut places: HashMap<TaskId, usize> =
        old.iter().map(|(place, id, _)| (*id, *place)).collect();
    let all = places.clone();
    let query = statement(&session.database.sql.select_history).bind(ids).bind(versions);
    for row in &session.fetch(query).await? {
        let mut columns = Columns::of(row);
        let id = columns.task()?;
        places.remove(&id);
        let Some(place) = all.get(&id).and_then(|place| unfolding.get_mut(*place)) else {
            continue;
        };
        let Some(task) = place else { continue };
        match unless_unreadable(id, columns.line())? {
            Some(Some(line)) => task.add(line),
            Some(None) => {}
            None => *place = None,
        }
    }
    Ok(places.into_values().collect())
}

async fn set_aside(
    session: &mut Session<'_>,
    task: TaskId,
    worker: WorkerId,
    route: String,
) -> Result<(), Fault> {
    let query = statement(&session.database.sql.set_aside)
        .bind(task.as_uuid())
        .bind(worker.as_uuid())
        .bind(route)
        .bind(micros(SET_ASIDE));
    session.run(query).await?;
    Ok(())
}

/// After a lost answer: what a worker owns and does not know of.
async fn left_over(
    session: &mut Session<'_>,
    request: &ClaimRequest,
) -> Result<Vec<StoredTask>, Fault> {
    let Some(holding) = &request.holding else { return Ok(Vec::new()) };
    let holding: Vec<Uuid> = holding.iter().map(|task| task.as_uuid()).collect();
    let query = statement(&session.database.sql.select_owned);
    let rows = session.fetch(query.bind(request.worker.as_uuid()).bind(holding)).await?;
    let mut tasks = Vec::new();
    let of_one_task = |one: &PgRow, other: &PgRow| {
        let id = |row| Columns::of(row).skip(1).next::<Uuid>().ok();
        id(one) == id(other)
    };
    for rows in rows.chunk_by(of_one_task) {
        let Some(first) = rows.first() else { continue };
        let id = Columns::of(first).skip(1).task()?;
        let task = whole_task(session, rows).await;
        tasks.extend(unless_unreadable(id, task)?);
    }
    Ok(tasks)
}

/// A task from the rows that tell all of it: the time, where it stands, and a line of its history.
pub(crate) async fn whole_task(
    session: &mut Session<'_>,
    rows: &[PgRow],
) -> Result<StoredTask, Fault> {
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut columns = Columns::of(first);
    let now = columns.time()?;
    let (id, standing) = columns.standing()?;
    let template = session.template(standing.template).await?;
    let mut unfolding = Unfolding::new(id, standing, template);
    for row in rows {
        if let Some(line) = Columns::of(row).skip(1 + STANDING).line()? {
            unfolding.add(line);
        }
    }
    unfolding.finish(now)
}

async fn take_news(session: &mut Session<'_>, worker: WorkerId) -> Result<Vec<News>, Fault> {
    let query = statement(&session.database.sql.delete_news).bind(worker.as_uuid());
    let rows = session.fetch(query).await?;
    let mut news = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(row);
        let task = columns.task()?;
        let added: Result<Option<Recorded>, Fault> = columns.line().map(|line| match line {
            Some(Line::Happened(row)) => Some(row),
            Some(Line::Input(_)) | None => None,
        });
        // An owner that cannot be told what was added looks at the task itself.
        let settled = unless_unreadable(task, added)?.flatten();
        let settled = settled.map(|row| News::Settled { task, row });
        news.push(settled.unwrap_or(News::Revoked { task }));
    }
    Ok(news)
}
