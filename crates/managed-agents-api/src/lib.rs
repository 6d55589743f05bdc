//! Wire types of the Managed Agents REST API.
//!
//! What travels between a client (an SDK, a command line, a gateway's operator)
//! and a control plane: MCP tunnels with their certificates and tokens; agents,
//! environments, sessions, their events and the work that workers fetch; our own
//! additions beside them (connections, settings, keys, `begun`), queries, pages and
//! errors.
//! The types are plain values: this crate opens no socket, reads no clock and
//! draws no randomness.
//!
//! ```text
//!   SDK, CLI ──── HTTP, JSON ────► control plane
//!      ▲                               ▲
//!      └──── these types, both ways ───┘
//! ```
//!
//! Names and shapes are the vendor's wherever the vendor has a route, so that its
//! own SDKs work against a server that answers with these types. Identifiers are
//! opaque text here, as the API promises to its clients; a server gives them a
//! stricter type of its own. Unknown members of an object are ignored; unknown words
//! and types survive as `Other`. An [`Event`] is the exact text that came, since a
//! history must lose nothing; its typed view, [`EventBody`], is made on demand.
//!
//! # Example
//!
//! ```
//! use managed_agents_api::{ErrorType, ErrorEnvelope, Page, Tunnel};
//!
//! let page: Page<Tunnel> = serde_json::from_str(
//!     r#"{"data": [{"type": "tunnel", "id": "tnl_01", "domain": "k7.tunnel.example",
//!         "display_name": null, "created_at": "2026-11-24T07:00:00Z", "archived_at": null}],
//!         "next_page": null}"#,
//! )?;
//! assert_eq!(page.data[0].domain, "k7.tunnel.example");
//! assert!(page.next_page.is_none());
//!
//! let refused: ErrorEnvelope = serde_json::from_str(
//!     r#"{"type": "error", "request_id": "req_01",
//!         "error": {"type": "not_found_error", "message": "no such tunnel"}}"#,
//! )?;
//! assert_eq!(refused.error.kind, ErrorType::NotFound);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | [`serve`]: error envelopes as responses, `request-id`, page and body extractors, the `Authenticate` trait |
//!
//! # What it does not do
//!
//! It has no client (`managed-agents-client`) and no server (`mcp-console`,
//! `managed-agents-server`), it does not decide what follows on an event
//! (`managed-agents-loop`); and it
//! does not judge values: lengths, limits and certificates are the server's business.
#![forbid(unsafe_code)]
#![expect(
    clippy::exhaustive_structs,
    reason = "wire types are built by both sides"
)]

mod agent;
mod audit;
mod caller_key;
mod connection;
mod content;
mod environment;
mod error;
mod event;
pub mod headers;
mod page;
mod patch;
mod query;
mod raw;
mod secret;
#[cfg(feature = "axum")]
pub mod serve;
mod session;
mod skill;
pub mod sse;
mod tunnel;
mod vocabulary;
mod work;

pub use agent::{
    Agent, AgentModel, AgentTool, AgentToolset, CreateAgent, CustomTool, McpServer, McpToolset,
    Metadata, MetadataPatch, PermissionPolicy, PolicyKind, SessionAgent, SkillRef, ToolConfig,
    ToolDefaults, UpdateAgent, UrlMcpServer,
};
pub use audit::AuditEntry;
pub use caller_key::{CallerKey, CallerKeyWithSecret, CreateCallerKey};
pub use connection::{
    Approval, ApproveConnection, ApproveKey, CallerAuth, ConnectionStatus, TunnelConnection,
    TunnelSettings, UpdateSettings,
};
pub use content::{
    Base64Source, ContentBlock, DocumentBlock, FileSource, ImageBlock, SearchResultBlock, Source,
    TextBlock, TextSource, UrlSource,
};
pub use environment::{
    Cloud, CreateEnvironment, CreateEnvironmentKey, Deleted, Environment, EnvironmentConfig,
    EnvironmentKey, EnvironmentKeyWithSecret, SelfHosted, UpdateEnvironment,
};
pub use error::{ErrorDetails, ErrorEnvelope, ErrorObject, ErrorType, code};
pub use event::*;
pub use page::{LIMIT_DEFAULT, LIMIT_MAX, Page, PageQuery};
pub use query::{Order, Query, QueryError, TimeRange};
pub use raw::{RawJson, Unknown};
pub use session::{
    AgentRef, AgentVersion, CreateSession, EventFilter, FileResource, MemoryStoreResource,
    RepositoryResource, Session, SessionFilter, SessionResource, SessionStats, SessionStatus,
    SessionUsage, SessionWorker, StreamFilter, Thread, UpdateSession, UpdateSessionAgent,
};
pub use skill::{Skill, SkillSource, SkillVersion};
pub use tunnel::{CreateCertificate, CreateTunnel, Reason, Tunnel, TunnelCertificate, TunnelToken};
pub use work::{
    Begun, BegunBefore, HeartbeatQuery, HeartbeatState, PollQuery, SessionWork, StopWork,
    UpdateWork, Work, WorkData, WorkHeartbeat, WorkQueueStats, WorkSecret, WorkSecretError,
    WorkState,
};
