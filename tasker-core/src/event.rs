//! What a process tells those who want to know: lifecycle events, after they are durable.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{broadcast, oneshot};

use crate::action::ActionKind;
use crate::history::{AfterFailure, Failure, Occurrence, Transition};
use crate::{Json, TaskId, TaskTemplate};

/// Something that this process did to a task, once it is stored.
///
/// Workers tell what they do, and a client what its operators do; nobody hears of other processes.
/// For logs, metrics and pages that move. A subscriber that is slow misses events (it is told how
/// many), and a crash loses those that were not handed out: what must happen is a step.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// The task.
    pub task: TaskId,
    /// Its kind, written `namespace/name@version`.
    pub task_type: String,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What an [`Event`] tells.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A worker has taken the task for the first time.
    TaskStarted,
    /// An attempt begins; the only event that nothing is stored for.
    StepStarted {
        /// The step.
        step: String,
        /// The number of the attempt.
        attempt: u32,
    },
    /// A step succeeded.
    StepCompleted {
        /// The step.
        step: String,
        /// The number of the attempt.
        attempt: u32,
        /// How long it ran.
        ran_for: Duration,
        /// What it returned.
        result: Json,
    },
    /// An attempt failed, for good or not; what follows is told next.
    StepFailed {
        /// The step.
        step: String,
        /// The number of the attempt.
        attempt: u32,
        /// How long it ran.
        ran_for: Duration,
        /// Why.
        failure: Failure,
    },
    /// A failed step will be attempted again, perhaps by its fallback handler.
    StepRetrying {
        /// The step.
        step: String,
        /// The number of the attempt that failed.
        attempt: u32,
        /// How long until the next one may start.
        retry_in: Duration,
        /// Whether the fallback handler takes over.
        fallback: bool,
    },
    /// A step has failed for good.
    StepExhausted {
        /// The step.
        step: String,
        /// The number of its last attempt.
        attempts: u32,
        /// Why the last attempt failed.
        failure: Failure,
    },
    /// A task needs a person.
    TaskEscalated {
        /// The step that failed for good; `None` if it is the task as a whole.
        step: Option<String>,
        /// How its last attempt failed.
        failure: Option<Failure>,
        /// Why, in words.
        reason: String,
    },
    /// Every step has ended.
    TaskCompleted {
        /// Whether an optional step failed or a fallback took over.
        degraded: bool,
    },
    /// The task has failed; an operator may retry it.
    TaskFailed,
    /// The task was cancelled.
    TaskCancelled,
    /// The task was put back to work.
    TaskRetried,
    /// A call that the task made found that a system is down: its breaker opened.
    SystemOpened {
        /// The system.
        system: String,
        /// Why, in words.
        reason: String,
    },
    /// A probe that the task made was the last that was asked for: the system's breaker closed.
    SystemClosed {
        /// The system.
        system: String,
    },
    /// What the steps of the task did is undone from here on.
    TaskCompensating,
    /// What the steps of the task did has been undone.
    TaskCompensated,
    /// What a step did has been undone.
    StepCompensated {
        /// The step.
        step: String,
        /// The number of the attempt; 0 if a person has done it.
        attempt: u32,
        /// How long it ran.
        ran_for: Duration,
    },
    /// An attempt to undo what a step did failed.
    StepCompensationFailed {
        /// The step.
        step: String,
        /// The number of the attempt.
        attempt: u32,
        /// How long it ran.
        ran_for: Duration,
        /// Why.
        failure: Failure,
        /// How long until the next one may start; `None` if there is to be none.
        retry_in: Option<Duration>,
    },
    /// An operator did something else to the task.
    TaskOperated {
        /// What.
        action: ActionKind,
        /// To which step, if to one.
        step: Option<String>,
    },
}

/// The events of one process, and who waits for the end of a task.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    ends: Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>,
}

/// Events kept for a slow subscriber before it misses some.
const BACKLOG: usize = 4096;

