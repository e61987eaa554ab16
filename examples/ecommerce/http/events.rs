//! `GET /order_status/:task_id/events`: an order as it moves, as server-sent events.
//!
//! Events of this process make it quick and asking a few times a second makes it right: the worker
//! may be another process, or the shop may have been started anew.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use serde::Serialize;
use tasker::{Event, StepCause, StepState, StepStatus, StepWhy, TaskId, TaskStatus, Tasker};
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::status::OrderStatus;
use super::{OrderTask, Web};

const POLL: Duration = Duration::from_millis(300);
/// A browser that is cut off asks again, so that this bounds a stream and not a visit.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// An order as the storefront shows it.
#[derive(Serialize)]
struct Moving {
    #[serde(flatten)]
    order: OrderStatus,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    name: String,
    description: Option<String>,
    state: StepState,
    attempts: u32,
    retry_limit: u32,
    retry_at: Option<Timestamp>,
    took_ms: Option<i64>,
    failure: Option<String>,
    code: Option<String>,
    /// Whether it waits until a system that it depends on is well again.
    waits_for_system: bool,
}

#[derive(Serialize)]
struct Sent<'a> {
    /// By the shop's clock, so that a countdown is right where the browser's clock is not.
    now: Timestamp,
    order: &'a Moving,
}

struct Watcher {
    tasker: Tasker,
    task: TaskId,
    events: broadcast::Receiver<Event>,
    closing: CancellationToken,
    until: Instant,
    shown: String,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn watch(
    State(web): State<Web>,
    OrderTask(task): OrderTask,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, ApiError> {
    let crowded = |_| ApiError::unavailable("Too many orders are being watched");
    let _place = web.watchers.try_acquire_owned().map_err(crowded)?;
    let events = web.tasker.events();
    web.tasker.status(task).await?.ok_or_else(ApiError::order_not_found)?;
    let watcher = Watcher {
        tasker: web.tasker,
        task,
        events,
        closing: web.closing,
        until: Instant::now() + LONGEST,
        shown: String::new(),
        ended: false,
        _place,
    };
    let messages = stream::unfold(watcher, async |mut watcher| {
        let message = watcher.next().await?;
        Some((Ok(message), watcher))
    });
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))))
}

impl Watcher {
    /// The next change, or `None` when there is nothing more to see.
    async fn next(&mut self) -> Option<Message> {
        while !self.ended {
            // A store that does not answer will: the customer keeps seeing what was seen last.
            if let Ok(task) = self.tasker.status(self.task).await {
                let task = task?;
                self.ended = task.state.is_terminal();
                let order = Moving::of(&task, &self.waiting(&task).await);
                let shown = serde_json::to_string(&order).ok()?;
                if shown != self.shown {
                    self.shown = shown;
                    let sent = Sent { now: Timestamp::now(), order: &order };
                    return Message::default().json_data(sent).ok();
                }
            }
            self.wait().await?;
        }
        None
    }

    /// The steps that wait for a system: asked only of an order that seems to stand still.
    async fn waiting(&self, task: &TaskStatus) -> Vec<String> {
        let still = |step: &&StepStatus| {
            matches!(step.state, StepState::Ready | StepState::Compensating)
                && step.retry_at.is_none()
        };
        if self.ended || task.current_step().filter(still).is_none() {
            return Vec::new();
        }
        let why = self.tasker.why(self.task).await.ok().flatten();
        let steps = why.into_iter().flat_map(|why| why.steps);
        let waits = |step: &StepWhy| matches!(step.cause, StepCause::WaitsForSystem(_));
        steps.filter(waits).map(|step| step.step).collect()
    }

    async fn wait(&mut self) -> Option<()> {
        let next_poll = Instant::now() + POLL;
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep_until(next_poll) => return Some(()),
                event = self.events.recv() => match event {
                    Ok(event) if event.task != self.task => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return Some(()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

impl Moving {
    fn of(task: &TaskStatus, waiting: &[String]) -> Self {
        let steps = task.steps.iter().map(|step| Step {
            name: step.name.clone(),
            description: step.description.clone(),
            state: step.state,
            attempts: step.attempts_counted,
            retry_limit: step.retry_limit,
            retry_at: step.retry_at,
            took_ms: step
                .started_at
                .zip(step.ended_at)
                .map(|(start, end)| end.duration_since(start).as_millis() as i64),
            failure: step.failure.as_ref().map(|failure| failure.message.clone()),
            code: step.failure.as_ref().map(|failure| failure.code.clone()),
            waits_for_system: waiting.contains(&step.name),
        });
        Self { order: OrderStatus::of(task), steps: steps.collect() }
    }
}
