//! The engine of Tasker.

pub mod dag;
pub mod history;
mod json;
mod retry;
pub mod store;
mod task;
pub mod template;

pub use json::Json;
pub use retry::{Backoff, RetryPolicy, Strategy};
pub use task::{StepState, TaskId, TaskState, UnknownState, WorkerId};
pub use template::{
    DEFAULT_TIMEOUT, Fingerprint, OnFailure, StepIndex, StepTemplate, TaskTemplate, TaskType,
    TemplateError,
};
