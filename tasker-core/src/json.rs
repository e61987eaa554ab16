//! A JSON document kept as text.
//!
//! Contexts and results travel from a handler to the database and back without being taken apart;
//! they are parsed once, by the handler that asks for a type.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A valid JSON document, as text; cloning it is cheap.
///
/// ```
/// use tasker_core::Json;
///
/// let document = Json::of(&vec![1, 2, 3])?;
/// assert_eq!(document.as_str(), "[1,2,3]");
/// assert_eq!(document.to::<Vec<u8>>()?, [1, 2, 3]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Json(Arc<str>);

impl Json {
    /// The JSON form of a value.
    ///
    /// # Errors
    /// The value has no JSON form (a map with keys that are not strings, a failing `Serialize`).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(|text| Self(text.into()))
    }

    /// The document `null`.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Takes a text that is checked to be JSON.
    ///
    /// # Errors
    /// The text is not one JSON document.
    pub fn parse(text: impl Into<Arc<str>>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<serde::de::IgnoredAny>(&text)?;
        Ok(Self(text))
    }

    /// Takes a text that a store read back and that was [`Json`] when it was written.
    ///
    /// Nothing is checked here: a text that is no JSON shows as an error where it is decoded.
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Decodes the document.
    ///
    /// # Errors
    /// The document does not have the shape of `T`; the message has line and column.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The document as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a string or a key in the document has a NUL character, which PostgreSQL cannot store.
    pub fn has_nul(&self) -> bool {
        // A backslash that is itself escaped does not start an escape.
        let mut rest = self.0.as_bytes();
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            if rest[at + 1..].starts_with(b"u0000") {
                return true;
            }
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        false
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Box::<str>::from(raw).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn a_nul_is_found_and_an_escaped_backslash_is_not_mistaken_for_one() {
        for (text, expected) in [
            (r#""\u0000""#, true),
            (r#"{"a\u0000":1}"#, true),
            (r#""\\\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\n""#, false),
            (r#""plain""#, false),
        ] {
            assert_eq!(Json::from_stored(text).has_nul(), expected, "{text}");
        }
    }
}
