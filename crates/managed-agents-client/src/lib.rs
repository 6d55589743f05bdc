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
//! Sessions are the other half: an application makes them and follows their events, a worker fetches work and answers.
//!
//! ```no_run
//! use managed_agents_client::api::{CreateSession, EventBody};
//! # use managed_agents_client::{Client, ClientError};
//!
//! # async fn example(client: Client) -> Result<(), ClientError> {
//! let session = client.sessions().create(&CreateSession::new("agent_01", "env_01")).await?;
//! let events = client.events(&session.id);
//! events.send(&[EventBody::user_text("what is in the workspace?")]).await?;
//! let mut following = events.follow();
//! while let Some(event) = following.next().await? {
//!     println!("{} {}", event.id(), event.kind());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - Reads are tried again after a lost connection, `429` and `5xx`, a bounded number of times, with the pause that the
//!   server asks for. Polls and writes are sent once: whether a repeat does harm is the caller's to know.
//! - Every call has a deadline, [`ClientConfig::timeout`], in which its retries are included; a poll has the time that it
//!   asks the server to wait beside. Streams end when they are silent for too long.
//! - Answers, frames of streams and downloads have bounds; events and work of unknown kinds are kept as they came.
//! - Redirects are not followed and proxies of the environment are ignored, so that a credential goes to one place; plain
//!   HTTP is refused beyond loopback.
//! - A credential is never part of an error, a `Debug` or a log.
//!
//! # What it does not do
//!
//! It has no types of its own for what travels (`managed-agents-api` has them), and it keeps no state.
#![forbid(unsafe_code)]

mod agents;
mod caller_keys;
mod certificates;
mod config;
mod connections;
mod environments;
mod error;
mod events;
mod follow;
mod http;
mod newest;
mod sessions;
mod skills;
mod stream;
mod tunnels;
mod work;

pub use agents::Agents;
pub use caller_keys::CallerKeys;
pub use certificates::Certificates;
pub use config::{BuildError, ClientConfig};
pub use connections::Connections;
pub use environments::{EnvironmentKeys, Environments};
pub use error::{ApiError, ClientError};
pub use events::Events;
pub use follow::Follow;
pub use managed_agents_api as api;
pub use newest::NewestIds;
pub use sessions::Sessions;
pub use skills::{Content, Skills};
pub use stream::EventStream;
pub use tunnels::Tunnels;
pub use work::{Poll, Stopped, WorkQueue};

use http::Http;
use secrecy::SecretString;
use std::time::Duration;

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

    /// Agents, in versions.
    pub fn agents(&self) -> Agents<'_> {
        Agents { http: &self.http }
    }

    /// Environments.
    pub fn environments(&self) -> Environments<'_> {
        Environments { http: &self.http }
    }

    /// Keys of an environment's workers.
    pub fn environment_keys<'a>(&'a self, environment_id: &'a str) -> EnvironmentKeys<'a> {
        EnvironmentKeys {
            http: &self.http,
            environment_id,
        }
    }

    /// The queue of an environment: what a worker lives on.
    pub fn work<'a>(&'a self, environment_id: &'a str) -> WorkQueue<'a> {
        WorkQueue {
            http: &self.http,
            environment_id,
        }
    }

    /// Sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { http: &self.http }
    }

    /// Events of a session.
    pub fn events<'a>(&'a self, session_id: &'a str) -> Events<'a> {
        Events {
            http: &self.http,
            session_id,
        }
    }

    /// Skills and their content.
    pub fn skills(&self) -> Skills<'_> {
        Skills { http: &self.http }
    }

    /// The same client with another credential: an environment key, or the token of one item of work. Connections are
    /// shared.
    ///
    /// # Errors
    /// [`BuildError::Credential`].
    pub fn with_bearer(&self, token: &SecretString) -> Result<Self, BuildError> {
        Ok(Self {
            http: self.http.with_bearer(token)?,
        })
    }

    /// The same client, whose calls carry a W3C `traceparent`: the server's log names the trace. Neither number is 0.
    /// Connections are shared.
    #[must_use]
    pub fn with_trace(&self, trace: u128, span: u64) -> Self {
        Self {
            http: self.http.with_trace(trace, span),
        }
    }

    /// The same client with another [`ClientConfig::timeout`]. Connections are shared.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            http: self.http.with_timeout(timeout),
        }
    }
}
