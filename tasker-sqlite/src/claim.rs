//! Hands out work: queued tasks, offered steps and news.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use tasker_core::history::Recorded;
use tasker_core::store::{ClaimRequest, Claimed, News, OfferedStep, Work};
use tasker_core::{StepIndex, TaskId, TaskState, WorkerId};

use crate::bulk::{Bulk, Values};
use crate::fault::Fault;
use crate::rows::{
    Columns, Line, OWN_LOG, Standing, Unfolding, count, read_line, timestamp, until,
};
use crate::session::{Ask, Session};

static CLAIM: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/claim_tasks.sql")));
static HISTORY: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/select_history.sql")));
static HOLD: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/hold_offers.sql")));
static TASKS: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/select_tasks.sql")));

pub(crate) async fn claim(
    session: &mut Session<'_>,
    asks: &mut [Ask<ClaimRequest, Claimed>],
) -> Result<(), Fault> {
    for Ask { request, outcome, .. } in asks {
        *outcome = Some(claim_one(session, request).await?);
    }
    Ok(())
}

async fn claim_one(session: &mut Session<'_>, request: &ClaimRequest) -> Result<Claimed, Fault> {
    if !session.has_lease(request.worker).await? {
        return Ok(Claimed::LeaseLost);
    }
    let extras = session.extras().await?;
    let routes = served(request);
    let news = if extras.news { take_news(session, request.worker).await? } else { Vec::new() };
    let mut claimed = left_over(session, request).await?;
    let (candidates, next_in) = candidates(session, request.tasks, &routes).await?;
    claimed.extend(take(session, request.worker, candidates).await?);
    for (id, standing) in &claimed {
        session.known.stands(*id, standing.clone());
    }
    let offers =
        if extras.offers { take_offers(session, request, &routes).await? } else { Vec::new() };
    let tasks = session.unfold(claimed, &HISTORY).await?;
    Ok(Claimed::Work(Work { now: timestamp(session.now)?, tasks, offers, news, next_in }))
}

/// The routes that a worker serves, as a JSON array.
fn served(request: &ClaimRequest) -> String {
    let routes: Vec<&str> = request.routes.iter().map(|route| route.as_str()).collect();
    serde_json::json!(routes).to_string()
}

/// A task that may be claimed, or will be.
struct Candidate {
    route: String,
    wake_at: i64,
    task: TaskId,
}

/// Chooses the tasks to claim, the first `wanted` in fair turns over the routes, and tells when
/// the next one may be claimed.
async fn candidates(
    session: &mut Session<'_>,
    wanted: usize,
    routes: &str,
) -> Result<(Vec<Candidate>, Option<Duration>), Fault> {
    let mut values = Values::default();
    values.put(routes);
    let mut next_at: Option<i64> = None;
    let mut due = Vec::new();
    let is_next = |next_at: Option<i64>, at: i64| Some(next_at.map_or(at, |next| next.min(at)));
    for row in session.fetch(include_str!("../queries/select_heads.sql"), values).await? {
        let mut columns = Columns::of(&row);
        let (route, wake_at): (String, i64) = (columns.next()?, columns.next()?);
        if wake_at <= session.now {
            due.push(route);
        } else {
            next_at = is_next(next_at, wake_at);
        }
    }
    let mut turns = Vec::new();
    for route in due {
        // One more than is wanted, to know when the next one is due.
        let limit = i64::try_from(wanted).unwrap_or(i64::MAX).saturating_add(1);
        let mut values = Values::default();
        values.put(route.as_str()).put(limit);
        let query = include_str!("../queries/select_candidates.sql");
        for (turn, row) in session.fetch(query, values).await?.iter().enumerate() {
            let mut columns = Columns::of(row);
            let (wake_at, task) = (columns.next()?, columns.task()?);
            if wake_at <= session.now {
                turns.push((turn, Candidate { route: route.clone(), wake_at, task }));
            } else {
                next_at = is_next(next_at, wake_at);
                break;
            }
        }
    }
    turns.sort_by_key(|(turn, candidate)| (*turn, candidate.wake_at));
    if turns.len() > wanted {
        next_at = Some(session.now);
        turns.truncate(wanted);
    }
    let mut chosen: Vec<Candidate> = turns.into_iter().map(|(_, candidate)| candidate).collect();
    chosen.sort_by_key(|candidate| (candidate.wake_at, candidate.task));
    Ok((chosen, next_at.map(|at| until(session.now, at))))
}

/// Takes tasks out of the queue and makes them a worker's.
async fn take(
    session: &mut Session<'_>,
    worker: WorkerId,
    chosen: Vec<Candidate>,
) -> Result<Vec<(TaskId, Standing)>, Fault> {
    // What was chosen on a route is the head of its queue, so its last one bounds it.
    let mut routes = HashSet::new();
    for last in chosen.iter().rev() {
        if routes.insert(last.route.as_str()) {
            let mut values = Values::default();
            values.put(last.route.as_str()).put(last.wake_at).put_task(last.task);
            session.run(include_str!("../queries/delete_claimed.sql"), values).await?;
        }
    }
    let rows = session
        .fetch_bulk(&CLAIM, &chosen, |values, candidate| {
            values.put_worker(worker).put(TaskState::InProgress.as_str()).put_task(candidate.task);
        })
        .await?;
    let mut claimed = std::collections::HashMap::with_capacity(rows.len());
    for row in &rows {
        let (id, standing) = Standing::read(&mut Columns::of(row))?;
        claimed.insert(id, standing);
    }
    let in_order = chosen.iter().map(|candidate| candidate.task);
    Ok(in_order.filter_map(|id| claimed.remove_entry(&id)).collect())
}

