//! MCP tunnel sessions over tokio and TLS.
#![forbid(unsafe_code)]

mod backoff;
pub mod dial;
#[cfg(feature = "local-ca")]
pub mod local_ca;
mod target;
pub mod tls;

pub use backoff::Backoff;
pub use target::{DEFAULT_PORT, EdgeAddress, EdgeHost, Target, TargetError};
pub use tls::Exporter;
