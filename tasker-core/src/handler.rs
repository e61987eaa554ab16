//! What users write: the code of a step, and the wiring of a task.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Json, TaskTemplate};

mod completion;
mod context;
mod workflow;

pub use completion::Completion;
pub(crate) use completion::Output;
pub use context::StepContext;
pub(crate) use context::{AttemptTime, StepInput};
pub use workflow::{MissingHandlers, Workflow};
pub(crate) use workflow::{handler_names, handlers_of_step, list};

/// The code of a step.
///
/// A handler is called at least once for every attempt that is recorded: after a crash it may run
/// again although it had finished, with the same [idempotency key](StepContext::idempotency_key).
/// Hand that key to whatever the step changes outside. The returned future may be dropped at any
/// await when the attempt times out, the task is cancelled or the worker loses its lease.
///
/// A handler that has to block its thread moves the blocking part to
/// [`spawn_blocking`](tokio::task::spawn_blocking).
///
/// ```
/// use tasker_core::{StepContext, StepHandler, StepResult, async_trait};
///
/// struct Greet;
///
/// #[async_trait]
/// impl StepHandler for Greet {
///     async fn process(&self, step: StepContext) -> StepResult {
///         let name: String = step.context()?;
///         step.complete(&format!("Hello, {name}!"))
///     }
/// }
/// ```
#[async_trait]
pub trait StepHandler: Send + Sync + 'static {
    /// Makes one attempt at the step.
    async fn process(&self, step: StepContext) -> StepResult;
}

/// What an attempt comes to.
pub type StepResult = Result<StepOutput, StepError>;

/// The result of a step, as it will be stored; made by [`StepContext::complete`].
///
/// Or what became of the result, where the handler has recorded it itself: see [`Completion`].
#[derive(Clone, Debug)]
pub struct StepOutput(pub(crate) Output);

impl From<Json> for StepOutput {
    fn from(result: Json) -> Self {
        Self(Output::Result(result))
    }
}

/// Why an attempt failed, and whether another may succeed.
///
/// Give your own errors a `From` into this one: they then classify themselves at every `?`.
///
/// ```
/// use tasker_core::StepError;
///
/// enum GatewayError {
///     TimedOut,
///     Declined,
/// }
///
/// impl From<GatewayError> for StepError {
///     fn from(error: GatewayError) -> Self {
///         match error {
///             GatewayError::TimedOut => StepError::retryable("the gateway did not answer"),
///             GatewayError::Declined => StepError::permanent("CARD_DECLINED", "the card was declined"),
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Another attempt may succeed.
    #[error("{message}")]
    Retryable {
        /// A sentence for people; it is stored and shown, so no secrets.
        message: String,
        /// A code for programs.
        code: Option<String>,
        /// The next attempt is not made earlier, unless that is later than the policy's cap.
        retry_after: Option<Duration>,
    },
    /// No attempt will succeed.
    #[error("{message} ({code})")]
    Permanent {
        /// A sentence for people; it is stored and shown, so no secrets.
        message: String,
        /// A code for programs.
        code: String,
    },
}

impl StepError {
    /// A failure that another attempt may overcome.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::Retryable { message: message.into(), code: None, retry_after: None }
    }

    /// A failure that no attempt will overcome.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Permanent { message: message.into(), code: code.into() }
    }

    /// The same failure with another code.
    #[must_use]
    pub fn with_code(mut self, new: impl Into<String>) -> Self {
        match &mut self {
            Self::Retryable { code, .. } => *code = Some(new.into()),
            Self::Permanent { code, .. } => *code = new.into(),
        }
        self
    }

    /// The same failure with a wait that its cause asked for; a permanent one has none.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        if let Self::Retryable { retry_after, .. } = &mut self {
            *retry_after = Some(wait);
        }
        self
    }
}

/// A handler made of a closure that returns anything with a JSON form.
///
/// ```
/// use tasker_core::{StepContext, step_fn};
///
/// let double = step_fn(|step: StepContext| async move {
///     let number: i64 = step.context()?;
///     Ok(number * 2)
/// });
/// ```
pub fn step_fn<F, Fut, T>(run: F) -> impl StepHandler
where
    F: Fn(StepContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, StepError>> + Send + 'static,
    T: Serialize + Send + 'static,
{
    FromFn(run)
}

/// A handler made of a closure that is given the task's context, typed.
///
/// A context of another shape fails the step with `INVALID_CONTEXT` before the closure is called.
///
/// ```
/// use tasker_core::{StepContext, typed_fn};
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     quantity: u32,
/// }
///
/// let count = typed_fn(|order: Order, _: StepContext| async move { Ok(order.quantity) });
/// ```
pub fn typed_fn<F, Fut, C, T>(run: F) -> impl StepHandler
where
    F: Fn(C, StepContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, StepError>> + Send + 'static,
    C: DeserializeOwned + Send + 'static,
    T: Serialize + Send + 'static,
{
    step_fn(move |step: StepContext| {
        let called = step.context().map(|context| run(context, step));
        async move { called?.await }
    })
}

struct FromFn<F>(F);

#[async_trait]
impl<F, Fut, T> StepHandler for FromFn<F>
where
    F: Fn(StepContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, StepError>> + Send + 'static,
    T: Serialize + Send + 'static,
{
    async fn process(&self, step: StepContext) -> StepResult {
        let result = (self.0)(step.clone()).await?;
        step.complete(&result)
    }
}

#[async_trait]
impl<H: StepHandler + ?Sized> StepHandler for Arc<H> {
    async fn process(&self, step: StepContext) -> StepResult {
        (**self).process(step).await
    }
}

/// A kind of task: its template, the handlers of its steps, and what is done with a request.
///
/// [`Workflow`] is one that needs no type of its own.
#[async_trait]
pub trait TaskHandler: Send + Sync + 'static {
    /// What the task is made of.
    fn template(&self) -> &Arc<TaskTemplate>;

    /// The handler that is registered under a name; `None` if this process does not have it.
    fn step_handler(&self, handler: &str) -> Option<Arc<dyn StepHandler>>;

    /// Changes or refuses a request before it is checked against the schema and stored.
    ///
    /// # Errors
    /// The request is refused; nothing is stored.
    async fn prepare(&self, context: Json) -> Result<Json, Refusal> {
        Ok(context)
    }
}

/// A request that a task handler refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
#[non_exhaustive]
pub struct Refusal {
    /// A code for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with a code for programs and a sentence for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}
