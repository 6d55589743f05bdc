//! The contract between an agent's tool calls and whatever isolates them.
//!
//! ```text
//!  toolset, worker        this crate                 one crate per backend
//!  ───────────────  ->  Executor::create(spec)  ->  namespaces, a container,
//!                       Sandbox::exec(command)       a pod, a hosted microVM
//!                       Process::next_event()
//! ```
//!
//! Three object-safe traits and the plain values they exchange: [`Executor`]
//! makes and finds sandboxes, [`Sandbox`] runs commands and moves files,
//! [`Process`] is one running command. There is no runtime in the signatures.
//!
//! The least that a provider writes is [`Executor::create`] and, of a sandbox,
//! `info`, `exec` and `destroy`: files then travel by commands, a command that has
//! ended is [`Completed`], and [`Capabilities::admits`] refuses what is not there.
//! `examples/embed` has such an executor in 60 lines; it passes the suite.
//!
//! A backend says what it can do in [`Capabilities`]; nothing is reduced to the
//! lowest common denominator, and every method that a backend lacks has a
//! default that answers [`SandboxError::Unsupported`].
//!
//! What this crate does not do: it runs nothing, and it does not know the
//! agent's tools (those are `mcp-sandbox-tools`).
//!
//! # How file tools reach a backend
//!
//! File tools run *inside* the sandbox. A backend that can run the helper
//! itself accepts [`Program::FileHelper`] and says so in
//! [`Capabilities::file_helper`]; for one that only has `exec` and `put`
//! ([`FileHelper::Upload`]) the caller uploads the static `mcp-sandbox` program
//! once and runs it with the argument `files`. Both speak the same protocol on
//! standard input and output.
//!
//! ```
//! use mcp_sandbox_executor::{Command, SandboxSpec, Workspace};
//!
//! let spec = SandboxSpec::new()
//!     .with_label("session", "sesn_1")
//!     .with_workspace(Workspace::Ephemeral);
//! let command = Command::new(["sh", "-c", "id; ls /"]).with_env("TERM", "dumb");
//! assert_eq!(spec.labels["session"], "sesn_1");
//! assert!(command.timeout.is_none());
//! ```
#![forbid(unsafe_code)]

mod by_exec;
mod capabilities;
mod completed;
mod error;
mod process;
mod sandbox;
mod spec;

pub use capabilities::{
    Capabilities, Enforcement, FileHelper, Isolation, LimitSupport, NetworkKind, Persistence,
};
pub use completed::Completed;
pub use error::{CreateError, SandboxError};
pub use process::{
    Command, Exit, KillReason, Process, ProcessEvent, ProcessInput, Program, Signal, Stdin,
    Terminal,
};
pub use sandbox::{Executor, Layer, LayerState, Sandbox, SandboxInfo};
pub use spec::{
    Label, Limits, Mount, MountAccess, Network, SandboxId, SandboxIdError, SandboxSpec, Workspace,
    WorkspaceName, WorkspaceNameError,
};
