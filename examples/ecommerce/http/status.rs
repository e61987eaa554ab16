//! `GET /order_status/:task_id`, for customers, and `GET /workflow_details/:task_id`, for whoever
//! looks after the shop.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tasker::history::Failure;
use tasker::{HistoryEntry, Progress, StepState, StepStatus, TaskId, TaskState, TaskStatus};

use super::error::ApiError;
use super::{OrderTask, Web};
use crate::checkout::{PaymentToken, redact};
use crate::handlers::PlacedOrder;
use crate::money::Money;

/// How an order stands.
#[derive(Debug, Serialize)]
pub(super) struct OrderStatus {
    status: &'static str,
    task_id: TaskId,
    #[serde(flatten)]
    stage: Stage,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Stage {
    Processing {
        current_step: Option<String>,
        progress: Progress,
        #[serde(skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_retry_at: Option<Timestamp>,
        /// A person holds it up.
        #[serde(skip_serializing_if = "is_false")]
        paused: bool,
        /// It has failed, and what was done for it is being undone.
        #[serde(skip_serializing_if = "is_false")]
        refunding: bool,
    },
    Completed {
        order_id: i64,
        order_number: String,
        total_amount: Money,
        redirect_url: String,
        degraded: bool,
    },
    Failed {
        failed_step: Option<String>,
        failed_steps: Vec<String>,
        error: Reason,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_url: Option<String>,
        /// What was done for it has been undone: nothing is charged.
        #[serde(skip_serializing_if = "is_false")]
        refunded: bool,
        /// A person has seen to it.
        #[serde(skip_serializing_if = "is_false")]
        resolved: bool,
    },
    Cancelled {},
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Debug, Serialize)]
struct Reason {
    code: String,
    message: String,
}

impl OrderStatus {
    /// The word for a task's state in the shop's answers.
    pub(super) const fn word(state: TaskState) -> &'static str {
        match state {
            TaskState::Pending
            | TaskState::InProgress
            | TaskState::Paused
            | TaskState::Compensating => "processing",
            TaskState::Complete => "completed",
            TaskState::Error | TaskState::Compensated | TaskState::ResolvedManually => "failed",
            TaskState::Cancelled => "cancelled",
        }
    }

    pub(super) fn of(task: &TaskStatus) -> Self {
        let stage = match task.state {
            TaskState::Pending
            | TaskState::InProgress
            | TaskState::Paused
            | TaskState::Compensating => processing(task),
            TaskState::Complete => completed(task).unwrap_or_else(|| failed(task)),
            TaskState::Error | TaskState::Compensated | TaskState::ResolvedManually => failed(task),
            TaskState::Cancelled => Stage::Cancelled {},
        };
        Self { status: Self::word(task.state), task_id: task.id, stage }
    }
}

fn processing(task: &TaskStatus) -> Stage {
    let current = task.current_step();
    Stage::Processing {
        current_step: current.map(|step| step.name.clone()),
        progress: task.progress,
        attempts: current.map(attempts).filter(|attempts| *attempts > 0),
        next_retry_at: current.and_then(|step| step.retry_at),
        paused: task.state == TaskState::Paused,
        refunding: task.state == TaskState::Compensating,
    }
}

/// Those at what the step is at: its work, or undoing that.
fn attempts(step: &StepStatus) -> u32 {
    step.compensation.as_ref().map_or(step.attempts, |undoing| undoing.attempts)
}

/// `None` if the order is not where this version of the shop looks for it.
fn completed(task: &TaskStatus) -> Option<Stage> {
    let order = task.step("create_order")?.result.as_ref()?;
    let PlacedOrder { order_id, order_number, total_amount } = order.to().ok()?;
    let redirect_url = format!("/orders/{order_id}");
    let degraded = task.degraded;
    Some(Stage::Completed { order_id, order_number, total_amount, redirect_url, degraded })
}

fn failed(task: &TaskStatus) -> Stage {
    let failed_steps: Vec<String> = task.failed_steps().map(|step| step.name.clone()).collect();
    let failure = task.failed_steps().find_map(|step| step.failure.clone());
    let error = failure.map_or_else(
        || Reason { code: "UNKNOWN".into(), message: "the order failed".into() },
        |Failure { code, message, .. }| Reason { code, message },
    );
    let resolved = task.state == TaskState::ResolvedManually;
    Stage::Failed {
        failed_step: failed_steps.first().cloned(),
        failed_steps,
        error,
        retry_url: (!resolved).then(|| format!("/retry_checkout/{}", task.id)),
        refunded: task.state == TaskState::Compensated,
        resolved,
    }
}

