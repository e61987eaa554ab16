//! Takes tasks out of the queue for a worker.
//!
//! They are read before anything is written, so that one that cannot be read stays as it is.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use tasker_core::store::StoredTask;
use tasker_core::store::board::{Standing, after};
use tasker_core::{TaskId, TaskState, WorkerId};

use super::{ROUNDS, SET_ASIDE};
use crate::bulk::{Bulk, Values};
use crate::fault::{Fault, unless_unreadable};
use crate::rows::{Columns, read_standing, until};
use crate::session::Session;

static CLAIM: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../../queries/claim_tasks.sql")));

/// A task that may be claimed, or will be.
struct Candidate {
    route: String,
    wake_at: i64,
    task: TaskId,
    /// Its row in the queue with its own, which may be unreadable.
    row: SqliteRow,
}

impl Candidate {
    fn standing(&self) -> Result<Standing, Fault> {
        let mut columns = Columns::of(&self.row);
        columns.next::<i64>()?;
        columns.task()?;
        Ok(read_standing(&mut columns)?.1)
    }
}

/// Makes the first `wanted` tasks in fair turns over the routes a worker's, and tells when the
/// next one may be claimed.
pub(super) async fn take(
    session: &mut Session<'_>,
    worker: WorkerId,
    wanted: usize,
    routes: &str,
) -> Result<(Vec<StoredTask>, Option<Duration>), Fault> {
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let (chosen, next_in) = candidates(session, wanted - taken.len(), routes).await?;
        let (before, expected) = (taken.len(), chosen.len());
        taken.extend(take_chosen(session, worker, chosen).await?);
        if taken.len() - before == expected {
            return Ok((taken, next_in));
        }
    }
    Ok((taken, Some(Duration::ZERO)))
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
    for row in session.fetch(include_str!("../../queries/select_heads.sql"), values).await? {
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
        let query = include_str!("../../queries/select_candidates.sql");
        for (turn, row) in session.fetch(query, values).await?.into_iter().enumerate() {
            let mut columns = Columns::of(&row);
            let (wake_at, task) = (columns.next()?, columns.task()?);
            if wake_at <= session.now {
                turns.push((turn, Candidate { route: route.clone(), wake_at, task, row }));
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

/// Takes tasks out of the queue; those that can be read become a worker's, the others go back.
async fn take_chosen(
    session: &mut Session<'_>,
    worker: WorkerId,
    chosen: Vec<Candidate>,
) -> Result<Vec<StoredTask>, Fault> {
    let mut claimed = Vec::with_capacity(chosen.len());
    for candidate in &chosen {
        let standing = unless_unreadable(candidate.task, candidate.standing())?;
        claimed.extend(standing.map(|standing| {
            let version = standing.version + 1;
            let (state, owner) = (TaskState::InProgress, Some(worker));
            let standing = Standing { state, version, owner, wake_at: None, ..standing };
            (candidate.task, standing)
        }));
    }
    let standings = claimed.clone();
    let tasks = session.unfold(claimed).await?;
    // What was chosen on a route is the head of its queue, so its last one bounds it.
    let mut routes = HashSet::new();
    for last in chosen.iter().rev() {
        if routes.insert(last.route.as_str()) {
            let mut values = Values::default();
            values.put(last.route.as_str()).put(last.wake_at).put_task(last.task);
            session.run(include_str!("../../queries/delete_claimed.sql"), values).await?;
        }
    }
    session
        .run_bulk(&CLAIM, &tasks, |values, task| {
            values.put_worker(worker).put(TaskState::InProgress.as_str()).put_task(task.id);
        })
        .await?;
    if tasks.len() == chosen.len() {
        for (id, standing) in standings {
            session.known.stands(id, standing);
        }
    } else {
        // Tasks are seldom unreadable: what is not known is read when it is needed.
        set_aside(session, &chosen, &tasks).await?;
    }
    Ok(tasks)
}

/// Queues again, for later, those that were chosen and not taken.
async fn set_aside(
    session: &mut Session<'_>,
    chosen: &[Candidate],
    taken: &[StoredTask],
) -> Result<(), Fault> {
    let taken: HashSet<TaskId> = taken.iter().map(|task| task.id).collect();
    for candidate in chosen.iter().filter(|candidate| !taken.contains(&candidate.task)) {
        let mut values = Values::default();
        values.put_task(candidate.task).put(candidate.route.as_str());
        values.put(after(session.now, SET_ASIDE));
        session.run(include_str!("../../queries/set_task_aside.sql"), values).await?;
    }
    Ok(())
}
