//! From the keys of a YAML file to a definition: which keys there are and what each must hold.
//!
//! What the values mean together (names, graph, limits) is left to `check`.

use std::time::Duration;

use super::check::{MAX_RETRY_LIMIT, MAX_STEPS, TIMEOUTS, days, name_problem, parse_version};
use super::fault::{Faults, Position, Quoted, segment};
use super::tree::{Entry, Node, Value};
use super::{DEFAULT_NAMESPACE, DEFAULT_VERSION, Definition, OnFailure, StepTemplate, TaskType};
use crate::{Backoff, Json, RetryPolicy, Strategy};

const TASK_KEYS: &[&str] = &[
    "name",
    "namespace_name",
    "version",
    "description",
    "default_dependent_system",
    "dependent_systems",
    "deadline",
    "schema",
    "step_templates",
    "environments",
];
const STEP_KEYS: &[&str] = &[
    "name",
    "description",
    "handler_class",
    "depends_on_steps",
    "depends_on_step",
    "retryable",
    "retry_limit",
    "timeout",
    "backoff",
    "on_failure",
    "dependent_system",
    "system_errors",
    "compensate_with",
    "expected_within",
    "handler_config",
];
const BACKOFF_KEYS: &[&str] = &["strategy", "base", "multiplier", "max", "jitter"];

/// Keys of the original Rails format that mean nothing here, and why.
const TASK_KEYS_WITHOUT_MEANING: &[(&str, &str)] = &[
    ("task_handler_class", "a task handler is registered under the name of its template"),
    ("module_namespace", "handlers are registered by name, not looked up in a module"),
    ("named_steps", "the steps are those under `step_templates`"),
    ("concurrent", "steps always run as soon as what they depend on has succeeded"),
    ("custom_events", "every change of a task is an event already"),
    ("default_context", "a task starts with the context it was submitted with"),
    ("identity_strategy", "a task is told from another by its idempotency key"),
];
const STEP_KEYS_WITHOUT_MEANING: &[(&str, &str)] = &[
    ("skippable", "a step that may fail says `on_failure: continue`"),
    ("custom_events", "every change of a step is an event already"),
];
/// Values of such keys that ask for what happens anyway.
const MEANT_ANYWAY: &[(&str, bool)] = &[("concurrent", true), ("skippable", false)];

/// Reads a file, one key after the other; what cannot be read is a fault and keeps its default.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) faults: Faults,
    pub(super) warnings: Faults,
    /// Names or dependencies could not be read: to check the graph would only repeat that.
    pub(super) incomplete: bool,
}

impl Reader {
    /// A whole file, its environment already merged into it.
    pub(super) fn task(&mut self, root: &Node<'_>) -> Definition {
        self.task_keys(root, "");
        let name = self.name(root, "", "name").unwrap_or_default();
        let namespace =
            self.name(root, "", "namespace_name").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let version = self.version(root);
        let description = self.text(root, "", "description");
        let schema = present(root, "schema").and_then(|node| self.json(node, "/schema"));
        let system = self.default_system(root);
        let nodes = self.steps(root, "");
        let mut steps = Vec::with_capacity(nodes.len());
        for (index, step) in nodes.iter().enumerate() {
            let scope = format!("/step_templates/{index}");
            let mut step = self.step(step, &scope);
            step.dependent_system = step.dependent_system.or_else(|| system.clone());
            steps.push(step);
        }
        let task_type = TaskType { namespace, name, version };
        let deadline = self.milliseconds(root, "", "deadline");
        let dependent_systems = self.systems(root, "");
        Definition { task_type, description, schema, deadline, dependent_systems, steps }
    }

    /// Checked here, where it stands, and not with every step that it is given to.
    fn default_system(&mut self, root: &Node<'_>) -> Option<String> {
        const KEY: &str = "default_dependent_system";
        let system = self.text(root, "", KEY)?;
        let Some(problem) = name_problem(&system) else { return Some(system) };
        let at = root.position_of("/default_dependent_system");
        self.faults.at(format!("/{KEY}"), at, format!("{KEY} {problem}"));
        None
    }

