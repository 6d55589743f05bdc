//! Worker engine: claims agent sessions from an environment's queue and runs their tool calls in sandboxes.
//!
//! ```text
//!   queue (the platform's, or managed-agents-server)          this host
//!  ───────────────────────────────────────────────   ────────────────────────────────
//!   work/poll, ack         ◄──────────────── Worker ── N slots
//!   work/heartbeat, stop   ◄── lease ──────┐    │
//!   events/stream, events  ──► calls ──────┤  session ── one sandbox, one workspace
//!   events (user.tool_result) ◄── outbox ──┘    └── journal: written before it matters
//! ```
//!
//! It speaks the work queue's protocol as the official workers do, against the same servers. Where it differs on purpose:
//!
//! - one sandbox and one workspace per session, and no credential in either;
//! - a tool never runs twice: intent is on disk before it starts, its result until the server has taken it;
//! - stop, SIGTERM and interrupt end the call in flight; a lost lease ends it and posts nothing;
//! - files stay between messages and between workers: [`WorkerConfig::with_session_keep`].
//!
//! ```no_run
//! # async fn example(executor: std::sync::Arc<dyn mcp_sandbox_executor::Executor>) -> Result<(), Box<dyn std::error::Error>> {
//! use mcp_sandbox_worker::{Worker, WorkerConfig};
//! use tokio_util::sync::CancellationToken;
//!
//! let config = WorkerConfig::new("http://127.0.0.1:8080", "env_01", "/var/lib/mcp-sandbox/worker")?
//!     .with_key("mce_…".into())?
//!     .with_max_sessions(8)?;
//! let stop = CancellationToken::new();
//! Worker::new(config, executor)?.run(stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: it isolates nothing (an [`Executor`](mcp_sandbox_executor::Executor) does), it decides nothing about
//! permissions (the server does), it answers no custom tools, and it serves no memory stores yet: calls of a session that has
//! one are answered with an error that says so.
//!
//! It has no cargo features.
#![forbid(unsafe_code)]

mod access;
mod board;
mod call;
mod calls;
mod check;
mod config;
mod control;
mod desk;
mod feed;
mod journal;
mod lease;
mod observe;
mod pacing;
mod session;
mod skills;
mod store;
mod worker;

pub use board::{SessionRow, SessionState};
pub use check::check;
pub use config::{WorkerConfig, WorkerConfigError};
pub use control::{ControlAnswer, ControlError, ControlRequest, ask_workers};
pub use worker::{ClaimedItem, RunError, Worker, WorkerError};
