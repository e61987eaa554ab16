//! Hands out steps that the owners of their tasks offer to others.

use sqlx::postgres::PgRow;
use tasker_core::store::board::OWN_LOG;
use tasker_core::store::{ClaimRequest, OfferedStep};
use tasker_core::{StepIndex, TaskId, WorkerId};
use uuid::Uuid;

use super::{ROUNDS, SET_ASIDE};
use crate::database::{Session, statement};
use crate::fault::{Fault, unless_unreadable};
use crate::rows::{Columns, STANDING, Unfolding, int, log_int, micros};

/// An offer that a worker holds.
struct Held {
    task: TaskId,
    step: u32,
    seq: u32,
    /// The steps whose rows the handler may read.
    needs: Vec<i32>,
}

/// Makes a worker hold open offers; after a lost answer, hands out also what it holds already.
pub(super) async fn take(
    session: &mut Session<'_>,
    request: &ClaimRequest,
    open: bool,
) -> Result<Vec<OfferedStep>, Fault> {
    let mut offers = Vec::new();
    if request.holding.is_some() {
        let query = statement(&session.database.sql.select_held_offers);
        let rows = session.fetch(query.bind(request.worker.as_uuid())).await?;
        offers.extend(read(session, &held(&rows)?).await?.into_iter().flatten());
    }
    let mut wanted = if open { request.offers } else { 0 };
    let routes: Vec<String> =
        request.routes.iter().map(|route| route.as_str().to_owned()).collect();
    for _ in 0..ROUNDS {
        if wanted == 0 {
            break;
        }
        let query = statement(&session.database.sql.hold_offers)
            .bind(request.worker.as_uuid())
            .bind(routes.clone())
            .bind(i32::try_from(wanted).unwrap_or(i32::MAX));
        let held = held(&session.fetch(query).await?)?;
        let steps = read(session, &held).await?;
        let mut all = true;
        for (offer, step) in held.iter().zip(steps) {
            match step {
                Some(step) => {
                    wanted = wanted.saturating_sub(1);
                    offers.push(step);
                }
                None => {
                    all = false;
                    set_aside(session, request.worker, offer).await?;
                }
            }
        }
        if all {
            break;
        }
    }
    Ok(offers)
}

fn held(rows: &[PgRow]) -> Result<Vec<Held>, Fault> {
    let mut held = Vec::with_capacity(rows.len());
    for row in rows {
        let mut columns = Columns::of(row);
        let (task, step, seq) = (columns.task()?, columns.number()?, columns.number()?);
        held.push(Held { task, step, seq, needs: columns.next()? });
    }
    Ok(held)
}

/// The offered steps, each with the rows of the task, of its own log and of those that it needs; `None` for one
/// that cannot be read.
async fn read(session: &mut Session<'_>, held: &[Held]) -> Result<Vec<Option<OfferedStep>>, Fault> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let numbered = || (0i32..).zip(held);
    let tasks: Vec<Uuid> = held.iter().map(|offer| offer.task.as_uuid()).collect();
    let (numbers, steps): (Vec<i32>, Vec<i32>) = numbered()
        .flat_map(|(nr, offer)| {
            let needed = offer.needs.iter().copied().filter(|step| *step != int(offer.step));
            let logs = needed.chain([int(offer.step), log_int(OWN_LOG)]);
            logs.map(move |step| (nr, step))
        })
        .unzip();
    let query = statement(&session.database.sql.select_offered)
        .bind(numbered().map(|(nr, _)| nr).collect::<Vec<_>>())
        .bind(tasks)
        .bind(numbers)
        .bind(steps);
    let rows = session.fetch(query).await?;
    let mut steps: Vec<Option<OfferedStep>> = held.iter().map(|_| None).collect();
    let number = |row: &PgRow| Columns::of(row).skip(1).next::<i32>().unwrap_or(-1);
    for rows in rows.chunk_by(|one, other| number(one) == number(other)) {
        let place = rows.first().and_then(|row| usize::try_from(number(row)).ok());
        let Some((place, offer)) = place.and_then(|nr| Some((nr, held.get(nr)?))) else {
            continue;
        };
        let step = offered_step(session, offer, rows).await;
        steps[place] = unless_unreadable(offer.task, step)?;
    }
    Ok(steps)
}

async fn offered_step(
    session: &mut Session<'_>,
    offer: &Held,
    rows: &[PgRow],
) -> Result<OfferedStep, Fault> {
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut columns = Columns::of(first);
    let now = columns.time()?;
    let (_, standing) = columns.skip(1).standing()?;
    let template = session.template(standing.template).await?;
    let mut unfolding = Unfolding::new(offer.task, standing, template);
    for row in rows {
        if let Some(line) = Columns::of(row).skip(2 + STANDING).line()? {
            unfolding.add(line);
        }
    }
    let task = unfolding.finish(now)?;
    Ok(OfferedStep { task, step: StepIndex(offer.step), seq: offer.seq })
}

async fn set_aside(session: &mut Session<'_>, worker: WorkerId, offer: &Held) -> Result<(), Fault> {
    let query = statement(&session.database.sql.set_offer_aside)
        .bind(offer.task.as_uuid())
        .bind(int(offer.step))
        .bind(worker.as_uuid())
        .bind(micros(SET_ASIDE));
    session.run(query).await?;
    Ok(())
}