impl Events {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, ends: Mutex::default() }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Tells an event, which is made only if somebody listens.
    pub(crate) fn tell(
        &self,
        task: TaskId,
        template: &TaskTemplate,
        at: Timestamp,
        kind: impl FnOnce() -> EventKind,
    ) {
        if self.sender.receiver_count() > 0 {
            let task_type = template.task_type().to_string();
            // An error says that the last listener has just left.
            let _ = self.sender.send(Event { task, task_type, at, kind: kind() });
        }
    }

    /// Tells what a row of history says.
    pub(crate) fn tell_row(
        &self,
        task: TaskId,
        template: &TaskTemplate,
        at: Timestamp,
        row: &Transition,
    ) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        for kind in kinds(template, row) {
            self.tell(task, template, at, || kind);
        }
    }

    /// Waits for a worker of this process to see the task end.
    pub(crate) fn end_of(&self, task: TaskId) -> End<'_> {
        let (sender, receiver) = oneshot::channel();
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = ends.entry(task).or_default();
        waiting.retain(|other| !other.is_closed());
        waiting.push(sender);
        End { events: self, task, receiver }
    }

    /// Forgets those who wait no longer.
    fn stop_waiting(&self, task: TaskId) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = ends.get_mut(&task) {
            waiting.retain(|other| !other.is_closed());
            if waiting.is_empty() {
                ends.remove(&task);
            }
        }
    }

    /// Wakes those who wait for the end of a task.
    pub(crate) fn ended(&self, task: TaskId) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for waiting in ends.remove(&task).into_iter().flatten() {
            // Whoever waited may have gone.
            let _ = waiting.send(());
        }
    }
}

/// Waits for the end of one task; forgotten when it is dropped.
#[derive(Debug)]
pub(crate) struct End<'a> {
    events: &'a Events,
    task: TaskId,
    receiver: oneshot::Receiver<()>,
}

impl End<'_> {
    /// Resolves when the end was seen.
    pub(crate) async fn seen(&mut self) {
        // An error says that nobody will tell; then time tells.
        if (&mut self.receiver).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        self.events.stop_waiting(self.task);
    }
}

fn kinds(template: &TaskTemplate, row: &Transition) -> Vec<EventKind> {
    let step = || row.step.map(|step| template.step(step).name.clone()).unwrap_or_default();
    let (attempt, ran_for) = (row.attempt, row.ran_for);
    match &row.what {
        Occurrence::Completed { result } => {
            let result = result.clone();
            vec![EventKind::StepCompleted { step: step(), attempt, ran_for, result }]
        }
        Occurrence::Failed { failure, next } => {
            let failed = failure.clone();
            let failed = EventKind::StepFailed { step: step(), attempt, ran_for, failure: failed };
            let follows = match *next {
                AfterFailure::RetryIn(retry_in) => {
                    EventKind::StepRetrying { step: step(), attempt, retry_in, fallback: false }
                }
                AfterFailure::WaitForSystem => {
                    let retry_in = Duration::ZERO;
                    EventKind::StepRetrying { step: step(), attempt, retry_in, fallback: false }
                }
                AfterFailure::FallBack => {
                    let retry_in = Duration::ZERO;
                    EventKind::StepRetrying { step: step(), attempt, retry_in, fallback: true }
                }
                AfterFailure::GiveUp => {
                    let failure = failure.clone();
                    EventKind::StepExhausted { step: step(), attempts: attempt, failure }
                }
            };
            vec![failed, follows]
        }
        Occurrence::Quarantined { deliveries } => {
            let reason = format!("{deliveries} workers were lost with the task in a row");
            vec![EventKind::TaskEscalated { step: None, failure: None, reason }]
        }
        Occurrence::Compensated => {
            vec![EventKind::StepCompensated { step: step(), attempt, ran_for }]
        }
        Occurrence::CompensationFailed { failure, next } => {
            let (step, failure) = (step(), failure.clone());
            let retry_in = match *next {
                AfterFailure::RetryIn(retry_in) => Some(retry_in),
                AfterFailure::WaitForSystem | AfterFailure::FallBack => Some(Duration::ZERO),
                AfterFailure::GiveUp => None,
            };
            vec![EventKind::StepCompensationFailed { step, attempt, ran_for, failure, retry_in }]
        }
        Occurrence::Operated(operation) => match operation.action {
            ActionKind::Retry => vec![EventKind::TaskRetried],
            ActionKind::Cancel => vec![EventKind::TaskCancelled],
            action => {
                let step = operation.step.map(|step| template.step(step).name.clone());
                vec![EventKind::TaskOperated { action, step }]
            }
        },
        Occurrence::CompensationBegun => vec![EventKind::TaskCompensating],
        Occurrence::Reopened
        | Occurrence::Resolved { .. }
        | Occurrence::Skipped { .. }
        | Occurrence::LimitChanged { .. }
        | Occurrence::WorkerLost { .. } => Vec::new(),
    }
}
