//! Hands out steps that the owners of their tasks offer to others.

use std::sync::LazyLock;

use tasker_core::store::board::{OWN_LOG, after};
use tasker_core::store::{ClaimRequest, OfferedStep};
use tasker_core::{StepIndex, TaskId, WorkerId};

use super::{ROUNDS, SET_ASIDE};
use crate::bulk::{Bulk, Values};
use crate::fault::{Fault, unless_unreadable};
use crate::rows::{Columns, Unfolding, count, read_line, read_standing};
use crate::session::Session;

static HOLD: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../../queries/hold_offers.sql")));
static TASKS: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../../queries/select_tasks.sql")));

/// An offer that a worker is to hold.
struct Held {
    task: TaskId,
    step: u32,
    seq: u32,
    /// The steps whose rows the handler may read, JSON.
    needs: String,
}

/// Makes a worker hold open offers; after a lost answer, also what it holds already.
pub(super) async fn take(
    session: &mut Session<'_>,
    request: &ClaimRequest,
    routes: &str,
) -> Result<Vec<OfferedStep>, Fault> {
    let mut offers = Vec::new();
    if request.holding.is_some() {
        let mut values = Values::default();
        values.put_worker(request.worker);
        let query = include_str!("../../queries/select_held_offers.sql");
        for row in session.fetch(query, values).await? {
            let offer = read_offer(&row)?;
            let step = offered_step(session, &offer).await;
            offers.extend(unless_unreadable(offer.task, step)?);
        }
    }
    let mut wanted = request.offers;
    for _ in 0..ROUNDS {
        if wanted == 0 {
            break;
        }
        let open = open_offers(session, wanted, routes).await?;
        let chosen = open.len();
        let taken = hold(session, request.worker, open).await?;
        let all = taken.len() == chosen;
        wanted -= taken.len();
        offers.extend(taken);
        if all {
            break;
        }
    }
    session.known.extras = None;
    Ok(offers)
}

/// Gives offers to a worker, and sets aside those whose tasks cannot be read.
async fn hold(
    session: &mut Session<'_>,
    worker: WorkerId,
    open: Vec<Held>,
) -> Result<Vec<OfferedStep>, Fault> {
    let mut steps = Vec::with_capacity(open.len());
    for offer in open {
        let step = offered_step(session, &offer).await;
        if let Some(step) = unless_unreadable(offer.task, step)? {
            steps.push(step);
            continue;
        }
        let mut values = Values::default();
        values.put_task(offer.task).put(offer.step).put(after(session.now, SET_ASIDE));
        session.run(include_str!("../../queries/set_offer_aside.sql"), values).await?;
    }
    session
        .run_bulk(&HOLD, &steps, |values, offer| {
            values.put_worker(worker).put_task(offer.task.id).put(offer.step.0);
        })
        .await?;
    Ok(steps)
}

/// Chooses offers in fair turns over the routes.
async fn open_offers(
    session: &mut Session<'_>,
    wanted: usize,
    routes: &str,
) -> Result<Vec<Held>, Fault> {
    let mut values = Values::default();
    values.put(routes);
    let query = include_str!("../../queries/select_routes_with_offers.sql");
    let mut turns = Vec::new();
    for row in session.fetch(query, values).await? {
        let mut values = Values::default();
        values.put(Columns::of(&row).next::<String>()?).put(count(wanted as u64));
        values.put(session.now);
        let rows =
            session.fetch(include_str!("../../queries/select_open_offers.sql"), values).await?;
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
    Ok(Held { task, step, seq, needs: columns.next()? })
}

/// An offered step with the rows of the task, of its own log and of those that it needs.
async fn offered_step(session: &mut Session<'_>, offer: &Held) -> Result<OfferedStep, Fault> {
    let (task, step, seq) = (offer.task, offer.step, offer.seq);
    let needs: Vec<u32> = serde_json::from_str(&offer.needs)?;
    let rows = session.fetch_bulk(&TASKS, &[task], |values, id| _ = values.put_task(*id)).await?;
    let row = rows.first();
    let row = row.ok_or_else(|| Fault::Unreadable("an offer is of no task".to_owned()))?;
    let (_, standing) = read_standing(&mut Columns::of(row))?;
    let template = session.template(standing.template).await?;
    let mut unfolding = Unfolding::new(task, standing, template);
    let steps: Vec<i64> = needs.into_iter().chain([step]).map(i64::from).chain([OWN_LOG]).collect();
    let mut values = Values::default();
    values.put_task(task).put(serde_json::json!(steps).to_string());
    let query = include_str!("../../queries/select_history_of_steps.sql");
    for row in &session.fetch(query, values).await? {
        unfolding.add(read_line(&mut Columns::of(row))?.1);
    }
    let task = unfolding.finish(session.now)?;
    Ok(OfferedStep { task, step: StepIndex(step), seq })
}
