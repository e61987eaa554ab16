//! Tasker runs business processes as durable tasks.
//!
//! A task is a run of a template: a directed acyclic graph of steps, written in YAML or in Rust.
//! Once [`submit`](Tasker::submit) has returned, the task reaches its end or says what it waits
//! for: steps run as soon as what they depend on has succeeded, failures are retried as the
//! template says, and what a crash interrupts another worker takes over.
//!
//! ```
//! use std::time::Duration;
//!
//! use tasker::{
//!     MemoryStore, StepContext, StepError, TaskRequest, TaskState, TaskTemplate, Tasker, Workflow,
//!     step_fn, typed_fn,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let template = TaskTemplate::from_yaml("
//! name: invoice
//! step_templates:
//!   - { name: add_up }
//!   - { name: send, depends_on_step: add_up, retry_limit: 5, backoff: { base: 10 } }
//! ")?;
//! let add_up = typed_fn(|prices: Vec<u32>, _: StepContext| async move {
//!     Ok(prices.iter().sum::<u32>())
//! });
//! let send = step_fn(|step: StepContext| async move {
//!     let total: u32 = step.result_of("add_up")?;
//!     if step.attempt() == 1 {
//!         return Err(StepError::retryable("the mail server is busy"));
//!     }
//!     Ok(format!("sent: {total}"))
//! });
//!
//! // `SqliteStore::open("invoices.db")` in place of the first line keeps them in a file.
//! let tasker = Tasker::builder(MemoryStore::new())
//!     .register(Workflow::new(template).step("add_up", add_up).step("send", send))
//!     .build()?;
//! let worker = tasker.worker().start();
//!
//! let receipt = tasker.submit(TaskRequest::new("invoice", &[20, 22])?).await?;
//! let status = tasker.wait(receipt.id, Duration::from_secs(10)).await?;
//! assert_eq!(status.state, TaskState::Complete);
//! assert_eq!(status.steps[1].attempts, 2);
//! worker.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | describe a task | [`TaskTemplate`], [`StepTemplate`], [`RetryPolicy`], [`OnFailure`] |
//! | write its steps | [`StepHandler`], [`StepContext`], [`StepError`], [`step_fn`], [`typed_fn`] |
//! | put both together | [`Workflow`], or [`TaskHandler`] to prepare and refuse requests |
//! | submit, watch, cancel, retry | [`Tasker`], [`TaskStatus`], [`Why`], [`HistoryEntry`], [`Event`] |
//! | run the steps | [`Worker`] |
//! | hear of what needs a person | [`EscalationSink`], [`Escalation`], [`Tasker::escalations`] |
//! | leave alone a system that is down | [`SystemPolicy`], [`Tasker::systems`] |
//! | check a deployment | [`Tasker::stranded`] |
//! | keep the tasks | [`MemoryStore`], [`SqliteStore`], [`PostgresStore`], or your own [`StateStore`] |
//!
//! The guide is in `docs/guide/`, the design in `docs/architecture.md`.
//!
//! # Features
//!
//! * `sqlite` (default): the embedded store, one file and no server.
//! * `postgres`: the store for any number of workers on any number of machines.
//! * `webhook`: escalations posted to a URL, signed.
//! * `testing`: checks of workflows, their handlers and stores, for your own tests.
//!
#![cfg_attr(not(feature = "sqlite"), doc = "[`SqliteStore`]: #features")]
#![cfg_attr(not(feature = "postgres"), doc = "[`PostgresStore`]: #features")]

pub use tasker_core::*;
#[cfg(feature = "postgres")]
pub use tasker_postgres::{self as postgres, PostgresStore};
#[cfg(feature = "sqlite")]
pub use tasker_sqlite::{self as sqlite, SqliteStore};

#[cfg(feature = "webhook")]
pub mod webhook;

// The examples in README and guide are tests.
#[cfg(doctest)]
mod pages;
