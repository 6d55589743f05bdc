//! Tunnels, their tokens and settings.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{
    self as api, CreateTunnel, Page, Reason, Tunnel, TunnelSettings, TunnelToken, UpdateSettings,
};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{Approval, CallerAuth, TokenId, TunnelId};
use tracing::error;

use crate::environment::{self, entropy, unix_ms};
use crate::failure::answer;
use crate::hooks::{Caller, Id, NAME_MOST, Route, checked_text};
use crate::shared::Shared;
use crate::store::{
    Change, NewToken, NewTunnel, Refusal, SettingsChange, StoreError, TokenRecord, TunnelRecord,
};

/// Each of the vendor's routes twice: where it is, and where it was.
macro_rules! both {
    ($rest:literal) => {
        [
            concat!("/v1/tunnels", $rest),
            concat!("/v1/organizations/tunnels", $rest),
        ]
    };
}
pub(crate) use both;

pub(crate) fn routes() -> Vec<Route> {
    use Permission::{TunnelsManage, TunnelsRead};
    let mut routes = vec![
        Route::get("/v1/tunnels/{tunnel}/settings", TunnelsRead, settings),
        Route::post("/v1/tunnels/{tunnel}/settings", TunnelsManage, set),
    ];
    for path in both!("") {
        routes.push(Route::post(path, TunnelsManage, create));
        routes.push(Route::get(path, TunnelsRead, list));
    }
    for path in both!("/{tunnel}") {
        routes.push(Route::get(path, TunnelsRead, retrieve));
    }
    for path in both!("/{tunnel}/archive") {
        routes.push(Route::post(path, TunnelsManage, archive));
    }
    for path in both!("/{tunnel}/reveal_token") {
        routes.push(Route::post(path, TunnelsManage, reveal));
    }
    for path in both!("/{tunnel}/rotate_token") {
        routes.push(Route::post(path, TunnelsManage, rotate));
    }
    routes
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateTunnel>,
) -> Result<Json<Tunnel>, ApiError> {
    let display_name = body
        .display_name
        .map(|name| checked_text("display_name", &name, NAME_MOST))
        .transpose()?;
    let change = caller.change(None)?;
    let record = create_with_free_label(&shared, &change, display_name)
        .await
        .map_err(answer::<TunnelId>)?;
    shared.publish().await;
    Ok(Json(shared.show_tunnel(record)))
}

/// With labels of 40 bits a draw is taken about never; with a few tunnels less than that.
async fn create_with_free_label(
    shared: &Shared,
    change: &Change,
    display_name: Option<String>,
) -> Result<TunnelRecord, StoreError> {
    let mut tries = 0;
    loop {
        let new = NewTunnel {
            id: TunnelId::new(unix_ms(change.at), &entropy()),
            label: environment::label(),
            display_name: display_name.clone(),
            approval: shared.config.approval,
            token: new_token(shared, change),
        };
        let most = shared.config.tunnels_most;
        match shared.store.create_tunnel(change, new, most).await {
            Err(StoreError::Refused(Refusal::LabelTaken)) if tries < LABEL_TRIES => tries += 1,
            created => return created,
        }
    }
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
) -> Result<Json<Page<Tunnel>>, ApiError> {
    let listing = listing::<TunnelId>(params)?;
    let listed = shared
        .store
        .tunnels(&caller.workspace, &listing)
        .await
        .map_err(answer::<TunnelId>)?;
    Ok(Json(page(
        listed,
        |record| record.id,
        |record| shared.show_tunnel(record),
    )))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
) -> Result<Json<Tunnel>, ApiError> {
    let record = shared
        .store
        .tunnel(&caller.workspace, tunnel)
        .await
        .map_err(answer::<TunnelId>)?;
    Ok(Json(shared.show_tunnel(record)))
}

async fn archive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<Tunnel>, ApiError> {
    let change = caller.change(body.reason)?;
    let record = shared
        .store
        .archive_tunnel(&change, tunnel)
        .await
        .map_err(answer::<TunnelId>)?;
    shared.publish().await;
    Ok(Json(shared.show_tunnel(record)))
}

