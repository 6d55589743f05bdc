//! Environments: where the tools of sessions run.

mod config;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{
    CreateEnvironment, Deleted, Environment, Page, RawJson, UpdateEnvironment,
};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::EnvironmentId;
use tracing::error;

use crate::environment::{entropy, unix_ms};
use crate::failure::{answer, chain};
use crate::hooks::{Caller, Id, NAME_MOST, Route, Takes, checked_text};
use crate::metadata;
use crate::shared::Shared;
use crate::store::{EnvironmentChange, EnvironmentRecord, Listed, NewEnvironment};

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::EnvironmentsRead);
    let manage = Takes::api(Permission::EnvironmentsManage);
    vec![
        Route::post("/v1/environments", manage, create),
        Route::get("/v1/environments", read, list),
        Route::get("/v1/environments/{environment}", read, retrieve),
        Route::post("/v1/environments/{environment}", manage, update),
        Route::post("/v1/environments/{environment}/archive", manage, archive),
        Route::delete("/v1/environments/{environment}", manage, delete),
    ]
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateEnvironment>,
) -> Result<Json<Environment>, ApiError> {
    if body.scope.is_some_and(|scope| scope != SCOPE) {
        return Err(ApiError::invalid(
            "scope: organization; there are no accounts here",
        ));
    }
    let (kind, config) = config::new(body.config)?;
    let change = caller.change(None)?;
    let new = NewEnvironment {
        id: EnvironmentId::new(unix_ms(change.at), &entropy()),
        name: checked_text("name", &body.name, NAME_MOST)?,
        description: body.description.map(checked_description).transpose()?,
        kind,
        config,
        metadata: metadata::checked(body.metadata.unwrap_or_default())?,
    };
    let most = shared.config.environments_most;
    let record = shared
        .store
        .create_environment(&change, new, most)
        .await
        .map_err(answer::<EnvironmentId>)?;
    show(record).map(Json)
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
) -> Result<Json<Page<Environment>>, ApiError> {
    let listing = listing::<EnvironmentId>(params)?;
    let listed = shared
        .store
        .environments(&caller.workspace, &listing)
        .await
        .map_err(answer::<EnvironmentId>)?;
    let rows = listed.rows.into_iter().map(show);
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let more = listed.more;
    Ok(Json(page(
        Listed::new(rows, more),
        |environment| environment.id.clone(),
        |environment| environment,
    )))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<EnvironmentId>,
) -> Result<Json<Environment>, ApiError> {
    let found = shared.store.environment(&caller.workspace, id).await;
    show(found.map_err(answer::<EnvironmentId>)?).map(Json)
}

async fn update(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<EnvironmentId>,
    JsonBody(body): JsonBody<UpdateEnvironment>,
) -> Result<Json<Environment>, ApiError> {
    let change = caller.change(None)?;
    let found = shared.store.environment(&caller.workspace, id).await;
    let before = found.map_err(answer::<EnvironmentId>)?;
    let config = body
        .config
        .map(|config| config::changed(before.kind, &before.config, config));
    let description = body
        .description
        .map(|text| text.map(checked_description).transpose());
    // An empty text deletes, as null does.
    let filled = |(key, value): (String, Option<String>)| {
        let value = value.filter(|value| !value.is_empty());
        (key, value)
    };
    let to = EnvironmentChange {
        name: body
            .name
            .map(|name| checked_text("name", &name, NAME_MOST))
            .transpose()?,
        description: description.transpose()?,
        config: config.transpose()?,
        metadata: body
            .metadata
            .unwrap_or_default()
            .into_iter()
            .map(filled)
            .collect(),
    };
    metadata::patched(before.metadata, to.metadata.clone())?;
    let record = shared
        .store
        .update_environment(&change, id, to)
        .await
        .map_err(answer::<EnvironmentId>)?;
    show(record).map(Json)
}

async fn archive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<EnvironmentId>,
) -> Result<Json<Environment>, ApiError> {
    let change = caller.change(None)?;
    let record = shared
        .store
        .archive_environment(&change, id)
        .await
        .map_err(answer::<EnvironmentId>)?;
    show(record).map(Json)
}

async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<EnvironmentId>,
) -> Result<Json<Deleted>, ApiError> {
    let change = caller.change(None)?;
    shared
        .store
        .delete_environment(&change, id)
        .await
        .map_err(answer::<EnvironmentId>)?;
    Ok(Json(Deleted::new(id.to_string(), "environment_deleted")))
}

fn checked_description(text: String) -> Result<String, ApiError> {
    if text.is_empty() {
        return Ok(text);
    }
    checked_text("description", &text, DESCRIPTION_MOST)
}

fn show(record: EnvironmentRecord) -> Result<Environment, ApiError> {
    let config = RawJson::from_text(record.config).and_then(|config| config.parse());
    let config = config.map_err(|error| {
        error!(error = chain(&error), "an environment's row is damaged");
        ApiError::internal()
    })?;
    Ok(Environment {
        id: record.id.to_string(),
        name: record.name,
        description: record.description,
        config,
        metadata: record.metadata,
        scope: Some(SCOPE.to_owned()),
        created_at: record.created_at,
        updated_at: record.updated_at,
        archived_at: record.archived_at,
    })
}

const SCOPE: &str = "organization";

/// Longest description, in characters.
const DESCRIPTION_MOST: usize = 2048;
