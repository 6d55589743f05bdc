//! The part of the toolset that runs inside a sandbox.
//!
//! One request a process: a line of JSON in, a line of JSON out (the tool's
//! result). Whoever runs it decides who it is; it opens nothing but what the
//! path rule permits, by paths with every link followed.

mod edit;
mod glob;
mod grep;
mod path;
mod read;
mod write;

use std::io::{self, BufRead as _, Read, Write};

use serde::{Deserialize, Serialize};

use crate::input::FileInput;
use crate::result::ToolResult;

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

/// Serves the request on standard input; for programs that are the helper.
///
/// # Errors
/// Standard input or output is gone.
pub fn main() -> io::Result<()> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(REQUEST_BYTES)
        .read_line(&mut line)?;
    let mut output = io::stdout().lock();
    serve(&line, &mut output)?;
    output.flush()
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

fn answer(request: &Request) -> ToolResult {
    let (places, call) = (&request.places, &request.call);
    let (tool, outcome) = match call {
        FileInput::Read(input) => ("read", read::read(places, input)),
        FileInput::Write(input) => ("write", write::write(places, input)),
        FileInput::Edit(input) => ("edit", edit::edit(places, input)),
        FileInput::Glob(input) => ("glob", glob::glob(places, input)),
        FileInput::Grep(input) => ("grep", grep::grep(places, input)),
    };
    outcome.unwrap_or_else(|failure| ToolResult::error(format!("{tool}: {}", failure.0)))
}

/// Why a tool failed, in words for the model.
#[derive(Debug, PartialEq, Eq)]
struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A file could not be used; the words are the same on every system.
    fn io(path: &str, error: &io::Error) -> Self {
        Self(format!("{path}: {}", reason(error)))
    }
}

/// ELOOP, which the standard library does not name yet.
const LOOP: i32 = 40;

fn reason(error: &io::Error) -> String {
    if error.raw_os_error() == Some(LOOP) {
        return "too many levels of symbolic links".to_owned();
    }
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AlreadyExists => "file already exists".to_owned(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "no space left".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system".to_owned(),
        io::ErrorKind::InvalidFilename => "file name too long".to_owned(),
        kind => kind.to_string(),
    }
}
