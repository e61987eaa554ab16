//! The engine of Tasker: everything but a database.
//!
//! Programs use the façade crate `tasker`, which re-exports all of this beside the stores. Depend
//! on this one to write a store, or a library of handlers.
//!
//! # From a template to a result
//!
//! A [`TaskTemplate`] says which steps there are, a [`Workflow`] joins it with their handlers, a
//! [`Tasker`] takes requests, and a [`Worker`] runs what they ask for.
//!
//! ```
//! use std::time::Duration;
//!
//! use tasker_core::{
//!     MemoryStore, StepContext, StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow, step_fn,
//!     typed_fn,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let template = TaskTemplate::builder("area")
//!     .step(StepTemplate::new("width"))
//!     .step(StepTemplate::new("height"))
//!     .step(StepTemplate::new("area").after_all(["width", "height"]))
//!     .build()?;
//! let workflow = Workflow::new(template)
//!     .step("width", typed_fn(|sides: (u32, u32), _: StepContext| async move { Ok(sides.0) }))
//!     .step("height", typed_fn(|sides: (u32, u32), _: StepContext| async move { Ok(sides.1) }))
//!     .step("area", step_fn(|step: StepContext| async move {
//!         Ok(step.result_of::<u32>("width")? * step.result_of::<u32>("height")?)
//!     }));
//! let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build()?;
//! let worker = tasker.worker().start();
//!
//! let receipt = tasker.submit(TaskRequest::new("area", &(6, 7))?).await?;
//! let status = tasker.wait(receipt.id, Duration::from_secs(10)).await?;
//! let area = status.step("area").and_then(|step| step.result.as_ref());
//! assert_eq!(area.map(|area| area.as_str()), Some("42"));
//! worker.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it is made
//!
//! * [`decide`] is the brain: pure functions from a [`Snapshot`](snapshot::Snapshot) and what
//!   happened to a [`TaskChange`](store::TaskChange). Nothing else decides what becomes of a task.
//! * [`store`] is the seam: a [`StateStore`] remembers and never decides. It owns
//!   the clock.
//! * [`history`] has the rows of which a task's state is a fold.
//! * The workers are the body: they claim tasks, run their steps, and commit what was decided.
//!
//! So the brain can be asked without a body or a store:
//!
//! ```
//! use std::sync::Arc;
//!
//! use jiff::Timestamp;
//! use tasker_core::decide::{Report, settle};
//! use tasker_core::snapshot::Snapshot;
//! use tasker_core::store::Then;
//! use tasker_core::{Json, StepIndex, StepTemplate, TaskId, TaskState, TaskTemplate};
//!
//! let template = TaskTemplate::builder("greet").step(StepTemplate::new("hello")).build()?;
//! let mut task = Snapshot::fresh(TaskId::new(), Arc::new(template), Json::null(), 1);
//! let now = Timestamp::UNIX_EPOCH;
//! assert_eq!(task.take_runnable(now), [StepIndex(0)]);
//!
//! let outcome = Ok(Json::of("Hello!")?);
//! let ran_for = std::time::Duration::from_millis(2);
//! let report = Report { step: StepIndex(0), seq: 1, ran_for, outcome, retry_after: None, spared: false };
//! let change = settle(&mut task, vec![report], &[], now);
//! assert_eq!(change.rows.len(), 1);
//! assert_eq!(change.then, Then::End { state: TaskState::Complete });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! * `testing`: checks of workflows and their handlers, and the conformance suite for stores.

mod action;
pub mod breaker;
mod client;
pub mod dag;
pub mod decide;
mod engine;
pub mod escalation;
mod event;
mod handler;
pub mod history;
mod json;
mod priority;
mod registry;
mod retry;
pub mod snapshot;
mod status;
pub mod store;
mod task;
mod template;
#[cfg(feature = "testing")]
pub mod testing;
mod why;

pub use action::{Action, ActionFault, ActionForm, ActionKind};
pub use async_trait::async_trait;
pub use breaker::{SystemPolicy, SystemStatus};
pub use client::{
    EscalateError, EscalationCursor, EscalationPage, EscalationQuery, Lack, OperateError, Operator,
    Receipt, RetriedPage, RetryFilter, Stranded, StrandedCursor, StrandedPage, SubmitError,
    TaskRequest, Tasker, TaskerBuilder, WaitError,
};
pub use engine::{Worker, WorkerBuilder};
pub use escalation::{Escalation, EscalationSink, EscalationState, Incident, SinkError};
pub use event::{Event, EventKind};
pub use handler::{
    Completion, MissingHandlers, Refusal, StepContext, StepError, StepHandler, StepOutput,
    StepResult, TaskHandler, Workflow, step_fn, typed_fn,
};
pub use history::{Failure, FailureClass};
pub use jiff::Timestamp;
pub use json::Json;
pub use priority::{Priority, UnknownPriority};
pub use registry::RegisterError;
pub use retry::{Backoff, RetryPolicy, Strategy};
pub use status::{CompensationStatus, HistoryEntry, Progress, StepStatus, TaskStatus};
pub use store::memory::MemoryStore;
pub use store::{StateStore, StoreError, TaskQuery, TaskSummary};
pub use task::{StepState, TaskId, TaskState, UnknownState, WorkerId};
pub use template::{
    ContextFault, DEFAULT_TIMEOUT, Fingerprint, OnFailure, Position, StepIndex, StepTemplate,
    TaskTemplate, TaskTemplateBuilder, TaskType, TemplateError, TemplateFault, YamlSource,
};
pub use why::{StepCause, StepWhy, TaskCause, WaitForSystem, Why};
