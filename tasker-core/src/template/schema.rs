//! The JSON Schema of a context: compiled once, then asked about every submitted task.
//!
//! Its messages are for the person who filled in the form, and never repeat a value: it may be a
//! payment token.

use std::fmt;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::fault::{Faults, segment};
use super::{TaskTemplate, references};
use crate::Json;

/// The longest schema, in bytes of JSON.
const MAX_SCHEMA: usize = 256 << 10;
/// Patterns in a schema, and how large each may become when compiled.
const MAX_PATTERNS: usize = 200;
const MAX_PATTERN: usize = 256 << 10;
/// How many problems of a context are listed.
const LISTED: usize = 100;
/// The longest key of a context, in bytes.
const MAX_KEY: usize = 1024;
/// Lists and objects of a context within each other.
const MAX_DEPTH: usize = 64;
const NUL: &str = "must not have a NUL character";
/// How much of a schema's own values a message shows.
const SHOWN: usize = 100;

/// One problem of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFault {
    /// Where: a JSON pointer such as `/cart_items/0/quantity`; of something missing, where it
    /// should be.
    pub pointer: String,
    /// What is wrong, for the person who made the request; the value itself is not in it.
    pub message: String,
}

impl fmt::Display for ContextFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.pointer, self.message)
    }
}

