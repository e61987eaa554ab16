//! A task handler without a type of its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::{StepHandler, TaskHandler};
use crate::{OnFailure, StepTemplate, TaskTemplate};

/// A template and the handlers of its steps.
///
/// ```
/// use tasker_core::{StepContext, StepTemplate, TaskTemplate, Workflow, step_fn};
///
/// let template = TaskTemplate::builder("greet").step(StepTemplate::new("hello")).build()?;
/// let workflow = Workflow::new(template)
///     .step("hello", step_fn(|_: StepContext| async { Ok("Hello!") }));
/// # Ok::<(), tasker_core::TemplateError>(())
/// ```
#[derive(Clone)]
pub struct Workflow {
    template: Arc<TaskTemplate>,
    handlers: HashMap<String, Arc<dyn StepHandler>>,
}

impl Workflow {
    /// A template without handlers yet.
    pub fn new(template: impl Into<Arc<TaskTemplate>>) -> Self {
        Self { template: template.into(), handlers: HashMap::new() }
    }

    /// Gives the handler for a name: the `handler_class` of a step, which is the step's own name
    /// where the template says nothing. A second one for the same name replaces the first.
    #[must_use]
    pub fn step(mut self, handler: impl Into<String>, run: impl StepHandler) -> Self {
        self.handlers.insert(handler.into(), Arc::new(run));
        self
    }
}

impl TaskHandler for Workflow {
    fn template(&self) -> &Arc<TaskTemplate> {
        &self.template
    }

    fn step_handler(&self, handler: &str) -> Option<Arc<dyn StepHandler>> {
        self.handlers.get(handler).cloned()
    }
}

/// The names under which a template expects handlers, in the order of its steps, each once.
pub(crate) fn handler_names(template: &TaskTemplate) -> Vec<&str> {
    let mut names = Vec::new();
    for step in template.steps() {
        names.extend(handlers_of_step(step).chain(step.compensate_with.as_deref()));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

/// The names of the handlers that a step may need to run: its own, then its fallback's.
pub(crate) fn handlers_of_step(step: &StepTemplate) -> impl Iterator<Item = &str> {
    let fallback = match &step.on_failure {
        OnFailure::Fallback(handler) => Some(handler.as_str()),
        OnFailure::Fail | OnFailure::Continue => None,
    };
    std::iter::once(step.handler.as_str()).chain(fallback)
}

/// A task handler lacks handlers that its template names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task `{task}` has no handler for {}: register one for each", list(names))]
pub struct MissingHandlers {
    /// The kind of task.
    pub task: String,
    /// The names of the handlers.
    pub names: Vec<String>,
}

/// Names as a sentence lists them.
pub(crate) fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
