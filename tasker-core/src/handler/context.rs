//! What a step knows while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::completion::{Completion, Output};
use super::{StepError, StepOutput, StepResult};
use crate::decide::Begun;
use crate::history::{Author, unstorable};
use crate::snapshot::Results;
use crate::{Json, StepIndex, StepTemplate, TaskId, TaskTemplate, TaskType, WorkerId};

/// One attempt at a step: its input, its name, its time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StepContext {
    input: Arc<StepInput>,
}

/// What an attempt is given.
#[derive(Debug)]
pub(crate) struct StepInput {
    pub(crate) task: TaskId,
    pub(crate) template: Arc<TaskTemplate>,
    pub(crate) step: StepIndex,
    pub(crate) context: Json,
    /// The results of the whole task; the step may see those that it rests on.
    pub(crate) results: Results,
    pub(crate) attempt: u32,
    pub(crate) attempts_left: u32,
    /// Whether the attempt is to undo what the step did.
    pub(crate) undoes: bool,
    /// How often what it does was undone before.
    pub(crate) round: u32,
    pub(crate) cancellation: CancellationToken,
    pub(crate) time: AttemptTime,
    pub(crate) key: OnceLock<String>,
    /// Who makes the attempt, and what recording its end assumes.
    pub(crate) worker: WorkerId,
    pub(crate) begun: Begun,
    pub(crate) max_result_bytes: usize,
}

/// When an attempt began and when it times out; heartbeats move the end.
#[derive(Debug)]
pub(crate) struct AttemptTime {
    began: Instant,
    /// Nanoseconds after the beginning.
    ends: AtomicU64,
}

impl AttemptTime {
    pub(crate) fn from_now(timeout: Duration) -> Self {
        Self { began: Instant::now(), ends: AtomicU64::new(nanos(timeout)) }
    }

    pub(crate) fn extend(&self, timeout: Duration) {
        let ends = nanos(self.began.elapsed().saturating_add(timeout));
        self.ends.store(ends, Ordering::Relaxed);
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.began + Duration::from_nanos(self.ends.load(Ordering::Relaxed))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// At most some 290 years, so that adding it to an instant does not overflow.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

impl StepContext {
    pub(crate) fn new(input: Arc<StepInput>) -> Self {
        Self { input }
    }

    /// The task that the step belongs to.
    pub fn task_id(&self) -> TaskId {
        self.input.task
    }

    /// The kind of that task.
    pub fn task_type(&self) -> &TaskType {
        self.input.template.task_type()
    }

    /// The name of the step.
    pub fn step_name(&self) -> &str {
        &self.template().name
    }

    /// A key that is the same on every attempt of this step of this task, and no other's.
    ///
    /// Hand it to whatever the step changes outside, so that a second delivery changes nothing. It
    /// stays the same for the step's fallback handler and for attempts after an operator's retry: a
    /// provider that remembers a refusal by its key needs another one for those. The compensation of
    /// a step has a key of its own, and what runs again after it was undone has new ones. Its form
    /// may change; do not take it apart.
    pub fn idempotency_key(&self) -> &str {
        let StepInput { task, undoes, round, key, .. } = &*self.input;
        key.get_or_init(|| match (undoes, round) {
            (false, _) => self.forward_key(),
            (true, 0) => format!("{task}/undo:{}", self.step_name()),
            (true, round) => format!("{task}/undo{round}:{}", self.step_name()),
        })
    }

    /// While it undoes: the [key](Self::idempotency_key) that the attempts had whose effect is to be
    /// undone; `None` for an attempt that does not undo.
    pub fn undone_key(&self) -> Option<String> {
        self.input.undoes.then(|| self.forward_key())
    }

    fn forward_key(&self) -> String {
        let StepInput { task, round, .. } = &*self.input;
        // The character after the task's id, which has a fixed length, tells the forms apart.
        match round {
            0 => format!("{task}:{}", self.step_name()),
            round => format!("{task}/{round}:{}", self.step_name()),
        }
    }

    /// Whether the attempt is to undo what the step did, or may have done: the handler is the one
    /// that the template names as `compensate_with`.
    ///
    /// It cannot rely on anything having been done: an attempt whose answer was lost counts as one
    /// that may have had its effect. Nothing to undo is a success.
    pub fn is_compensation(&self) -> bool {
        self.input.undoes
    }

    /// While it is undone: the step's own result, as it or an operator gave it; `None` if it is not
    /// known to have succeeded, and always for an attempt that does not undo.
    ///
    /// # Errors
    /// `INVALID_RESULT`, permanent: it does not have the shape of `T`.
    pub fn own_result<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        if !self.input.undoes {
            return Ok(None);
        }
        self.read_result(self.input.step, self.step_name())
    }

    /// The number of this attempt, from 1, going on after an operator's retry.
    ///
    /// At most one outcome is recorded for each number. An attempt that was cut off by a crash or
    /// handed back by a shutdown is made again under the same number: to recognise a repetition,
    /// use the [idempotency key](Self::idempotency_key).
    pub fn attempt(&self) -> u32 {
        self.input.attempt
    }

    /// How many attempts may follow if this one fails retryably.
    pub fn attempts_left(&self) -> u32 {
        self.input.attempts_left
    }

    /// The input of the task.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`, permanent: it does not have the shape of `T`; the message names the field.
    pub fn context<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        self.input.context.to().map_err(|error| {
            let fault = shape_fault(&error);
            StepError::permanent("INVALID_CONTEXT", format!("the task's context: {fault}"))
        })
    }

