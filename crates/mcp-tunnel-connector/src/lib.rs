//! Gateway engine of MCP tunnels.
#![forbid(unsafe_code)]

pub mod check;
mod config;
mod connector;
mod event;
mod exchange;
pub mod identity;
mod link;
mod measures;
mod server;
#[cfg(test)]
mod test_support;
mod upstream;
mod upstreams;

pub use self::config::{
    ConfigError, ConnectorConfig, RootsError, ServerConfig, TokenFileError, read_roots, read_token,
};
pub use self::connector::Connector;
pub use self::event::Event;
pub use self::server::{McpServer, Scheme, ServerError, ServerSet, ServerSetError, Target};
