//! A YAML text as a tree in which every key and value knows its place.
//!
//! Everything that can go wrong before a key has a meaning is found here: syntax, size, nesting,
//! aliases that multiply, keys that are there twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, Spanned};

use super::fault::{Faults, Position, Quoted, segment};

/// The longest text that is read: 16 MiB.
pub(super) const MAX_TEXT: usize = 16 << 20;
/// Keys, values, lists and maps together.
const MAX_NODES: usize = 700_000;
/// Nodes that aliases may add by repeating what their anchors hold.
const MAX_REPEATED: usize = 100_000;
/// Lists and maps within each other; each costs stack when it is read.
const MAX_DEPTH: usize = 24;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) at: Position,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    /// `.nan` or `.inf`, which JSON does not have.
    NotFinite,
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
}

/// A key of a map with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) at: Position,
    pub(super) key: Cow<'a, str>,
    pub(super) node: Node<'a>,
}

/// Reads a text.
pub(super) fn parse(text: &str) -> Result<Node<'_>, Faults> {
    let mut faults = Faults::default();
    if text.len() > MAX_TEXT {
        faults.add("", format!("the text is longer than {} MiB", MAX_TEXT >> 20));
        return Err(faults);
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH + 1,
            max_documents: 1,
            max_recorded_anchor_events: MAX_REPEATED,
            max_recorded_anchor_bytes: MAX_TEXT,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_REPEATED },
        // Found below instead, all of them at once.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_yaml::from_str_with_options::<Node<'_>>(text, options) {
        Ok(root) => {
            repeated_keys(&root, "", &mut faults);
            if faults.is_empty() { Ok(root) } else { Err(faults) }
        }
        Err(error) => {
            let position = error.location().as_ref().and_then(position);
            let message = reason(&error);
            match position {
                Some(position) => faults.at("", position, message),
                None => faults.add("", message),
            }
            Err(faults)
        }
    }
}

/// What the reader says, without the place, which the fault has already.
fn reason(error: &serde_yaml::Error) -> String {
    let text = error.without_snippet().to_string();
    match error.location() {
        Some(at) => {
            let place = format!(" at line {}, column {}", at.line(), at.column());
            text.replace(&place, "")
        }
        None => text,
    }
}

fn position(at: &Location) -> Option<Position> {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (at.line() > 0).then(|| Position { line: number(at.line()), column: number(at.column()) })
}

fn repeated_keys(node: &Node<'_>, pointer: &str, faults: &mut Faults) {
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| item.is_nested()) {
                repeated_keys(item, &format!("{pointer}/{index}"), faults);
            }
        }
        Value::Map(entries) => {
            let mut seen = HashSet::with_capacity(entries.len());
            for Entry { at, key, node } in entries {
                let repeated = !seen.insert(key);
                if repeated {
                    let pointer = format!("{pointer}/{}", segment(key));
                    faults.at(pointer, *at, format!("the key {} is there twice", Quoted(key)));
                }
                if node.is_nested() {
                    repeated_keys(node, &format!("{pointer}/{}", segment(key)), faults);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::NotFinite | Value::Text(_) => {}
    }
}

impl<'a> Node<'a> {
    fn is_nested(&self) -> bool {
        matches!(self.value, Value::List(_) | Value::Map(_))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for a message; never what it says.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) | Value::NotFinite => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The place of what a JSON pointer names, or of the nearest thing around it.
    pub(super) fn position_of(&self, pointer: &str) -> Position {
        let mut node = self;
        let mut at = self.at;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Value::List(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => node.get(&part),
            };
            let Some(next) = next else { break };
            (node, at) = (next, next.at);
        }
        at
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value<'de>>::deserialize(deserializer)?;
        let at = position(&referenced).ok_or_else(|| D::Error::custom("no position"))?;
        Ok(Self { at, value })
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Self::Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Self::Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Value::NotFinite, Value::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        list.shrink_to_fit();
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Key<'de>>>()? {
            let at = position(&key.referenced).ok_or_else(|| A::Error::custom("no position"))?;
            map.push(Entry { at, key: key.value.0, node: entries.next_value()? });
        }
        map.shrink_to_fit();
        Ok(Value::Map(map))
    }
}

/// A key, borrowed from the text where that can be done.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AnyKey).map(Key)
    }
}

struct AnyKey;

impl<'de> Visitor<'de> for AnyKey {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value))
    }
}
