//! What a person does to an order, or to many.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tasker::decide::Refused;
use tasker::{
    Action, ActionForm, ActionKind, ContextFault, OperateError, RetryFilter, TaskId, TaskQuery,
    TaskState, TaskStatus,
};

use super::super::body::{Body, idempotency_key};
use super::super::error::{ApiError, Detail};
use super::super::{OrderTask, Web};
use super::{invalid, operator};
use crate::checkout::restore;

/// An action as it is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Asked {
    action: ActionKind,
    step: Option<String>,
    #[serde(default, deserialize_with = "given")]
    result: Option<tasker::Json>,
    #[serde(default, deserialize_with = "given")]
    context: Option<tasker::Json>,
    limit: Option<u32>,
    actor: String,
    reason: String,
    expects: Option<u64>,
}

/// `null` is a result like any other.
fn given<'de, D>(deserializer: D) -> Result<Option<tasker::Json>, D::Error>
where
    D: Deserializer<'de>,
{
    tasker::Json::deserialize(deserializer).map(Some)
}

#[derive(Serialize)]
pub(in super::super) struct Done {
    task_id: TaskId,
    state: TaskState,
    version: u64,
    /// Whether it had been done before, under the same key.
    repeated: bool,
}

/// `POST /admin/tasks/:task_id/actions`
pub(in super::super) async fn act(
    State(web): State<Web>,
    OrderTask(task_id): OrderTask,
    headers: HeaderMap,
    Body(asked): Body<Asked>,
) -> Result<Json<Done>, ApiError> {
    let key = idempotency_key(&headers)?;
    let Asked { action, step, result, context, limit, actor, reason, expects } = asked;
    let mut operator = operator(&actor, &reason)?;
    operator.expects = expects;
    let form = ActionForm { action, step, result, context, limit };
    let mut action = Action::try_from(form).map_err(|fault| invalid(fault.to_string()))?;
    if let Action::EditContext { context } = &mut action {
        let task = web.tasker.status(task_id).await?.ok_or_else(ApiError::order_not_found)?;
        let read = |context: &tasker::Json| context.to::<Value>().unwrap_or_default();
        let mut edited = read(context);
        restore(&mut edited, &read(&task.context));
        *context = edited.into();
    }
    let mut repeated = false;
    if let Some(key) = key {
        let history = web.tasker.history(task_id).await?.unwrap_or_default();
        repeated = history.iter().any(|entry| entry.key.as_ref() == Some(&key));
        operator = operator.once(key);
    }
    let TaskStatus { state, version, .. } = web.tasker.operate(task_id, action, &operator).await?;
    Ok(Json(Done { task_id, state, version, repeated }))
}

/// Which orders to retry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Filter {
    failed_step: Option<String>,
    error_code: Option<String>,
    before: Option<Timestamp>,
    after: Option<Timestamp>,
    limit: Option<usize>,
    actor: String,
    reason: String,
}

#[derive(Serialize)]
pub(in super::super) struct Retried {
    retried: usize,
    refused: Vec<NotRetried>,
}

#[derive(Serialize)]
struct NotRetried {
    task_id: TaskId,
    error: String,
}

/// So many are retried unless the request says otherwise, and at most.
const RETRIED: usize = 100;

/// `POST /admin/tasks/retry`
pub(in super::super) async fn retry_many(
    State(web): State<Web>,
    headers: HeaderMap,
    Body(filter): Body<Filter>,
) -> Result<Json<Retried>, ApiError> {
    let mut operator = operator(&filter.actor, &filter.reason)?;
    operator.key = idempotency_key(&headers)?;
    let most = filter.limit.unwrap_or(RETRIED).min(RETRIED);
    let mut done = Retried { retried: 0, refused: Vec::new() };
    for state in [TaskState::Error, TaskState::Compensated] {
        let mut wanted = filter.of(state);
        loop {
            // No more than are still to be retried are looked at: all of them may fit.
            wanted.tasks.limit = most.saturating_sub(done.retried + done.refused.len());
            if wanted.tasks.limit == 0 {
                return Ok(Json(done));
            }
            let page = web.tasker.retry_all(&wanted, &operator).await?;
            for (task_id, outcome) in page.outcomes {
                match outcome {
                    Ok(()) => done.retried += 1,
                    Err(OperateError::Store(error)) => return Err(error.into()),
                    Err(error) => {
                        done.refused.push(NotRetried { task_id, error: error.to_string() });
                    }
                }
            }
            wanted.tasks.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
    }
    Ok(Json(done))
}

impl Filter {
    fn of(&self, state: TaskState) -> RetryFilter {
        RetryFilter {
            tasks: TaskQuery { state: Some(state), ..TaskQuery::default() },
            failed_step: self.failed_step.clone(),
            error_code: self.error_code.clone(),
            from: self.after,
            until: self.before,
        }
    }
}

impl From<OperateError> for ApiError {
    fn from(error: OperateError) -> Self {
        let refused = match error {
            OperateError::NotFound(_) => return Self::order_not_found(),
            OperateError::Contended => return Self::unavailable("The order is moving, try again"),
            OperateError::Store(error) => return error.into(),
            OperateError::Refused(refused) => refused,
        };
        let status = match &refused {
            Refused::UnknownStep { .. } => StatusCode::NOT_FOUND,
            Refused::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Refused::InvalidContext(faults) => {
                let told = |fault: &ContextFault| Detail {
                    path: fault.pointer.clone(),
                    message: fault.message.clone(),
                };
                return Self::invalid_checkout(faults.iter().map(told).collect());
            }
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refused.to_string())
    }
}
