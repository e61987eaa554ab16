//! A task as people and pages see it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

#[cfg(doc)]
use crate::ActionKind;
use crate::decide;
use crate::history::{AfterFailure, Aspect, Author, Failure, Occurrence, Operation, Recorded};
use crate::snapshot::{Outcome, Snapshot};
use crate::store::StoredTask;
use crate::{Json, Priority, StepIndex, StepState, StepTemplate, TaskId, TaskState, TaskType};

/// Where a task and each of its steps stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The task.
    pub id: TaskId,
    /// Its kind.
    pub task_type: TaskType,
    /// How urgent it is.
    pub priority: Priority,
    /// Its state.
    pub state: TaskState,
    /// Whether an optional step failed, a fallback took over or an operator skipped a step; so far,
    /// while it runs. Never of a cancelled task.
    pub degraded: bool,
    /// Its input, as an operator last edited it.
    pub context: Json,
    /// Counts claims, releases, ends and operators' actions.
    pub version: u64,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it last ended.
    pub ended_at: Option<Timestamp>,
    /// How far it is.
    pub progress: Progress,
    /// Its steps, in the order of the template.
    pub steps: Vec<StepStatus>,
}

/// How many steps have succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Steps that are complete, or whose result an operator gave.
    pub completed: usize,
    /// All steps.
    pub total: usize,
    /// The one as a part of the other, in whole per cent, rounded down.
    pub percentage: u8,
}

/// Where a step stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The name of its handler.
    pub handler: String,
    /// The steps that it waits for.
    pub depends_on: Vec<String>,
    /// The outside system that it calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependent_system: Option<String>,
    /// Its state.
    pub state: StepState,
    /// Whether it failed for good; stays so when what it may have done is undone.
    pub failed: bool,
    /// Attempts that have ended.
    pub attempts: u32,
    /// Those of them that count against the limit: an operator's retry starts a new count.
    pub attempts_counted: u32,
    /// The most attempts of one count, the first included.
    pub retry_limit: u32,
    /// While it waits for a retry: when that may start.
    pub retry_at: Option<Timestamp>,
    /// When its latest attempt that has ended began; of those to undo it, if there are any.
    pub started_at: Option<Timestamp>,
    /// When that attempt ended.
    pub ended_at: Option<Timestamp>,
    /// What it returned.
    pub result: Option<Json>,
    /// How its latest attempt failed; `None` once one has succeeded.
    pub failure: Option<Failure>,
    /// How far it is undone, if that is to be done or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CompensationStatus>,
}

/// How far a step is undone.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CompensationStatus {
    /// The name of the handler that undoes it.
    pub handler: String,
    /// Attempts that have ended.
    pub attempts: u32,
    /// Those of them that count against the limit, which is the step's.
    pub attempts_counted: u32,
    /// How the latest of them failed; `None` once one has succeeded.
    pub failure: Option<Failure>,
}

/// One line of a task's history.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened: `submitted`, then for steps `completed`, `failed`, `reopened`, `resolved`,
    /// `skipped`, `limit_changed`, `compensated` and `compensation_failed`, for the task what an
    /// operator did ([`ActionKind::participle`]), `worker_lost`, `quarantined`,
    /// `compensation_begun`, and at the end `task_complete`, `task_error` or
    /// `task_compensated`.
    pub event: &'static str,
    /// The step that it happened to; `None` for the task itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The number of the attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How long the attempt ran, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<f64>,
    /// Who recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// Why an attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// After a failure, when the next attempt may start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// What an operator gave as a reason, or a remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the operator changed: as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Aspect>,
    /// And as it was from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Aspect>,
    /// What tells a repetition of the operator's order from another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl TaskStatus {
    /// The status of a task that a store read back.
    pub fn of(stored: &StoredTask) -> Self {
        let task = Snapshot::replay(stored);
        let mut latest = vec![None; task.steps().len()];
        for row in &stored.rows {
            if let Some(step) = row.transition.step.filter(|_| row.transition.attempt > 0) {
                latest[step.get()] = Some(row);
            }
        }
        // A step that may run, of a task that a worker owns: it runs, or will in a moment.
        let owned = stored.owner.is_some();
        let steps: Vec<_> = (0u32..)
            .map(StepIndex)
            .zip(task.template().steps())
            .map(|(index, template)| {
                let due = task.step(index).ready_at().is_none_or(|at| at <= stored.now);
                let running = owned && due && !task.has_failed();
                step_status(&task, index, template, latest[index.get()], running)
            })
            .collect();
        let succeeded = |state| matches!(state, StepState::Complete | StepState::ResolvedManually);
        let completed = steps.iter().filter(|step| succeeded(step.state)).count();
        let total = steps.len();
        let percentage = u8::try_from(completed * 100 / total.max(1)).unwrap_or(100);
        Self {
            id: stored.id,
            task_type: task.template().task_type().clone(),
            priority: stored.priority,
            state: stored.state,
            degraded: task.degraded(),
            context: task.context().clone(),
            version: stored.version,
            created_at: stored.created_at,
            ended_at: stored.ended_at,
            progress: Progress { completed, total, percentage },
            steps,
        }
    }

    /// The step with a name.
    pub fn step(&self, name: &str) -> Option<&StepStatus> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The step that the task is at: one that runs, else one that waits for its retry or its turn,
    /// else one that is to be undone.
    pub fn current_step(&self) -> Option<&StepStatus> {
        let first = |state| self.steps.iter().find(move |step| step.state == state);
        first(StepState::InProgress)
            .or_else(|| first(StepState::Ready))
            .or_else(|| first(StepState::Compensating))
    }

    /// The steps that failed for good, undone since or not.
    pub fn failed_steps(&self) -> impl Iterator<Item = &StepStatus> {
        self.steps.iter().filter(|step| step.failed)
    }
}

