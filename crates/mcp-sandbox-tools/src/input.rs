//! The tools' inputs, checked once.

use serde::{Deserialize, Serialize};
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
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BashInput {
    pub(crate) command: Option<String>,
    pub(crate) restart: Option<bool>,
    pub(crate) timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadInput {
    pub(crate) file_path: String,
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
}
