//! Task templates: what a task is made of, checked once, when it is made.
//!
//! A [`TaskTemplate`] that you hold is valid. It comes from [`TaskTemplate::builder`] or
//! from YAML ([`TaskTemplate::from_yaml`]); both lead through the one validator.

mod builder;
mod check;
mod compose;
mod diagram;
mod environment;
mod fault;
mod read;
mod references;
mod scalar;
mod schema;
mod systems;
mod tree;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::builder::TaskTemplateBuilder;
use self::check::Checked;
pub(crate) use self::check::MAX_RETRY_LIMIT;
pub use self::fault::{Position, TemplateError, TemplateFault};
pub use self::schema::ContextFault;
use self::schema::ContextSchema;
pub use self::yaml::YamlSource;
use crate::breaker::SystemPolicy;
use crate::dag::Dag;
use crate::{Json, RetryPolicy};

/// The time an attempt may take when its step does not say: five minutes.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// The namespace of a template that names none.
const DEFAULT_NAMESPACE: &str = "default";
/// The version of a template that names none.
const DEFAULT_VERSION: Version = Version::new(0, 1, 0);

/// Which kind of task: namespace, name and version, written `namespace/name@version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskType {
    /// Whose it is; `default` when the template names none.
    pub namespace: String,
    /// What it does.
    pub name: String,
    /// Which version of it.
    pub version: Version,
}

impl fmt::Display for TaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.namespace, self.name, self.version)
    }
}

/// A digest of everything that a template says: two templates with the same one are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The SHA-256 digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest that a store read back; `None` unless there are 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The position of a step in its template, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepIndex(pub u32);

impl StepIndex {
    /// The position, to index a slice with.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for StepIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happens to the task when a step fails for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing that depends on it runs and the task ends in `error`.
    #[default]
    Fail,
    /// The task goes on without its result and ends `complete`, `degraded`.
    Continue,
    /// Another handler, named here, is tried in its place under the same retry policy; if it
    /// succeeds the task goes on, `degraded`.
    Fallback(String),
}

/// One step of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepTemplate {
    /// Its name, unique in the template.
    pub name: String,
    /// What it does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The name under which its handler is registered.
    pub handler: String,
    /// The steps that must have succeeded before it may start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// How often it is attempted.
    pub retry: RetryPolicy,
    /// How long one attempt may take; a heartbeat starts the time anew.
    pub timeout: Duration,
    /// What happens when it fails for good.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The outside system that it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependent_system: Option<String>,
    /// The codes of the errors that count against that system; `None` for those of all failures
    /// that may be retried, a time-out included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_errors: Option<Vec<String>>,
    /// The name under which the handler is registered that undoes what this step did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate_with: Option<String>,
    /// How long it should take at most from when it may run until it has ended, retries and all;
    /// somebody is told if it takes longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_within: Option<Duration>,
    /// Given to the handler as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Json>,
}

/// What a template says, before it is checked; the form in which stores keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    task_type: TaskType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<Duration>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dependent_systems: BTreeMap<String, SystemPolicy>,
    steps: Vec<StepTemplate>,
}

/// A checked template: names are unique, parents exist, there is no cycle, its schema compiles.
///
/// Templates are equal if they have the same fingerprint.
pub struct TaskTemplate {
    definition: Definition,
    body: Json,
    fingerprint: Fingerprint,
    dag: Dag,
    by_name: HashMap<String, StepIndex>,
    schema: Option<ContextSchema>,
    warnings: Vec<TemplateFault>,
}

impl TaskTemplate {
    /// A template that a store read back.
    ///
    /// It has the fingerprint that it was stored under, whatever this version of Tasker would
    /// write for it.
    ///
    /// # Errors
    /// The body was written by a version of Tasker with other rules.
    pub fn from_stored(body: &str) -> Result<Self, TemplateError> {
        let definition = serde_json::from_str(body).map_err(|error| {
            TemplateError::whole(format!("the stored template cannot be read: {error}"))
        })?;
        let template: Self =
            Checked::new(definition).map_err(|faults| faults.into_error(None))?.into();
        let fingerprint = Fingerprint::of(body.as_bytes());
        Ok(Self { body: Json::from_stored(body), fingerprint, ..template })
    }

    /// The form in which a store keeps the template.
    pub fn body(&self) -> &Json {
        &self.body
    }

    /// Which kind of task it makes.
    pub fn task_type(&self) -> &TaskType {
        &self.definition.task_type
    }

    /// What it is for, in words.
    pub fn description(&self) -> Option<&str> {
        self.definition.description.as_deref()
    }

    /// The JSON Schema that a task's context must satisfy.
    pub fn schema(&self) -> Option<&Json> {
        self.definition.schema.as_ref()
    }

    /// How long a task should take at most, from its submission or the end of its delay; somebody
    /// is told if it takes longer.
    pub fn deadline(&self) -> Option<Duration> {
        self.definition.deadline
    }

    /// When a system that its steps depend on counts as down.
    pub fn system_policy(&self, system: &str) -> SystemPolicy {
        self.definition.dependent_systems.get(system).cloned().unwrap_or_default()
    }

    /// The digest of all that the template says.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The steps, in the order in which they were written.
    pub fn steps(&self) -> &[StepTemplate] {
        &self.definition.steps
    }

    /// One step.
    ///
    /// # Panics
    /// If the index is of another template.
    pub fn step(&self, index: StepIndex) -> &StepTemplate {
        &self.definition.steps[index.get()]
    }

    /// The position of the step with a name.
    pub fn index_of(&self, step: &str) -> Option<StepIndex> {
        self.by_name.get(step).copied()
    }

    /// What is odd about the YAML that it was read from: keys that have no effect here.
    pub fn warnings(&self) -> &[TemplateFault] {
        &self.warnings
    }

    /// How the steps depend on each other.
    pub fn dag(&self) -> &Dag {
        &self.dag
    }
}

impl PartialEq for TaskTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for TaskTemplate {}

impl Hash for TaskTemplate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl fmt::Debug for TaskTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskTemplate({}, {} steps)", self.task_type(), self.steps().len())
    }
}
