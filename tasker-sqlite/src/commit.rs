//! Applies changes: reads where their tasks stand, checks in memory what each change assumed, and
//! writes the effects of all those that hold with a few statements.

use std::collections::HashSet;
use std::sync::LazyLock;

use tasker_core::TaskId;
use tasker_core::history::Author;
use tasker_core::store::board::{Board, Offer, Told, Unqueued, log_of};
use tasker_core::store::{Applied, Committed, NewOffer, TaskChange};

use crate::bulk::{Bulk, Values};
use crate::create::{HISTORY, QUEUE};
use crate::documents;
use crate::fault::Fault;
use crate::rows::{Columns, count, nanos, read_standing, timestamp};
use crate::session::{Ask, Session};

macro_rules! bulk {
    ($name:ident, $file:literal) => {
        static $name: LazyLock<Bulk> =
            LazyLock::new(|| Bulk::new(include_str!(concat!("../queries/", $file))));
    };
}

bulk!(TASKS, "select_tasks.sql");
bulk!(OFFERS, "select_offers.sql");
bulk!(PRESENT, "select_history_present.sql");
bulk!(UPDATE_TASKS, "update_tasks.sql");
bulk!(INSERT_OFFERS, "insert_offers.sql");
bulk!(NEWS, "insert_news.sql");

/// A request to apply changes.
pub(crate) struct Commit {
    pub(crate) author: Author,
    pub(crate) changes: Vec<TaskChange>,
}

pub(crate) async fn commit(
    session: &mut Session<'_>,
    asks: &mut [Ask<Commit, Committed>],
) -> Result<(), Fault> {
    let mut board = read(session, asks).await?;
    for Ask { request, outcome, .. } in asks {
        let fenced = match &request.author {
            Author::Worker(worker) => !session.has_lease(*worker).await?,
            Author::Operator(_) => false,
        };
        *outcome = Some(if fenced {
            Committed::LeaseLost
        } else {
            let mut applied = Vec::with_capacity(request.changes.len());
            for change in &request.changes {
                let holds = board.apply(&request.author, change);
                applied.push(if holds { Applied::Yes } else { Applied::Conflict });
            }
            Committed::Changes { now: timestamp(session.now)?, applied }
        });
    }
    write(session, board).await
}

/// Reads all that the changes may assume something about.
async fn read<'a>(
    session: &mut Session<'_>,
    asks: &[Ask<Commit, Committed>],
) -> Result<Board<'a>, Fault> {
    let changes = || asks.iter().flat_map(|ask| &ask.request.changes);
    let mut board = Board::new(session.now);
    let mut unknown = HashSet::new();
    for change in changes() {
        match session.known.standing(change.task) {
            Some(standing) => board.place(change.task, standing.clone()),
            None => _ = unknown.insert(change.task),
        }
    }
    let unknown: Vec<TaskId> = unknown.into_iter().collect();
    for row in session.fetch_bulk(&TASKS, &unknown, put_task).await? {
        let (id, standing) = read_standing(&mut Columns::of(&row))?;
        board.place(id, standing);
    }
    let of_offers: HashSet<TaskId> =
        changes().filter(|change| change.concerns_offers()).map(|change| change.task).collect();
    if !of_offers.is_empty() && session.extras().await?.offers {
        let of_offers: Vec<TaskId> = of_offers.into_iter().collect();
        for row in session.fetch_bulk(&OFFERS, &of_offers, put_task).await? {
            let mut columns = Columns::of(&row);
            let (task, step, seq) = (columns.task()?, columns.next()?, columns.next()?);
            board.place_offer(task, Offer::stored(step, seq, columns.maybe_worker()?));
        }
    }
    // Rows that exist show when they are inserted; what an offer is for has to be looked for.
    let careful = session.careful;
    let logs: Vec<_> = changes()
        .flat_map(|change| {
            let rows = change.rows.iter().filter(move |_| careful);
            let rows = rows.map(|row| (change.task, log_of(row.step), row.seq));
            rows.chain(change.offers.iter().map(|offer| (change.task, offer_log(offer), offer.seq)))
        })
        .collect();
    if !logs.is_empty() {
        let present = session
            .fetch_bulk(&PRESENT, &logs, |values, (task, step, seq)| {
                values.put_task(*task).put(*step).put(*seq);
            })
            .await?;
        for row in &present {
            let mut columns = Columns::of(row);
            board.place_row(columns.task()?, columns.next()?, columns.next()?);
        }
    }
    Ok(board)
}

