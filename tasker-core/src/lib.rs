//! The engine of Tasker.

pub mod dag;
mod json;
mod retry;
mod task;
pub mod template;

pub use json::Json;
pub use retry::{Backoff, RetryPolicy, Strategy};
pub use task::{StepState, TaskId, TaskState, UnknownState, WorkerId};
pub use template::{
    ContextFault, DEFAULT_TIMEOUT, Fingerprint, OnFailure, Position, StepIndex, StepTemplate,
    TaskTemplate, TaskTemplateBuilder, TaskType, TemplateError, TemplateFault, YamlSource,
};