    /// The result of a step that this one rests on, directly or through others.
    ///
    /// # Errors
    /// Permanent: `UNKNOWN_STEP` if this step does not rest on one of that name, `NO_RESULT` if it
    /// failed or was skipped and the task went on without it, `INVALID_RESULT` if its result does not have the
    /// shape of `T`.
    pub fn result_of<T: DeserializeOwned>(&self, step: &str) -> Result<T, StepError> {
        self.optional_result_of(step)?.ok_or_else(|| {
            let message = format!("step `{step}` failed or was skipped and left no result");
            StepError::permanent("NO_RESULT", message)
        })
    }

    /// The result of a step that this one rests on; `None` if it failed or was skipped and the task
    /// went on.
    ///
    /// # Errors
    /// As [`result_of`](Self::result_of), but for `NO_RESULT`.
    pub fn optional_result_of<T: DeserializeOwned>(
        &self,
        step: &str,
    ) -> Result<Option<T>, StepError> {
        let input = &self.input;
        let rests_on = |index: &StepIndex| input.template.dag().rests_on(input.step, *index);
        let Some(index) = input.template.index_of(step).filter(rests_on) else {
            let message = format!("step `{}` does not depend on a step `{step}`", self.step_name());
            return Err(StepError::permanent("UNKNOWN_STEP", message));
        };
        self.read_result(index, step)
    }

    fn read_result<T: DeserializeOwned>(
        &self,
        index: StepIndex,
        step: &str,
    ) -> Result<Option<T>, StepError> {
        let Some(result) = self.input.results.get(index) else { return Ok(None) };
        result.to().map(Some).map_err(|error| {
            let message = format!("the result of step `{step}`: {}", shape_fault(&error));
            StepError::permanent("INVALID_RESULT", message)
        })
    }

    /// The step's `handler_config`; an absent one reads as `null`.
    ///
    /// # Errors
    /// `INVALID_CONFIG`, permanent: it does not have the shape of `T`.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        self.template().config.clone().unwrap_or_else(Json::null).to().map_err(|error| {
            let message = format!("the handler_config: {}", shape_fault(&error));
            StepError::permanent("INVALID_CONFIG", message)
        })
    }

    /// When the attempt times out, unless a heartbeat comes first.
    pub fn deadline(&self) -> Instant {
        self.input.time.deadline()
    }

    /// Cancelled when the attempt is no longer wanted: its task was cancelled, its worker lost its
    /// lease, or a shutdown's grace is over. The future is dropped soon after.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.input.cancellation
    }

    /// Says that the attempt is alive: its time-out starts anew.
    ///
    /// # Errors
    /// `CANCELLED`: the attempt is no longer wanted. Return; nothing will be recorded.
    pub fn heartbeat(&self) -> Result<(), StepError> {
        if self.input.cancellation.is_cancelled() {
            return Err(
                StepError::retryable("the attempt is no longer wanted").with_code("CANCELLED")
            );
        }
        self.input.time.extend(self.template().timeout);
        Ok(())
    }

    /// Ends the step with a result.
    ///
    /// # Errors
    /// `UNSERIALIZABLE_RESULT`, permanent: the result has no JSON form.
    pub fn complete<T: Serialize + ?Sized>(&self, result: &T) -> StepResult {
        Json::of(result).map(StepOutput::from).map_err(|error| {
            let message = format!("the result has no JSON form: {error}");
            StepError::permanent("UNSERIALIZABLE_RESULT", message)
        })
    }

    /// The success of this attempt, for a handler that records it itself, in a transaction of its
    /// own with the tasks' database; measured up to now.
    ///
    /// [`Completion`] says what to do with it.
    ///
    /// # Errors
    /// The output, as it was handed in: it cannot be stored, because it is too large or has a NUL
    /// character, or the handler has recorded it already. Undo the work, and return the output: the
    /// worker then fails the step, as it does for every handler.
    pub fn completion(&self, output: StepOutput) -> Result<Completion, StepOutput> {
        let input = &self.input;
        let Output::Result(result) = &output.0 else { return Err(output) };
        if unstorable(result, input.max_result_bytes).is_some() {
            return Err(output);
        }
        let row = input.begun.success(input.time.elapsed(), result.clone());
        Ok(Completion::new(Author::Worker(input.worker), input.begun, row))
    }

    fn template(&self) -> &StepTemplate {
        self.input.template.step(self.input.step)
    }
}

/// What is wrong with a document's shape, without quoting it: it may hold a secret.
fn shape_fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!("line {} column {}", error.line(), error.column());
    // serde quotes field names in backticks, and offending values in quotes or plain.
    let named = |prefix| message.starts_with(prefix);
    if named("missing field") || named("unknown field") {
        return message;
    }
    let expected = message.rsplit_once("expected ").map(|(_, expected)| expected);
    match expected {
        Some(expected) => format!("expected {expected}"),
        None => format!("it does not have the expected shape ({place})"),
    }
}
