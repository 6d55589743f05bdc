//! REST client of the Managed Agents API.
//!
//! ```text
//!   your program ── Client::tunnels().create(…) ──► HTTPS, JSON ──► control plane
//!                ◄── Tunnel, or ClientError ──────┘
//! ```
//!
//! # Example
//!
//! ```no_run
//! use managed_agents_client::{Client, ClientConfig};
//!
//! # async fn example(key: secrecy::SecretString) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientConfig::new("https://console.example.com", key))?;
//! let tunnel = client.tunnels().create(Some("build farm")).await?;
//! let token = client.tunnels().reveal_token(&tunnel.id).await?;
//! for connection in client.connections(&tunnel.id).list().await? {
//!     println!("{} is {}", connection.id, connection.status);
//! }
//! # let _ = token;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - Reads are tried again after a lost connection, `429` and `5xx`, a bounded number of times, with the pause that the
//!   server asks for. Writes are sent once: none of them is idempotent.
//! - Every call has a deadline, [`ClientConfig::timeout`], in which its retries are included.
//! - Redirects are not followed and proxies of the environment are ignored, so that a credential goes to one place; plain
//!   HTTP is refused beyond loopback.
//! - A credential is never part of an error, a `Debug` or a log.
//!
//! # What it does not do
//!
//! It has no types of its own for what travels (`managed-agents-api` has them), and it keeps no state.
#![forbid(unsafe_code)]

mod caller_keys;
mod certificates;
mod config;
mod connections;
mod error;
mod http;
mod tunnels;

pub use caller_keys::CallerKeys;
pub use certificates::Certificates;
pub use config::{BuildError, ClientConfig};
pub use connections::Connections;
pub use error::{ApiError, ClientError};
pub use managed_agents_api as api;
pub use tunnels::Tunnels;

use http::Http;

/// A client of one control plane with one credential. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
}

impl Client {
    /// A client; opens no connection yet.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(config: ClientConfig) -> Result<Self, BuildError> {
        Ok(Self {
            http: Http::new(config)?,
        })
    }

    /// Tunnels, their tokens and settings.
    pub fn tunnels(&self) -> Tunnels<'_> {
        Tunnels { http: &self.http }
    }

    /// Authorities of a tunnel's certificates.
    pub fn certificates<'a>(&'a self, tunnel_id: &'a str) -> Certificates<'a> {
        Certificates {
            http: &self.http,
            tunnel_id,
        }
    }

    /// Gateways of a tunnel.
    pub fn connections<'a>(&'a self, tunnel_id: &'a str) -> Connections<'a> {
        Connections {
            http: &self.http,
            tunnel_id,
        }
    }

    /// Keys that let agents call through tunnels.
    pub fn caller_keys(&self) -> CallerKeys<'_> {
        CallerKeys { http: &self.http }
    }
}