    /// The keys of a task or of one environment.
    pub(super) fn task_keys(&mut self, node: &Node<'_>, scope: &str) {
        self.keys(node, scope, TASK_KEYS, TASK_KEYS_WITHOUT_MEANING);
    }

    /// The list of steps; an empty one unless there is a list.
    pub(super) fn steps<'n, 'a>(&mut self, node: &'n Node<'a>, scope: &str) -> &'n [Node<'a>] {
        match present(node, "step_templates") {
            Some(Node { value: Value::List(steps), .. }) if steps.len() <= MAX_STEPS => steps,
            Some(Node { value: Value::List(_), at }) => {
                self.incomplete = true;
                let message = format!("there are more than {MAX_STEPS} steps");
                self.faults.at(format!("{scope}/step_templates"), *at, message);
                &[]
            }
            Some(other) => {
                self.incomplete = true;
                self.wrong(other, scope, "step_templates", "a list of steps");
                &[]
            }
            None => &[],
        }
    }

    /// One step; in an environment it may say as little as its name.
    pub(super) fn step(&mut self, node: &Node<'_>, scope: &str) -> StepTemplate {
        if !matches!(node.value, Value::Map(_)) {
            self.incomplete = true;
            let message = format!("a step must be a map, not {}", node.kind());
            self.faults.at(scope, node.at, message);
            return StepTemplate::new("");
        }
        self.keys(node, scope, STEP_KEYS, STEP_KEYS_WITHOUT_MEANING);
        let mut step = StepTemplate::new(self.name(node, scope, "name").unwrap_or_default());
        step.description = self.text(node, scope, "description");
        if let Some(handler) = self.text(node, scope, "handler_class") {
            step.handler = handler;
        }
        step.depends_on = self.depends_on(node, scope);
        step.retry = self.retry(node, scope);
        step.dependent_system = self.text(node, scope, "dependent_system");
        step.system_errors = self.texts(node, scope, "system_errors", "an error code");
        step.compensate_with = self.text(node, scope, "compensate_with");
        step.expected_within = self.milliseconds(node, scope, "expected_within");
        step.on_failure = self.on_failure(node, scope);
        let config = present(node, "handler_config");
        if let Some(timeout) = self.milliseconds(node, scope, "timeout") {
            step.timeout = timeout;
        } else if present(node, "timeout").is_none()
            && let Some(timeout) = config.and_then(|config| self.timeout_seconds(config, scope))
        {
            step.timeout = timeout;
        }
        step.config =
            config.and_then(|config| self.json(config, &format!("{scope}/handler_config")));
        step
    }

    fn depends_on(&mut self, step: &Node<'_>, scope: &str) -> Vec<String> {
        let Some(node) = present(step, "depends_on_steps") else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.incomplete = true;
            self.wrong(node, scope, "depends_on_steps", "a list of step names");
            return Vec::new();
        };
        let mut names = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_text() {
                Some(name) => names.push(name.to_owned()),
                None => {
                    self.incomplete = true;
                    let scope = format!("{scope}/depends_on_steps");
                    let message = format!("a step name must be a text, not {}", item.kind());
                    self.faults.at(format!("{scope}/{index}"), item.at, message);
                }
            }
        }
        names
    }

    fn retry(&mut self, step: &Node<'_>, scope: &str) -> RetryPolicy {
        let default = RetryPolicy::default();
        let retryable = self.flag(step, scope, "retryable").unwrap_or(default.retryable);
        let limit = present(step, "retry_limit").and_then(|node| {
            let limit = whole(node).and_then(|limit| u32::try_from(limit).ok());
            if limit.is_none() {
                let expected = format!("a whole number from 1 to {MAX_RETRY_LIMIT}");
                self.wrong(node, scope, "retry_limit", &expected);
            }
            limit
        });
        let backoff = self.backoff(step, scope);
        RetryPolicy { retryable, limit: limit.unwrap_or(default.limit), backoff }
    }

    fn backoff(&mut self, step: &Node<'_>, scope: &str) -> Backoff {
        let default = Backoff::default();
        let Some(node) = present(step, "backoff") else { return default };
        if !matches!(node.value, Value::Map(_)) {
            self.wrong(node, scope, "backoff", "a map");
            return default;
        }
        let scope = format!("{scope}/backoff");
        self.keys(node, &scope, BACKOFF_KEYS, &[]);
        let strategy = match present(node, "strategy").map(|node| (node, node.as_text())) {
            None => default.strategy,
            Some((_, Some("exponential"))) => Strategy::Exponential,
            Some((_, Some("linear"))) => Strategy::Linear,
            Some((_, Some("fixed"))) => Strategy::Fixed,
            Some((node, _)) => {
                self.wrong(node, &scope, "strategy", "exponential, linear or fixed");
                default.strategy
            }
        };
        let base = self.milliseconds(node, &scope, "base").unwrap_or(default.base);
        let max = self.milliseconds(node, &scope, "max").unwrap_or(default.max.max(base));
        let multiplier = self.number(node, &scope, "multiplier").unwrap_or(default.multiplier);
        let jitter = self.number(node, &scope, "jitter").unwrap_or(default.jitter);
        Backoff { strategy, base, multiplier, max, jitter }
    }

    fn on_failure(&mut self, step: &Node<'_>, scope: &str) -> OnFailure {
        let Some(node) = present(step, "on_failure") else { return OnFailure::default() };
        match &node.value {
            Value::Text(text) if text == "fail" => return OnFailure::Fail,
            Value::Text(text) if text == "continue" => return OnFailure::Continue,
            Value::Map(_) => {
                let scope = format!("{scope}/on_failure");
                self.keys(node, &scope, &["fallback"], &[]);
                if present(node, "fallback").is_some() {
                    let handler = self.text(node, &scope, "fallback");
                    return handler.map_or_else(OnFailure::default, OnFailure::Fallback);
                }
            }
            _ => {}
        }
        self.wrong(node, scope, "on_failure", "fail, continue or { fallback: handler }");
        OnFailure::default()
    }

    fn version(&mut self, root: &Node<'_>) -> semver::Version {
        let Some(node) = present(root, "version") else { return DEFAULT_VERSION };
        let read = match node.as_text() {
            Some(text) => parse_version(text),
            None => Err("version must be a text such as \"1.0.0\"".to_owned()),
        };
        read.unwrap_or_else(|message| {
            self.faults.at("/version", node.at, message);
            DEFAULT_VERSION
        })
    }

    fn timeout_seconds(&mut self, config: &Node<'_>, scope: &str) -> Option<Duration> {
        let node = present(config, "timeout_seconds")?;
        let seconds = match &node.value {
            Value::Number(number) => number.as_f64(),
            _ => None,
        };
        let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let timeout = timeout.filter(|timeout| TIMEOUTS.contains(timeout));
        if timeout.is_none() {
            let scope = format!("{scope}/handler_config");
            let expected = format!("a number of seconds, at most {} days", days(*TIMEOUTS.end()));
            self.wrong(node, &scope, "timeout_seconds", &expected);
        }
        timeout
    }

    /// A name without which the graph cannot be checked.
    fn name(&mut self, node: &Node<'_>, scope: &str, key: &str) -> Option<String> {
        let name = self.text(node, scope, key);
        self.incomplete |= name.is_none() && present(node, key).is_some();
        name
    }

    pub(super) fn text(&mut self, node: &Node<'_>, scope: &str, key: &str) -> Option<String> {
        let value = present(node, key)?;
        let text = value.as_text().map(str::to_owned);
        if text.is_none() {
            self.wrong(value, scope, key, "a text");
        }
        text
    }

    /// A list of texts.
    fn texts(
        &mut self,
        node: &Node<'_>,
        scope: &str,
        key: &str,
        what: &str,
    ) -> Option<Vec<String>> {
        let list = present(node, key)?;
        let Value::List(items) = &list.value else {
            self.wrong(list, scope, key, &format!("a list, each item {what}"));
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_text() {
                Some(text) => texts.push(text.to_owned()),
                None => {
                    let message = format!("{what} must be a text, not {}", item.kind());
                    self.faults.at(format!("{scope}/{key}/{index}"), item.at, message);
                }
            }
        }
        Some(texts)
    }

    fn flag(&mut self, node: &Node<'_>, scope: &str, key: &str) -> Option<bool> {
        let value = present(node, key)?;
        if let Value::Bool(flag) = value.value {
            return Some(flag);
        }
        self.wrong(value, scope, key, "true or false");
        None
    }

    pub(super) fn number(&mut self, node: &Node<'_>, scope: &str, key: &str) -> Option<f64> {
        let value = present(node, key)?;
        if let Value::Number(number) = &value.value {
            return number.as_f64();
        }
        self.wrong(value, scope, key, "a number");
        None
    }

    pub(super) fn milliseconds(
        &mut self,
        node: &Node<'_>,
        scope: &str,
        key: &str,
    ) -> Option<Duration> {
        let value = present(node, key)?;
        let milliseconds = whole(value).map(Duration::from_millis);
        if milliseconds.is_none() {
            self.wrong(value, scope, key, "a whole number of milliseconds");
        }
        milliseconds
    }

    fn json(&mut self, node: &Node<'_>, pointer: &str) -> Option<Json> {
        match json(node) {
            Ok(value) => Some(value.into()),
            Err(at) => {
                self.faults.at(pointer, at, "JSON has no such number");
                None
            }
        }
    }

    /// Refuses unknown keys and warns of those that mean nothing.
    pub(super) fn keys(
        &mut self,
        node: &Node<'_>,
        scope: &str,
        known: &[&str],
        idle: &[(&str, &str)],
    ) {
        for Entry { at, key, node } in node.entries() {
            let key = key.as_ref();
            if known.contains(&key) {
                continue;
            }
            let pointer = format!("{scope}/{}", segment(key));
            match idle.iter().find(|(name, _)| *name == key) {
                Some(_) if asks_for_the_usual(key, node) => {}
                Some((_, why)) => {
                    let message = format!("the key {} has no effect: {why}", Quoted(key));
                    self.warnings.at(pointer, *at, message);
                }
                None => {
                    let hint = self.faults.suggest(key, known.iter().copied());
                    let message = format!("unknown key {}{hint}", Quoted(key));
                    self.faults.at(pointer, *at, message);
                }
            }
        }
    }

    pub(super) fn wrong(&mut self, node: &Node<'_>, scope: &str, key: &str, expected: &str) {
        let message = format!("{key} must be {expected}");
        self.faults.at(format!("{scope}/{key}"), node.at, message);
    }

    /// A fault that the caller found.
    pub(super) fn at(&mut self, pointer: String, at: Position, message: String) {
        self.faults.at(pointer, at, message);
    }
}

/// The same in JSON, or the place of a number that JSON does not have.
fn json(node: &Node<'_>) -> Result<serde_json::Value, Position> {
    Ok(match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.clone().into(),
        Value::NotFinite => return Err(node.at),
        Value::Text(text) => text.as_ref().into(),
        Value::List(items) => items.iter().map(json).collect::<Result<_, _>>()?,
        Value::Map(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|entry| Ok((entry.key.to_string(), json(&entry.node)?)));
            serde_json::Value::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

/// The value of a key that says something: `key:` alone is as good as no key.
pub(super) fn present<'n, 'a>(node: &'n Node<'a>, key: &str) -> Option<&'n Node<'a>> {
    node.get(key).filter(|value| !value.is_null())
}

pub(super) fn whole(node: &Node<'_>) -> Option<u64> {
    match &node.value {
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

fn asks_for_the_usual(key: &str, node: &Node<'_>) -> bool {
    let usual = MEANT_ANYWAY.iter().find(|(name, _)| *name == key);
    usual.is_some_and(|(_, usual)| matches!(node.value, Value::Bool(value) if value == *usual))
}