impl TaskTemplate {
    /// Checks the context of a task that is about to be submitted.
    ///
    /// Formats such as `email` count. A context is also refused, with a schema or without, for a
    /// NUL character in any text or key, which not every database can store.
    ///
    /// ```
    /// use serde_json::json;
    /// use tasker_core::{Json, StepTemplate, TaskTemplate};
    ///
    /// let order = TaskTemplate::builder("order")
    ///     .schema(json!({ "properties": { "quantity": { "minimum": 1 } } }))
    ///     .step(StepTemplate::new("charge"))
    ///     .build()?;
    /// let faults = order.check_context(&Json::from(json!({ "quantity": 0 }))).unwrap_err();
    /// assert_eq!(faults[0].to_string(), "/quantity: must be at least 1");
    /// # Ok::<(), tasker_core::TemplateError>(())
    /// ```
    ///
    /// # Errors
    /// The problems, at most a hundred, each with its place: they are the submitter's to mend.
    pub fn check_context(&self, context: &Json) -> Result<(), Vec<ContextFault>> {
        if self.schema.is_none() && !context.has_nul() {
            return Ok(());
        }
        let value = context.to::<Value>().map_err(|_| {
            let message = "is not a JSON document that can be read".to_owned();
            vec![ContextFault { pointer: String::new(), message }]
        })?;
        let mut faults = Vec::new();
        check_text(&value, &mut String::new(), 0, &mut faults);
        if let (true, Some(ContextSchema(validator))) = (faults.is_empty(), &self.schema) {
            for error in validator.iter_errors(&value).take(LISTED) {
                describe(&error, &mut faults);
            }
        }
        faults.truncate(LISTED);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// A compiled schema.
pub(super) struct ContextSchema(Validator);

impl ContextSchema {
    /// Compiles a schema; nothing is ever fetched for it.
    pub(super) fn compile(schema: &Value, faults: &mut Faults) -> Option<Self> {
        let before = faults.len();
        if schema.to_string().len() > MAX_SCHEMA {
            faults.add("/schema", format!("the schema is longer than {} KiB", MAX_SCHEMA >> 10));
        } else {
            let mut patterns = 0;
            visit(schema, &mut "/schema".to_owned(), &mut |_, key, value| match (key, value) {
                ("pattern", Value::String(_)) => patterns += 1,
                ("patternProperties", Value::Object(entries)) => patterns += entries.len(),
                _ => {}
            });
            if patterns > MAX_PATTERNS {
                let message = format!("the schema has more than {MAX_PATTERNS} patterns");
                faults.add("/schema", message);
            }
            if let Some(problem) = references::problem(schema) {
                faults.add("/schema", format!("the schema cannot be used: {problem}"));
            }
        }
        if faults.len() > before {
            return None;
        }
        // Contexts come from anywhere: only patterns that match in linear time.
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN);
        let built = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .with_pattern_options(patterns)
            .build(schema);
        match built {
            Ok(validator) => Some(Self(validator)),
            Err(error) => {
                refuse(schema, &error, faults);
                None
            }
        }
    }
}

fn refuse(schema: &Value, error: &ValidationError<'_>, faults: &mut Faults) {
    let before = faults.len();
    let why = match error.kind() {
        ValidationErrorKind::Referencing(_) => {
            visit(schema, &mut "/schema".to_owned(), &mut |pointer, key, value| match value {
                Value::String(target) if key == "$ref" && !target.starts_with('#') => {
                    let message = "nothing is fetched for a schema: put it under $defs and refer \
                                   to it with \"#/$defs/…\"";
                    faults.add(format!("{pointer}/$ref"), message);
                }
                _ => {}
            });
            shortened(error)
        }
        ValidationErrorKind::Format { format } if format == "regex" => {
            "the pattern is malformed, too large or has look-around or back-references".to_owned()
        }
        _ => shortened(error),
    };
    if faults.len() == before {
        let pointer = format!("/schema{}", error.instance_path());
        faults.add(pointer, format!("not a valid JSON Schema: {why}"));
    }
}

/// Calls with every key, the pointer of the object that it is in, and its value.
fn visit(schema: &Value, pointer: &mut String, each: &mut impl FnMut(&str, &str, &Value)) {
    match schema {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(pointer, &index.to_string(), |pointer| visit(item, pointer, each));
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                each(pointer, key, value);
                below(pointer, key, |pointer| visit(value, pointer, each));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Refuses NUL characters, and what a submitter could make costly: keys so long that to point
/// below them takes time, and nesting so deep that a recursive schema takes the stack.
fn check_text(value: &Value, pointer: &mut String, depth: usize, faults: &mut Vec<ContextFault>) {
    match value {
        Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => {
            let message = format!("has more than {MAX_DEPTH} lists and objects within each other");
            // The pointer of the whole: nobody looks sixty levels down.
            tell("", &message, faults);
        }
        Value::String(text) if text.contains('\0') => tell(pointer, NUL, faults),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(pointer, &index.to_string(), |pointer| {
                    check_text(item, pointer, depth + 1, faults);
                });
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                if key.len() > MAX_KEY {
                    tell(pointer, "has a field with too long a name", faults);
                    continue;
                }
                if key.contains('\0') {
                    tell(pointer, NUL, faults);
                }
                below(pointer, key, |pointer| check_text(item, pointer, depth + 1, faults));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn tell(pointer: &str, message: &str, faults: &mut Vec<ContextFault>) {
    if faults.len() < LISTED {
        faults.push(ContextFault { pointer: pointer.into(), message: message.into() });
    }
}

/// Goes one step down and comes back, without a pointer of its own for every value.
fn below(pointer: &mut String, key: &str, visit: impl FnOnce(&mut String)) {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(&segment(key));
    visit(pointer);
    pointer.truncate(length);
}

fn describe(error: &ValidationError<'_>, faults: &mut Vec<ContextFault>) {
    use ValidationErrorKind as Kind;
    let here = error.instance_path().to_string();
    let mut tell =
        |pointer: String, message: String| faults.push(ContextFault { pointer, message });
    let field = |key: &str| format!("{here}/{}", segment(key));
    let message = match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            return tell(field(name), "is required".to_owned());
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for key in unexpected.iter().take(LISTED) {
                tell(field(key), "is not expected here".to_owned());
            }
            return;
        }
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("must have at least {}", many(*limit, "character")),
        Kind::MaxLength { limit } => format!("must have at most {}", many(*limit, "character")),
        Kind::MinItems { limit } => format!("must have at least {}", many(*limit, "item")),
        Kind::MaxItems { limit } => format!("must have at most {}", many(*limit, "item")),
        Kind::AdditionalItems { limit } => {
            format!("must have at most {}", many(*limit as u64, "item"))
        }
        Kind::MinProperties { limit } => format!("must have at least {}", many(*limit, "field")),
        Kind::MaxProperties { limit } => format!("must have at most {}", many(*limit, "field")),
        Kind::Format { format } => match format.as_str() {
            "email" | "idn-email" => "must be an e-mail address".to_owned(),
            "date" => "must be a date such as 2030-01-31".to_owned(),
            "date-time" => "must be a time such as 2030-01-31T12:00:00Z".to_owned(),
            format => format!("must be a valid {format}"),
        },
        Kind::Pattern { .. } => "does not have the required form".to_owned(),
        Kind::Enum { options } => match options.as_array() {
            Some(options) => {
                let shown: Vec<_> = options.iter().map(ToString::to_string).collect();
                let shown = shown.join(", ");
                match shown.len() <= SHOWN {
                    true => format!("must be one of {shown}"),
                    false => "is not one of the allowed values".to_owned(),
                }
            }
            None => "is not one of the allowed values".to_owned(),
        },
        Kind::Constant { expected_value } => match expected_value.to_string() {
            shown if shown.len() <= SHOWN => format!("must be {shown}"),
            _ => "is not the required value".to_owned(),
        },
        Kind::Type { kind } => format!("must be {}", types(kind)),
        Kind::UniqueItems => "must not have the same item twice".to_owned(),
        Kind::Contains => "does not have the required kind or number of items".to_owned(),
        Kind::UnevaluatedItems { .. } => "has items that are not expected".to_owned(),
        Kind::PropertyNames { .. } => "has a field whose name is not allowed".to_owned(),
        // An object that may have no field at all is told itself, not its fields.
        Kind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
            "must not have any field".to_owned()
        }
        Kind::FalseSchema => "is not expected here".to_owned(),
        Kind::Not { .. } => "has a form that is not allowed".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            "has none of the allowed forms".to_owned()
        }
        Kind::OneOfMultipleValid { .. } => "must have exactly one of the allowed forms".to_owned(),
        Kind::ContentEncoding { .. } | Kind::ContentMediaType { .. } | Kind::FromUtf8 { .. } => {
            "is not encoded as required".to_owned()
        }
        Kind::BacktrackLimitExceeded { .. }
        | Kind::RegexEngineFailure { .. }
        | Kind::Custom { .. }
        | Kind::Referencing(_) => "could not be checked".to_owned(),
    };
    tell(here, message);
}

fn many(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn types(kind: &TypeKind) -> String {
    let named = |name: String| match name.as_str() {
        "array" => "a list".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => "a whole number".to_owned(),
        "null" => "null".to_owned(),
        "number" => "a number".to_owned(),
        "object" => "an object".to_owned(),
        "string" => "a text".to_owned(),
        _ => name,
    };
    match kind {
        TypeKind::Single(one) => named(one.to_string()),
        TypeKind::Multiple(set) => {
            let names: Vec<_> = set.iter().map(|one| named(one.to_string())).collect();
            names.join(" or ")
        }
    }
}

/// What the compiler of the schema says, on one line and not too long.
fn shortened(error: &ValidationError<'_>) -> String {
    let text = error.to_string();
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(3 * SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
