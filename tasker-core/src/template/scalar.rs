//! The types of YAML scalars: the core schema of YAML 1.2, in which `yes` and `no` are texts.

use std::borrow::Cow;

use serde_json::Number;
use serde_yaml::granit_parser::Tag;

use super::fault::Quoted;
use super::tree::Value;

/// The value of a scalar; only a plain one, without quotes, may be anything but a text.
pub(super) fn typed<'a>(
    text: Cow<'a, str>,
    plain: bool,
    tag: Option<&Tag>,
) -> Result<Value<'a>, String> {
    let Some(tag) = tag else {
        return Ok(if plain { plain_value(text) } else { Value::Text(text) });
    };
    if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" {
        return Ok(Value::Text(text));
    }
    let kind = tag.core_suffix();
    let value = plain_value(text);
    match (kind, &value) {
        (Some("null"), Value::Null)
        | (Some("bool"), Value::Bool(_))
        | (Some("int" | "float"), Value::Number(_)) => Ok(value),
        (Some(kind @ ("null" | "bool" | "int" | "float")), _) => {
            Err(format!("this is no {kind}, as its tag says"))
        }
        _ => Err(unknown_tag(tag)),
    }
}

fn plain_value(text: Cow<'_, str>) -> Value<'_> {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        other => number(other).unwrap_or(Value::Text(text)),
    }
}

fn number(text: &str) -> Option<Value<'static>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Value::NotFinite);
    }
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let prefixed = |prefix, radix| {
        let digits: &str = text.strip_prefix(prefix)?;
        let number = u64::from_str_radix(digits, radix).ok()?;
        (!digits.starts_with('+')).then(|| Value::Number(number.into()))
    };
    if let Some(number) = prefixed("0x", 16).or_else(|| prefixed("0o", 8)) {
        return Some(number);
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(Value::Number(number.into()));
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(Value::Number(number.into()));
    }
    let number = text.parse::<f64>().ok()?;
    Some(Number::from_f64(number).map_or(Value::NotFinite, Value::Number))
}

/// Tags of the core schema are heeded, others would be lost.
pub(super) fn unknown_tag(tag: &Tag) -> String {
    format!("the tag {} has no meaning here", Quoted(&tag.original()))
}

#[cfg(test)]
mod tests {
    use super::{Value, plain_value};

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        let null: &[&str] = &["", "~", "null", "Null", "NULL"];
        assert!(null.iter().all(|text| matches!(plain_value((*text).into()), Value::Null)));
        for text in ["yes", "off", "-", "+", "e5", "inf", "nan", "1.0.0", "1_000", "0x", "0x+1"] {
            let value = plain_value(text.into());
            assert!(matches!(value, Value::Text(_)), "{text}: {value:?}");
        }
        for text in [".inf", "-.INF", ".nan", "1e999"] {
            assert!(matches!(plain_value(text.into()), Value::NotFinite), "{text}");
        }
        for (text, expected) in [
            ("1", "1"),
            ("-2", "-2"),
            ("+3", "3"),
            ("007", "7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.5", "1.5"),
            ("-.5", "-0.5"),
            ("1e3", "1000.0"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "1.8446744073709552e+19"),
        ] {
            let Value::Number(number) = plain_value(text.into()) else { panic!("{text}") };
            assert_eq!(number.to_string(), expected, "{text}");
        }
    }
}
