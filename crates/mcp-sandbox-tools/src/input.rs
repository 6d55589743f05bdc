//! The tools' inputs, checked once.

use serde::de::Error as DeserializeError;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

/// The input is not what the tool takes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InputError {
    /// No tool of this name.
    #[error("unknown tool {0:?}")]
    Tool(String),
    /// Missing, unknown or wrongly typed arguments.
    #[error("invalid arguments for {tool}")]
    Arguments {
        /// The tool.
        tool: &'static str,
        /// What is wrong with them.
        #[source]
        source: serde_json::Error,
    },
}

/// A call that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Bash(BashInput),
    File(FileInput),
}

/// A call of a tool that runs inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileInput {
    Read(ReadInput),
    Write(WriteInput),
    Edit(EditInput),
    Glob(GlobInput),
    Grep(GrepInput),
    /// Asked by the worker only: no tool has this name.
    Unpack(UnpackInput),
    /// As [`FileInput::Unpack`].
    Usage(UsageInput),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BashInput {
    pub(crate) command: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) restart: Option<bool>,
    #[serde(default, deserialize_with = "number")]
    pub(crate) timeout_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadInput {
    pub(crate) file_path: String,
    #[serde(default, deserialize_with = "numbers")]
    pub(crate) view_range: Option<Vec<i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteInput {
    pub(crate) file_path: String,
    pub(crate) content: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditInput {
    pub(crate) file_path: String,
    pub(crate) old_string: String,
    pub(crate) new_string: String,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) replace_all: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GlobInput {
    pub(crate) pattern: String,
    pub(crate) path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrepInput {
    pub(crate) pattern: String,
    pub(crate) path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnpackInput {
    pub(crate) archive: String,
    pub(crate) into: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageInput {
    pub(crate) path: String,
}

impl Input {
    /// Checks a call.
    pub(crate) fn parse(tool: &str, input: &Value) -> Result<Self, InputError> {
        let file = match tool {
            "bash" => return typed("bash", input).map(Self::Bash),
            "read" => typed("read", input).map(FileInput::Read),
            "write" => typed("write", input).map(FileInput::Write),
            "edit" => typed("edit", input).map(FileInput::Edit),
            "glob" => typed("glob", input).map(FileInput::Glob),
            "grep" => typed("grep", input).map(FileInput::Grep),
            other => return Err(InputError::Tool(other.to_owned())),
        };
        file.map(Self::File)
    }
}

fn typed<T: for<'de> Deserialize<'de>>(tool: &'static str, input: &Value) -> Result<T, InputError> {
    T::deserialize(input).map_err(|source| InputError::Arguments { tool, source })
}

/// Models write `"5"` and `"true"` where they mean 5 and true; what the Python SDK takes, this does.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(from)? else {
        return Ok(None);
    };
    let flag = match &value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    let wrong = || D::Error::custom(format!("{value} is neither true nor false"));
    flag.map(Some).ok_or_else(wrong)
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Option::<Value>::deserialize(from)?
        .map(|value| whole(&value))
        .transpose()
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<i64>>, D::Error> {
    Option::<Vec<Value>>::deserialize(from)?
        .map(|values| values.iter().map(whole).collect())
        .transpose()
}

fn whole<E: DeserializeError>(value: &Value) -> Result<i64, E> {
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            // `3.0`, and not what is too large to be exact.
            let float = number.as_f64().filter(|float| float.abs() < 1e15)?;
            (float.fract() == 0.0).then(|| format!("{float:.0}").parse().ok())?
        }),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(i64::from(*flag)),
        _ => None,
    };
    number.ok_or_else(|| E::custom(format!("{value} is no whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(tool: &str, input: Value, good: bool) {
        assert_eq!(Input::parse(tool, &input).is_ok(), good, "{tool} {input}");
    }

    #[test]
    fn missing_unknown_and_wrong_arguments_are_refused() {
        check("bash", json!({}), true);
        check(
            "bash",
            json!({"command": "x", "timeout_ms": 0, "restart": null}),
            true,
        );
        check("bash", json!({"command": 1}), false);
        check("bash", json!({"command": "x", "timeout_ms": "soon"}), false);
        check("bash", json!({"restart": 2}), false);
        check("bash", json!({"comand": "x"}), false);
        check(
            "read",
            json!({"file_path": "x", "view_range": [1, -1]}),
            true,
        );
        check("read", json!({}), false);
        check("write", json!({"file_path": "x"}), false);
        check(
            "edit",
            json!({"file_path": "x", "old_string": "a", "new_string": "b"}),
            true,
        );
        check("glob", json!({"pattern": "*", "path": null}), true);
        check("grep", json!({"pattern": "x", "glob": "*"}), false);
        check("view", json!({}), false);
    }

    #[test]
    fn numbers_and_flags_may_be_written_as_text() {
        let input = json!({"file_path": "x", "view_range": ["1", 2.0]});
        let Ok(Input::File(FileInput::Read(read))) = Input::parse("read", &input) else {
            panic!("it is an input of read");
        };
        assert_eq!(read.view_range, Some(vec![1, 2]));
        let input = json!({"restart": "true", "timeout_ms": "500"});
        let Ok(Input::Bash(bash)) = Input::parse("bash", &input) else {
            panic!("it is an input of bash");
        };
        assert_eq!((bash.restart, bash.timeout_ms), (Some(true), Some(500)));
    }
}
