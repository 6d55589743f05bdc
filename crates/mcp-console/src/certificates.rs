//! CA certificates of tunnels: kept for a mode in which the edge sees no payload.
//! Traffic does not wait for one.

mod judge;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{CreateCertificate, Page, Reason, TunnelCertificate};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{CertificateId, TunnelId};

use crate::environment::{entropy, unix_ms};
use crate::failure::answer;
use crate::hooks::{Caller, Id, Ids, Route};
use crate::shared::Shared;
use crate::store::{CertificateRecord, NewCertificate};
use crate::tunnels::both;

pub(crate) fn routes() -> Vec<Route> {
    use Permission::{TunnelsManage, TunnelsRead};
    let mut routes = Vec::new();
    for path in both!("/{tunnel}/certificates") {
        routes.push(Route::post(path, TunnelsManage, create));
        routes.push(Route::get(path, TunnelsRead, list));
    }
    for path in both!("/{tunnel}/certificates/{certificate}") {
        routes.push(Route::get(path, TunnelsRead, retrieve));
    }
    for path in both!("/{tunnel}/certificates/{certificate}/archive") {
        routes.push(Route::post(path, TunnelsManage, archive));
    }
    routes
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    JsonBody(body): JsonBody<CreateCertificate>,
) -> Result<Json<TunnelCertificate>, ApiError> {
    let change = caller.change(None)?;
    // A foreign tunnel is answered as a missing one whatever the certificate is like.
    shared
        .store
        .tunnel(&caller.workspace, tunnel)
        .await
        .map_err(answer::<TunnelId>)?;
    let judged = judge::judge(&body.ca_certificate_pem, change.at)
        .map_err(|error| ApiError::invalid(format!("ca_certificate_pem: {error}")))?;
    let new = NewCertificate {
        id: CertificateId::new(unix_ms(change.at), &entropy()),
        pem: judged.pem,
        fingerprint: judged.fingerprint,
        expires_at: judged.expires_at,
    };
    let record = shared
        .store
        .add_certificate(&change, tunnel, new, ACTIVE_MOST)
        .await
        .map_err(answer::<TunnelId>)?;
    Ok(Json(show(record)))
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    params: PageParams,
) -> Result<Json<Page<TunnelCertificate>>, ApiError> {
    let listing = listing::<CertificateId>(params)?;
    let listed = shared
        .store
        .certificates(&caller.workspace, tunnel, &listing)
        .await
        .map_err(answer::<TunnelId>)?;
    Ok(Json(page(listed, |record| record.id, show)))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(tunnel, certificate): Ids<TunnelId, CertificateId>,
) -> Result<Json<TunnelCertificate>, ApiError> {
    let record = shared
        .store
        .certificate(&caller.workspace, tunnel, certificate)
        .await
        .map_err(answer::<CertificateId>)?;
    Ok(Json(show(record)))
}

async fn archive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(tunnel, certificate): Ids<TunnelId, CertificateId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<TunnelCertificate>, ApiError> {
    let change = caller.change(body.reason)?;
    let record = shared
        .store
        .archive_certificate(&change, tunnel, certificate)
        .await
        .map_err(answer::<CertificateId>)?;
    Ok(Json(show(record)))
}

fn show(record: CertificateRecord) -> TunnelCertificate {
    TunnelCertificate {
        id: record.id.to_string(),
        tunnel_id: record.tunnel.to_string(),
        archived_at: record.archived_at,
        created_at: record.created_at,
        expires_at: record.expires_at,
        fingerprint: record.fingerprint,
    }
}

/// Active certificates of a tunnel: the old one and the new one while they change over.
const ACTIVE_MOST: u32 = 2;
