//! Takes tasks out of the queue for a worker.
//!
//! They are read before anything is written, so that one that cannot be read stays as it is.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use tasker_core::store::StoredTask;
use tasker_core::store::board::{Standing, after, rank};
use tasker_core::{Priority, TaskId, TaskState, WorkerId};

use super::{ROUNDS, SET_ASIDE};
use crate::bulk::{Bulk, Values};
use crate::fault::{Fault, unless_unreadable};
use crate::rows::{Columns, read_standing, until};
use crate::session::Session;

static CLAIM: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../../queries/claim_tasks.sql")));

/// A task that may be claimed, or will be.
struct Candidate {
    route: Arc<str>,
    priority: Priority,
    wake_at: i64,
    task: TaskId,
    /// Its row in the queue with its own, which may be unreadable.
    row: SqliteRow,
}

impl Candidate {
    /// Where it stands among those that are due.
    fn place(&self) -> (i64, TaskId) {
        (rank(self.priority, self.wake_at), self.task)
    }

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
    let Heads { due, mut next_at } = heads(session, routes).await?;
    // One more than is wanted, to know when the next one is due.
    let limit = i64::try_from(wanted).unwrap_or(i64::MAX).saturating_add(1);
    let mut turns = Vec::new();
    for (route, lanes) in due {
        let mut of_route = Vec::new();
        for priority in lanes {
            let mut values = Values::default();
            values.put(&*route).put(priority.to_stored()).put(limit);
            let query = include_str!("../../queries/select_candidates.sql");
            for row in session.fetch(query, values).await? {
                let mut columns = Columns::of(&row);
                let (wake_at, task) = (columns.next()?, columns.task()?);
                if wake_at > session.now {
                    next_at = earliest(next_at, wake_at);
                    break;
                }
                let route = Arc::clone(&route);
                of_route.push(Candidate { route, priority, wake_at, task, row });
            }
        }
        of_route.sort_by_key(Candidate::place);
        turns.extend(of_route.into_iter().enumerate());
    }
    turns.sort_by_key(|(turn, candidate)| (*turn, candidate.place()));
    if turns.len() > wanted {
        next_at = Some(session.now);
        turns.truncate(wanted);
    }
    let mut chosen: Vec<Candidate> = turns.into_iter().map(|(_, candidate)| candidate).collect();
    chosen.sort_by_key(Candidate::place);
    Ok((chosen, next_at.map(|at| until(session.now, at))))
}

/// What the first tasks of all lanes say; a lane has the tasks of one priority on one route.
struct Heads {
    /// The routes on which there is something due, and the priorities of which there is.
    due: Vec<(Arc<str>, Vec<Priority>)>,
    /// When the first task of those lanes that have nothing due may be claimed.
    next_at: Option<i64>,
}

async fn heads(session: &mut Session<'_>, routes: &str) -> Result<Heads, Fault> {
    let mut values = Values::default();
    values.put(routes);
    for priority in Priority::ALL {
        values.put(priority.to_stored());
    }
    let mut heads = Heads { due: Vec::new(), next_at: None };
    for row in session.fetch(include_str!("../../queries/select_heads.sql"), values).await? {
        let mut columns = Columns::of(&row);
        let route: &str = columns.next()?;
        let mut due = Vec::new();
        for priority in Priority::ALL {
            match columns.next::<Option<i64>>()? {
                Some(wake_at) if wake_at <= session.now => due.push(priority),
                Some(wake_at) => heads.next_at = earliest(heads.next_at, wake_at),
                None => {}
            }
        }
        if !due.is_empty() {
            heads.due.push((route.into(), due));
        }
    }
    Ok(heads)
}

fn earliest(known: Option<i64>, at: i64) -> Option<i64> {
    Some(known.map_or(at, |known| known.min(at)))
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
            let state = match standing.state {
                TaskState::Compensating => TaskState::Compensating,
                TaskState::Pending
                | TaskState::InProgress
                | TaskState::Paused
                | TaskState::Complete
                | TaskState::Error
                | TaskState::Cancelled
                | TaskState::Compensated
                | TaskState::ResolvedManually => TaskState::InProgress,
            };
            let owner = Some(worker);
            let standing = Standing { state, version, owner, wake_at: None, ..standing };
            (candidate.task, standing)
        }));
    }
    let standings = claimed.clone();
    let tasks = session.unfold(claimed).await?;
    // What was chosen of a lane is its head, so its last one bounds it.
    let mut lanes = HashSet::new();
    for last in chosen.iter().rev() {
        if lanes.insert((&*last.route, last.priority)) {
            let mut values = Values::default();
            values.put(&*last.route).put(last.priority.to_stored());
            values.put(last.wake_at).put_task(last.task);
            session.run(include_str!("../../queries/delete_claimed.sql"), values).await?;
        }
    }
    session
        .run_bulk(&CLAIM, &tasks, |values, task| {
            values.put_worker(worker).put(task.state.as_str()).put_task(task.id);
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
        values.put_task(candidate.task).put(&*candidate.route).put(candidate.priority.to_stored());
        values.put(after(session.now, SET_ASIDE));
        session.run(include_str!("../../queries/set_task_aside.sql"), values).await?;
    }
    Ok(())
}
