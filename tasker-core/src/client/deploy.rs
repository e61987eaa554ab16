//! The deploy check: which unfinished tasks nobody could go on with if all workers registered what
//! this process does.
//!
//! It has no rules of its own: `decide` says which steps are still to run and what a retry would
//! reopen, the registry which handlers there are.

use std::fmt;

use serde::Serialize;

use super::Tasker;
use crate::decide::{self, Order};
use crate::handler::{handlers_of_step, list};
use crate::registry::{Found, Registry};
use crate::snapshot::{Snapshot, Undone};
use crate::store::{Awaited, StoreError, StoredTask, TaskQuery, TaskSummary};
use crate::{Action, StepIndex, TaskId, TaskState};

/// How many tasks one page of the check looks at.
const PAGE: usize = 100;

/// A task that would wait for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stranded {
    /// The task.
    pub task: TaskId,
    /// Its kind, written `namespace/name@version`.
    pub task_type: String,
    /// Where it stands. One in [`Error`](TaskState::Error) has ended, and is stranded only if
    /// somebody retries it.
    pub state: TaskState,
    /// What it would lack.
    pub lacks: Lack,
}

/// What a stranded task would lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Lack {
    /// No version of its kind is registered.
    Name,
    /// Its kind is registered, but not in the version that it was started with.
    Version {
        /// What is registered instead, in order.
        registered: Vec<String>,
    },
    /// Its version is registered, without some handlers that it may still need.
    Handlers {
        /// Their names, in the order of the steps.
        missing: Vec<String>,
    },
    /// It waits for a system that its version, as it is registered, no longer calls, so that nobody
    /// takes it once the system is well. If an operator pauses and resumes it, it goes on.
    System {
        /// What the template that it was started with calls it.
        name: String,
    },
}

/// Where a page of the check begins; the default is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrandedCursor {
    state: TaskState,
    before: Option<TaskId>,
}

/// A page of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrandedPage {
    /// The tasks of this page that would be stranded.
    pub stranded: Vec<Stranded>,
    /// How many tasks were looked at.
    pub looked_at: usize,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<StrandedCursor>,
}

impl Stranded {
    /// Whether it has ended, so that it is stranded only if somebody retries it.
    pub const fn only_if_retried(&self) -> bool {
        self.state.is_terminal()
    }
}

/// The states in which a task needs, or may need again, somebody who goes on with it.
fn relevant() -> impl Iterator<Item = TaskState> {
    let may_go_on = |state: &TaskState| !state.is_terminal() || can_be_retried(*state);
    TaskState::ALL.into_iter().filter(may_go_on)
}

const fn can_be_retried(state: TaskState) -> bool {
    matches!(state, TaskState::Error)
}

impl Default for StrandedCursor {
    fn default() -> Self {
        Self { state: TaskState::Pending, before: None }
    }
}

impl StrandedCursor {
    /// Where the page after this one begins.
    fn after(self, page: &[TaskSummary]) -> Option<Self> {
        if page.len() == PAGE {
            return Some(Self { before: page.last().map(|last| last.id), ..self });
        }
        let state = relevant().skip_while(|state| *state != self.state).nth(1)?;
        Some(Self { state, before: None })
    }
}

