//! From YAML events to a tree: types of scalars, anchors and aliases, merge keys.
//!
//! Everything that can be wrong before a key has a meaning is found here: syntax, size, nesting,
//! aliases that multiply, keys that are there twice. The stack is a list of its own, so that no
//! text can overflow the thread's.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{
    self as yaml, ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag,
};

use super::fault::{Faults, Position, Quoted, segment};
use super::scalar::{typed, unknown_tag};
use super::tree::{Entry, Node, Value};

/// The longest text that is read: 16 MiB.
pub(super) const MAX_TEXT: usize = 16 << 20;
/// Values, lists and maps together, and keys.
const MAX_NODES: usize = 750_000;
/// What anchors and aliases may add to that by repeating.
const MAX_REPEATED: usize = 100_000;
/// Lists and maps within each other.
const MAX_DEPTH: usize = 64;
/// A repeated text counts as one more node for so many bytes.
const NODE_BYTES: usize = 32;
/// The longest key, in bytes: it is part of the pointer of all that is below it.
const MAX_KEY: usize = 1024;
/// A map of so few keys is searched, not hashed.
const FEW: usize = 12;

/// Reads a text.
pub(super) fn compose(text: &str) -> Result<Node<'_>, Faults> {
    let mut composer = Composer::default();
    match composer.document(text) {
        Ok(root) if composer.faults.is_empty() => Ok(root),
        Ok(_) => Err(composer.faults),
        Err(Stop { at, message }) => {
            composer.faults.at(composer.pointer(), at, message);
            Err(composer.faults)
        }
    }
}

/// Why reading cannot go on.
struct Stop {
    at: Position,
    message: String,
}

fn stop<T>(at: Position, message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop { at, message: message.into() })
}

fn position(mark: &Marker) -> Position {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: number(mark.line()), column: number(mark.col() + 1) }
}

/// A list or a map that is not complete.
struct Open<'a> {
    at: Position,
    anchor: usize,
    items: Items<'a>,
    /// Lists and maps within each other below this one.
    height: usize,
    nodes: usize,
}

enum Items<'a> {
    List(Vec<Node<'a>>),
    Map { entries: Vec<Entry<'a>>, merged: Vec<Node<'a>>, key: Option<Key<'a>> },
}

struct Key<'a> {
    at: Position,
    text: Cow<'a, str>,
    /// It is `<<`: the maps under it fill in what their own map does not say.
    merges: bool,
}

/// A complete value with its measures.
#[derive(Clone)]
struct Complete<'a> {
    node: Node<'a>,
    height: usize,
    nodes: usize,
}

#[derive(Default)]
struct Composer<'a> {
    open: Vec<Open<'a>>,
    anchors: HashMap<usize, Complete<'a>>,
    root: Option<Node<'a>>,
    nodes: usize,
    repeated: usize,
    faults: Faults,
}

