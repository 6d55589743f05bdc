//! The gateway's engine: makes private MCP servers reachable through one outbound connection.
//!
//! ```text
//!             one TLS connection, dialled from inside
//!   edge <──────────────────────────────────────────── Connector
//!     │  HELLO: token and key, signed over the connection    │
//!     └─ a stream a call ──────────────────────────────────> route ──> address policy ──> MCP server
//!                                                            Host, Origin, hop-by-hop     pooled, HTTP/1.1
//! ```
//!
//! - [`ConnectorConfig`] is made of a tunnel token, this gateway's own key (see [`identity`]) and the servers;
//! - [`Connector`] keeps the link up, serves calls, and tells of each change by [`Connector::next_event`];
//! - [`check`](check::check) looks at every hop and names the cure of what does not work.
//!
//! ```no_run
//! use mcp_tunnel_auth::TunnelToken;
//! use mcp_tunnel_connector::{Connector, ConnectorConfig, ServerConfig, ServerSet, identity};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let token = TunnelToken::parse(&std::fs::read_to_string("token")?)?;
//! let key = identity::load_or_create("state".as_ref(), token.tunnel_id)?;
//! let servers = ServerSet::new(vec!["localhost:50051".parse()?])?;
//! let config = ConnectorConfig::new(token, key, ServerConfig::new(servers));
//! let mut connector = Connector::new(config)?;
//! loop {
//!     println!("{}", connector.next_event().await);
//! }
//! # }
//! ```
//!
//! What it does not do: it listens nowhere, builds no runtime, installs no subscriber, recorder or crypto provider,
//! follows no redirect, uses no proxy, changes no body, and never sends a request a second time once it was written.
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