impl Tasker {
    /// Which tasks would be stranded if every worker registered what this process registers, a
    /// page at a time: a check for a start-up or a step of a deployment.
    ///
    /// Tasks keep the template that they were started with, so as long as one is unfinished, its
    /// version and the handlers of its open steps are needed. Failed tasks are told too, since they
    /// may be retried: [`Stranded::only_if_retried`] tells them apart. What is deployed as several
    /// processes, each with a part of the handlers, is checked by one that registers them all.
    ///
    /// Nothing is changed, and the tasks go on meanwhile, so pages are no snapshot: a task that is
    /// retried or submitted during the check may be missed. A page looks at 100 tasks at most and
    /// reads each whose version is registered with its history.
    ///
    /// ```
    /// # use tasker_core::{
    /// #     MemoryStore, StepContext, StepTemplate, StoreError, TaskRequest, TaskTemplate, Tasker,
    /// #     Workflow, step_fn,
    /// # };
    /// use tasker_core::StrandedCursor;
    ///
    /// async fn would_strand(tasker: &Tasker) -> Result<Vec<String>, StoreError> {
    ///     let mut sentences = Vec::new();
    ///     let mut cursor = Some(StrandedCursor::default());
    ///     while let Some(from) = cursor {
    ///         let page = tasker.stranded(from).await?;
    ///         let now = page.stranded.iter().filter(|task| !task.only_if_retried());
    ///         sentences.extend(now.map(ToString::to_string));
    ///         cursor = page.next;
    ///     }
    ///     Ok(sentences)
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(MemoryStore::new());
    /// # let version = |version| {
    /// #     let step = StepTemplate::new("hello");
    /// #     let template = TaskTemplate::builder("greet").version(version).step(step).build()?;
    /// #     let hello = step_fn(|_: StepContext| async { Ok("Hello!") });
    /// #     let workflow = Workflow::new(template).step("hello", hello);
    /// #     Ok::<_, Box<dyn std::error::Error>>(
    /// #         Tasker::builder_on(store.clone()).register(workflow).build()?,
    /// #     )
    /// # };
    /// # let task = version("1.0.0")?.submit(TaskRequest::new("greet", "Ada")?).await?.id;
    /// // A task of version 1.0.0 is under way, and version 2.0.0 is to replace it.
    /// assert_eq!(
    ///     would_strand(&version("2.0.0")?).await?,
    ///     [format!(
    ///         "task {task}, `default/greet@1.0.0`, would be stranded: its version is not \
    ///          registered, only `default/greet@2.0.0`"
    ///     )]
    /// );
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The store failed.
    pub async fn stranded(&self, from: StrandedCursor) -> Result<StrandedPage, StoreError> {
        let state = Some(from.state);
        let query = TaskQuery { state, before: from.before, limit: PAGE, ..TaskQuery::default() };
        let page = self.find(query).await?;
        let registry = &self.shared.registry;
        let mut stranded = Vec::new();
        for TaskSummary { id, task_type, state, .. } in &page {
            let found = match without_template(registry, task_type) {
                Some(lacks) => Some((*state, lacks)),
                None => {
                    let stored = self.shared.store.load(*id).await?;
                    stored.and_then(|stored| Some((stored.state, lacks(registry, &stored)?)))
                }
            };
            stranded.extend(found.map(|(state, lacks)| {
                let task_type = task_type.clone();
                Stranded { task: *id, task_type, state, lacks }
            }));
        }
        Ok(StrandedPage { stranded, looked_at: page.len(), next: from.after(&page) })
    }
}

/// What a task lacks whose very kind is not registered.
fn without_template(registry: &Registry, task_type: &str) -> Option<Lack> {
    if matches!(registry.find(task_type), Found::One(_)) {
        return None;
    }
    let name = |of: &str| of.rsplit_once('@').map(|(name, _)| name.to_owned());
    let mut registered = registry.task_types();
    registered.retain(|other| name(other) == name(task_type));
    Some(if registered.is_empty() { Lack::Name } else { Lack::Version { registered } })
}

/// What a task lacks whose kind is registered.
fn lacks(registry: &Registry, stored: &StoredTask) -> Option<Lack> {
    let mut task = Snapshot::replay(stored);
    if task.state().is_terminal() {
        // As it would stand after a retry; one that cannot be retried needs nothing.
        let again = Order::because(String::new());
        decide::operate(&mut task, &Action::Retry, &again, stored.now).ok()?;
    }
    let handler = registry.get(&stored.template)?;
    let mut missing: Vec<String> = Vec::new();
    for (index, step) in (0u32..).map(StepIndex).zip(task.steps()) {
        let template = stored.template.step(index);
        let runs = !step.is_undoing() && !step.state().is_terminal();
        let forward = handlers_of_step(template).skip(usize::from(step.fell_back()));
        // Whatever has run, or will, may have to be undone.
        let undone = step.undone() == Undone::Yes;
        let back = template.compensate_with.as_deref().filter(|_| !undone);
        for name in forward.filter(|_| runs).chain(back) {
            if handler.step_handler(name).is_none() && !missing.iter().any(|known| known == name) {
                missing.push(name.to_owned());
            }
        }
    }
    if !missing.is_empty() {
        return Some(Lack::Handlers { missing });
    }
    let route = stored.route.as_ref()?;
    let Some(Awaited::System(name)) = route.waits_for() else { return None };
    let taken = registry.takes_parked(&stored.template, route);
    (!taken).then(|| Lack::System { name: name.to_owned() })
}

impl fmt::Display for Stranded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}, `{}`, would be stranded", self.task, self.task_type)?;
        if self.only_if_retried() {
            f.write_str(" by a retry")?;
        }
        write!(f, ": {}", self.lacks)
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("no version of it is registered"),
            Self::Version { registered } => {
                write!(f, "its version is not registered, only {}", list(registered))
            }
            Self::System { name } => {
                write!(f, "it waits for system `{name}`, which no step of its kind calls any more")
            }
            Self::Handlers { missing } => write!(f, "there is no handler for {}", list(missing)),
        }
    }
}
