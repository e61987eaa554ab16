//! `/admin/…`: what whoever looks after the shop sees and does.
//!
//! All answers are JSON; an error is `{"success": false, "error": "a sentence"}`. A `key`, `name`
//! or `id` stands percent-encoded in its address. `now` is the shop's clock, for countdowns.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/tasks?state=STATE&limit=N` | `{now, tasks: [{task_id, task_type, state, degraded, created_at, ended_at, why}]}`, newest first. `state` is a task's state, `degraded`, or `attention` (the default): whatever needs a person. |
//! | `GET /admin/escalations?state=STATE` | `{now, escalations: [{key, state, incident, task_id, system, sentence, raised_at, deliveries, actor, reason}]}`; `state` is `open`, `acknowledged` or `resolved`, without one all that are not resolved |
//! | `POST /admin/escalations/{key}/acknowledge`, `…/resolve` | body `{actor, reason}`; 200 with the escalation |
//! | `GET /admin/systems` | `{now, systems: [{name, state, reason, since, next_probe_at, waiting}]}`; `state` is `closed`, `open` or `half_open`, `waiting` the number of steps parked |
//! | `POST /admin/systems/{name}/trip`, `…/reset` | body `{actor, reason}`; 200 with the system |
//! | `POST /admin/tasks/{id}/actions` | body `{action, step?, result?, context?, limit?, actor, reason, expects?}`; 200 `{task_id, state, version, repeated}` |
//! | `POST /admin/tasks/retry` | body `{name?, failed_step?, error_code?, before?, after?, limit?, actor, reason}`; 200 `{retried, refused}` |
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

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tasker::{TaskId, TaskQuery, TaskState, TaskSummary, Why};

use super::Web;
use super::error::ApiError;

/// The states in which a task waits for a person, or goes another way than it should.
const ATTENTION: [TaskState; 1] = [TaskState::Error];

const PAGE: usize = 25;
const LONGEST_PAGE: usize = 100;
/// In how many of the latest orders the degraded ones are looked for.
const LOOKED_THROUGH: usize = 1000;

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
            found.extend(degraded(&web).await?);
        }
        Some("degraded") => found = degraded(&web).await?,
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

/// Those that are complete although something failed.
async fn degraded(web: &Web) -> Result<Vec<TaskSummary>, ApiError> {
    let mut complete = in_state(web, TaskState::Complete, LOOKED_THROUGH).await?;
    complete.retain(|task| task.degraded);
    Ok(complete)
}
