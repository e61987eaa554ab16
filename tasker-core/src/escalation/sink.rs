//! Sinks: where escalations are delivered to.

use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use tracing::{error, info};

use super::{Escalation, EscalationState};

/// Somewhere that a person is reached: a log, a pager, a chat.
///
/// Registered with [`TaskerBuilder::escalate_to`](crate::TaskerBuilder::escalate_to). What a sink
/// has got is recorded under its name. What one worker raises is for the sinks of all workers of its
/// store, and delivered by one that has the sink.
#[async_trait]
pub trait EscalationSink: Send + Sync + 'static {
    /// Its name, which does not change from one release to the next.
    fn name(&self) -> &str;

    /// Delivers an escalation: once when it is raised, and once more, with the same
    /// [`key`](Escalation::key), when it is [resolved](EscalationState::Resolved). Its
    /// [`state`](Escalation::state) says which. Once this returns `Ok`, that is not delivered here
    /// again.
    ///
    /// At least once: a crash between the delivery and its record delivers it again, with the same
    /// key and state, so a sink whose effects add up leaves out what it knows. An error, a panic and
    /// an answer that takes longer than 30 seconds are failures: it is tried again after waits that
    /// grow from a second to an hour. That an escalation was raised is told until somebody has seen
    /// to it; that it is resolved, to every sink that was told the one, or may have been.
    async fn deliver(&self, escalation: &Escalation) -> Result<(), SinkError>;
}

/// Why a sink has not taken an escalation; kept with it, so there must be no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(String);

impl SinkError {
    /// An error with a reason.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// Writes escalations to the log, as errors, and that they are resolved, as information; what is
/// used if no sink is registered.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSink;

#[async_trait]
impl EscalationSink for LogSink {
    fn name(&self) -> &str {
        "log"
    }

    async fn deliver(&self, escalation: &Escalation) -> Result<(), SinkError> {
        let Escalation { key, incident, task_type, step, .. } = escalation;
        let task = incident.task().map(tracing::field::display);
        let (task_type, step) = (task_type.as_deref(), step.as_deref());
        let kind = incident.kind();
        if escalation.state == EscalationState::Resolved {
            info!(key, kind, task, task_type, step, "nobody is needed any more: {escalation}");
        } else {
            error!(key, kind, task, task_type, step, "somebody is needed: {escalation}");
        }
        Ok(())
    }
}

/// A sink made of a name and a closure.
///
/// ```
/// use tasker_core::escalation::{Escalation, SinkError, sink_fn};
/// # use tasker_core::{MemoryStore, Tasker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pager = sink_fn("pager", |escalation: Escalation| async move {
///     println!("{}: {escalation}", escalation.key);
///     Ok::<_, SinkError>(())
/// });
/// let tasker = Tasker::builder(MemoryStore::new()).escalate_to(pager).build()?;
/// # let _ = tasker;
/// # Ok(())
/// # }
/// ```
pub fn sink_fn<F, Fut>(name: impl Into<String>, deliver: F) -> impl EscalationSink
where
    F: Fn(Escalation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), SinkError>> + Send + 'static,
{
    FromFn { name: name.into(), deliver }
}

struct FromFn<F> {
    name: String,
    deliver: F,
}

#[async_trait]
impl<F, Fut> EscalationSink for FromFn<F>
where
    F: Fn(Escalation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), SinkError>> + Send + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, escalation: &Escalation) -> Result<(), SinkError> {
        (self.deliver)(escalation.clone()).await
    }
}
