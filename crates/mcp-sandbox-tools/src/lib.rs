//! The agent toolset: bash, read, write, edit, glob, grep over a sandbox.
//!
//! ```text
//!   Toolset::call("read", {…})          Toolset::call("bash", {…})
//!        │ one request of JSON                │ one bash a call
//!   files::serve  (inside the sandbox)   Shell: directory, variables, functions and
//!                                        options are carried from call to call as data
//! ```
//!
//! File tools run *inside* the sandbox, as the commands' user: a link or a race can
//! only fool the sandbox itself. The path rule on top (working directory and
//! permitted roots, every link followed first) keeps an agent in its place, it is
//! not the wall.
//!
//! Each bash call is a new process that starts from the state which the call
//! before it left. The status is that of the process, told by the kernel: nothing
//! that one call leaves behind can answer for a later one.
//!
//! The inputs, limits and kinds of error are those of `agent_toolset_20260401`.
//! Where the official clients differ among themselves this follows the Python one;
//! `README.md` of this crate lists where ours differs on purpose.
//!
//! What it does not do: it isolates nothing (an executor does), and it decides
//! nothing about permissions (the server does).
#![forbid(unsafe_code)]

pub mod files;
mod input;
mod result;
mod shell;
mod toolset;

pub use input::InputError;
pub use result::{Block, Source, ToolResult};
pub use shell::{Shell, ShellCall, ShellError};
pub use toolset::{CallError, Toolset};