/// `GET /order_status/:task_id`
pub(super) async fn order_status(
    State(web): State<Web>,
    OrderTask(task_id): OrderTask,
) -> Result<Json<OrderStatus>, ApiError> {
    let task = web.tasker.status(task_id).await?.ok_or_else(ApiError::order_not_found)?;
    Ok(Json(OrderStatus::of(&task)))
}

/// A workflow as it stands, and how it got there.
#[derive(Serialize)]
pub(super) struct WorkflowDetails {
    task_id: TaskId,
    task_type: String,
    state: TaskState,
    degraded: bool,
    /// What an operator's action may say that it was decided on.
    version: u64,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
    progress: Progress,
    context: tasker::Json,
    /// Why it is not complete, and its steps are not.
    why: Option<tasker::Json>,
    steps: Vec<StepDetails>,
    history: Vec<HistoryEntry>,
}

#[derive(Serialize)]
struct StepDetails {
    #[serde(flatten)]
    status: StepStatus,
    readiness: Readiness,
}

/// Why a step may run, or may not.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// The steps that it waits for.
    waits_for: Vec<String>,
    /// The time that it waits for.
    not_before: Option<Timestamp>,
}

/// `GET /workflow_details/:task_id`
pub(super) async fn workflow_details(
    State(web): State<Web>,
    OrderTask(task_id): OrderTask,
) -> Result<Json<WorkflowDetails>, ApiError> {
    let mut task = web.tasker.status(task_id).await?.ok_or_else(ApiError::order_not_found)?;
    let mut history = web.tasker.history(task_id).await?.unwrap_or_default();
    let why = web.tasker.why(task_id).await?;
    let mut why = why.and_then(|why| tasker::Json::of(&why).ok());
    conceal(&mut task, &mut history, why.as_mut());
    let details =
        |step: &StepStatus| StepDetails { status: step.clone(), readiness: readiness(&task, step) };
    Ok(Json(WorkflowDetails {
        task_id,
        task_type: task.task_type.to_string(),
        state: task.state,
        degraded: task.degraded,
        version: task.version,
        created_at: task.created_at,
        ended_at: task.ended_at,
        progress: task.progress,
        context: task.context.clone(),
        why,
        steps: task.steps.iter().map(details).collect(),
        history,
    }))
}

/// Takes the payment token out of all that a customer or an operator may have written it into, and
/// so the one that an operator's edit replaced.
fn conceal(task: &mut TaskStatus, history: &mut [HistoryEntry], why: Option<&mut tasker::Json>) {
    let mut tokens = Vec::from_iter(hide(&mut task.context));
    let (mut reasons, mut results) = (Vec::new(), Vec::from_iter(why));
    results.extend(task.steps.iter_mut().filter_map(|step| step.result.as_mut()));
    for entry in history {
        reasons.extend(entry.reason.as_mut());
        for aspect in [&mut entry.before, &mut entry.after].into_iter().flatten() {
            tokens.extend(aspect.context.as_mut().and_then(hide));
            results.extend(aspect.result.as_mut());
            results.extend(aspect.context.as_mut());
        }
    }
    results.push(&mut task.context);
    for token in &tokens {
        reasons.iter_mut().for_each(|reason| token.redact_from(reason));
        for document in &mut results {
            let stored: Value = document.to().unwrap_or_default();
            let mut shown = stored.clone();
            token.redact_from_all(&mut shown);
            // As it was written, if there was nothing to hide.
            if shown != stored {
                **document = shown.into();
            }
        }
    }
}

/// Takes the payment token out of a context; one that cannot be read is not shown at all.
fn hide(context: &mut tasker::Json) -> Option<PaymentToken> {
    let mut value: Value = context.to().unwrap_or_default();
    let token = redact(&mut value);
    *context = value.into();
    token
}

fn readiness(task: &TaskStatus, step: &StepStatus) -> Readiness {
    let open = |parent: &&String| {
        step.state == StepState::Blocked
            && task.step(parent).is_some_and(|parent| parent.state != StepState::Complete)
    };
    Readiness {
        ready: step.state == StepState::Ready && step.retry_at.is_none(),
        waits_for: step.depends_on.iter().filter(open).cloned().collect(),
        not_before: step.retry_at,
    }
}