/// After a lost answer: what a worker owns and does not know of.
async fn left_over(
    session: &mut Session<'_>,
    request: &ClaimRequest,
) -> Result<Vec<(TaskId, Standing)>, Fault> {
    let Some(holding) = &request.holding else { return Ok(Vec::new()) };
    let holding: HashSet<TaskId> = holding.iter().copied().collect();
    let mut values = Values::default();
    values.put_worker(request.worker);
    let rows = session.fetch(include_str!("../queries/select_owned.sql"), values).await?;
    let owned = rows.iter().map(|row| Standing::read(&mut Columns::of(row)));
    owned.filter(|task| task.as_ref().map_or(true, |(id, _)| !holding.contains(id))).collect()
}

async fn take_news(session: &mut Session<'_>, worker: WorkerId) -> Result<Vec<News>, Fault> {
    let mut values = Values::default();
    values.put_worker(worker);
    let rows = session.fetch(include_str!("../queries/delete_news.sql"), values).await?;
    let mut heard = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(row);
        let key: i64 = columns.next()?;
        let task = columns.task()?;
        let log: (Option<i64>, Option<u32>) = (columns.next()?, columns.next()?);
        heard.push((key, task, log));
    }
    // RETURNING promises no order.
    heard.sort_by_key(|(key, ..)| *key);
    let mut news = Vec::with_capacity(heard.len());
    for (_, task, log) in heard {
        match log {
            (Some(step), Some(seq)) => {
                let found = history_row(session, task, step, seq).await?;
                news.extend(found.map(|row| News::Settled { task, row }));
            }
            _ => news.push(News::Revoked { task }),
        }
    }
    session.known.extras = None;
    Ok(news)
}

async fn history_row(
    session: &mut Session<'_>,
    task: TaskId,
    step: i64,
    seq: u32,
) -> Result<Option<Recorded>, Fault> {
    let mut values = Values::default();
    values.put_task(task).put(step).put(seq);
    let rows = session.fetch(include_str!("../queries/select_history_row.sql"), values).await?;
    match rows.first().map(|row| read_line(&mut Columns::of(row))).transpose()? {
        Some((_, Line::Happened(row))) => Ok(Some(row)),
        Some((_, Line::Input(_))) | None => Ok(None),
    }
}

/// An offer that a worker is to hold.
struct Held {
    task: TaskId,
    step: u32,
    seq: u32,
    needs: Vec<u32>,
}

async fn take_offers(
    session: &mut Session<'_>,
    request: &ClaimRequest,
    routes: &str,
) -> Result<Vec<OfferedStep>, Fault> {
    let mut held = Vec::new();
    if request.holding.is_some() {
        let mut values = Values::default();
        values.put_worker(request.worker);
        let rows = session.fetch(include_str!("../queries/select_held_offers.sql"), values).await?;
        let found: Result<Vec<Held>, Fault> = rows.iter().map(read_offer).collect();
        held.extend(found?);
    }
    if request.offers > 0 {
        let open = open_offers(session, request.offers, routes).await?;
        session
            .run_bulk(&HOLD, &open, |values, offer| {
                values.put_worker(request.worker).put_task(offer.task);
                values.put(offer.step);
            })
            .await?;
        held.extend(open);
    }
    let mut offers = Vec::with_capacity(held.len());
    for offer in held {
        offers.extend(offered_step(session, offer).await?);
    }
    session.known.extras = None;
    Ok(offers)
}

/// Chooses offers in fair turns over the routes.
async fn open_offers(
    session: &mut Session<'_>,
    wanted: usize,
    routes: &str,
) -> Result<Vec<Held>, Fault> {
    let mut values = Values::default();
    values.put(routes);
    let query = include_str!("../queries/select_routes_with_offers.sql");
    let mut turns = Vec::new();
    for row in session.fetch(query, values).await? {
        let mut values = Values::default();
        values.put(Columns::of(&row).next::<String>()?).put(count(wanted as u64));
        let rows = session.fetch(include_str!("../queries/select_open_offers.sql"), values).await?;
        for (turn, row) in rows.iter().enumerate() {
            turns.push((turn, read_offer(row)?));
        }
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.truncate(wanted);
    Ok(turns.into_iter().map(|(_, offer)| offer).collect())
}

fn read_offer(row: &sqlx::sqlite::SqliteRow) -> Result<Held, Fault> {
    let mut columns = Columns::of(row);
    let task = columns.task()?;
    let (step, seq) = (columns.next()?, columns.next()?);
    let needs: &str = columns.next()?;
    Ok(Held { task, step, seq, needs: serde_json::from_str(needs)? })
}

/// An offered step with the rows of its own log and of those that it needs.
async fn offered_step(
    session: &mut Session<'_>,
    offer: Held,
) -> Result<Option<OfferedStep>, Fault> {
    let Held { task, step, seq, needs } = offer;
    let rows = session.fetch_bulk(&TASKS, &[task], |values, id| _ = values.put_task(*id)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (_, standing) = Standing::read(&mut Columns::of(row))?;
    let template = session.template(standing.template).await?;
    let mut unfolding = Unfolding::new(task, standing, template);
    let steps: Vec<i64> = needs.into_iter().chain([step]).map(i64::from).chain([OWN_LOG]).collect();
    let mut values = Values::default();
    values.put_task(task).put(serde_json::json!(steps).to_string());
    let query = include_str!("../queries/select_history_of_steps.sql");
    for row in &session.fetch(query, values).await? {
        match read_line(&mut Columns::of(row))?.1 {
            Line::Happened(row) if row.transition.step.is_none() => {}
            line => unfolding.add(line),
        }
    }
    let task = unfolding.finish(session.now)?;
    Ok(Some(OfferedStep { task, step: StepIndex(step), seq }))
}
