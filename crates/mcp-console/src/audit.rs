//! The audit: who did what, when, from where, why.
//!
//! Rows are written by the store in the transaction of the change itself (a reveal is
//! one, too), so that there is neither a change without its row nor a row without its
//! change. This module is how they are read.

use mcp_tunnel_auth::WorkspaceId;

use crate::Console;
use crate::store::{AuditRecord, Listed, Listing, StoreError};

impl Console {
    /// A page of the audit of a workspace, newest first.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn audit(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<AuditRecord>, StoreError> {
        self.shared.store.audit(workspace, listing).await
    }
}
