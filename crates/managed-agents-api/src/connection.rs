//! Gateways of a tunnel, and the tunnel's settings: our own routes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One gateway key of one tunnel, with the links that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tunnel_connection")]
pub struct TunnelConnection {
    /// `tcon_…`, opaque.
    pub id: String,
    /// The tunnel that the gateway dialled for.
    pub tunnel_id: String,
    /// Where it stands.
    pub status: ConnectionStatus,
    /// Links up at this moment; more than one where a gateway runs twice.
    pub live_links: u32,
    /// Fingerprint of the gateway's own key: what is approved.
    pub gateway_key_fingerprint: String,
    /// Short code that the gateway prints while it is pending.
    pub approval_code: Option<String>,
    /// The token that it last presented.
    pub tunnel_token_id: Option<String>,
    /// Version that the gateway announced.
    pub gateway_version: Option<String>,
    /// Address that it last dialled from.
    pub remote_address: Option<String>,
    /// True while the same key is live from more than one address.
    pub several_addresses: bool,
    /// Names of the MCP servers that it announced.
    pub routes: Vec<String>,
    /// When its newest link came up.
    pub connected_at: Option<Timestamp>,
    /// When it was last heard of.
    pub last_seen_at: Option<Timestamp>,
    /// Round trip of its newest link, in milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Where a gateway stands.
///
/// ```text
///            approve           link up
/// pending ───────────► disconnected ◄────► active
///    │                     │   link down      │
///    └────── refuse ───────┴──── refuse ──────┴──► refused ── approve ──► disconnected
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionStatus {
    /// Waits for a decision; carries nothing.
    Pending,
    /// Approved, at least one link up.
    Active,
    /// Approved, no link up.
    Disconnected,
    /// Refused, or its approval was withdrawn.
    Refused,
}

impl fmt::Display for ConnectionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
        })
    }
}

/// Body of `POST /v1/tunnels/{id}/connections`: approves a key before its first contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveKey {
    /// Fingerprint that the gateway prints at its start.
    pub gateway_key_fingerprint: String,
    /// Free text for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /v1/tunnels/{id}/connections/{cid}/approve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveConnection {
    /// When given, the approval holds for this key only: 409 when it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_key_fingerprint: Option<String>,
    /// Free text for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who lets a new gateway in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Approval {
    /// A person with the permission to approve.
    #[default]
    Manual,
    /// The tunnel token alone suffices.
    Auto,
}

/// Who authenticates the callers of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallerAuth {
    /// The edge, by caller key.
    #[default]
    Key,
    /// The private MCP server: the tunnel is open to any caller.
    Upstream,
}

/// How a tunnel treats gateways and callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tunnel_settings")]
pub struct TunnelSettings {
    /// The tunnel.
    pub tunnel_id: String,
    /// Who lets a new gateway in.
    pub approval: Approval,
    /// Who authenticates callers.
    pub caller_auth: CallerAuth,
    /// True where any caller reaches the private servers: `caller_auth` is `upstream`.
    pub open_to_any_caller: bool,
}

/// Body of `POST /v1/tunnels/{id}/settings`: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateSettings {
    /// Who lets a new gateway in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Who authenticates callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_auth: Option<CallerAuth>,
    /// Free text for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
