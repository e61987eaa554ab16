//! The engine of Tasker.

mod client;
pub mod dag;
pub mod decide;
mod engine;
mod event;
mod handler;
pub mod history;
mod json;
mod registry;
mod retry;
pub mod snapshot;
mod status;
pub mod store;
mod task;
mod template;
#[cfg(feature = "testing")]
pub mod testing;

pub use async_trait::async_trait;
pub use client::{
    OperateError, Operator, Receipt, SubmitError, TaskRequest, Tasker, TaskerBuilder, WaitError,
};
pub use engine::{Worker, WorkerBuilder};
pub use event::{Event, EventKind};
pub use handler::{
    MissingHandlers, Refusal, StepContext, StepError, StepHandler, StepOutput, StepResult,
    TaskHandler, Workflow, step_fn, typed_fn,
};
pub use json::Json;
pub use registry::RegisterError;
pub use retry::{Backoff, RetryPolicy, Strategy};
pub use status::{HistoryEntry, Progress, StepStatus, TaskStatus};
pub use store::memory::MemoryStore;
pub use task::{StepState, TaskId, TaskState, UnknownState, WorkerId};
pub use template::{
    ContextFault, DEFAULT_TIMEOUT, Fingerprint, OnFailure, Position, StepIndex, StepTemplate,
    TaskTemplate, TaskTemplateBuilder, TaskType, TemplateError, TemplateFault, YamlSource,
};
