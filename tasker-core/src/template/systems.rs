//! The keys of `dependent_systems`: when a system counts as down that steps name.

use std::collections::BTreeMap;

use super::check::policy_problems;
use super::fault::{Faults, Quoted, segment};
use super::read::{Reader, present, whole};
use super::tree::{Node, Value};
use super::{Definition, StepTemplate};
use crate::breaker::SystemPolicy;

const KEYS: &[&str] = &[
    "failure_rate",
    "minimum_calls",
    "window_calls",
    "window",
    "probe_interval",
    "probes",
    "initial_calls",
];

impl Reader {
    /// The policies of a task or of one environment, by system.
    pub(super) fn systems(
        &mut self,
        node: &Node<'_>,
        scope: &str,
    ) -> BTreeMap<String, SystemPolicy> {
        let mut systems = BTreeMap::new();
        let Some(node) = present(node, "dependent_systems") else { return systems };
        if !matches!(node.value, Value::Map(_)) {
            self.wrong(node, scope, "dependent_systems", "a map of systems");
            return systems;
        }
        for entry in node.entries() {
            let scope = format!("{scope}/dependent_systems/{}", segment(&entry.key));
            systems.insert(entry.key.to_string(), self.system(&entry.node, &scope));
        }
        systems
    }

    fn system(&mut self, node: &Node<'_>, scope: &str) -> SystemPolicy {
        let default = SystemPolicy::default();
        if node.is_null() {
            return default;
        }
        if !matches!(node.value, Value::Map(_)) {
            let message = format!("a system must be a map, not {}", node.kind());
            self.faults.at(scope, node.at, message);
            return default;
        }
        self.keys(node, scope, KEYS, &[]);
        let minimum_calls = self.count(node, scope, "minimum_calls");
        let window_calls = self.count(node, scope, "window_calls");
        let minimum = minimum_calls.unwrap_or(default.minimum_calls);
        SystemPolicy {
            failure_rate: self.number(node, scope, "failure_rate").unwrap_or(default.failure_rate),
            // What is not said follows what is.
            minimum_calls: minimum_calls.unwrap_or(minimum.min(window_calls.unwrap_or(minimum))),
            window_calls: window_calls.unwrap_or(default.window_calls.max(minimum)),
            window: self.milliseconds(node, scope, "window").unwrap_or(default.window),
            probe_interval: self
                .milliseconds(node, scope, "probe_interval")
                .unwrap_or(default.probe_interval),
            probes: self.count(node, scope, "probes").unwrap_or(default.probes),
            initial_calls: self
                .count(node, scope, "initial_calls")
                .unwrap_or(default.initial_calls),
        }
    }

    fn count(&mut self, node: &Node<'_>, scope: &str, key: &str) -> Option<u32> {
        let value = present(node, key)?;
        let count = whole(value).and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            self.wrong(value, scope, key, "a whole number");
        }
        count
    }
}

/// What is wrong with the systems of a template, and with what its steps say of them.
pub(super) fn check(definition: &Definition, faults: &mut Faults) {
    let named = |system: &str| {
        let of = |step: &StepTemplate| step.dependent_system.as_deref() == Some(system);
        definition.steps.iter().any(of)
    };
    for (system, policy) in &definition.dependent_systems {
        let scope = format!("/dependent_systems/{}", segment(system));
        for (key, problem) in policy_problems(policy) {
            let subject = Quoted(system);
            faults.add(format!("{scope}/{key}"), format!("system {subject}: {key} {problem}"));
        }
        if !named(system) {
            let steps = definition.steps.iter();
            let known: Vec<_> = steps.filter_map(|step| step.dependent_system.as_deref()).collect();
            let hint = faults.suggest(system, known);
            let message = format!("no step depends on system {}{hint}", Quoted(system));
            faults.add(scope, message);
        }
    }
    for (index, step) in definition.steps.iter().enumerate() {
        if step.system_errors.is_some() && step.dependent_system.is_none() {
            let pointer = format!("/step_templates/{index}/system_errors");
            let name = Quoted(&step.name);
            let message = format!("step {name}: system_errors needs a dependent_system");
            faults.add(pointer, message);
        }
    }
}
