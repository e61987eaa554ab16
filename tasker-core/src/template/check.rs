//! The one validator, for the builder, YAML and stored bodies: names, numbers, graph, schema.
//!
//! It finds all faults, not the first, in time and memory that grow with the template alone.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use semver::Version;

use super::fault::{Faults, Quoted, segment};
use super::schema::ContextSchema;
use super::{Definition, OnFailure, StepIndex, StepTemplate, TaskTemplate, systems};
use crate::breaker::SystemPolicy;
use crate::dag::Dag;
use crate::{Fingerprint, Json};

/// The most steps that a template may have.
pub(super) const MAX_STEPS: usize = 50_000;
/// The most attempts that a step may have.
pub(crate) const MAX_RETRY_LIMIT: u32 = 1_000_000;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;
/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 64 << 10;
/// How long an attempt may take.
pub(super) const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_WAIT;
/// The most calls that a breaker keeps, and the most probes and first calls.
const MAX_WINDOW_CALLS: u32 = 1000;
/// The longest wait between attempts.
const MAX_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How many names a message about a cycle spells out.
const MAX_CYCLE: usize = 12;

/// A definition without faults, and what checking it made anyway.
pub(super) struct Checked {
    definition: Definition,
    dag: Dag,
    by_name: HashMap<String, StepIndex>,
    schema: Option<ContextSchema>,
}

impl Checked {
    /// Checks a definition.
    pub(super) fn new(mut definition: Definition) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        task_names(&definition, &mut faults);
        for (index, step) in definition.steps.iter().enumerate() {
            check_step(index, step, &mut faults);
        }
        systems::check(&definition, &mut faults);
        let by_name = step_names(&definition.steps, &mut faults);
        let parents = parents(&definition.steps, &by_name, &mut faults);
        let dag = match Dag::new(parents) {
            Ok(dag) => Some(dag),
            Err(cycles) => {
                for cycle in cycles {
                    report_cycle(&definition.steps, &cycle, &mut faults);
                }
                None
            }
        };
        let schema = in_order(&mut definition, &mut faults)
            .and_then(|schema| ContextSchema::compile(&schema, &mut faults));
        match dag {
            Some(dag) if faults.is_empty() => Ok(Self { definition, dag, by_name, schema }),
            _ => Err(faults),
        }
    }
}

impl From<Checked> for TaskTemplate {
    fn from(checked: Checked) -> Self {
        let Checked { definition, dag, by_name, schema } = checked;
        // All maps in a definition have text keys and all numbers are finite: it has a JSON form.
        let body = Json::of(&definition).unwrap_or_else(|_| Json::null());
        let fingerprint = Fingerprint::of(body.as_str().as_bytes());
        Self { definition, body, fingerprint, dag, by_name, schema, warnings: Vec::new() }
    }
}

/// Reads a version; the message says what one looks like.
pub(super) fn parse_version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|_| {
        let shown = Quoted(text);
        let parts = text.split('.').count();
        let digits = text.split('.').all(|part| !part.is_empty() && part.parse::<u64>().is_ok());
        match digits && parts < 3 {
            true => {
                let whole = format!("{text}{}", ".0".repeat(3 - parts));
                format!("version {shown} needs three numbers, such as {}", Quoted(&whole))
            }
            false => format!("version {shown} is not a semantic version such as \"1.0.0\""),
        }
    })
}

fn task_names(definition: &Definition, faults: &mut Faults) {
    let task_type = &definition.task_type;
    check_name("", "name", &task_type.name, "", faults);
    check_name("", "namespace_name", &task_type.namespace, "", faults);
    if definition.deadline.is_some_and(|deadline| !TIMEOUTS.contains(&deadline)) {
        let days = days(MAX_WAIT);
        faults.add("/deadline", format!("deadline must be from 1 millisecond to {days} days"));
    }
    for system in definition.dependent_systems.keys() {
        if let Some(problem) = name_problem(system) {
            let pointer = format!("/dependent_systems/{}", segment(system));
            faults.add(pointer, format!("the name of a system {problem}"));
        }
    }
    check_description("", "", definition.description.as_deref(), faults);
    if definition.steps.is_empty() {
        faults.add("/step_templates", "a template needs at least one step");
    } else if definition.steps.len() > MAX_STEPS {
        faults.add("/step_templates", format!("there are more than {MAX_STEPS} steps"));
    }
}

