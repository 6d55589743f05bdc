//! Keys of callers: made once, shown once, kept as hashes.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{self as api, CallerKeyWithSecret, CreateCallerKey, Page, Reason};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{CallerKey, CallerKeyId, RouteName, TunnelId};

use crate::environment::{entropy, unix_ms};
use crate::failure::answer;
use crate::hooks::{Caller, Id, NAME_MOST, Route, checked_text, not_found, parsed};
use crate::shared::Shared;
use crate::store::{CallerKeyRecord, NewCallerKey, StoreError};

pub(crate) fn routes() -> Vec<Route> {
    use Permission::CallerKeysManage;
    vec![
        Route::get("/v1/caller_keys", CallerKeysManage, list),
        Route::post("/v1/caller_keys", CallerKeysManage, create),
        Route::post("/v1/caller_keys/{key}/revoke", CallerKeysManage, revoke),
    ]
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateCallerKey>,
) -> Result<Response, ApiError> {
    let change = caller.change(None)?;
    if body.expires_at.is_some_and(|expiry| expiry <= change.at) {
        return Err(ApiError::invalid("expires_at: a time in the future"));
    }
    let key = CallerKey::from_entropy(entropy());
    let new = NewCallerKey {
        id: CallerKeyId::new(unix_ms(change.at), &entropy()),
        hash: key.hash(),
        name: checked_text("name", &body.name, NAME_MOST)?,
        tunnels: body.tunnel_ids.map(tunnels_of).transpose()?,
        routes: body.routes.map(routes_of).transpose()?,
        expires_at: body.expires_at,
    };
    let most = shared.config.caller_keys_most;
    let record = shared
        .store
        .create_caller_key(&change, new, most)
        .await
        .map_err(|failure| match failure {
            StoreError::NotFound => not_found::<TunnelId>(),
            other => answer::<CallerKeyId>(other),
        })?;
    shared.publish().await;
    let body = CallerKeyWithSecret {
        caller_key: show(record),
        key: key.encode(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
) -> Result<Json<Page<api::CallerKey>>, ApiError> {
    let listing = listing::<CallerKeyId>(params)?;
    let listed = shared
        .store
        .caller_keys(&caller.workspace, &listing)
        .await
        .map_err(answer::<CallerKeyId>)?;
    Ok(Json(page(listed, |record| record.id, show)))
}

async fn revoke(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(key): Id<CallerKeyId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<api::CallerKey>, ApiError> {
    let change = caller.change(body.reason)?;
    let record = shared
        .store
        .revoke_caller_key(&change, key)
        .await
        .map_err(answer::<CallerKeyId>)?;
    shared.publish().await;
    Ok(Json(show(record)))
}

/// A scope that reaches nothing is a mistake, and one without end a large row.
fn scope<T: Ord>(
    field: &str,
    texts: Vec<String>,
    parse: impl FnMut(String) -> Result<T, ApiError>,
) -> Result<BTreeSet<T>, ApiError> {
    if !(1..=SCOPE_MOST).contains(&texts.len()) {
        return Err(ApiError::invalid(format!(
            "{field}: 1 to {SCOPE_MOST}, or leave it out to reach all"
        )));
    }
    texts.into_iter().map(parse).collect()
}

fn tunnels_of(texts: Vec<String>) -> Result<BTreeSet<TunnelId>, ApiError> {
    scope("tunnel_ids", texts, |text| {
        text.parse().map_err(|_| not_found::<TunnelId>())
    })
}

fn routes_of(texts: Vec<String>) -> Result<BTreeSet<RouteName>, ApiError> {
    scope("routes", texts, |text| parsed("routes", &text))
}

fn show(record: CallerKeyRecord) -> api::CallerKey {
    api::CallerKey {
        id: record.id.to_string(),
        name: record.name,
        tunnel_ids: record.tunnels.map(texts_of),
        routes: record.routes.map(texts_of),
        created_at: record.created_at,
        expires_at: record.expires_at,
        revoked_at: record.revoked_at,
    }
}

fn texts_of<T: ToString>(scope: BTreeSet<T>) -> Vec<String> {
    scope.iter().map(ToString::to_string).collect()
}

/// Tunnels or routes that one key may name.
const SCOPE_MOST: usize = 64;
