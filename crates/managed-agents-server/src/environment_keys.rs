//! Keys of environments' workers: made once, shown once, kept as hashes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{
    self as api, CreateEnvironmentKey, EnvironmentKeyWithSecret, Page, Reason,
};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKey, EnvironmentKeyId};

use crate::environment::{entropy, unix_ms};
use crate::failure::answer;
use crate::hooks::{Caller, Id, Ids, NAME_MOST, Route, Takes, checked_text};
use crate::shared::Shared;
use crate::store::{EnvironmentKeyRecord, NewEnvironmentKey};

pub(crate) fn routes() -> Vec<Route> {
    let manage = Takes::api(Permission::EnvironmentKeysManage);
    vec![
        Route::post("/v1/environments/{environment}/keys", manage, create),
        Route::get("/v1/environments/{environment}/keys", manage, list),
        Route::post(
            "/v1/environments/{environment}/keys/{key}/revoke",
            manage,
            revoke,
        ),
    ]
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(environment): Id<EnvironmentId>,
    JsonBody(body): JsonBody<CreateEnvironmentKey>,
) -> Result<Response, ApiError> {
    let change = caller.change(None)?;
    let key = EnvironmentKey::from_entropy(entropy());
    let new = NewEnvironmentKey {
        id: EnvironmentKeyId::new(unix_ms(change.at), &entropy()),
        environment,
        hash: key.hash(),
        name: checked_text("name", &body.name, NAME_MOST)?,
    };
    let most = shared.config.environment_keys_most;
    let record = shared
        .store
        .create_environment_key(&change, new, most)
        .await
        .map_err(answer::<EnvironmentId>)?;
    let body = EnvironmentKeyWithSecret {
        environment_key: show(record),
        key: key.encode(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(environment): Id<EnvironmentId>,
    params: PageParams,
) -> Result<Json<Page<api::EnvironmentKey>>, ApiError> {
    let listing = listing::<EnvironmentKeyId>(params)?;
    let listed = shared
        .store
        .environment_keys(&caller.workspace, environment, &listing)
        .await
        .map_err(answer::<EnvironmentId>)?;
    Ok(Json(page(listed, |record| record.id, show)))
}

async fn revoke(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, key): Ids<EnvironmentId, EnvironmentKeyId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<api::EnvironmentKey>, ApiError> {
    let change = caller.change(body.reason)?;
    let record = shared
        .store
        .revoke_environment_key(&change, environment, key)
        .await
        .map_err(answer::<EnvironmentKeyId>)?;
    Ok(Json(show(record)))
}

fn show(record: EnvironmentKeyRecord) -> api::EnvironmentKey {
    api::EnvironmentKey {
        id: record.id.to_string(),
        environment_id: record.environment.to_string(),
        name: record.name,
        created_at: record.created_at,
        revoked_at: record.revoked_at,
    }
}
