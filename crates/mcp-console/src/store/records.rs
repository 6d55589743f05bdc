//! Rows, and what makes them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use jiff::Timestamp;
use managed_agents_api::serve::Permissions;
use mcp_tunnel_auth::{
    ApiKeyHash, ApiKeyId, Approval, ApprovalCode, CallerAuth, CallerKeyHash, CallerKeyId,
    CertificateId, ConnectionId, DomainLabel, Fingerprint, MasterKeyId, RouteName, TokenId,
    TokenPublicKey, TunnelId, WorkspaceId,
};

/// A tunnel that is to be.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a store needs every part of it")]
pub struct NewTunnel {
    /// Its id.
    pub id: TunnelId,
    /// Its part of host names.
    pub label: DomainLabel,
    /// For people.
    pub display_name: Option<String>,
    /// Who lets new gateways in.
    pub approval: Approval,
    /// Its first token.
    pub token: NewToken,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct TunnelRecord {
    /// Its id.
    pub id: TunnelId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its part of host names.
    pub label: DomainLabel,
    /// For people.
    pub display_name: Option<String>,
    /// Who lets new gateways in.
    pub approval: Approval,
    /// Who authenticates callers.
    pub caller_auth: CallerAuth,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

/// What is to change in a tunnel's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store needs every part of it")]
pub struct SettingsChange {
    /// Who lets new gateways in.
    pub approval: Option<Approval>,
    /// Who authenticates callers.
    pub caller_auth: Option<CallerAuth>,
}

/// A token that is to be; its secret is derived, and is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store needs every part of it")]
pub struct NewToken {
    /// Its id.
    pub id: TokenId,
    /// The master key that its secret is derived from.
    pub master_key: MasterKeyId,
    /// What its signatures are checked with.
    pub public_key: TokenPublicKey,
}

/// One value of a tunnel's token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct TokenRecord {
    /// What it was made from.
    pub token: NewToken,
    /// The tunnel that it is for.
    pub tunnel: TunnelId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When another one took its place.
    pub retired_at: Option<Timestamp>,
}

/// A certificate that is to be registered.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a store needs every part of it")]
pub struct NewCertificate {
    /// Its id.
    pub id: CertificateId,
    /// One certificate.
    pub pem: String,
    /// SHA-256 of its DER in lower-case hex.
    pub fingerprint: String,
    /// Its end of validity.
    pub expires_at: Option<Timestamp>,
}

/// A registered certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct CertificateRecord {
    /// Its id.
    pub id: CertificateId,
    /// The tunnel that it is for.
    pub tunnel: TunnelId,
    /// The certificate.
    pub pem: String,
    /// SHA-256 of its DER in lower-case hex.
    pub fingerprint: String,
    /// When it was registered.
    pub created_at: Timestamp,
    /// Its end of validity.
    pub expires_at: Option<Timestamp>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

/// What was decided about a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Decision {
    /// Nothing yet.
    Pending,
    /// It may carry traffic.
    Approved,
    /// It may not connect.
    Refused,
}

/// A gateway key as one tunnel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct GatewayRecord {
    /// Its id.
    pub id: ConnectionId,
    /// The tunnel.
    pub tunnel: TunnelId,
    /// The key.
    pub fingerprint: Fingerprint,
    /// What was decided about it.
    pub decision: Decision,
    /// Links admitted under a snapshot with a lower number are closed.
    pub links_from: u64,
    /// What it prints while it is pending.
    pub approval_code: Option<ApprovalCode>,
    /// The token that it last presented.
    pub token: Option<TokenId>,
    /// What it announced last.
    pub version: Option<String>,
    /// Where it last dialled from.
    pub remote_address: Option<SocketAddr>,
    /// The servers that it announced last.
    pub routes: Vec<RouteName>,
    /// When it was first seen or approved.
    pub created_at: Timestamp,
    /// When its newest link came up.
    pub connected_at: Option<Timestamp>,
    /// When it was last heard of.
    pub last_seen_at: Option<Timestamp>,
}

/// What a report of an edge did to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Observed {
    /// The gateway's row was written.
    Written,
    /// There is no such tunnel, no room for the gateway, or nothing to keep of it.
    Ignored,
}

/// A caller key that is to be.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a store needs every part of it")]
pub struct NewCallerKey {
    /// Its id.
    pub id: CallerKeyId,
    /// Its hash.
    pub hash: CallerKeyHash,
    /// For people.
    pub name: String,
    /// The tunnels that it reaches; `None` for all.
    pub tunnels: Option<BTreeSet<TunnelId>>,
    /// The routes that it reaches; `None` for all.
    pub routes: Option<BTreeSet<RouteName>>,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
}

/// A caller key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct CallerKeyRecord {
    /// Its id.
    pub id: CallerKeyId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its hash.
    pub hash: CallerKeyHash,
    /// For people.
    pub name: String,
    /// The tunnels that it reaches; `None` for all.
    pub tunnels: Option<BTreeSet<TunnelId>>,
    /// The routes that it reaches; `None` for all.
    pub routes: Option<BTreeSet<RouteName>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// An API key that is to be.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a store needs every part of it")]
pub struct NewApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Its hash.
    pub hash: ApiKeyHash,
    /// For people.
    pub name: String,
    /// What it may do.
    pub permissions: Permissions,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct ApiKeyRecord {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its hash.
    pub hash: ApiKeyHash,
    /// For people.
    pub name: String,
    /// What it may do.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// All that an edge judges by: tunnels that are not archived with their tokens and the
/// gateways that were decided upon, and caller keys that are not revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a store fills every part of it")]
pub struct AccessRows {
    /// Tunnels, by id.
    pub tunnels: Vec<TunnelRecord>,
    /// Tokens, by tunnel, then newest first.
    pub tokens: Vec<TokenRecord>,
    /// Gateways, by tunnel.
    pub gateways: Vec<GatewayRecord>,
    /// Caller keys, by id.
    pub caller_keys: Vec<CallerKeyRecord>,
    /// The highest number that was noted for a snapshot; 0 for none.
    pub last_snapshot: u64,
}