async fn reveal(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Response, ApiError> {
    let change = caller.change(body.reason)?;
    let (tunnel, token) = shared
        .store
        .reveal_token(&change, tunnel)
        .await
        .map_err(answer::<TunnelId>)?;
    show_token(&shared, &tunnel, &token)
}

async fn rotate(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Response, ApiError> {
    let change = caller.change(body.reason)?;
    let new = new_token(&shared, &change);
    let (tunnel, token) = shared
        .store
        .rotate_token(&change, tunnel, new)
        .await
        .map_err(answer::<TunnelId>)?;
    shared.publish().await;
    show_token(&shared, &tunnel, &token)
}

async fn settings(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
) -> Result<Json<TunnelSettings>, ApiError> {
    let record = shared
        .store
        .tunnel(&caller.workspace, tunnel)
        .await
        .map_err(answer::<TunnelId>)?;
    Ok(Json(show_settings(&record)))
}

async fn set(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    JsonBody(body): JsonBody<UpdateSettings>,
) -> Result<Json<TunnelSettings>, ApiError> {
    // Whoever lets every gateway in approves, and whoever opens a tunnel to any caller
    // might as well make keys.
    let approval = body.approval.map(approval_of).transpose()?;
    if approval == Some(Approval::Auto) {
        caller.principal.require(Permission::ConnectionsApprove)?;
    }
    let caller_auth = body.caller_auth.map(caller_auth_of).transpose()?;
    if caller_auth == Some(CallerAuth::Upstream) {
        caller.principal.require(Permission::CallerKeysManage)?;
    }
    let change = caller.change(body.reason)?;
    let settings = SettingsChange {
        approval,
        caller_auth,
    };
    let record = shared
        .store
        .update_settings(&change, tunnel, settings)
        .await
        .map_err(answer::<TunnelId>)?;
    shared.publish().await;
    Ok(Json(show_settings(&record)))
}

impl Shared {
    fn show_tunnel(&self, record: TunnelRecord) -> Tunnel {
        Tunnel {
            id: record.id.to_string(),
            archived_at: record.archived_at,
            created_at: record.created_at,
            display_name: record.display_name,
            domain: format!("{}.{}", record.label, self.config.domain()),
        }
    }
}

fn new_token(shared: &Shared, change: &Change) -> NewToken {
    let id = TokenId::new(unix_ms(change.at), &entropy());
    let master = shared.config.master();
    NewToken {
        id,
        master_key: master.id(),
        public_key: master.token_public_key(&id),
    }
}

/// The one place where the secret of a token leaves.
fn show_token(
    shared: &Shared,
    tunnel: &TunnelRecord,
    token: &TokenRecord,
) -> Result<Response, ApiError> {
    let Some(text) = shared.config.tunnel_token(tunnel, token) else {
        let master_key = token.token.master_key;
        error!(%master_key, token = %token.token.id, "the master key of a token is not here");
        return Err(ApiError::unavailable(format!(
            "the token was derived from the master key {master_key}, which the console was not \
             started with: start it with that key, or rotate the token"
        )));
    };
    let body = TunnelToken {
        id: token.token.id.to_string(),
        tunnel_token: text.encode(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

fn show_settings(record: &TunnelRecord) -> TunnelSettings {
    let upstream = record.caller_auth == CallerAuth::Upstream;
    TunnelSettings {
        tunnel_id: record.id.to_string(),
        approval: match record.approval {
            Approval::Auto => api::Approval::Auto,
            _ => api::Approval::Manual,
        },
        caller_auth: match upstream {
            true => api::CallerAuth::Upstream,
            false => api::CallerAuth::Key,
        },
        open_to_any_caller: upstream,
    }
}

fn approval_of(approval: api::Approval) -> Result<Approval, ApiError> {
    match approval {
        api::Approval::Manual => Ok(Approval::Manual),
        api::Approval::Auto => Ok(Approval::Auto),
        _ => Err(ApiError::invalid("approval: manual or auto")),
    }
}

fn caller_auth_of(caller_auth: api::CallerAuth) -> Result<CallerAuth, ApiError> {
    match caller_auth {
        api::CallerAuth::Key => Ok(CallerAuth::Key),
        api::CallerAuth::Upstream => Ok(CallerAuth::Upstream),
        _ => Err(ApiError::invalid("caller_auth: key or upstream")),
    }
}

const LABEL_TRIES: u32 = 3;
