//! A script: the calls that a message spells out.

use crate::turn::ToolCall;
use managed_agents_api::RawJson;
use serde::Deserialize;

/// Most calls of one script. Each becomes an event and, in the closing message, a few lines.
const CALLS: usize = 200;

/// The calls that a message spells out, turn by turn; no turn is empty.
///
/// ```
/// use managed_agents_loop::Script;
///
/// let script = Script::find("First one, then two at once:\n\
///     ```json\n\
///     [{\"name\": \"bash\", \"input\": {\"command\": \"date\"}},\n\
///      [{\"name\": \"read\", \"input\": {\"file_path\": \"a\"}}, {\"name\": \"glob\", \"input\": {\"pattern\": \"*\"}}]]\n\
///     ```")?;
/// let names: Vec<Vec<&str>> = script.turns.iter().map(|turn| turn.iter().map(|call| call.name.as_str()).collect()).collect();
/// assert_eq!(names, [vec!["bash"], vec!["read", "glob"]]);
/// # Ok::<(), managed_agents_loop::ScriptError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Script {
    /// The turns.
    pub turns: Vec<Vec<ToolCall>>,
}

/// Why a message spells out no calls. Its words are the agent's answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// There is no fenced block.
    #[error(
        "this agent runs what a message spells out, and the message has no fenced JSON block. {HOW}"
    )]
    NoBlock,
    /// The block is no JSON list.
    #[error("the last fenced JSON block is no list ({0}), so nothing was run. {HOW}")]
    NoList(#[source] serde_json::Error),
    /// An entry is no call.
    #[error("entry {entry} of the list is no call ({source}), so nothing was run. {HOW}")]
    NoCall {
        /// Counted from 1.
        entry: usize,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An entry has no name that a tool could have, or arguments that are no object.
    #[error(
        "entry {entry} of the list needs a name of 1 to 128 letters, digits, '_' or '-', and an object as input; nothing was run. {HOW}"
    )]
    NoTool {
        /// Counted from 1.
        entry: usize,
    },
    /// There are too many calls.
    #[error("the list has more than {CALLS} calls, so nothing was run")]
    TooMany,
}

const HOW: &str = "Write: ```json [{\"name\": \"bash\", \"input\": {\"command\": \"ls\"}}] ``` with the fences on lines of their own; each entry is one turn, and an inner list is one turn with its calls in parallel.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    input: RawJson,
    mcp_server_name: Option<String>,
}

impl Script {
    /// Reads the last fenced block of `text` that says `json`, or if none does, the last that says nothing.
    ///
    /// # Errors
    /// See [`ScriptError`].
    pub fn find(text: &str) -> Result<Self, ScriptError> {
        let block = last_block(text).ok_or(ScriptError::NoBlock)?;
        let entries: Vec<RawJson> = serde_json::from_str(&block).map_err(ScriptError::NoList)?;
        let mut turns = Vec::new();
        let mut calls = 0;
        for (place, raw) in entries.iter().enumerate() {
            let entry = place + 1;
            let no_call = |source| ScriptError::NoCall { entry, source };
            let together: Vec<Entry> = if raw.as_str().starts_with('[') {
                raw.parse().map_err(no_call)?
            } else {
                vec![raw.parse().map_err(no_call)?]
            };
            calls += together.len();
            if calls > CALLS {
                return Err(ScriptError::TooMany);
            }
            let turn: Option<Vec<ToolCall>> = together.into_iter().map(Entry::into_call).collect();
            let turn = turn.ok_or(ScriptError::NoTool { entry })?;
            if !turn.is_empty() {
                turns.push(turn);
            }
        }
        Ok(Self { turns })
    }
}

impl Entry {
    fn into_call(self) -> Option<ToolCall> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let good = (1..=128).contains(&self.name.len()) && self.name.bytes().all(letters);
        (good && self.input.is_object()).then_some(ToolCall {
            name: self.name,
            input: self.input,
            mcp_server: self.mcp_server_name,
        })
    }
}

/// The fence that a line opens: its character, its length, and what is said after it.
fn fence(line: &str) -> Option<(char, usize, &str)> {
    let text = line.trim_start_matches(' ');
    let mark = text
        .chars()
        .next()
        .filter(|mark| matches!(mark, '`' | '~'))?;
    let said = text.trim_start_matches(mark);
    let length = text.len() - said.len();
    (length >= 3 && line.len() - text.len() <= 3).then_some((mark, length, said.trim()))
}

/// The content of the last fenced block for JSON; one without an end goes to the end of the text.
fn last_block(text: &str) -> Option<String> {
    let (mut for_json, mut for_any) = (None, None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((mark, length, said)) = fence(line) else {
            continue;
        };
        let mut block = String::new();
        for line in lines.by_ref() {
            if fence(line).is_some_and(|end| end.0 == mark && end.1 >= length && end.2.is_empty()) {
                break;
            }
            block.push_str(line);
            block.push('\n');
        }
        match said.split_whitespace().next() {
            Some(word) if word.eq_ignore_ascii_case("json") => for_json = Some(block),
            None => for_any = Some(block),
            Some(_) => {}
        }
    }
    for_json.or(for_any)
}
