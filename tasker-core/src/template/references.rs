//! How much work a JSON Schema makes of one value: references that go round or multiply.
//!
//! A validator follows `$ref`, `allOf` and the like without going on in the document, so a circle
//! of them never ends and forty lines that each refer twice to the next are a million million
//! checks. Going on in the document (`properties`, `items`) is bounded by the document.

use std::collections::HashMap;
use std::ptr;

use serde_json::{Map, Value};

/// References and combinations through which one value may be checked.
const MAX_DEPTH: usize = 32;
/// Checks that one value may cost.
const MAX_CHECKS: u64 = 10_000;

/// Why a schema is refused, if it is.
pub(super) fn problem(schema: &Value) -> Option<String> {
    let mut references = References { root: schema, named: HashMap::new(), known: HashMap::new() };
    references.collect(schema);
    references.check(schema).err()
}

/// What one value costs below a part of the schema.
#[derive(Clone, Copy)]
struct Cost {
    checks: u64,
    depth: usize,
}

struct References<'s> {
    root: &'s Value,
    /// Parts that have an `$id` or an anchor.
    named: HashMap<&'s str, &'s Value>,
    /// By the address of the part, which does not move.
    known: HashMap<*const Value, Cost>,
}

impl<'s> References<'s> {
    fn collect(&mut self, part: &'s Value) {
        if let Value::Object(entries) = part {
            for key in ["$id", "$anchor", "$dynamicAnchor"] {
                if let Some(Value::String(name)) = entries.get(key) {
                    self.named.insert(name, part);
                }
            }
        }
        children(part).for_each(|child| self.collect(child));
    }

    /// Every part of the schema, wherever in a document it may come to be asked.
    fn check(&mut self, part: &'s Value) -> Result<(), String> {
        self.cost(part, 0)?;
        children(part).try_for_each(|child| self.check(child))
    }

    fn cost(&mut self, part: &'s Value, above: usize) -> Result<Cost, String> {
        let known = self.known.get(&ptr::from_ref(part)).copied();
        if above + known.map_or(0, |cost| cost.depth) > MAX_DEPTH {
            return Err(format!(
                "its references go round, or through more than {MAX_DEPTH} others"
            ));
        }
        let (None, Value::Object(entries)) = (known, part) else {
            return Ok(known.unwrap_or(Cost { checks: 1, depth: 0 }));
        };
        let mut cost = Cost { checks: 1, depth: 0 };
        for next in self.same_value(entries) {
            let below = self.cost(next, above + 1)?;
            cost.checks += below.checks;
            cost.depth = cost.depth.max(below.depth + 1);
            if cost.checks > MAX_CHECKS {
                return Err(format!("its references multiply to more than {MAX_CHECKS} checks"));
            }
        }
        self.known.insert(part, cost);
        Ok(cost)
    }

    /// The parts that are asked about the same value.
    fn same_value(&self, entries: &'s Map<String, Value>) -> Vec<&'s Value> {
        let mut next = Vec::new();
        for (key, value) in entries {
            match key.as_str() {
                "allOf" | "anyOf" | "oneOf" | "dependentSchemas" => next.extend(children(value)),
                "not" | "if" | "then" | "else" => next.push(value),
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    next.extend(value.as_str().and_then(|target| self.target(target)));
                }
                _ => {}
            }
        }
        next
    }

    /// Where a reference leads; what leads out of the schema is refused when it is compiled.
    fn target(&self, reference: &str) -> Option<&'s Value> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let base = if base.is_empty() { self.root } else { self.named.get(base)? };
        if fragment.is_empty() || fragment.starts_with('/') {
            return base.pointer(fragment);
        }
        self.named.get(fragment).copied()
    }
}

fn children(part: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match part {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(entries) => Box::new(entries.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Box::new(std::iter::empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::problem;

    fn ladder(rungs: usize, rung: impl Fn(&str) -> Value) -> Value {
        let mut parts = Map::new();
        for at in 0..rungs {
            parts.insert(format!("d{at}"), rung(&format!("#/$defs/d{}", at + 1)));
        }
        parts.insert(format!("d{rungs}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/d0", "$defs": parts })
    }

    #[test]
    fn references_end_and_do_not_multiply() {
        let tree = json!({
            "$ref": "#/$defs/tree",
            "$defs": { "tree": {
                "properties": { "left": { "$ref": "#/$defs/tree" }, "right": { "$ref": "#" } },
            } },
        });
        let twice = |next: &str| json!({ "allOf": [{ "$ref": next }, { "$ref": next }] });
        let (round, many) = ("go round", "multiply");
        for (schema, expected) in [
            (tree, None),
            (json!(true), None),
            (ladder(20, |next| json!({ "$ref": next })), None),
            (ladder(40, |next| json!({ "$ref": next })), Some(round)),
            (ladder(5_000, |next| json!({ "$ref": next })), Some(round)),
            (ladder(8, twice), None),
            (ladder(14, twice), Some(many)),
            (json!({ "$ref": "#" }), Some(round)),
            (
                json!({ "properties": { "a": { "not": { "$ref": "#/properties/a" } } } }),
                Some(round),
            ),
            (json!({ "$ref": "https://example.com/" }), None),
            (json!({ "$id": "urn:a", "anyOf": [{ "$ref": "urn:a#/anyOf/0" }] }), Some(round)),
            (json!({ "$anchor": "a", "anyOf": [{ "$ref": "#a" }, { "$ref": "#a" }] }), Some(round)),
        ] {
            let told = problem(&schema);
            assert_eq!(told.is_some(), expected.is_some(), "{told:?}: {schema}");
            assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
