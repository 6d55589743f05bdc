//! The audit of agents, environments, their keys and skills: how it is read.
//!
//! Its rows are written by the store, in the transaction of the change itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, PageParams, Permission};
use managed_agents_api::{AuditEntry, Page};
use managed_agents_service::{audit_listing, audit_page};
use mcp_tunnel_auth::EnvironmentId;

use crate::failure::answer;
use crate::hooks::{Caller, Route, Takes};
use crate::shared::Shared;

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::AuditRead);
    vec![Route::get("/v1/audit/sessions", read, list)]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let listing = audit_listing(params)?;
    let listed = shared.store.audit(&caller.workspace, &listing).await;
    Ok(Json(audit_page(listed.map_err(answer::<EnvironmentId>)?)))
}