impl<'a> Composer<'a> {
    fn document(&mut self, text: &'a str) -> Result<Node<'a>, Stop> {
        let start = Position { line: 1, column: 1 };
        if text.len() > MAX_TEXT {
            return stop(start, format!("the text is longer than {} MiB", MAX_TEXT >> 20));
        }
        let mut options = yaml::options! {
            flow_nesting_limit: MAX_DEPTH + 1,
            block_nesting_limit: MAX_DEPTH + 1,
        };
        options.set_emit_comments(false);
        let mut events: Parser<'a, StrInput<'a>> = Parser::new_from_str_with_options(text, options);
        while let Some(event) = events.next_event() {
            let (event, span) = event.map_err(|error| syntax(&error))?;
            self.event(event, position(&span.start))?;
        }
        Ok(self.root.take().unwrap_or(Node { at: start, value: Value::Null }))
    }

    fn event(&mut self, event: Event<'a>, at: Position) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, at)?;
                self.scalar(text, style, anchor, tag.as_deref(), at)
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                self.begin(at, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                self.begin(
                    at,
                    anchor,
                    Items::Map { entries: Vec::new(), merged: Vec::new(), key: None },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(known) = self.anchors.get(&anchor) else {
                    return stop(at, "the alias stands within what it repeats");
                };
                self.repeated += known.nodes;
                if self.repeated > MAX_REPEATED {
                    return stop(at, "the aliases repeat too much");
                }
                let mut known = known.clone();
                known.node.at = at;
                self.put(known, false)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                stop(at, "a second document begins; one file is one template")
            }
            // The ends of documents and of the text, and what only describes it.
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return stop(at, format!("there are more than {MAX_NODES} keys and values"));
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, anchor: usize, items: Items<'a>) -> Result<(), Stop> {
        self.count(1, at)?;
        if self.expects_key() {
            return stop(at, "a key must be a text, not a list or a map");
        }
        self.open.push(Open { at, anchor, items, height: 0, nodes: 1 });
        self.check_depth(0, at)
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(Open { at, anchor, items, height, nodes }) = self.open.pop() else {
            return Ok(());
        };
        let value = match items {
            Items::List(mut items) => {
                items.shrink_to_fit();
                Value::List(items)
            }
            Items::Map { mut entries, merged, .. } => {
                self.check_repeated(&entries);
                merge(&mut entries, merged)?;
                entries.shrink_to_fit();
                Value::Map(entries)
            }
        };
        let complete = Complete { node: Node { at, value }, height: height + 1, nodes };
        self.remember(anchor, &complete)?;
        self.put(complete, false)
    }

    fn scalar(
        &mut self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: Position,
    ) -> Result<(), Stop> {
        let plain = style == ScalarStyle::Plain && tag.is_none();
        let merges = plain && text == "<<";
        let nodes = 1 + text.len() / NODE_BYTES;
        let value = if self.expects_key() {
            if text.len() > MAX_KEY {
                return stop(at, format!("a key is longer than {MAX_KEY} bytes"));
            }
            Value::Text(text)
        } else {
            typed(text, plain, tag).map_err(|message| Stop { at, message })?
        };
        let complete = Complete { node: Node { at, value }, height: 0, nodes };
        self.remember(anchor, &complete)?;
        self.put(complete, merges)
    }

    /// Keeps what has an anchor; without one the number is 0.
    fn remember(&mut self, anchor: usize, complete: &Complete<'a>) -> Result<(), Stop> {
        if anchor == 0 {
            return Ok(());
        }
        self.repeated += complete.nodes;
        if self.repeated > MAX_REPEATED {
            return stop(complete.node.at, "the anchors hold too much");
        }
        self.anchors.insert(anchor, complete.clone());
        Ok(())
    }

    /// Puts a value where the text has it: as key, value, item or the whole.
    fn put(&mut self, complete: Complete<'a>, merges: bool) -> Result<(), Stop> {
        let Complete { node, height, nodes } = complete;
        self.check_depth(height, node.at)?;
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.height = parent.height.max(height);
        parent.nodes += nodes;
        match &mut parent.items {
            Items::List(items) => items.push(node),
            Items::Map { key: waiting @ None, .. } => match node.value {
                Value::Text(text) if text.len() <= MAX_KEY => {
                    *waiting = Some(Key { at: node.at, text, merges });
                }
                _ => return stop(node.at, "a key must be a text, and a short one"),
            },
            Items::Map { entries, merged, key } => match key.take() {
                Some(Key { merges: true, .. }) => merged.push(node),
                Some(Key { at, text: key, .. }) => entries.push(Entry { at, key, node }),
                None => {}
            },
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { items: Items::Map { key: None, .. }, .. }))
    }

    fn check_repeated(&mut self, entries: &[Entry<'a>]) {
        let mut seen = HashSet::new();
        for (index, Entry { at, key, .. }) in entries.iter().enumerate() {
            let repeated = if entries.len() <= FEW {
                entries[..index].iter().any(|earlier| earlier.key == *key)
            } else {
                !seen.insert(key)
            };
            if repeated && !self.faults.is_full() {
                let pointer = format!("{}/{}", self.pointer(), segment(key));
                self.faults.at(pointer, *at, format!("the key {} is there twice", Quoted(key)));
            }
        }
    }

    fn check_depth(&self, below: usize, at: Position) -> Result<(), Stop> {
        if self.open.len() + below > MAX_DEPTH {
            return stop(at, too_deep());
        }
        Ok(())
    }

    /// Where reading stands.
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for open in &self.open {
            match &open.items {
                Items::List(items) => pointer.push_str(&format!("/{}", items.len())),
                Items::Map { key: Some(key), .. } => {
                    pointer.push_str(&format!("/{}", segment(&key.text)));
                }
                Items::Map { key: None, .. } => {}
            }
        }
        pointer
    }
}

/// Fills in what a map does not say itself; of several maps the first that says it counts.
fn merge<'a>(entries: &mut Vec<Entry<'a>>, merged: Vec<Node<'a>>) -> Result<(), Stop> {
    if merged.is_empty() {
        return Ok(());
    }
    let mut known: HashSet<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    for node in merged {
        let sources = match node.value {
            Value::List(sources) => sources,
            _ => vec![node],
        };
        for source in sources {
            let Value::Map(more) = source.value else {
                return stop(source.at, format!("<< takes a map, not {}", source.kind()));
            };
            entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
        }
    }
    Ok(())
}

fn syntax(error: &ScanError) -> Stop {
    let message = match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(),
        _ => error.info(),
    };
    Stop { at: position(error.marker()), message }
}

fn too_deep() -> String {
    format!("lists and maps are nested more than {MAX_DEPTH} deep")
}

/// Tags of the core schema are heeded, others would be lost.
fn check_tag(tag: Option<&Tag>, expected: &str, at: Position) -> Result<(), Stop> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(expected) => stop(at, unknown_tag(tag)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, compose};

    /// The tree as JSON-like text.
    fn shown(value: &Value<'_>) -> String {
        match value {
            Value::Null => "null".into(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::NotFinite => "infinite".into(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(|item| shown(&item.value)).collect();
                format!("[{}]", items.join(","))
            }
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| format!("{}:{}", entry.key, shown(&entry.node.value)))
                    .collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    #[test]
    fn aliases_repeat_and_merge_keys_fill_in() {
        let text = "a: &a { x: 1, y: 2 }\nb: { <<: *a, y: 3 }\nc: [*a]\nd: { <<: [*a, { z: 4, x: 5 }] }\ne: { \"<<\": 6 }\n";
        let expected = "{a:{x:1,y:2},b:{y:3,x:1},c:[{x:1,y:2}],d:{x:1,y:2,z:4},e:{<<:6}}";
        assert_eq!(compose(text).map(|root| shown(&root.value)).ok().as_deref(), Some(expected));
    }
}