fn step_status(
    task: &Snapshot,
    index: StepIndex,
    template: &StepTemplate,
    latest: Option<&Recorded>,
    running: bool,
) -> StepStatus {
    let step = task.step(index);
    let state = match step.state() {
        StepState::Ready if running => StepState::InProgress,
        state => state,
    };
    let (attempts, attempts_counted, failure) = step.forward();
    let handler = decide::handler_of(task, index).to_owned();
    let (handler, compensation) = match step.is_undoing() {
        false => (handler, None),
        true => {
            let (attempts, attempts_counted) = (step.next_attempt() - 1, step.counted());
            let failure = step.failure().cloned();
            let undone = CompensationStatus { handler, attempts, attempts_counted, failure };
            (template.handler.clone(), Some(undone))
        }
    };
    StepStatus {
        name: template.name.clone(),
        description: template.description.clone(),
        handler,
        depends_on: template.depends_on.clone(),
        dependent_system: template.dependent_system.clone(),
        state,
        failed: step.outcome() == Outcome::Failed,
        attempts,
        attempts_counted,
        retry_limit: task.retry_limit(index),
        retry_at: step
            .ready_at()
            .filter(|_| matches!(state, StepState::Ready | StepState::Compensating)),
        started_at: latest.and_then(Recorded::began_at),
        ended_at: latest.map(|row| row.at),
        result: task.result(index).cloned(),
        failure: failure.cloned(),
        compensation,
    }
}

/// The history of a task that a store read back, oldest first.
pub(crate) fn history(stored: &StoredTask) -> Vec<HistoryEntry> {
    let blank = |at, event| HistoryEntry {
        at,
        event,
        step: None,
        attempt: None,
        ran_ms: None,
        author: None,
        failure: None,
        retry_at: None,
        reason: None,
        before: None,
        after: None,
        key: None,
    };
    let mut entries = vec![blank(stored.created_at, "submitted")];
    let mut rows: Vec<_> = stored.rows.iter().collect();
    // The failure that made it begin is recorded with it, and is told first.
    let follows = |row: &Recorded| matches!(row.transition.what, Occurrence::CompensationBegun);
    rows.sort_by_key(|row| (row.at, follows(row), row.transition.step, row.transition.seq));
    // The latest end that there is an entry of: several actions may follow one.
    let mut told = None;
    for row in rows {
        let Recorded { at, author, transition } = row;
        let mut entry = blank(*at, transition.what.kind());
        entry.author = Some(author.clone());
        entry.step = transition.step.map(|step| stored.template.step(step).name.clone());
        if transition.attempt > 0 {
            entry.attempt = Some(transition.attempt);
            entry.ran_ms = Some(millis(transition.ran_for));
        }
        match &transition.what {
            Occurrence::Failed { failure, next }
            | Occurrence::CompensationFailed { failure, next } => {
                entry.failure = Some(failure.clone());
                entry.retry_at = match next {
                    AfterFailure::RetryIn(wait) => at.checked_add(*wait).ok(),
                    AfterFailure::WaitForSystem | AfterFailure::FallBack | AfterFailure::GiveUp => {
                        None
                    }
                };
            }
            Occurrence::Operated(operation) => {
                let Operation { step, reason, key, ended_at, before, after, .. } = &**operation;
                entry.step = step.map(|step| stored.template.step(step).name.clone());
                entry.reason = Some(reason.clone());
                entry.key = key.as_ref().map(|key| key.key.clone());
                entry.before = Some(before.clone());
                entry.after = Some(after.clone());
                let ended = ended_at.filter(|at| told != Some((*at, before.state)));
                told = ended.map(|at| (at, before.state)).or(told);
                entries.extend(ended.zip(end_of(before.state)).map(|(at, event)| blank(at, event)));
            }
            Occurrence::WorkerLost { worker } => {
                entry.reason = Some(format!("worker {worker} gave no sign of life"));
            }
            Occurrence::Quarantined { deliveries } => {
                entry.reason = Some(format!("{deliveries} workers were lost with it in a row"));
            }
            Occurrence::Skipped { .. }
            | Occurrence::LimitChanged { .. }
            | Occurrence::Completed { .. }
            | Occurrence::Resolved { .. }
            | Occurrence::Reopened
            | Occurrence::Compensated
            | Occurrence::CompensationBegun => {}
        }
        entries.push(entry);
    }
    let ended = stored.ended_at.filter(|at| told != Some((*at, stored.state)));
    entries.extend(ended.zip(end_of(stored.state)).map(|(at, event)| blank(at, event)));
    entries
}

/// What the history says of a task that ended by itself.
const fn end_of(state: TaskState) -> Option<&'static str> {
    match state {
        TaskState::Complete => Some("task_complete"),
        TaskState::Error => Some("task_error"),
        TaskState::Compensated => Some("task_compensated"),
        // An operator ended it, or nothing has.
        TaskState::Cancelled
        | TaskState::ResolvedManually
        | TaskState::Pending
        | TaskState::InProgress
        | TaskState::Paused
        | TaskState::Compensating => None,
    }
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
