//! The engine of Tasker.

pub mod dag;
pub mod decide;
pub mod engine;
pub mod event;
pub mod handler;
pub mod history;
mod json;
mod registry;
mod retry;
pub mod snapshot;
pub mod store;
mod task;
pub mod template;

pub use async_trait::async_trait;
pub use engine::{Worker, WorkerBuilder};
pub use event::{Event, EventKind};
pub use handler::{
    MissingHandlers, Refusal, StepContext, StepError, StepHandler, StepOutput, StepResult,
    TaskHandler, Workflow, step_fn,
};
pub use json::Json;
pub use registry::RegisterError;
pub use retry::{Backoff, RetryPolicy, Strategy};
pub use store::memory::MemoryStore;
pub use task::{StepState, TaskId, TaskState, UnknownState, WorkerId};
pub use template::{
    DEFAULT_TIMEOUT, Fingerprint, OnFailure, StepIndex, StepTemplate, TaskTemplate, TaskType,
    TemplateError,
};
