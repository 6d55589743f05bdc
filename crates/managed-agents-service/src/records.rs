//! What every store shares: who changes something, what is listed.

use std::net::IpAddr;

use jiff::Timestamp;
use mcp_tunnel_auth::WorkspaceId;

/// Who changes something, when and why: what the audit row of the change will hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Id of the audit row.
    pub audit_id: String,
    /// The workspace that everything in the change belongs to.
    pub workspace: WorkspaceId,
    /// Who.
    pub actor: String,
    /// From where, where that is known.
    pub address: Option<IpAddr>,
    /// Why, where it was said.
    pub reason: Option<String>,
    /// When, in whole milliseconds.
    pub at: Timestamp,
}

impl Change {
    /// A change by `actor` at `at`, without address and reason.
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

/// What the audit keeps of a change.
///
/// It is written in the transaction of the change itself, so that there is neither a change without its row nor a row
/// without its change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// Who, when and why.
    pub change: Change,
    /// What was done: `tunnel.archive`.
    pub action: String,
    /// To what: an id.
    pub object: String,
}

impl AuditRecord {
    /// The record of `action` on `object`.
    pub fn new(change: Change, action: impl Into<String>, object: impl Into<String>) -> Self {
        Self {
            change,
            action: action.into(),
            object: object.into(),
        }
    }
}

/// Which page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// Only rows older than the one with this id.
    pub before: Option<String>,
    /// At most this many.
    pub limit: u32,
    /// Whether archived ones are listed too.
    pub include_archived: bool,
}

impl Listing {
    /// The newest `limit` rows that are not archived.
    #[must_use]
    pub const fn newest(limit: u32) -> Self {
        Self {
            before: None,
            limit,
            include_archived: false,
        }
    }

    /// With archived rows.
    #[must_use]
    pub const fn with_archived(mut self) -> Self {
        self.include_archived = true;
        self
    }

    /// Continued after the row `id`.
    #[must_use]
    pub fn after(mut self, id: impl ToString) -> Self {
        self.before = Some(id.to_string());
        self
    }
}

/// Rows of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed<T> {
    /// Newest first.
    pub rows: Vec<T>,
    /// Whether older ones follow.
    pub more: bool,
}

impl<T> Listed<T> {
    /// These rows, and whether older ones follow.
    #[must_use]
    pub const fn new(rows: Vec<T>, more: bool) -> Self {
        Self { rows, more }
    }

    /// Cuts `rows`, of which one more than `limit` was asked for, to a page.
    #[must_use]
    pub fn cut(mut rows: Vec<T>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self { rows, more }
    }
}
