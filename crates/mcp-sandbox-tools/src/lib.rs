//! The agent toolset: bash, read, write, edit, glob, grep over a sandbox.
//!
//! ```text
//!   Toolset::call("read", {…})          Toolset::call("bash", {…})
//!        │ one request of JSON                │ one line to a bash that lives on
//!   files::serve  (inside the sandbox)   Shell: output, status, state, and whether
//!                                        the bash is fit for another command
//! ```
//!
//! File tools run *inside* the sandbox, as the commands' user: a link or a race can
//! only fool the sandbox itself. The path rule on top (working directory and
//! permitted roots, every link followed first) keeps an agent in its place, it is
//! not the wall.
//!
//! A bash that is not fit for another command, that has ended or that was killed is
//! replaced by one with the state from before, and the result says so: what one call
//! leaves behind neither hangs a later one nor answers for it.
//!
//! The inputs, limits and kinds of error are those of `agent_toolset_20260401`.
//! Where the official clients differ among themselves this follows the Python one;
//! `README.md` of this crate lists where ours differs on purpose.
//!
//! What it does not do: it isolates nothing (an executor does), and it decides
//! nothing about permissions (the server does). Bash needs a backend that gives a
//! command input; the file tools need `exec` and `put` only.
//!
//! ```
//! use mcp_sandbox_tools::files;
//!
//! // What the helper inside a sandbox does with a request.
//! let places = r#"{"working_dir":"/","allowed_roots":[],"read_only_roots":[]}"#;
//! let request = format!(r#"{{"places":{places},"call":{{"glob":{{"pattern":"/etc/*"}}}}}}"#);
//! let mut answer = Vec::new();
//! files::serve(&request, &mut answer)?;
//! assert!(String::from_utf8_lossy(&answer).contains("glob: absolute pattern not permitted"));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! It has no cargo features.
#![forbid(unsafe_code)]

pub mod files;
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod result;
mod shell;
mod toolset;

pub use input::InputError;
pub use result::{Block, Source, ToolResult};
pub use shell::{Shell, ShellCall, ShellError};
pub use toolset::{CallError, Toolset};
