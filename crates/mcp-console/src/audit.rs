//! The audit: who did what, when, from where, why.
//!
//! Rows are written by the store in the transaction of the change itself (a reveal is
//! one, too), so that there is neither a change without its row nor a row without its
//! change. This module is how they are read; nothing but their age removes them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, PageParams, Permission};
use managed_agents_api::{AuditEntry, Page};
use managed_agents_service::{audit_listing, audit_page};
use mcp_tunnel_auth::{TunnelId, WorkspaceId};

use crate::Console;
use crate::failure::answer;
use crate::hooks::{Caller, Route};
use crate::shared::Shared;
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

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::get("/v1/audit", Permission::AuditRead, list)]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let listing = audit_listing(params)?;
    let listed = shared.store.audit(&caller.workspace, &listing).await;
    Ok(Json(audit_page(listed.map_err(answer::<TunnelId>)?)))
}