/// The log that an offered step will add to.
fn offer_log(offer: &NewOffer) -> i64 {
    log_of(Some(offer.step))
}

fn put_task(values: &mut Values, id: &TaskId) {
    values.put_task(*id);
}

/// Writes what the changes that hold add up to.
async fn write(session: &mut Session<'_>, board: Board<'_>) -> Result<(), Fault> {
    let now = session.now;
    let effects = board.finish();
    let mut rows = Vec::with_capacity(effects.rows.len());
    for (task, author, row) in &effects.rows {
        rows.push((*task, *author, *row, row.what.to_columns()?));
    }
    session
        .run_bulk(&HISTORY, &rows, |values, (task, author, row, what)| {
            values.put_task(*task).put(log_of(row.step)).put(row.seq).put(now);
            values.put_author(author).put(row.attempt).put(nanos(row.ran_for));
            values.put(what.kind.as_str());
            values.put(what.result.as_ref().map(|json| json.as_str()));
            values.put(what.detail.as_ref().map(|json| json.as_str()));
        })
        .await?;
    for Unqueued { task, route, template, priority, wake_at } in effects.unqueued {
        let mut values = Values::default();
        match route {
            Some(route) => values.put(route),
            None => {
                let template = session.template(template).await?;
                values.put(template.task_type().to_string())
            }
        };
        values.put(priority.to_stored()).put(wake_at).put_task(task);
        session.run(include_str!("../queries/delete_queue.sql"), values).await?;
    }
    session
        .run_bulk(&QUEUE, &effects.queued, |values, queued| {
            values.put(&*queued.route).put(queued.priority.to_stored());
            values.put(queued.wake_at).put_task(queued.task);
        })
        .await?;
    session
        .run_bulk(&UPDATE_TASKS, &effects.moved, |values, (task, standing)| {
            values.put_task(*task).put(standing.state.as_str()).put(standing.degraded);
            values.put(count(standing.version)).put_maybe_worker(standing.owner);
            values.put(standing.route.as_deref()).put(standing.wake_at).put(standing.ended_at);
        })
        .await?;
    for (task, steps) in effects.offers_gone {
        let mut values = Values::default();
        values.put_task(task).put(serde_json::json!(steps).to_string());
        session.run(include_str!("../queries/delete_offers.sql"), values).await?;
    }
    session
        .run_bulk(&INSERT_OFFERS, &effects.offers_made, |values, (task, offer)| {
            let needs: Vec<u32> = offer.needs.iter().map(|step| step.0).collect();
            values.put_task(*task).put(offer.step.0).put(offer.seq).put(offer.route.as_str());
            values.put(serde_json::json!(needs).to_string()).put(now);
        })
        .await?;
    documents::insert(session, &effects.documents).await?;
    let news = effects.news;
    session
        .run_bulk(&NEWS, &news, |values, Told { worker, task, row }| {
            values.put_worker(*worker).put_task(*task);
            values.put(row.map(|(step, _)| step)).put(row.map(|(_, seq)| seq));
        })
        .await?;
    if let Some(extras) = &mut session.known.extras {
        extras.offers |= !effects.offers_made.is_empty();
        extras.news |= !news.is_empty();
    }
    session.gives_work |=
        !(effects.queued.is_empty() && effects.offers_made.is_empty() && news.is_empty());
    for (task, standing) in effects.moved {
        session.known.stands(task, standing);
    }
    Ok(())
}