fn check_step(index: usize, step: &StepTemplate, faults: &mut Faults) {
    let scope = format!("/step_templates/{index}");
    let subject = match step.name.as_str() {
        "" => String::new(),
        name => format!("step {}: ", Quoted(name)),
    };
    check_name(&scope, "name", &step.name, "", faults);
    // A handler that was not named has the step's name and its faults.
    if step.handler != step.name {
        check_name(&scope, "handler_class", &step.handler, &subject, faults);
    }
    if let OnFailure::Fallback(handler) = &step.on_failure {
        check_name(&format!("{scope}/on_failure"), "fallback", handler, &subject, faults);
    }
    if let Some(system) = &step.dependent_system {
        check_name(&scope, "dependent_system", system, &subject, faults);
    }
    if let Some(handler) = &step.compensate_with {
        check_name(&scope, "compensate_with", handler, &subject, faults);
    }
    for (place, code) in step.system_errors.iter().flatten().enumerate() {
        if let Some(problem) = name_problem(code) {
            let pointer = format!("{scope}/system_errors/{place}");
            faults.add(pointer, format!("{subject}an error code {problem}"));
        }
    }
    check_description(&scope, &subject, step.description.as_deref(), faults);
    for (key, problem) in number_problems(step) {
        let name = key.rsplit('/').next().unwrap_or(key);
        faults.add(format!("{scope}/{key}"), format!("{subject}{name} {problem}"));
    }
}

fn number_problems(step: &StepTemplate) -> impl Iterator<Item = (&'static str, String)> {
    let (retry, backoff) = (&step.retry, &step.retry.backoff);
    let days = days(MAX_WAIT);
    let limit = (!(1..=MAX_RETRY_LIMIT).contains(&retry.limit))
        .then(|| ("retry_limit", format!("must be from 1 to {MAX_RETRY_LIMIT}")));
    let timeout = (!TIMEOUTS.contains(&step.timeout))
        .then(|| ("timeout", format!("must be from 1 millisecond to {days} days")));
    let expected = step.expected_within.filter(|within| !TIMEOUTS.contains(within));
    let expected =
        expected.map(|_| ("expected_within", format!("must be from 1 millisecond to {days} days")));
    let multiplier = (!(backoff.multiplier >= 1.0 && backoff.multiplier.is_finite()))
        .then(|| ("backoff/multiplier", "must be 1 or more".to_owned()));
    let jitter = (!(0.0..=1.0).contains(&backoff.jitter))
        .then(|| ("backoff/jitter", "must be from 0 to 1".to_owned()));
    let max = (backoff.max > MAX_WAIT)
        .then(|| ("backoff/max", format!("must not be more than {days} days")));
    let base = (backoff.base > backoff.max)
        .then(|| ("backoff/base", "must not be more than max".to_owned()));
    [limit, timeout, expected, multiplier, jitter, max, base].into_iter().flatten()
}

/// What is wrong with a policy, by key.
pub(super) fn policy_problems(policy: &SystemPolicy) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if !(policy.failure_rate > 0.0 && policy.failure_rate <= 1.0) {
        problems.push(("failure_rate", "must be more than 0 and at most 1".to_owned()));
    }
    if !(1..=MAX_WINDOW_CALLS).contains(&policy.window_calls) {
        problems.push(("window_calls", format!("must be from 1 to {MAX_WINDOW_CALLS}")));
    }
    if !(1..=policy.window_calls.max(1)).contains(&policy.minimum_calls) {
        problems.push(("minimum_calls", "must be from 1 to window_calls".to_owned()));
    }
    for (key, number) in [("probes", policy.probes), ("initial_calls", policy.initial_calls)] {
        if !(1..=MAX_WINDOW_CALLS).contains(&number) {
            problems.push((key, format!("must be from 1 to {MAX_WINDOW_CALLS}")));
        }
    }
    for (key, time) in [("window", policy.window), ("probe_interval", policy.probe_interval)] {
        if !TIMEOUTS.contains(&time) {
            let days = days(MAX_WAIT);
            problems.push((key, format!("must be from 1 millisecond to {days} days")));
        }
    }
    problems
}

pub(super) const fn days(duration: Duration) -> u64 {
    duration.as_secs() / 86_400
}

fn check_name(scope: &str, key: &str, name: &str, subject: &str, faults: &mut Faults) {
    if let Some(problem) = name_problem(name) {
        faults.add(format!("{scope}/{key}"), format!("{subject}{key} {problem}"));
    }
}

/// Why a text cannot be a name.
pub(super) fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is missing".to_owned())
    } else if name.len() > MAX_NAME {
        Some(format!("{} is longer than {MAX_NAME} bytes", Quoted(name)))
    } else if name.chars().any(char::is_control) {
        Some(format!("{} has a control character", Quoted(name)))
    } else if name.trim() != name {
        Some(format!("{} begins or ends with a space", Quoted(name)))
    } else {
        None
    }
}

