//! Hands out work: queued tasks, offered steps and news.
//!
//! What cannot be read, because it is damaged or of a later version, is reported and left for
//! somebody who can: it never keeps a worker from the rest.

mod offers;
mod queue;

use std::collections::HashSet;
use std::time::Duration;

use tasker_core::history::Recorded;
use tasker_core::store::{ClaimRequest, Claimed, News, StoredTask, Work};
use tasker_core::{TaskId, WorkerId};

use crate::bulk::Values;
use crate::fault::{Fault, unless_unreadable};
use crate::rows::{Columns, Line, read_line, read_standing, timestamp};
use crate::session::{Ask, Session};

/// For how long nobody looks again at what cannot be read.
const SET_ASIDE: Duration = Duration::from_secs(60);

/// How often one claim chooses again instead of what it had to set aside.
const ROUNDS: usize = 8;

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
    let mut tasks = left_over(session, request).await?;
    let (queued, next_in) = queue::take(session, request.worker, request.tasks, &routes).await?;
    tasks.extend(queued);
    let offers =
        if extras.offers { offers::take(session, request, &routes).await? } else { Vec::new() };
    Ok(Claimed::Work(Work { now: timestamp(session.now)?, tasks, offers, news, next_in }))
}

/// The routes that a worker serves, as a JSON array.
fn served(request: &ClaimRequest) -> String {
    let routes: Vec<&str> = request.routes.iter().map(|route| route.as_str()).collect();
    serde_json::json!(routes).to_string()
}

/// After a lost answer: what a worker owns and does not know of.
async fn left_over(
    session: &mut Session<'_>,
    request: &ClaimRequest,
) -> Result<Vec<StoredTask>, Fault> {
    let Some(holding) = &request.holding else { return Ok(Vec::new()) };
    let holding: HashSet<TaskId> = holding.iter().copied().collect();
    let mut values = Values::default();
    values.put_worker(request.worker);
    let mut missing = Vec::new();
    for row in session.fetch(include_str!("../queries/select_owned.sql"), values).await? {
        let id = Columns::of(&row).task()?;
        if holding.contains(&id) {
            continue;
        }
        let standing = read_standing(&mut Columns::of(&row));
        missing.extend(unless_unreadable(id, standing)?);
    }
    for (id, standing) in &missing {
        session.known.stands(*id, standing.clone());
    }
    session.unfold(missing).await
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
                let found = history_row(session, task, step, seq).await;
                let found = unless_unreadable(task, found)?.flatten();
                // An owner that cannot be told what was added looks at the task itself.
                let settled = found.map(|row| News::Settled { task, row });
                news.push(settled.unwrap_or(News::Revoked { task }));
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
