//! Stores new tasks.

use std::collections::HashMap;
use std::sync::LazyLock;

use tasker_core::history::Author;
use tasker_core::store::board::{OWN_LOG, Standing, after};
use tasker_core::store::{Created, NewTask, Route, input_digest};
use tasker_core::{Json, TaskId, TaskState, WorkerId};

use crate::bulk::{Bulk, Values};
use crate::documents;
use crate::fault::Fault;
use crate::rows::{Columns, SUBMITTED, count, timestamp};
use crate::session::{Ask, Session};

static TASKS: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/insert_tasks.sql")));
pub(crate) static HISTORY: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/insert_history.sql")));
pub(crate) static QUEUE: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/insert_queue.sql")));
static IDEMPOTENCY: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/insert_idempotency.sql")));

/// A request to store tasks.
pub(crate) struct Create {
    pub(crate) tasks: Vec<NewTask>,
    pub(crate) claimant: Option<WorkerId>,
}

/// A task that is to be stored, with what its row will say.
struct Arrival<'a> {
    task: &'a NewTask,
    standing: Standing,
}

pub(crate) async fn create(
    session: &mut Session<'_>,
    asks: &mut [Ask<Create, Vec<Created>>],
) -> Result<(), Fault> {
    let mut arrivals = Vec::new();
    let mut taken = HashMap::new();
    for Ask { request, outcome, .. } in asks {
        let claimant = match request.claimant {
            Some(worker) if session.has_lease(worker).await? => Some(worker),
            _ => None,
        };
        let mut created = Vec::with_capacity(request.tasks.len());
        for task in &request.tasks {
            if let Some(existing) = existing(session, &mut taken, task).await? {
                created.push(existing);
                continue;
            }
            let standing = standing(session, task, claimant).await?;
            let claimed = standing.owner.map(|_| standing.version);
            created.push(Created::New { at: timestamp(session.now)?, claimed });
            arrivals.push(Arrival { task, standing });
        }
        *outcome = Some(created);
    }
    store(session, &arrivals).await?;
    for Arrival { task, standing } in arrivals {
        session.gives_work |= standing.owner.is_none();
        session.known.stands(task.id, standing);
    }
    Ok(())
}

/// Who has a task's idempotency key, stored or earlier in this transaction, if anybody.
async fn existing<'a>(
    session: &mut Session<'_>,
    taken: &mut HashMap<(&'a str, &'a str, &'a str), (TaskId, &'a Json)>,
    task: &'a NewTask,
) -> Result<Option<Created>, Fault> {
    let Some(key) = task.idempotency_key.as_deref() else { return Ok(None) };
    let kind = task.template.task_type();
    let (namespace, name) = (kind.namespace.as_str(), kind.name.as_str());
    if let Some((id, input)) = taken.get(&(namespace, name, key)) {
        return Ok(Some(Created::Existing { id: *id, input_digest: input_digest(input) }));
    }
    let mut values = Values::default();
    values.put(namespace).put(name).put(key);
    let rows = session.fetch(include_str!("../queries/select_idempotency.sql"), values).await?;
    let Some(row) = rows.first() else {
        taken.insert((namespace, name, key), (task.id, &task.context));
        return Ok(None);
    };
    let mut columns = Columns::of(row);
    let id = columns.task()?;
    let input = columns.json()?.unwrap_or_else(Json::null);
    Ok(Some(Created::Existing { id, input_digest: input_digest(&input) }))
}

async fn standing(
    session: &mut Session<'_>,
    task: &NewTask,
    claimant: Option<WorkerId>,
) -> Result<Standing, Fault> {
    let template = session.templates.key_of(session.connection, &task.template).await?;
    let queued = Standing {
        template,
        priority: task.priority,
        state: TaskState::Pending,
        degraded: false,
        version: 0,
        owner: None,
        route: None,
        wake_at: Some(after(session.now, task.delay)),
        created_at: session.now,
        ended_at: None,
    };
    Ok(match claimant.filter(|_| task.delay.is_zero()) {
        None => queued,
        Some(_) => Standing {
            state: TaskState::InProgress,
            version: 1,
            owner: claimant,
            wake_at: None,
            ..queued
        },
    })
}

async fn store(session: &mut Session<'_>, arrivals: &[Arrival<'_>]) -> Result<(), Fault> {
    session
        .run_bulk(&TASKS, arrivals, |values, Arrival { task, standing }| {
            values.put_task(task.id).put(standing.template).put(standing.priority.to_stored());
            values.put(standing.state.as_str());
            values.put(count(standing.version)).put_maybe_worker(standing.owner);
            values.put(standing.wake_at).put(standing.created_at);
        })
        .await?;
    let nobody = Author::Operator(String::new());
    session
        .run_bulk(&HISTORY, arrivals, |values, Arrival { task, standing }| {
            values.put_task(task.id).put(OWN_LOG).put(0).put(standing.created_at);
            values.put_author(&nobody).put(0).put(0).put(SUBMITTED);
            values.put(task.context.as_str()).put(None::<&str>);
        })
        .await?;
    let queued: Vec<_> = arrivals
        .iter()
        .filter_map(|Arrival { task, standing }| Some((*task, standing.wake_at?)))
        .collect();
    session
        .run_bulk(&QUEUE, &queued, |values, (task, wake_at)| {
            values.put(Route::of(&task.template).as_str()).put(task.priority.to_stored());
            values.put(*wake_at).put_task(task.id);
        })
        .await?;
    let keyed: Vec<_> = arrivals
        .iter()
        .filter_map(|arrival| Some((arrival.task, arrival.task.idempotency_key.as_deref()?)))
        .collect();
    session
        .run_bulk(&IDEMPOTENCY, &keyed, |values, (task, key)| {
            let kind = task.template.task_type();
            values.put(kind.namespace.as_str()).put(kind.name.as_str());
            values.put(*key).put_task(task.id);
        })
        .await?;
    let alarms: Vec<_> = arrivals.iter().filter_map(|arrival| arrival.task.alarm()).collect();
    documents::insert(session, &alarms).await?;
    Ok(())
}
