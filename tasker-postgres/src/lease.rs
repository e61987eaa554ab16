//! Leases: workers that register, renew, retire, and are taken over.

use std::time::Duration;

use tasker_core::WorkerId;
use tasker_core::history::Occurrence;
use tasker_core::store::{Heartbeat, Renewed};

use crate::database::{Session, Work, statement};
use crate::fault::Fault;
use crate::rows::{Columns, micros, timestamp, until};

/// For how long the ids of former workers are refused: longer than any process hangs.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);

/// A worker's sign of life.
pub(crate) struct Renew(pub(crate) Heartbeat);

impl Work for Renew {
    type Answer = Renewed;

    async fn run(self, session: &mut Session<'_>) -> Result<Renewed, Fault> {
        let Self(beat) = self;
        let Some(lease) = beat.lease else { return retire(session, &beat).await };
        let query = statement(&session.database.sql.renew)
            .bind(beat.worker.as_uuid())
            .bind(&beat.name)
            .bind(micros(lease))
            .bind(i64::from(beat.spare))
            .bind(beat.running_json());
        let row = session.fetch_one(query).await?;
        let mut columns = Columns::of(&row);
        let renewed = until_when(&mut columns)?;
        if !columns.next()? {
            session.database.hints.is_gone(beat.worker);
            return Ok(Renewed::LeaseLost);
        }
        session.database.hints.lives(beat.worker);
        Ok(renewed)
    }
}

/// Reads the time and what there is to say of the other workers and of documents.
fn until_when(columns: &mut Columns<'_>) -> Result<Renewed, Fault> {
    let now = columns.time()?;
    let others_spare = u32::try_from(columns.next::<i64>()?).unwrap_or(u32::MAX);
    let next_expiry = columns.maybe_time()?.map(|at| until(now, at));
    let systems = columns.next::<i64>()?.unsigned_abs();
    let next_due = columns.maybe_time()?.map(|at| until(now, at));
    let now = timestamp(now)?;
    Ok(Renewed::Until { now, others_spare, next_expiry, systems, next_due })
}

/// Ends a worker that wants to end.
async fn retire(session: &mut Session<'_>, beat: &Heartbeat) -> Result<Renewed, Fault> {
    session.database.hints.is_gone(beat.worker);
    session.begin().await?;
    let unknown = statement(&session.database.sql.retire_unknown);
    let unknown = unknown.bind(beat.worker.as_uuid()).bind(beat.name.clone());
    let never_registered = session.run(unknown).await? == 1;
    let lock = statement(&session.database.sql.lock_worker).bind(beat.worker.as_uuid());
    let row = session.fetch_one(lock).await?;
    let gone: bool = Columns::of(&row).next()?;
    if gone && !never_registered {
        session.rollback().await?;
        return Ok(Renewed::LeaseLost);
    }
    put_an_end_to(session, beat.worker).await?;
    let others = statement(&session.database.sql.select_others).bind(beat.worker.as_uuid());
    let row = session.fetch_one(others).await?;
    session.commit().await?;
    session.database.hints.there_may_be_work();
    until_when(&mut Columns::of(&row))
}

/// Takes over workers whose lease ran out, at most so many.
pub(crate) struct TakeOver(pub(crate) usize);

impl Work for TakeOver {
    type Answer = Vec<WorkerId>;

    async fn run(self, session: &mut Session<'_>) -> Result<Vec<WorkerId>, Fault> {
        let mut lost = Vec::new();
        while lost.len() < self.0 {
            session.begin().await?;
            let lock = statement(&session.database.sql.lock_lost_worker);
            let rows = session.fetch(lock).await?;
            let Some(row) = rows.first() else {
                session.rollback().await?;
                break;
            };
            let worker = Columns::of(row).worker()?;
            put_an_end_to(session, worker).await?;
            session.commit().await?;
            lost.push(worker);
        }
        if !lost.is_empty() {
            session.database.hints.there_may_be_work();
            let prune = statement(&session.database.sql.prune).bind(micros(REMEMBERED));
            if let Err(fault) = session.run(prune).await {
                // They were taken over all the same; the next one sweeps up.
                tracing::debug!(code = fault.code(), "former workers cannot be forgotten yet");
            }
        }
        Ok(lost)
    }
}

/// Ends a worker whose row is locked. One that retires owns nothing; if it does after all, its
/// tasks are not lost.
async fn put_an_end_to(session: &mut Session<'_>, worker: WorkerId) -> Result<(), Fault> {
    let what = Occurrence::WorkerLost { worker }.to_columns()?;
    let query = statement(&session.database.sql.take_over)
        .bind(worker.as_uuid())
        .bind(what.kind)
        .bind(what.detail.map(|detail| detail.as_str().to_owned()));
    session.run(query).await?;
    Ok(())
}
