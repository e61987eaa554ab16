//! Templates written in Rust.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::check::{Checked, parse_version};
use super::fault::Faults;
use super::{
    DEFAULT_NAMESPACE, DEFAULT_VERSION, Definition, OnFailure, StepTemplate, TaskTemplate,
    TaskType, TemplateError,
};
use crate::breaker::SystemPolicy;
use crate::{Json, RetryPolicy};

/// Puts a [`TaskTemplate`] together; [`TaskTemplate::builder`] begins one.
#[derive(Clone, Debug)]
#[must_use]
pub struct TaskTemplateBuilder {
    name: String,
    namespace: String,
    version: Option<String>,
    description: Option<String>,
    schema: Option<Value>,
    deadline: Option<Duration>,
    dependent_systems: BTreeMap<String, SystemPolicy>,
    steps: Vec<StepTemplate>,
}

impl TaskTemplate {
    /// Begins a template.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tasker_core::{OnFailure, RetryPolicy, StepTemplate, TaskTemplate};
    ///
    /// let order = TaskTemplate::builder("process_order")
    ///     .namespace("shop")
    ///     .version("1.2.0")
    ///     .step(StepTemplate::new("reserve"))
    ///     .step(StepTemplate::new("charge").after("reserve").retry_limit(5))
    ///     .step(
    ///         StepTemplate::new("confirm")
    ///             .after("charge")
    ///             .timeout(Duration::from_secs(10))
    ///             .retry(RetryPolicy::fixed(3, Duration::from_secs(1)))
    ///             .on_failure(OnFailure::Continue),
    ///     )
    ///     .build()?;
    /// assert_eq!(order.task_type().to_string(), "shop/process_order@1.2.0");
    /// assert_eq!(order.dag().levels().len(), 3);
    /// # Ok::<(), tasker_core::TemplateError>(())
    /// ```
    pub fn builder(name: impl Into<String>) -> TaskTemplateBuilder {
        TaskTemplateBuilder {
            name: name.into(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            version: None,
            description: None,
            schema: None,
            deadline: None,
            dependent_systems: BTreeMap::new(),
            steps: Vec::new(),
        }
    }
}

impl TaskTemplateBuilder {
    /// Sets whose it is, in place of `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets its semantic version, in place of `0.1.0`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Says what it is for.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets the JSON Schema that a task's context must satisfy.
    pub fn schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Sets how long a task should take at most, from its submission; somebody is told if it takes
    /// longer.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Says when a system counts as down that steps name as their `dependent_system`.
    pub fn system(mut self, name: impl Into<String>, policy: SystemPolicy) -> Self {
        self.dependent_systems.insert(name.into(), policy);
        self
    }

    /// Adds a step; the order of steps does not matter.
    pub fn step(mut self, step: StepTemplate) -> Self {
        self.steps.push(step);
        self
    }

    /// Checks the template.
    ///
    /// # Errors
    /// Whatever is wrong with it, each fault with a pointer such as `/step_templates/2/timeout`.
    pub fn build(self) -> Result<TaskTemplate, TemplateError> {
        let mut faults = Faults::default();
        let version = match self.version.as_deref().map(parse_version) {
            None => DEFAULT_VERSION,
            Some(Ok(version)) => version,
            Some(Err(message)) => {
                faults.add("/version", message);
                DEFAULT_VERSION
            }
        };
        let task_type = TaskType { namespace: self.namespace, name: self.name, version };
        let checked = Checked::new(Definition {
            task_type,
            description: self.description,
            schema: self.schema.map(Json::from),
            deadline: self.deadline,
            dependent_systems: self.dependent_systems,
            steps: self.steps,
        });
        match checked {
            Ok(checked) if faults.is_empty() => Ok(checked.into()),
            Ok(_) => Err(faults.into_error(None)),
            Err(more) => {
                faults.append(more);
                Err(faults.into_error(None))
            }
        }
    }
}

impl StepTemplate {
    /// A step with the default policies, whose handler has the step's name.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            handler: name.clone(),
            name,
            description: None,
            depends_on: Vec::new(),
            retry: RetryPolicy::default(),
            timeout: super::DEFAULT_TIMEOUT,
            on_failure: OnFailure::default(),
            dependent_system: None,
            system_errors: None,
            compensate_with: None,
            expected_within: None,
            config: None,
        }
    }

    /// Says what it does.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets the name under which its handler is registered, in place of the step's own.
    #[must_use]
    pub fn handler(mut self, handler: impl Into<String>) -> Self {
        self.handler = handler.into();
        self
    }

    /// Makes it wait for one more step.
    #[must_use]
    pub fn after(mut self, step: impl Into<String>) -> Self {
        self.depends_on.push(step.into());
        self
    }

    /// Makes it wait for some more steps.
    #[must_use]
    pub fn after_all(mut self, steps: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.depends_on.extend(steps.into_iter().map(Into::into));
        self
    }

    /// Sets how often it is attempted and how long the waits are.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets how often it is attempted, the first time included.
    #[must_use]
    pub fn retry_limit(mut self, attempts: u32) -> Self {
        self.retry.limit = attempts;
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets what happens when it fails for good.
    #[must_use]
    pub fn on_failure(mut self, reaction: OnFailure) -> Self {
        self.on_failure = reaction;
        self
    }

    /// Names the outside system that it calls.
    #[must_use]
    pub fn dependent_system(mut self, system: impl Into<String>) -> Self {
        self.dependent_system = Some(system.into());
        self
    }

    /// Names the codes of the errors that count against that system; by default those of all
    /// failures that may be retried, a time-out included.
    #[must_use]
    pub fn system_errors<C: Into<String>>(mut self, codes: impl IntoIterator<Item = C>) -> Self {
        self.system_errors = Some(codes.into_iter().map(Into::into).collect());
        self
    }

    /// Names the handler that undoes what this step did, should the task fail for good.
    #[must_use]
    pub fn compensate_with(mut self, handler: impl Into<String>) -> Self {
        self.compensate_with = Some(handler.into());
        self
    }

    /// Sets how long it should take at most from when it may run until it has ended, retries and
    /// all; somebody is told if it takes longer.
    #[must_use]
    pub fn expected_within(mut self, time: Duration) -> Self {
        self.expected_within = Some(time);
        self
    }

    /// Sets what its handler is given with every attempt.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = Some(config.into());
        self
    }
}
