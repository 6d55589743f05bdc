//! The audit: who did what, when, from where, why.
//!
//! A row is written in the transaction of the change itself, so that there is neither a
//! change without its row nor a row without its change.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::WorkspaceId;

use super::{Change, Listed, Listing, StoreError};

/// What the audit keeps of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// Who, when and why.
    pub change: Change,
    /// What was done: `environment_key.revoke`.
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

/// Shows the audit, and forgets what is too old.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// A page of the audit of a workspace, newest first.
    ///
    /// # Errors
    /// Only the store's own.
    async fn audit(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<AuditRecord>, StoreError>;

    /// Forgets what the audit has from before `before`, of every workspace.
    ///
    /// # Errors
    /// Only the store's own.
    async fn forget_audit(&self, before: Timestamp) -> Result<u64, StoreError>;
}
