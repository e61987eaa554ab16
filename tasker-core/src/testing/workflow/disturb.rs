//! Handlers that do what the test wants before, after or instead of their own work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::{
    Json, Refusal, StepContext, StepError, StepHandler, StepIndex, StepResult, TaskHandler,
    TaskTemplate,
};

/// What happens to one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disturbance {
    pub(super) step: StepIndex,
    pub(super) kind: Kind,
}

/// What happens to a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Its first delivery fails retryably, before its handler is called.
    FailBefore,
    /// Its first delivery fails retryably, after its handler has ended.
    FailAfter,
    /// Every delivery to its own handler fails permanently.
    GiveUp,
    /// Its handler is called twice.
    Repeat,
}

/// A task handler, one of whose steps is disturbed.
#[derive(Clone)]
pub(super) struct Disturbed {
    pub(super) handler: Arc<dyn TaskHandler>,
    pub(super) disturbance: Option<Disturbance>,
    /// Whether the disturbance has happened.
    pub(super) happened: Arc<AtomicBool>,
}

struct DisturbedStep {
    handler: Arc<dyn StepHandler>,
    step: String,
    kind: Kind,
    happened: Arc<AtomicBool>,
}

#[async_trait]
impl TaskHandler for Disturbed {
    fn template(&self) -> &Arc<TaskTemplate> {
        self.handler.template()
    }

    fn step_handler(&self, name: &str) -> Option<Arc<dyn StepHandler>> {
        let handler = self.handler.step_handler(name)?;
        let Some(Disturbance { step, kind }) = self.disturbance else { return Some(handler) };
        let step = self.template().step(step);
        if step.handler != name {
            return Some(handler);
        }
        let (step, happened) = (step.name.clone(), self.happened.clone());
        Some(Arc::new(DisturbedStep { handler, step, kind, happened }))
    }

    async fn prepare(&self, context: Json) -> Result<Json, Refusal> {
        self.handler.prepare(context).await
    }
}

#[async_trait]
impl StepHandler for DisturbedStep {
    async fn process(&self, step: StepContext) -> StepResult {
        if step.step_name() != self.step {
            return self.handler.process(step).await;
        }
        let first = !self.happened.swap(true, Ordering::SeqCst);
        match self.kind {
            Kind::FailBefore if first => {
                Err(StepError::retryable("the test let it fail before its work"))
            }
            Kind::FailAfter if first => {
                self.handler.process(step).await?;
                Err(StepError::retryable("the test let it fail after its work"))
            }
            Kind::FailBefore | Kind::FailAfter => self.handler.process(step).await,
            Kind::GiveUp => Err(StepError::permanent("GIVEN_UP", "the test let it fail for good")),
            Kind::Repeat => {
                let first = self.handler.process(step.clone()).await;
                // A failure is no delivery that was lost: it would be repeated as a new attempt.
                if first.is_err() { first } else { self.handler.process(step).await }
            }
        }
    }
}