fn check_description(scope: &str, subject: &str, text: Option<&str>, faults: &mut Faults) {
    let problem = match text {
        Some(text) if text.contains('\0') => "has a NUL character".to_owned(),
        Some(text) if text.len() > MAX_DESCRIPTION => {
            format!("is longer than {} KiB", MAX_DESCRIPTION >> 10)
        }
        _ => return,
    };
    faults.add(format!("{scope}/description"), format!("{subject}description {problem}"));
}

fn step_names(steps: &[StepTemplate], faults: &mut Faults) -> HashMap<String, StepIndex> {
    let mut by_name = HashMap::with_capacity(steps.len());
    for (index, step) in (0u32..).zip(steps) {
        let first = by_name.entry(step.name.clone()).or_insert(StepIndex(index));
        if first.0 != index && !step.name.is_empty() {
            let message = format!("a step named {} is there twice", Quoted(&step.name));
            faults.add(format!("/step_templates/{index}/name"), message);
        }
    }
    by_name
}

/// The parents of each step that exist, each once.
fn parents(
    steps: &[StepTemplate],
    by_name: &HashMap<String, StepIndex>,
    faults: &mut Faults,
) -> Vec<Vec<StepIndex>> {
    // The last step that named each one as a parent: tells repetitions in constant time.
    let mut last_child = vec![None; steps.len()];
    let mut all = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        let child = Quoted(&step.name);
        let mut parents = Vec::with_capacity(step.depends_on.len());
        for (place, name) in step.depends_on.iter().enumerate() {
            let message = match by_name.get(name) {
                None => {
                    let hint = faults.suggest(name, steps.iter().map(|step| step.name.as_str()));
                    format!("step {child} depends on unknown step {}{hint}", Quoted(name))
                }
                Some(parent) if parent.get() == index => {
                    format!("step {child} depends on itself")
                }
                Some(parent) if last_child[parent.get()] == Some(index) => {
                    format!("step {child} depends on step {} twice", Quoted(name))
                }
                Some(parent) => {
                    last_child[parent.get()] = Some(index);
                    parents.push(*parent);
                    continue;
                }
            };
            faults.add(format!("/step_templates/{index}/depends_on_steps/{place}"), message);
        }
        all.push(parents);
    }
    all
}

/// Spells a cycle as `a -> b -> a`, each step waiting for the next.
fn report_cycle(steps: &[StepTemplate], cycle: &[StepIndex], faults: &mut Faults) {
    let [first, rest @ ..] = cycle else { return };
    let next = &steps[rest.first().unwrap_or(first).get()].name;
    let step = &steps[first.get()];
    let place = step.depends_on.iter().position(|name| name == next).unwrap_or(0);
    let mut path = String::new();
    for step in cycle.iter().take(MAX_CYCLE) {
        let name = Quoted(&steps[step.get()].name).to_string();
        let plain = name.trim_matches('"');
        let _ = write!(path, "{plain} -> ");
    }
    if cycle.len() > MAX_CYCLE {
        let _ = write!(path, "… ({} more) -> ", cycle.len() - MAX_CYCLE);
    }
    let name = Quoted(&step.name).to_string();
    path.push_str(name.trim_matches('"'));
    let pointer = format!("/step_templates/{}/depends_on_steps/{place}", first.0);
    faults.add(pointer, format!("the steps wait for each other: {path}"));
}

/// Sorts the keys of all JSON in a definition, so that their order does not count.
///
/// Returns the schema, parsed.
fn in_order(definition: &mut Definition, faults: &mut Faults) -> Option<serde_json::Value> {
    for (index, step) in definition.steps.iter_mut().enumerate() {
        if let Some(config) = &mut step.config {
            sort_keys(config, &format!("/step_templates/{index}/handler_config"), faults);
        }
    }
    sort_keys(definition.schema.as_mut()?, "/schema", faults)
}

fn sort_keys(json: &mut Json, pointer: &str, faults: &mut Faults) -> Option<serde_json::Value> {
    if json.has_nul() {
        faults.add(pointer, "a text in it has a NUL character");
    }
    match json.to::<serde_json::Value>() {
        Ok(mut value) => {
            value.sort_all_objects();
            *json = value.clone().into();
            Some(value)
        }
        Err(error) => {
            faults.add(pointer, format!("it is not JSON: {error}"));
            None
        }
    }
}
