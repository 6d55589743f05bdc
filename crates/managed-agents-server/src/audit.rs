//! The audit of agents, environments, their keys and skills: how it is read.
//!
//! Its rows are written by the store, in the transaction of the change itself.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, PageParams, Permission};
use managed_agents_api::{AuditEntry, Page};
use mcp_tunnel_auth::{EnvironmentId, encode_id};

use crate::failure::answer;
use crate::hooks::{Caller, Route, Takes};
use crate::pages::{listing, page};
use crate::shared::Shared;
use crate::store::AuditRecord;

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::AuditRead);
    vec![Route::get("/v1/audit/sessions", read, list)]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    let listing = listing::<AuditId>(params)?;
    let listed = shared
        .store
        .audit(&caller.workspace, &listing)
        .await
        .map_err(answer::<EnvironmentId>)?;
    let id_of = |record: &AuditRecord| record.change.audit_id.clone();
    Ok(Json(page(listed, id_of, show)))
}

fn show(record: AuditRecord) -> AuditEntry {
    let AuditRecord {
        change,
        action,
        object,
    } = record;
    AuditEntry {
        id: change.audit_id,
        created_at: change.at,
        actor: change.actor,
        address: change.address.map(|address| address.to_string()),
        action,
        object_id: object,
        reason: change.reason,
    }
}

/// The id of a row, in a page token: any row's, since it only says where to go on.
struct AuditId(String);

impl FromStr for AuditId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let form = encode_id(PREFIX, 0, &[0; 10]);
        let is_id = text.starts_with(PREFIX) && text.len() == form.len() && text.is_ascii();
        is_id.then(|| Self(text.to_owned())).ok_or(())
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const PREFIX: &str = "audit";
