//! Tokens, keys, proofs and access snapshots of MCP tunnels.
//!
//! A tunnel joins a *gateway* in a private network with an *edge* that callers reach. This crate is what a console, an
//! edge and a gateway must agree on to trust each other; it has no IO, no clock and no randomness: time and entropy are
//! arguments, and it builds for `wasm32-unknown-unknown`.
//!
//! ```text
//!        console                          edge                             gateway
//!  MasterKey + TokenId
//!     │ HKDF                                                   mct_… (shown once, on demand)
//!     ├── TokenSeed ─────────────── TunnelToken ──────────────────────────►  │
//!     └── TokenPublicKey ──► AccessSnapshot ──►│                             │ + GatewayKey (its own)
//!                                              │◄──── LinkCredential ────────┤ signed over the TLS exporter
//!                              judge_link ─────┤                             │
//!        record ◄──── LinkReport ──────────────┤                             │
//!                                              │
//!  CallerKeyHash ──► AccessSnapshot            │◄──── CallerKey (mck_…) ──── caller
//!                        authorise_caller ─────┘
//! ```
//!
//! # Example
//!
//! ```
//! use mcp_tunnel_auth::*;
//!
//! // The console: random bytes come from its caller.
//! let master = MasterKey::from_bytes([1; 32]);
//! let (tunnel_id, token_id) = (TunnelId::new(1_764_000_000_000, &[2; 10]), TokenId::new(1_764_000_000_000, &[3; 10]));
//! let label = DomainLabel::parse("k3v9d2xq")?;
//! let domain = DomainName::parse("tunnels.example.com")?;
//! let edge = (HostName::parse("tunnels.example.com")?, 443);
//! let token = TunnelToken::new(tunnel_id, label.clone(), domain.clone(), token_id, master.token_seed(&token_id), edge);
//! let text = token.encode(); // mct_…, a secret
//!
//! let mut tunnel = TunnelAccess::new(tunnel_id, WorkspaceId::parse("default")?, label);
//! tunnel.tokens.push(TokenAccess::new(token_id, master.token_public_key(&token_id)));
//! let snapshot = AccessSnapshot::new(AccessSnapshot::next_number(0, 1_764_000_000_000), 1_764_000_000_000, vec![tunnel], vec![])?;
//!
//! // The gateway: the exporter comes from its TLS connection.
//! use secrecy::ExposeSecret;
//! let token = TunnelToken::parse(text.expose_secret())?;
//! let key = GatewayKey::from_bytes([4; 32]);
//! let announcement = Announcement::new("0.1.0", "build-7", vec![RouteName::default()])?;
//! let hello = LinkCredential::sign(&token, &key, &[5; 32], announcement).encode();
//!
//! // The edge: proven, but nobody approved this gateway yet.
//! let credential = LinkCredential::decode(&hello)?;
//! assert_eq!(snapshot.judge_link(&credential, &domain.edge(), &[5; 32]), Ok(LinkDecision::Pending));
//! // The same bytes on another TLS connection prove that somebody stands in between.
//! assert_eq!(snapshot.judge_link(&credential, &domain.edge(), &[6; 32]), Err(LinkRefusal::Intercepted));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//!
//! - It stores nothing and sends nothing: rows are the console's, frames are `mcp-tunnel-proto`'s.
//! - It does not check certificates: it carries the pin of a CA, and TLS compares it.
//! - It does not count: limits on pending links, rates and retries are the edge's.
//! - It does not hide public things: ids, public keys, fingerprints and hashes print as they are; secrets never do.
//!
//! It has no cargo features.

#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm
)]

mod base32;
mod bearer;
mod code;
mod credential;
#[cfg(test)]
mod fixture;
mod id;
mod item;
mod key;
mod kind;
mod master;
mod name;
mod report;
mod snapshot;
mod token;
mod wire;

pub use bearer::{
    ApiKey, ApiKeyHash, BearerError, CallerKey, CallerKeyHash, EnvironmentKey, EnvironmentKeyHash,
    HashError,
};
pub use code::{ApprovalCode, ApprovalCodeError};
pub use credential::{
    Announcement, AnnouncementError, CredentialError, LinkCredential, LinkIdentity,
    MAX_CREDENTIAL_BYTES, MAX_ROUTES, ProofError,
};
pub use id::{
    AgentId, ApiKeyId, CallerKeyId, CertificateId, ConnectionId, EnvironmentId, EnvironmentKeyId,
    EventId, IdError, LinkId, SessionId, SkillId, SkillVersionId, ThreadId, TokenId, TunnelId,
    WorkId, WorkspaceId, encode as encode_id,
};
pub use item::{ItemToken, ItemTokenError};
pub use key::{Fingerprint, GatewayKey, GatewayPublicKey, KeyError, TokenPublicKey, TokenSeed};
pub use kind::{CredentialKind, WrongCredential, carries_own_credential, without_credentials};
pub use master::{MasterKey, MasterKeyError, MasterKeyId};
pub use name::{
    DomainLabel, DomainName, HostName, MAX_LABEL, MAX_ROUTE, NameError, PublicHost, RouteName,
};
pub use report::{DownReason, LinkReport, LinkReportKind};
pub use snapshot::{
    AccessSnapshot, Approval, CallerAuth, CallerGrant, CallerKeyAccess, CallerRefusal,
    GatewayAccess, GatewayState, LinkDecision, LinkRefusal, SnapshotError, TokenAccess, TokenState,
    TunnelAccess,
};
pub use token::{MAX_TOKEN_CHARS, TokenError, TunnelToken};
