//! Check reports, a loopback admin listener and telemetry set-up.
//!
//! What the programs of this workspace need in order to explain themselves, and nothing about tunnels or sandboxes:
//!
//! ```text
//!   check    ->  report::Report      one line a hop: status, cure, milliseconds; table, JSON, exit code
//!   --admin  ->  admin::Admin        /healthz /readyz /metrics, on loopback or not at all
//!   --log-*  ->  telemetry::init     text or JSON on standard error, foreign crates held at `info`
//!   proof    ->  sockets             which TCP sockets a process listens on, read from /proc
//! ```
//!
//! ```
//! use mcp_diagnostics::report::{Colour, Line, Report};
//!
//! let mut report = Report::new();
//! report.push(Line::ok("dns", "127.0.0.1"));
//! report.push(Line::fail("tcp", "connection refused", "start the server on port 50051").exit_code(4));
//! assert_eq!(report.exit_code(), 4);
//! println!("{}", report.table(Colour::Never));
//! ```
//!
//! What it does not do: it never exports to a network address, never reads an environment variable but `NO_COLOR`,
//! and installs a process-wide subscriber or recorder only in the two functions that say so.
#![forbid(unsafe_code)]

pub mod admin;
pub mod report;
pub mod sockets;
pub mod telemetry;
