//! The door: submit tasks, look at them, act on them, start workers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};

use crate::engine::{Shared, Systems, WorkerBuilder};
use crate::escalation::{EscalationSink, LogSink};
use crate::event::{Event, Events};
use crate::handler::TaskHandler;
use crate::registry::{RegisterError, Registry};
use crate::status::{self, HistoryEntry, TaskStatus};
use crate::store::{StateStore, StoreError, TaskQuery, TaskSummary};
use crate::{TaskId, Why};

mod bulk;
mod deploy;
mod escalations;
mod operate;
mod submit;
mod systems;

pub use bulk::{RetriedPage, RetryFilter};
pub use deploy::{Lack, Stranded, StrandedCursor, StrandedPage};
pub use escalations::{EscalateError, EscalationCursor, EscalationPage, EscalationQuery};
pub use operate::{OperateError, Operator};
pub use submit::{Receipt, SubmitError, TaskRequest};

/// A handle on one store and the kinds of task that this process knows. Cheap to clone.
///
/// ```
/// use std::time::Duration;
///
/// use tasker_core::{
///     MemoryStore, StepContext, StepTemplate, TaskRequest, TaskState, TaskTemplate, Tasker,
///     Workflow, step_fn,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let template = TaskTemplate::builder("greet").step(StepTemplate::new("hello")).build()?;
/// let hello = step_fn(|step: StepContext| async move {
///     let name: String = step.context()?;
///     Ok(format!("Hello, {name}!"))
/// });
/// let tasker = Tasker::builder(MemoryStore::new())
///     .register(Workflow::new(template).step("hello", hello))
///     .build()?;
/// let worker = tasker.worker().start();
///
/// let receipt = tasker.submit(TaskRequest::new("greet", "Ada")?).await?;
/// let status = tasker.wait(receipt.id, Duration::from_secs(10)).await?;
/// assert_eq!(status.state, TaskState::Complete);
/// let said = status.steps[0].result.as_ref().map(|said| said.as_str());
/// assert_eq!(said, Some(r#""Hello, Ada!""#));
///
/// worker.shutdown(Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tasker {
    shared: Arc<Shared>,
}

/// Collects what a [`Tasker`] knows.
#[must_use]
pub struct TaskerBuilder {
    store: Arc<dyn StateStore>,
    handlers: Vec<(Arc<dyn TaskHandler>, bool)>,
    sinks: Vec<Arc<dyn EscalationSink>>,
}

/// Why the end of a task was not seen.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// There is no such task.
    #[error("there is no task {0}")]
    NotFound(TaskId),
    /// It had not ended in time; it goes on.
    #[error("the task has not ended in time; it goes on")]
    TimedOut(Box<TaskStatus>),
    /// The store failed, and kept failing for as long as was to be waited.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TaskerBuilder {
    /// Adds a kind of task whose steps this process can all run.
    pub fn register(mut self, handler: impl TaskHandler) -> Self {
        self.handlers.push((Arc::new(handler), false));
        self
    }

    /// Adds a kind of task of which this process may lack handlers: it submits, or runs some steps.
    ///
    /// A step whose handler is missing waits for a worker that has it.
    pub fn register_partial(mut self, handler: impl TaskHandler) -> Self {
        self.handlers.push((Arc::new(handler), true));
        self
    }

    /// Adds a sink to which the workers of this process deliver escalations.
    ///
    /// Without any, escalations are written to the log; with one they are not, unless
    /// [`LogSink`](crate::escalation::LogSink) is added too. All workers of a store should have the
    /// same sinks under the same names: what is due at a worker that lacks a sink waits longer for
    /// one that has it.
    pub fn escalate_to(mut self, sink: impl EscalationSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Checks what was registered.
    ///
    /// # Errors
    /// A template names handlers that were not given, or a kind of task or the name of a sink is
    /// registered twice.
    pub fn build(self) -> Result<Tasker, RegisterError> {
        let mut registry = Registry::default();
        for (handler, partial) in self.handlers {
            registry.add(handler, partial)?;
        }
        let mut sinks = self.sinks;
        let mut names = BTreeSet::new();
        if let Some(sink) = sinks.iter().find(|sink| !names.insert(sink.name())) {
            return Err(RegisterError::DuplicateSink(sink.name().to_owned()));
        }
        if sinks.is_empty() {
            sinks.push(Arc::new(LogSink));
        }
        let systems = Systems::new(self.store.clone(), registry.systems());
        let shared = Shared {
            store: self.store,
            registry,
            events: Events::new(),
            workers: Mutex::default(),
            systems,
            sinks,
            raised: Notify::new(),
        };
        Ok(Tasker { shared: Arc::new(shared) })
    }
}

