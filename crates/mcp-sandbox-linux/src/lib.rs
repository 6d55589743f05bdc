//! Sandboxes on Linux namespaces, Landlock, seccomp and control groups.
//!
//! ```text
//!  service (yours, threads, network)          no root after start
//!     │ socket pair
//!  launcher (this program again, one thread)  keeps root at T1, parses nothing hostile
//!     │ clone(user, mount, pid, net, ipc, uts, cgroup)
//!  init (pid 1 of the sandbox, a fork)        builds the root, drops everything, serves
//!     │ fork + exec                           service ── socket pair ── init
//!  commands                                   streams are pipes of the service's own
//! ```
//!
//! Init also holds one end of a second socket pair, whose other end the service
//! has: nothing is said on it yet. It is the place of egress by policy: a sandbox
//! has its own empty network, and what may leave it will be carried over this
//! pair, with no socket that has a name. No command inherits it.
//!
//! The first line of `main` must be [`enter_helper`]: in the launcher it does not
//! return.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mcp_sandbox_executor::{Command, Executor as _, ProcessEvent, SandboxSpec};
//!
//! let executor = mcp_sandbox_linux::LinuxExecutor::start(Default::default()).await?;
//! let sandbox = executor.create(SandboxSpec::new()).await?;
//! let mut process = sandbox.exec(Command::new(["id"])).await?;
//! while let Some(event) = process.next_event().await? {
//!     if let ProcessEvent::Exit(exit) = event {
//!         assert!(exit.success());
//!     }
//! }
//! sandbox.destroy().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The tier of isolation is the strongest in which one sandbox could really be
//! built at start; [`LinuxExecutor::report`] says which, why not a stronger one,
//! and what each missing layer exposes. Nothing is lowered silently.
//!
//! What this crate does not do: filter network traffic (a sandbox has its own
//! loopback, or the operator gives it the host's network), run images of another
//! architecture, or isolate from a hostile kernel.
#![deny(unsafe_code)]

mod build;
mod cgroup;
mod config;
mod confine;
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod ids;
mod image;
mod init;
mod inside;
mod launcher;
mod layer;
mod layers;
mod link;
mod message;
mod pipes;
mod plan;
mod process;
mod reap;
mod root;
mod rules;
mod sandbox;
mod service;
mod setup;
mod setups;
mod step;
mod sys;
mod syscalls;
mod tier;
mod transfer;
mod uids;
mod unpacked;
mod wire;
mod workspace;

pub use config::{Config, ConfigError, Tier, TierError};
pub use helper::{drop_privileges, enter_helper, prepare_folder};
pub use image::ImageError;
pub use service::{LinuxExecutor, Report, StartError};
pub use wire::WireError;
