//! JSON values kept as the exact text that came.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON value as the exact text that came: numbers, order and spaces survive.
///
/// Equal when the texts are. It can be read from and written to JSON text only, not
/// through a `serde_json::Value`.
///
/// ```
/// use managed_agents_api::RawJson;
///
/// let input: RawJson = serde_json::from_str(r#"{"n": 12345678901234567890.10}"#)?;
/// assert_eq!(serde_json::to_string(&input)?, r#"{"n": 12345678901234567890.10}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Reads one JSON value.
    ///
    /// # Errors
    /// The text is not one JSON value.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// `value` as JSON text.
    ///
    /// # Errors
    /// The value cannot be written as JSON: a map whose keys are no text, for example.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The empty object.
    #[must_use]
    pub fn empty_object() -> Self {
        Self::from_text("{}".to_owned()).unwrap_or_else(|_| Self(RawValue::NULL.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The value as a `T`.
    ///
    /// # Errors
    /// The value does not have the shape of a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    /// Whether it is a JSON object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.as_str().trim_start().starts_with('{')
    }
}

impl Default for RawJson {
    fn default() -> Self {
        Self::empty_object()
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be a tool's arguments: those go into no log.
        write!(f, "RawJson({} bytes)", self.as_str().len())
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RawJson {}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

/// An object whose `type` this version does not know, kept as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its `type`; empty where it has none.
    pub kind: String,
    /// All of it.
    pub raw: RawJson,
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

/// The `type` of the object in `text`; empty where it has none.
pub(crate) fn kind_of(text: &str) -> Result<String, serde_json::Error> {
    struct Kind;
    impl<'de> Visitor<'de> for Kind {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<String, A::Error> {
            let mut kind = None;
            while let Some(name) = members.next_key::<String>()? {
                if name != "type" {
                    members.next_value::<IgnoredAny>()?;
                } else if kind.replace(members.next_value::<String>()?).is_some() {
                    return Err(A::Error::duplicate_field("type"));
                }
            }
            Ok(kind.unwrap_or_default())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let kind = Deserializer::deserialize_map(&mut deserializer, Kind)?;
    deserializer.end()?;
    Ok(kind)
}

/// The members of an object, each value as the text that came, in their order. None
/// is said twice: two readers could take different ones.
pub(crate) struct Members(pub(crate) Vec<(String, RawJson)>);

impl Members {
    pub(crate) fn into_json(self) -> Result<RawJson, serde_json::Error> {
        let mut text = String::from("{");
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(name)?);
            text.push(':');
            text.push_str(value.as_str());
        }
        text.push('}');
        RawJson::from_text(text)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
                let (mut all, mut names) = (Vec::new(), HashSet::new());
                while let Some((name, value)) = members.next_entry::<String, RawJson>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("duplicate member {name:?}")));
                    }
                    all.push((name, value));
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_kept_and_not_shown() {
        let raw: RawJson = serde_json::from_str(r#" {"b":1.50 , "a" : 1e400 } "#).unwrap();
        assert_eq!(raw.as_str(), r#"{"b":1.50 , "a" : 1e400 }"#);
        assert_eq!(format!("{raw:?}"), "RawJson(25 bytes)");
        assert!(raw.is_object());
        assert!(RawJson::from_text("{} {}".into()).is_err());
    }

    #[test]
    fn a_kind_is_found_anywhere_and_said_once() {
        assert_eq!(kind_of(r#"{"a":{"type":"x"},"type":"y"}"#).unwrap(), "y");
        assert_eq!(kind_of("{}").unwrap(), "");
        for wrong in [r#"{"type":"x","type":"x"}"#, "[]", r#"{"type":1}"#] {
            assert!(kind_of(wrong).is_err(), "{wrong}");
        }
    }
}
