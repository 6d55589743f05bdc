//! The audit: who did what, when, from where, why.
//!
//! A row is written in the transaction of the change itself, so that there is neither a
//! change without its row nor a row without its change.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::WorkspaceId;

use super::{AuditRecord, Listed, Listing, StoreError};

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
