//! From a request to a stored task.

use std::time::Duration;

use serde::Serialize;
use tracing::warn;

use super::Tasker;
use crate::engine::Shared;
use crate::handler::Refusal;
use crate::registry::Found;
use crate::snapshot::Snapshot;
use crate::store::{Created, NewTask, StoreError, input_digest};
use crate::template::ContextFault;
use crate::{Json, Priority, TaskId};
use std::sync::Arc;

/// A task that somebody wants run.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    task: String,
    context: Json,
    idempotency_key: Option<String>,
    delay: Duration,
    priority: Priority,
}

/// The most bytes that an idempotency key may have.
const MAX_KEY: usize = 255;

impl TaskRequest {
    /// A request for a task, by `name`, `namespace/name` or `namespace/name@version`; of several
    /// registered versions the highest is taken. A bare `name` must be registered in one namespace
    /// only.
    ///
    /// # Errors
    /// The context has no JSON form.
    pub fn new<C: Serialize + ?Sized>(
        task: impl Into<String>,
        context: &C,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            task: task.into(),
            context: Json::of(context)?,
            idempotency_key: None,
            delay: Duration::ZERO,
            priority: Priority::Normal,
        })
    }

    /// Makes a repeated submission answer with the first task: same key and same context for the
    /// same namespace and name of task.
    ///
    /// The contexts are compared as they are stored, after [`TaskHandler::prepare`]; one that
    /// changes from call to call makes every repetition a conflict.
    ///
    /// [`TaskHandler::prepare`]: crate::TaskHandler::prepare
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Lets nothing of the task start earlier than this from now.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says how urgent the task is, from its submission to its end; normal if nobody says.
    ///
    /// Urgent tasks are handed out before others that wait for a worker; what runs already goes on.
    /// A repetition with the same idempotency key leaves the first task its priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// A task that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its name.
    pub id: TaskId,
    /// Whether an earlier submission with the same idempotency key had stored it.
    pub already_existed: bool,
}

impl Receipt {
    /// What a store's answer means for whoever wanted the task stored.
    ///
    /// # Errors
    /// [`SubmitError::IdempotencyConflict`]: the key had been used with other input.
    pub fn of(task: &NewTask, created: &Created) -> Result<Self, SubmitError> {
        receipt(task.id, digest(task), created)
    }
}

/// Why a task was not stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// This process knows no such kind of task.
    #[error("no task `{task}` is registered; there are: {}", .known.join(", "))]
    UnknownTask {
        /// What was asked for.
        task: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The bare name is registered in several namespaces: say which.
    #[error("task `{task}` is registered in several namespaces: {}", .known.join(", "))]
    AmbiguousTask {
        /// What was asked for.
        task: String,
        /// What it may mean.
        known: Vec<String>,
    },
    /// The context does not satisfy the template's schema.
    #[error("the context is not valid: {}", list(.0))]
    InvalidContext(Vec<ContextFault>),
    /// The idempotency key is empty, longer than 255 bytes or has control characters.
    #[error("the idempotency key must have 1 to 255 bytes and no control characters")]
    InvalidKey,
    /// The task's own handler refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The idempotency key was used before, with another context.
    #[error("the idempotency key was used for task {existing}, with other input")]
    IdempotencyConflict {
        /// The task that has the key.
        existing: TaskId,
    },
    /// The store failed. Whether the task was stored is unknown: repeat the request with the same
    /// idempotency key.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The submission was cut off by the end of its runtime.
    #[error("the submission was cut off: its runtime is shutting down")]
    CutOff,
}

fn list(faults: &[ContextFault]) -> String {
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}

