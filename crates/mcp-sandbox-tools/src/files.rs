//! The part of the toolset that runs inside a sandbox.
//!
//! One request a process: a line of JSON in, a line of JSON out (the tool's
//! result). Whoever runs it decides who it is; it opens nothing but what the
//! path rule permits, by paths with every link followed.

mod edit;
mod error;
mod glob;
mod grep;
mod open;
mod path;
mod read;
mod unpack;
mod usage;

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::input::FileInput;
use crate::result::{Block, Source, ToolResult};
use error::FileError;
use read::Content;

/// Largest request: the platform's inputs are far below.
const REQUEST_BYTES: u64 = 64 * 1024 * 1024;

/// Where the file tools may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Places {
    /// Absolute path that relative ones are relative to.
    pub working_dir: String,
    /// Further directories that may be reached.
    pub allowed_roots: Vec<String>,
    /// Directories that may be reached and not changed.
    pub read_only_roots: Vec<String>,
}

impl Places {
    /// One working directory and nothing else.
    pub fn new(working_dir: impl Into<String>) -> Self {
        Self {
            working_dir: working_dir.into(),
            allowed_roots: Vec::new(),
            read_only_roots: Vec::new(),
        }
    }
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) places: Places,
    pub(crate) call: FileInput,
}

/// For the fuzz target.
pub(crate) fn pattern(text: &str) {
    let _ = glob::parse(text);
}

/// Serves one request on standard output; for programs that are the helper.
///
/// The request is on standard input, or in a file, which is removed: for backends that give a command no input.
///
/// # Errors
/// The request cannot be read, or the output is gone.
pub fn main(request: Option<&Path>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match request {
        None => serve_from(io::stdin().lock(), &mut output)?,
        Some(path) => {
            let request = File::open(path)?;
            fs::remove_file(path)?;
            serve_from(io::BufReader::new(request), &mut output)?;
        }
    }
    output.flush()
}

fn serve_from(input: impl BufRead, output: &mut impl Write) -> io::Result<()> {
    let mut line = String::new();
    input.take(REQUEST_BYTES).read_line(&mut line)?;
    serve(&line, output)
}

/// Serves one request: `line` is the JSON of it.
///
/// # Errors
/// The output cannot be written. A tool's failure is part of the answer.
pub fn serve(line: &str, output: &mut impl Write) -> io::Result<()> {
    let result = match serde_json::from_str::<Request>(line) {
        Ok(request) => answer(&request),
        Err(_) => ToolResult::error("the file helper does not understand the request"),
    };
    serde_json::to_writer(&mut *output, &result)?;
    output.write_all(b"\n")
}

/// Where a path leads, for the fuzz target.
pub(crate) fn resolved(places: &Places, path: &str) -> Option<std::path::PathBuf> {
    places.resolve(path).ok()
}

fn answer(request: &Request) -> ToolResult {
    let (places, call) = (&request.places, &request.call);
    let (tool, outcome) = match call {
        FileInput::Read(input) => {
            let range = input.view_range.as_deref().unwrap_or_default();
            let content = read::read(places, &input.file_path, range);
            ("read", content.map(shown))
        }
        FileInput::Write(input) => (
            "write",
            edit::write(places, &input.file_path, input.content.as_bytes()).map(ToolResult::text),
        ),
        FileInput::Edit(input) => {
            let (old, new) = (&input.old_string, &input.new_string);
            let all = input.replace_all.unwrap_or(false);
            let done = edit::edit(places, &input.file_path, old, new, all);
            ("edit", done.map(ToolResult::text))
        }
        FileInput::Glob(input) => {
            let found = glob::glob(places, &input.pattern, input.path.as_deref());
            ("glob", found.map(ToolResult::text))
        }
        FileInput::Grep(input) => {
            let found = grep::grep(places, &input.pattern, input.path.as_deref());
            ("grep", found.map(ToolResult::text))
        }
        FileInput::Unpack(input) => {
            let files = unpack::unpack(Path::new(&input.archive), Path::new(&input.into));
            let said = |files| ToolResult::text(format!("unpacked {files} files"));
            return files.map_or_else(|error| failed("unpack", &error), said);
        }
        FileInput::Usage(input) => {
            let bytes = usage::usage(Path::new(&input.path));
            let said = |bytes: u64| ToolResult::text(bytes.to_string());
            return bytes.map_or_else(|error| failed("usage", &error), said);
        }
    };
    outcome.unwrap_or_else(|error| ToolResult::error(format!("{tool}: {error}")))
}

fn failed(what: &str, error: &io::Error) -> ToolResult {
    ToolResult::error(format!("{what}: {error}"))
}

/// As a content block.
fn shown(content: Content) -> ToolResult {
    let source = |media_type: &str, bytes: &[u8]| Source::Base64 {
        media_type: media_type.to_owned(),
        data: BASE64_STANDARD.encode(bytes),
    };
    match content {
        Content::Text(text) => ToolResult::text(text),
        Content::Image { media_type, bytes } => ToolResult::block(Block::Image {
            source: source(media_type, &bytes),
        }),
        Content::Pdf { bytes } => ToolResult::block(Block::Document {
            source: source("application/pdf", &bytes),
        }),
    }
}

/// A place for tests.
#[cfg(test)]
fn places(folder: &Path) -> Places {
    Places::new(folder.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_answered() {
        for line in ["", "{}", "{\"places\":1}\n", "\u{0}"] {
            let mut output = Vec::new();
            serve_from(line.as_bytes(), &mut output).unwrap();
            let result: ToolResult = serde_json::from_slice(&output).unwrap();
            assert!(result.is_error, "{line}");
        }
    }

    #[test]
    fn a_request_is_answered_with_the_tool_s_result() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "text").unwrap();
        let ask = |call: serde_json::Value| {
            let request = serde_json::json!({"places": places(folder.path()), "call": call});
            let mut output = Vec::new();
            serve(&request.to_string(), &mut output).unwrap();
            serde_json::from_slice::<ToolResult>(&output).unwrap()
        };
        let read = ask(serde_json::json!({"read": {"file_path": "f"}}));
        assert_eq!(read, ToolResult::text("text"));
        let none = ask(serde_json::json!({"read": {"file_path": "g"}}));
        assert_eq!(
            none,
            ToolResult::error("read: g: no such file or directory")
        );
    }
}
