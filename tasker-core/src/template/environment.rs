//! What a YAML file says differently for one environment, merged into what it says for all.
//!
//! Before that, keys with two spellings get one, so that an environment may use either.

use std::collections::HashMap;
use std::mem;

use super::fault::{Quoted, segment};
use super::read::Reader;
use super::tree::{Entry, Node, Value};

/// Other spellings of a step's keys.
const SPELLINGS: &[(&str, &str)] = &[
    ("handler", "handler_class"),
    ("default_retryable", "retryable"),
    ("default_retry_limit", "retry_limit"),
];

/// Takes the environments out of a file and merges the chosen one into the rest.
///
/// The others are checked for themselves, so a slip shows wherever the file is loaded.
pub(super) fn apply(root: &mut Node<'_>, chosen: Option<&str>, reader: &mut Reader) {
    one_spelling_in(root, "", reader);
    let Value::Map(entries) = &mut root.value else { return };
    let Some(place) = entries.iter().position(|entry| entry.key == "environments") else { return };
    let environments = entries.remove(place).node;
    let at = environments.at;
    let environments = match environments.value {
        Value::Map(environments) => environments,
        Value::Null => return,
        _ => {
            reader.at("/environments".into(), at, "environments must be a map".into());
            return;
        }
    };
    let steps = step_places(root);
    let mut merged = None;
    for Entry { key, mut node, .. } in environments {
        let scope = format!("/environments/{}", segment(&key));
        match node.value {
            Value::Null => continue,
            Value::Map(_) => {}
            _ => {
                reader.at(scope, node.at, "an environment must be a map".into());
                continue;
            }
        }
        one_spelling_in(&mut node, &scope, reader);
        check(&node, &scope, &steps, reader);
        if chosen == Some(&*key) {
            merged = Some(node);
        }
    }
    if let Some(environment) = merged {
        merge_task(root, environment, &steps);
    }
}

/// Where each step stands, by name.
fn step_places(root: &Node<'_>) -> HashMap<String, usize> {
    let Some(Node { value: Value::List(steps), .. }) = root.get("step_templates") else {
        return HashMap::new();
    };
    let names = steps.iter().map(|step| step.get("name").and_then(Node::as_text));
    names.enumerate().filter_map(|(at, name)| Some((name?.to_owned(), at))).collect()
}

fn check(node: &Node<'_>, scope: &str, steps: &HashMap<String, usize>, reader: &mut Reader) {
    reader.task_keys(node, scope);
    // What they come to together is checked once they are merged.
    let _ = (reader.systems(node, scope), reader.milliseconds(node, scope, "deadline"));
    if let Some(nested) = node.entries().iter().find(|entry| entry.key == "environments") {
        let message = "an environment cannot have environments".to_owned();
        reader.at(format!("{scope}/environments"), nested.at, message);
    }
    let incomplete = mem::take(&mut reader.incomplete);
    for (index, step) in reader.steps(node, scope).iter().enumerate() {
        let scope = format!("{scope}/step_templates/{index}");
        reader.step(step, &scope);
        let name = step.get("name");
        match name.and_then(Node::as_text) {
            Some(known) if steps.contains_key(known) => {}
            Some(unknown) => {
                let hint = reader.faults.suggest(unknown, steps.keys().map(String::as_str));
                let at = name.map_or(step.at, |name| name.at);
                let message = format!("there is no step {} to change{hint}", Quoted(unknown));
                reader.at(format!("{scope}/name"), at, message);
            }
            None if name.is_none() && matches!(step.value, Value::Map(_)) => {
                reader.at(scope, step.at, "the name of the step to change is missing".into());
            }
            None => {}
        }
    }
    reader.incomplete = incomplete;
}

fn one_spelling_in(task: &mut Node<'_>, scope: &str, reader: &mut Reader) {
    let Value::Map(entries) = &mut task.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.key == "step_templates") {
        let Value::List(steps) = &mut entry.node.value else { continue };
        for (index, step) in steps.iter_mut().enumerate() {
            one_spelling(step, &format!("{scope}/step_templates/{index}"), reader);
        }
    }
}

/// Renames other spellings, and makes one list of `depends_on_step` and `depends_on_steps`.
fn one_spelling<'a>(step: &mut Node<'a>, scope: &str, reader: &mut Reader) {
    let Value::Map(entries) = &mut step.value else { return };
    for (other, canonical) in SPELLINGS {
        let Some(place) = entries.iter().position(|entry| entry.key == *other) else { continue };
        if entries.iter().any(|entry| entry.key == *canonical) {
            let message = format!("{other} means the same as {canonical}, which is there too");
            reader.at(format!("{scope}/{other}"), entries[place].at, message);
            entries.remove(place);
        } else {
            entries[place].key = (*canonical).into();
        }
    }
    let Some(place) = entries.iter().position(|entry| entry.key == "depends_on_step") else {
        return;
    };
    let Entry { at, node, .. } = entries.remove(place);
    let single: Vec<Node<'a>> = match node.value {
        Value::Null => Vec::new(),
        Value::List(items) => items,
        _ => vec![node],
    };
    match entries.iter_mut().find(|entry| entry.key == "depends_on_steps") {
        None => {
            let node = Node { at, value: Value::List(single) };
            entries.push(Entry { at, key: "depends_on_steps".into(), node });
        }
        Some(Entry { node: Node { value: Value::List(items), .. }, .. }) => items.extend(single),
        Some(Entry { node, .. }) if node.is_null() => node.value = Value::List(single),
        // Not a list: that is told when it is read.
        Some(_) => {}
    }
}

/// Merges an environment into a task: its steps by name, all else key by key.
fn merge_task<'a>(root: &mut Node<'a>, environment: Node<'a>, places: &HashMap<String, usize>) {
    let Value::Map(mut changes) = environment.value else { return };
    if let Some(place) = changes.iter().position(|entry| entry.key == "step_templates") {
        let changed = changes.remove(place).node.value;
        let Value::Map(entries) = &mut root.value else { return };
        let steps = entries.iter_mut().find(|entry| entry.key == "step_templates");
        let Some(Value::List(steps)) = steps.map(|entry| &mut entry.node.value) else { return };
        let Value::List(changed) = changed else { return };
        for change in changed {
            let name = change.get("name").and_then(Node::as_text);
            if let Some(at) = name.and_then(|name| places.get(name)) {
                merge(&mut steps[*at], change);
            }
        }
    }
    merge(root, Node { at: environment.at, value: Value::Map(changes) });
}

/// Maps are merged key by key; anything else is replaced.
fn merge<'a>(base: &mut Node<'a>, change: Node<'a>) {
    match (&mut base.value, change.value) {
        (Value::Map(entries), Value::Map(changes)) => {
            let places: HashMap<_, _> =
                entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
            for change in changes {
                match places.get(&change.key) {
                    Some(at) => merge(&mut entries[*at].node, change.node),
                    None => entries.push(change),
                }
            }
        }
        (_, value) => *base = Node { at: change.at, value },
    }
}