impl Tasker {
    /// Stores a task; once this returns, workers will bring it to its end, whatever crashes.
    ///
    /// The future may be dropped at any await; the task may then have been stored all the same, and
    /// a repetition without an idempotency key stores another. Keys do not expire.
    ///
    /// # Errors
    /// See [`SubmitError`]; only after [`SubmitError::Store`] and [`SubmitError::CutOff`] may the
    /// task have been stored.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn submit(&self, request: TaskRequest) -> Result<Receipt, SubmitError> {
        let task = self.prepare(request).await?;
        let shared = self.shared.clone();
        // A task that was claimed by its submission must reach its owner, whoever stops waiting.
        let stored = tokio::spawn(async move { create(&shared, task).await });
        stored.await.map_err(|_| SubmitError::CutOff)?
    }

    /// Stores many tasks with few transactions; each succeeds or fails by itself, in the order given.
    ///
    /// Of several with the same idempotency key the first is stored and the others answer with it.
    ///
    /// # Errors
    /// The store failed; some of the tasks may have been stored.
    pub async fn submit_all(
        &self,
        requests: Vec<TaskRequest>,
    ) -> Result<Vec<Result<Receipt, SubmitError>>, StoreError> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut tasks = Vec::new();
        for request in requests {
            match self.prepare(request).await {
                Ok(task) => {
                    answers.push(None);
                    tasks.push(task);
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let mut stored = Vec::with_capacity(tasks.len());
        while !tasks.is_empty() {
            let rest = tasks.split_off(tasks.len().min(BATCH));
            let asked: Vec<_> = tasks.iter().map(|task| (task.id, digest(task))).collect();
            let created = self.shared.store.create(tasks, None).await?;
            stored.extend(asked.into_iter().zip(created));
            tasks = rest;
        }
        let mut stored = stored.into_iter();
        let receipts = answers.into_iter().map(|answer| match answer {
            Some(refused) => refused,
            None => {
                let answered = stored.next().ok_or_else(no_answer)?;
                let ((id, digest), created) = answered;
                receipt(id, digest, &created)
            }
        });
        Ok(receipts.collect())
    }

    /// Checks a request as [`submit`](Self::submit) does, and makes the task without storing it.
    ///
    /// For a store that can add a task within a transaction of your own, so that it exists if and
    /// only if what else the transaction writes does; any store takes it through
    /// [`StateStore::create`](crate::StateStore::create). What the store answers becomes a receipt
    /// by [`Receipt::of`]. A task that is dropped instead leaves nothing behind.
    ///
    /// ```
    /// # use tasker_core::{MemoryStore, StepTemplate, TaskTemplate, Tasker, Workflow, step_fn};
    /// use tasker_core::{Receipt, StateStore, StepContext, TaskRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let template = TaskTemplate::builder("greet").step(StepTemplate::new("hello")).build()?;
    /// # let hello = step_fn(|_: StepContext| async { Ok(()) });
    /// # let workflow = Workflow::new(template).step("hello", hello);
    /// let store = MemoryStore::new();
    /// let tasker = Tasker::builder(store.clone()).register(workflow).build()?;
    /// let task = tasker.prepare(TaskRequest::new("greet", &())?.idempotency_key("once")).await?;
    /// // Here a store of yours would use your transaction.
    /// let created = store.create(vec![task.clone()], None).await?;
    /// assert_eq!(Receipt::of(&task, &created[0])?.id, task.id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`SubmitError`] that the request itself is to blame for; the store is not asked.
    pub async fn prepare(&self, request: TaskRequest) -> Result<NewTask, SubmitError> {
        let TaskRequest { task, context, idempotency_key, delay, priority } = request;
        let fits = |key: &String| {
            !key.is_empty() && key.len() <= MAX_KEY && !key.chars().any(char::is_control)
        };
        if !idempotency_key.as_ref().is_none_or(fits) {
            return Err(SubmitError::InvalidKey);
        }
        let handler = match self.shared.registry.find(&task) {
            Found::One(handler) => handler,
            Found::Several(known) => return Err(SubmitError::AmbiguousTask { task, known }),
            Found::None => {
                let known = self.shared.registry.task_types();
                return Err(SubmitError::UnknownTask { task, known });
            }
        };
        let context = handler.prepare(context).await?;
        let template = handler.template().clone();
        template.check_context(&context).map_err(SubmitError::InvalidContext)?;
        let id = TaskId::new();
        Ok(NewTask { id, template, context, idempotency_key, delay, priority })
    }
}

/// Tasks stored in one transaction.
const BATCH: usize = 500;

/// Stores a task, and hands it to a worker of this process if one has room.
async fn create(shared: &Arc<Shared>, task: NewTask) -> Result<Receipt, SubmitError> {
    let (id, digest) = (task.id, digest(&task));
    let worker = if task.delay.is_zero() { shared.worker_with_room(&task.template) } else { None };
    let Some((incarnation, room)) = worker else {
        let created = shared.store.create(vec![task], None).await?;
        return receipt(id, digest, &first(created)?);
    };
    let room = room.expecting(id);
    let (template, context) = (task.template.clone(), task.context.clone());
    match shared.store.create(vec![task], Some(incarnation.id)).await {
        Ok(created) => {
            let created = first(created)?;
            if let Created::New { at, claimed: Some(version) } = created {
                let task = Snapshot::fresh(id, template, context, version).stored_at(at);
                room.fill(incarnation, task, at);
            }
            receipt(id, digest, &created)
        }
        Err(error) => {
            warn!(%error, task = %id, "whether the task was stored is unknown");
            room.lost_answer();
            Err(error.into())
        }
    }
}

fn first(created: Vec<Created>) -> Result<Created, StoreError> {
    created.into_iter().next().ok_or_else(no_answer)
}

fn no_answer() -> StoreError {
    let reason = "the store gave no answer for a new task".to_owned();
    StoreError::Damaged { reason, source: None }
}

/// The digest of a task's input, where one is needed.
fn digest(task: &NewTask) -> Option<crate::Fingerprint> {
    task.idempotency_key.as_ref().map(|_| input_digest(&task.context))
}

fn receipt(
    id: TaskId,
    asked: Option<crate::Fingerprint>,
    created: &Created,
) -> Result<Receipt, SubmitError> {
    match created {
        Created::New { .. } => Ok(Receipt { id, already_existed: false }),
        Created::Existing { id, input_digest } if Some(*input_digest) == asked => {
            Ok(Receipt { id: *id, already_existed: true })
        }
        Created::Existing { id, .. } => Err(SubmitError::IdempotencyConflict { existing: *id }),
    }
}
