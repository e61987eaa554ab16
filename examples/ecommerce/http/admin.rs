//! `/admin/…`: what whoever looks after the shop sees and does.
//!
//! All answers are JSON; an error is `{"success": false, "error": "a sentence"}`. A `key`, `name`
//! or `id` stands percent-encoded in its address. `now` is the shop's clock, for countdowns.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/tasks?state=STATE&limit=N` | `{now, tasks: [{task_id, task_type, state, degraded, created_at, ended_at, why}]}`, newest first. `state` is a task's state, `degraded`, `waiting` (for a system that is down) or `attention` (the default): whatever needs a person, or may need one. |
//! | `GET /admin/escalations?state=STATE` | `{now, escalations: [{key, state, incident, task_id, step, system, sentence, raised_at, deliveries, actor, reason}]}`; `state` is `open`, `acknowledged` or `resolved`, without one all that are not resolved |
//! | `POST /admin/escalations/{key}/acknowledge`, `…/resolve` | body `{actor, reason}`; 200 with the escalation |
//! | `GET /admin/systems` | `{now, systems: [{name, state, reason, since, next_probe_at, waiting}]}`; `state` is `closed`, `open` or `half_open`, `waiting` the number of orders that wait for it |
//! | `POST /admin/systems/{name}/trip`, `…/reset` | body `{actor, reason}`; 200 with the system |
//! | `POST /admin/tasks/{id}/actions` | body `{action, step?, result?, context?, limit?, actor, reason, expects?}`; 200 `{task_id, state, version, repeated}` |
//! | `POST /admin/tasks/retry` | body `{failed_step?, error_code?, before?, after?, limit?, actor, reason}`, the times being those at which the order was placed; 200 `{retried, refused: [{task_id, error}]}` |
//!
//! `action` is one of
//! - for the task: `retry`, `pause`, `resume`, `cancel`, `compensate`, `resolve`, `edit_context`
//!   (with `context`);
//! - for a `step`: `retry_step`, `retry_from`, `skip_step`, `resolve_step` (with `result`),
//!   `set_retry_limit` (with `limit`).
//!
//! `expects` is the `version` of the task that the person saw. An action that the task's state does
//! not allow, or that a person decided on an earlier version, is 409; a wrong field 422; an unknown
//! task, step, system or escalation 404. A header `Idempotency-Key` makes it safe to ask again: a
//! repeat is answered with `repeated: true` and does nothing.
//!
//! No answer has a payment token in it. A context to be edited shows a placeholder instead; where
//! the placeholder comes back untouched, the token stays as it was stored.

mod act;
mod escalations;
mod systems;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tasker::{Operator, StepCause, TaskId, TaskQuery, TaskState, TaskSummary, Why};

pub(super) use self::act::{act, retry_many};
pub(super) use self::escalations::{acknowledge, escalations, resolve};
pub(super) use self::systems::{reset, systems, trip};
use super::Web;
use super::error::ApiError;

/// The states in which a task waits for a person, or goes another way than it should.
const ATTENTION: [TaskState; 3] = [TaskState::Error, TaskState::Paused, TaskState::Compensating];
/// Those in which it may wait for a system that is down.
const UNFINISHED: [TaskState; 3] =
    [TaskState::Pending, TaskState::InProgress, TaskState::Compensating];

const PAGE: usize = 25;
const LONGEST_PAGE: usize = 100;
/// Of so many at most it is told for which system they wait: each is read.
const READ_THROUGH: usize = 250;

#[derive(Deserialize)]
pub(super) struct Wanted {
    state: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Tasks {
    now: Timestamp,
    tasks: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    task_id: TaskId,
    task_type: String,
    state: TaskState,
    degraded: bool,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
    /// Why it is not complete.
    why: Option<Why>,
}

/// `GET /admin/tasks`
pub(super) async fn tasks(
    State(web): State<Web>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Tasks>, ApiError> {
    let Query(Wanted { state, limit }) = wanted.map_err(|rejection| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, rejection.body_text())
    })?;
    let limit = limit.unwrap_or(PAGE).min(LONGEST_PAGE);
    let mut found = Vec::new();
    match state.as_deref() {
        None | Some("attention") => {
            for state in ATTENTION {
                found.extend(in_state(&web, state, limit).await?);
            }
            found.extend(degraded(&web, limit).await?);
            found.extend(waiting(&web).await?.into_iter().map(|(task, _)| task));
            found.sort_by_key(|task| task.id);
            found.dedup_by_key(|task| task.id);
        }
        Some("degraded") => found = degraded(&web, limit).await?,
        Some("waiting") => {
            found = waiting(&web).await?.into_iter().map(|(task, _)| task).collect();
        }
        Some(word) => {
            let state = serde_json::from_value(word.into()).map_err(|_| {
                let message = format!("There is no state `{word}`");
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
            })?;
            found = in_state(&web, state, limit).await?;
        }
    }
    found.sort_by_key(|task| std::cmp::Reverse(task.id));
    found.truncate(limit);
    let mut tasks = Vec::with_capacity(found.len());
    for task in found {
        let why = web.tasker.why(task.id).await?;
        let TaskSummary { id: task_id, task_type, state, degraded, created_at, ended_at } = task;
        tasks.push(Listed { task_id, task_type, state, degraded, created_at, ended_at, why });
    }
    Ok(Json(Tasks { now: Timestamp::now(), tasks }))
}

async fn in_state(web: &Web, state: TaskState, limit: usize) -> Result<Vec<TaskSummary>, ApiError> {
    let query = TaskQuery { state: Some(state), limit: limit.max(1), ..TaskQuery::default() };
    Ok(web.tasker.find(query).await?)
}

/// Those that go on, or are complete, although something failed.
async fn degraded(web: &Web, limit: usize) -> Result<Vec<TaskSummary>, ApiError> {
    let degraded = Some(true);
    let query = TaskQuery { degraded, limit: limit.max(1), ..TaskQuery::default() };
    Ok(web.tasker.find(query).await?)
}

/// Those that wait for a system, and for which.
async fn waiting(web: &Web) -> Result<Vec<(TaskSummary, String)>, ApiError> {
    let mut waiting = Vec::new();
    for state in UNFINISHED {
        for task in in_state(web, state, READ_THROUGH).await? {
            let steps = web.tasker.why(task.id).await?.map(|why| why.steps).unwrap_or_default();
            let system = steps.into_iter().find_map(|step| match step.cause {
                StepCause::WaitsForSystem(wait) => Some(wait.system),
                _ => None,
            });
            waiting.extend(system.map(|system| (task, system)));
        }
    }
    Ok(waiting)
}

/// Who acts, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    actor: String,
    reason: String,
}

impl Person {
    /// # Errors
    /// A name or a reason is missing, or longer than anybody would read.
    fn operator(&self) -> Result<Operator, ApiError> {
        operator(&self.actor, &self.reason)
    }
}

fn operator(actor: &str, reason: &str) -> Result<Operator, ApiError> {
    let told = |text: &str, most| !text.trim().is_empty() && text.chars().count() <= most;
    if told(actor, 100) && told(reason, 500) {
        return Ok(Operator::new(actor.trim(), reason.trim()));
    }
    let message = "Say who you are (`actor`, at most 100 characters) and why (`reason`, 500)";
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}
