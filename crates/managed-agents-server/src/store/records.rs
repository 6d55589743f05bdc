//! What every part of the store shares: who acts, what is listed.

use std::net::IpAddr;

use jiff::Timestamp;
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyId, WorkId, WorkspaceId};

/// Who has something done, as far as an effect's own transaction judges it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authority {
    /// Somebody with a permission, such as the holder of an API key.
    Operator {
        /// Name in the audit.
        actor: String,
    },
    /// A worker with an environment key; good until the key is revoked.
    EnvironmentKey {
        /// The key's row.
        key: EnvironmentKeyId,
        /// The only environment that it reaches.
        environment: EnvironmentId,
    },
    /// A worker with the token of one claim; good until the claim is over.
    Item {
        /// The item.
        work: WorkId,
        /// The claim.
        epoch: u64,
    },
}

/// A change, with all that its audit row says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Id of the audit row.
    pub audit_id: String,
    /// Where.
    pub workspace: WorkspaceId,
    /// Who.
    pub actor: String,
    /// From where.
    pub address: Option<IpAddr>,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl Change {
    /// A change without address and reason.
    pub fn new(
        audit_id: impl Into<String>,
        workspace: WorkspaceId,
        actor: impl Into<String>,
        at: Timestamp,
    ) -> Self {
        Self {
            audit_id: audit_id.into(),
            workspace,
            actor: actor.into(),
            address: None,
            reason: None,
            at,
        }
    }
}

/// A page that is asked for, newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Listing {
    /// Only rows whose id sorts before this one.
    pub before: Option<String>,
    /// Whether archived rows are listed.
    pub include_archived: bool,
    /// Most rows.
    pub limit: u32,
}

impl Listing {
    /// The newest `limit` rows that are not archived.
    #[must_use]
    pub const fn newest(limit: u32) -> Self {
        Self {
            before: None,
            include_archived: false,
            limit,
        }
    }
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

impl<T> Listed<T> {
    /// A page of `rows`, of which one more than `limit` was asked for.
    #[must_use]
    pub fn cut(mut rows: Vec<T>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self { rows, more }
    }
}
