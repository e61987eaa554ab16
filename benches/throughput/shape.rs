//! The tasks that are measured: their handlers do nothing.

use std::sync::Arc;

use tasker::store::StateStore;
use tasker::{StepContext, StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow, step_fn};

use crate::Failed;
use crate::args::Shape;

impl Shape {
    /// Steps of one task.
    pub(crate) const fn steps(self) -> usize {
        match self {
            Self::Single | Self::Calling => 1,
            Self::Chain5 | Self::Diamond5 => 5,
            Self::Fan1000 => 1_002,
            Self::Fan10000 => 10_002,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Calling => "calling",
            Self::Chain5 => "chain5",
            Self::Diamond5 => "diamond5",
            Self::Fan1000 => "fan1000",
            Self::Fan10000 => "fan10000",
        }
    }

    pub(crate) fn template(self) -> Result<TaskTemplate, tasker::TemplateError> {
        let steps = match self {
            Self::Single => vec![step("a")],
            Self::Calling => vec![step("a").dependent_system("nobody")],
            Self::Chain5 => vec![
                step("a"),
                step("b").after("a"),
                step("c").after("b"),
                step("d").after("c"),
                step("e").after("d"),
            ],
            Self::Diamond5 => fan(3),
            Self::Fan1000 => fan(1_000),
            Self::Fan10000 => fan(10_000),
        };
        let template = TaskTemplate::builder(self.name());
        steps.into_iter().fold(template, tasker::TaskTemplateBuilder::step).build()
    }

    /// A request for one task.
    pub(crate) fn request(self, number: usize) -> Result<TaskRequest, serde_json::Error> {
        TaskRequest::new(self.name(), &number)
    }
}

/// The engine on a store, with every shape that is asked for.
pub(crate) fn tasker(store: Arc<dyn StateStore>, shapes: &[Shape]) -> Result<Tasker, Failed> {
    let mut tasker = Tasker::builder_on(store);
    for shape in shapes {
        let nothing = step_fn(|_: StepContext| async { Ok(()) });
        tasker = tasker.register(Workflow::new(shape.template()?).step(HANDLER, nothing));
    }
    Ok(tasker.build()?)
}

const HANDLER: &str = "nothing";

fn step(name: impl Into<String>) -> StepTemplate {
    StepTemplate::new(name).handler(HANDLER)
}

fn fan(width: usize) -> Vec<StepTemplate> {
    let branch = |number| format!("b{number}");
    let mut steps = vec![step("a")];
    steps.extend((0..width).map(|number| step(branch(number)).after("a")));
    steps.push(step("e").after_all((0..width).map(branch)));
    steps
}