/// How often the store is asked whether a task has ended that other processes may run.
const WAIT_POLL: Duration = Duration::from_millis(250);

impl Tasker {
    /// Begins with a store.
    pub fn builder(store: impl StateStore) -> TaskerBuilder {
        Self::builder_on(Arc::new(store))
    }

    /// Begins with a store that is shared, or chosen at run time.
    pub fn builder_on(store: Arc<dyn StateStore>) -> TaskerBuilder {
        TaskerBuilder { store, handlers: Vec::new(), sinks: Vec::new() }
    }

    /// Sets up a worker; [`WorkerBuilder::start`] starts it.
    pub fn worker(&self) -> WorkerBuilder {
        WorkerBuilder::new(self.shared.clone())
    }

    /// Where a task stands; `None` if there is no such task.
    ///
    /// # Errors
    /// The store failed.
    pub async fn status(&self, task: TaskId) -> Result<Option<TaskStatus>, StoreError> {
        Ok(self.shared.store.load(task).await?.as_ref().map(TaskStatus::of))
    }

    /// Why a task and each of its steps is not moving; `None` if there is none, or if all is well
    /// with it: it is complete, compensated or resolved by a person.
    ///
    /// A task that has not ended always has a reason, and so has one that failed or was cancelled.
    /// Neither its context nor a result is in it.
    ///
    /// ```
    /// # use tasker_core::{
    /// #     MemoryStore, StepContext, StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow,
    /// #     step_fn,
    /// # };
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let template = TaskTemplate::builder("greet").step(StepTemplate::new("hello")).build()?;
    /// # let hello = step_fn(|_: StepContext| async { Ok("Hello!") });
    /// # let workflow = Workflow::new(template).step("hello", hello);
    /// # let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build()?;
    /// let task = tasker.submit(TaskRequest::new("greet", "Ada")?).await?.id;
    /// // No worker has been started.
    /// let why = tasker.why(task).await?.ok_or("it is complete")?;
    /// assert!(why.to_string().starts_with(
    ///     "the task waits for a worker that serves `default/greet@0.1.0`, since "
    /// ));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The store failed.
    pub async fn why(&self, task: TaskId) -> Result<Option<Why>, StoreError> {
        self.explain(task).await
    }

    /// What happened to a task, oldest first; `None` if there is no such task.
    ///
    /// # Errors
    /// The store failed.
    pub async fn history(&self, task: TaskId) -> Result<Option<Vec<HistoryEntry>>, StoreError> {
        Ok(self.shared.store.load(task).await?.as_ref().map(status::history))
    }

    /// Tasks by type and state, newest first, a page at a time.
    ///
    /// # Errors
    /// The store failed.
    pub async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        self.shared.store.find(query).await
    }

    /// Waits until a task has ended, whichever process runs it.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] after `timeout`; the task goes on, and may be waited for again. A
    /// store that fails is asked again until then.
    pub async fn wait(&self, task: TaskId, timeout: Duration) -> Result<TaskStatus, WaitError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            // Subscribed before the look, so that an end between the two is not missed.
            let mut ended = self.shared.events.end_of(task);
            let looked = self.shared.store.load(task).await;
            let over = tokio::time::Instant::now() >= deadline;
            let given_up = match looked {
                Ok(None) => Some(Err(WaitError::NotFound(task))),
                Ok(Some(stored)) if stored.state.is_terminal() => Some(Ok(TaskStatus::of(&stored))),
                Ok(Some(stored)) if over => {
                    Some(Err(WaitError::TimedOut(Box::new(TaskStatus::of(&stored)))))
                }
                Err(error) if over => Some(Err(error.into())),
                Ok(Some(_)) | Err(_) => None,
            };
            if given_up.is_none() {
                let next = deadline.min(tokio::time::Instant::now() + WAIT_POLL);
                // Time running out is as good a reason to look as a hint.
                let _ = tokio::time::timeout_at(next, ended.seen()).await;
            }
            if let Some(answer) = given_up {
                return answer;
            }
        }
    }

    /// The lifecycle events of this process, from now on.
    ///
    /// The last 4,096 are kept for a subscriber that is slow; who misses some is told how many by
    /// [`RecvError::Lagged`](broadcast::error::RecvError::Lagged).
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }
}
