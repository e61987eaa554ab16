//! The kinds of task that a process knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::breaker::SystemPolicy;
use crate::handler::{MissingHandlers, TaskHandler, handler_names};
use crate::store::Route;
use crate::{TaskTemplate, TaskType};

/// Task handlers by kind of task.
#[derive(Default)]
pub(crate) struct Registry {
    handlers: HashMap<TaskType, Arc<dyn TaskHandler>>,
    /// By namespace.
    routes: BTreeMap<String, BTreeSet<Route>>,
    /// The routes of tasks that wait for a system, by namespace and system.
    parked: BTreeMap<String, BTreeMap<String, BTreeSet<Route>>>,
    /// When a system counts as down, as the first template that names it says.
    policies: BTreeMap<String, SystemPolicy>,
}

/// What a name stands for.
pub(crate) enum Found<'a> {
    None,
    One(&'a Arc<dyn TaskHandler>),
    /// Of several namespaces.
    Several(Vec<String>),
}

/// A task handler that cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Its template names handlers that it does not have.
    #[error(transparent)]
    MissingHandlers(#[from] MissingHandlers),
    /// There is one for the same namespace, name and version: give one of them another version.
    #[error("task `{0}` is registered twice")]
    Duplicate(String),
    /// There are two sinks for escalations of this name: give one of them another name.
    #[error("sink `{0}` is registered twice")]
    DuplicateSink(String),
}

impl Registry {
    /// Adds a task handler; with `partial` it may lack handlers, whose steps then wait for a worker
    /// that has them.
    pub(crate) fn add(
        &mut self,
        handler: Arc<dyn TaskHandler>,
        partial: bool,
    ) -> Result<(), RegisterError> {
        let template = handler.template().clone();
        let (here, missing): (Vec<_>, Vec<_>) = handler_names(&template)
            .into_iter()
            .partition(|name| handler.step_handler(name).is_some());
        if !partial && !missing.is_empty() {
            let names = missing.into_iter().map(str::to_owned).collect();
            let task = template.task_type().to_string();
            return Err(MissingHandlers { task, names }.into());
        }
        let task_type = template.task_type().clone();
        if self.handlers.contains_key(&task_type) {
            return Err(RegisterError::Duplicate(task_type.to_string()));
        }
        let routes = self.routes.entry(task_type.namespace.clone()).or_default();
        routes.insert(Route::of(&template));
        routes.extend(here.into_iter().map(|name| Route::to_handler(&template, name)));
        let parked = self.parked.entry(task_type.namespace.clone()).or_default();
        for step in template.steps() {
            // Who cannot make the call is no use to a task that waits for it.
            let Some(system) = &step.dependent_system else { continue };
            let callers = std::iter::once(&step.handler).chain(&step.compensate_with);
            for caller in callers.filter(|name| handler.step_handler(name).is_some()) {
                let route = Route::to_system(&template, system, caller);
                parked.entry(system.clone()).or_default().insert(route);
                let policy = || template.system_policy(system);
                self.policies.entry(system.clone()).or_insert_with(policy);
            }
        }
        self.handlers.insert(task_type, handler);
        Ok(())
    }

    /// The task handler for `name`, `namespace/name` or `namespace/name@version`; of several
    /// versions the highest.
    pub(crate) fn find(&self, name: &str) -> Found<'_> {
        let matches = |of: &TaskType| {
            of.name == name
                || name.split_once('/').is_some_and(|(namespace, rest)| {
                    let (task, version) = rest.split_once('@').unzip();
                    namespace == of.namespace
                        && task.unwrap_or(rest) == of.name
                        && version.is_none_or(|version| version == of.version.to_string())
                })
        };
        let found = self.handlers.iter().filter(|(of, _)| matches(of));
        let found: BTreeMap<_, _> = found.collect();
        let namespaces: BTreeSet<_> = found.keys().map(|of| &of.namespace).collect();
        if namespaces.len() > 1 {
            return Found::Several(found.keys().map(ToString::to_string).collect());
        }
        // Of one namespace and name: in the order of their versions.
        found.into_values().next_back().map_or(Found::None, Found::One)
    }

    /// The kinds of task, in order.
    pub(crate) fn task_types(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.handlers.keys().map(ToString::to_string).collect();
        names.into_iter().collect()
    }

    /// The task handler for the kind of task that a template makes, this very version of it.
    pub(crate) fn get(&self, template: &TaskTemplate) -> Option<&Arc<dyn TaskHandler>> {
        self.handlers.get(template.task_type())
    }

    /// The routes of all kinds of task, or of those in some namespaces.
    pub(crate) fn routes(&self, namespaces: Option<&BTreeSet<String>>) -> Arc<BTreeSet<Route>> {
        let served = |name| namespaces.is_none_or(|namespaces| namespaces.contains(name));
        let routes = self.routes.iter().filter(|(name, _)| served(*name));
        Arc::new(routes.flat_map(|(_, routes)| routes).cloned().collect())
    }

    /// The routes of tasks that wait for a system, of all kinds or of those in some namespaces.
    pub(crate) fn parked_routes(
        &self,
        namespaces: Option<&BTreeSet<String>>,
    ) -> BTreeMap<String, BTreeSet<Route>> {
        let served = |name| namespaces.is_none_or(|namespaces| namespaces.contains(name));
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for (_, systems) in self.parked.iter().filter(|(name, _)| served(*name)) {
            for (system, routes) in systems {
                all.entry(system.clone()).or_default().extend(routes.iter().cloned());
            }
        }
        all
    }

    /// Whether workers of this process take the tasks of a template that wait for a system on a
    /// route: it may be an older template of the same kind of task, which names another system.
    pub(crate) fn takes_parked(&self, template: &TaskTemplate, route: &Route) -> bool {
        let systems = self.parked.get(&template.task_type().namespace);
        systems.is_some_and(|systems| systems.values().any(|routes| routes.contains(route)))
    }

    /// The systems that can be called here.
    pub(crate) fn systems(&self) -> BTreeMap<String, SystemPolicy> {
        self.policies.clone()
    }
}
