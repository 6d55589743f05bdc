//! Gateway engine of MCP tunnels.
#![forbid(unsafe_code)]

pub mod identity;
mod server;

pub use self::server::{McpServer, Scheme, ServerError, ServerSet, ServerSetError, Target};
