//! Leases: workers that register, renew, retire, and are taken over.

use std::time::Duration;

use tasker_core::WorkerId;
use tasker_core::history::Occurrence;
use tasker_core::store::board::after;
use tasker_core::store::{Heartbeat, Renewed};

use crate::bulk::Values;
use crate::fault::Fault;
use crate::rows::{Columns, nanos, timestamp, until};
use crate::session::{Ask, Session};

/// For how long the ids of former workers are refused: longer than any process hangs.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);

pub(crate) async fn renew(
    session: &mut Session<'_>,
    asks: &mut [Ask<Heartbeat, Renewed>],
) -> Result<(), Fault> {
    for Ask { request: beat, outcome, .. } in asks {
        *outcome = Some(renew_one(session, beat).await?);
    }
    Ok(())
}

async fn renew_one(session: &mut Session<'_>, beat: &Heartbeat) -> Result<Renewed, Fault> {
    let (_, gone) = session.look_up(beat.worker).await?;
    if gone {
        return Ok(Renewed::LeaseLost);
    }
    match beat.lease {
        None => put_an_end_to(session, beat.worker).await?,
        Some(lease) => {
            let mut values = Values::default();
            values.put_worker(beat.worker).put(beat.name.as_str());
            values.put(after(session.now, lease)).put(beat.spare).put(beat.running_json());
            session.run(include_str!("../queries/upsert_worker.sql"), values).await?;
            session.known.is_alive(beat.worker);
        }
    }
    let mut values = Values::default();
    values.put_worker(beat.worker).put(session.now);
    let rows = session.fetch(include_str!("../queries/select_others.sql"), values).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut columns = Columns::of(row);
    let spare: i64 = columns.next()?;
    let others_spare = u32::try_from(spare).unwrap_or(u32::MAX);
    let wait = |at: Option<i64>| at.map(|at| until(session.now, at));
    let next_expiry = wait(columns.next()?);
    let systems = columns.next::<i64>()?.unsigned_abs();
    let next_due = wait(columns.next()?);
    let now = timestamp(session.now)?;
    Ok(Renewed::Until { now, others_spare, next_expiry, systems, next_due })
}

pub(crate) async fn take_over(
    session: &mut Session<'_>,
    asks: &mut [Ask<usize, Vec<WorkerId>>],
) -> Result<(), Fault> {
    for Ask { request: limit, outcome, .. } in asks {
        let mut values = Values::default();
        values.put(session.now).put(i64::try_from(*limit).unwrap_or(i64::MAX));
        let query = include_str!("../queries/select_lost_workers.sql");
        let rows = session.fetch(query, values).await?;
        let mut lost = Vec::with_capacity(rows.len());
        for row in &rows {
            let worker = Columns::of(row).worker()?;
            put_an_end_to(session, worker).await?;
            lost.push(worker);
        }
        if !lost.is_empty() {
            let mut values = Values::default();
            values.put(session.now.saturating_sub(nanos(REMEMBERED) / 1_000));
            session.run(include_str!("../queries/prune_former_workers.sql"), values).await?;
        }
        *outcome = Some(lost);
    }
    Ok(())
}

/// Ends a worker. One that retires owns nothing; if it does after all, its tasks are not lost.
async fn put_an_end_to(session: &mut Session<'_>, worker: WorkerId) -> Result<(), Fault> {
    let what = Occurrence::WorkerLost { worker }.to_columns()?;
    let mut values = Values::default();
    values.put_worker(worker).put(session.now).put(what.kind);
    values.put(what.detail.as_ref().map(|detail| detail.as_str().to_owned()));
    session.run(include_str!("../queries/take_over.sql"), values).await?;
    // The worker, its tasks and their offers are not what they were.
    session.known.forget();
    session.gives_work = true;
    Ok(())
}
