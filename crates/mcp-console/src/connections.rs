//! Gateways of a tunnel: what people decide about them, and what edges report.

mod live;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{
    ApproveConnection, ApproveKey, ConnectionStatus, Page, Reason, TunnelConnection,
};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{ConnectionId, TunnelId};

use crate::environment::{self, entropy, unix_ms};
use crate::failure::answer;
use crate::hooks::{Caller, Id, Ids, Route, parsed};
use crate::shared::Shared;
use crate::store::{Decision, GatewayRecord};

pub(crate) use live::Live;

pub(crate) fn routes() -> Vec<Route> {
    use Permission::{ConnectionsApprove, TunnelsManage, TunnelsRead};
    const ALL: &str = "/v1/tunnels/{tunnel}/connections";
    const ONE: &str = "/v1/tunnels/{tunnel}/connections/{connection}";
    const APPROVE: &str = "/v1/tunnels/{tunnel}/connections/{connection}/approve";
    const REFUSE: &str = "/v1/tunnels/{tunnel}/connections/{connection}/refuse";
    const DISCONNECT: &str = "/v1/tunnels/{tunnel}/connections/{connection}/disconnect";
    vec![
        Route::get(ALL, TunnelsRead, list),
        Route::post(ALL, ConnectionsApprove, approve_key),
        Route::get(ONE, TunnelsRead, retrieve),
        Route::post(APPROVE, ConnectionsApprove, approve),
        Route::post(REFUSE, ConnectionsApprove, refuse),
        Route::post(DISCONNECT, TunnelsManage, disconnect),
    ]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    params: PageParams,
) -> Result<Json<Page<TunnelConnection>>, ApiError> {
    let listing = listing::<ConnectionId>(params)?;
    let listed = shared
        .store
        .gateways(&caller.workspace, tunnel, &listing)
        .await
        .map_err(answer::<TunnelId>)?;
    Ok(Json(page(
        listed,
        |record| record.id,
        |record| shared.show_gateway(record),
    )))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(tunnel, gateway): Ids<TunnelId, ConnectionId>,
) -> Result<Json<TunnelConnection>, ApiError> {
    let record = shared
        .store
        .gateway(&caller.workspace, tunnel, gateway)
        .await
        .map_err(answer::<ConnectionId>)?;
    Ok(Json(shared.show_gateway(record)))
}

async fn approve_key(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(tunnel): Id<TunnelId>,
    JsonBody(body): JsonBody<ApproveKey>,
) -> Result<Json<TunnelConnection>, ApiError> {
    let fingerprint = parsed("gateway_key_fingerprint", &body.gateway_key_fingerprint)?;
    let change = caller.change(body.reason)?;
    let fresh = ConnectionId::new(unix_ms(change.at), &entropy());
    let record = shared
        .store
        .approve_key(&change, tunnel, fingerprint, fresh)
        .await
        .map_err(answer::<TunnelId>)?;
    shared.publish().await;
    Ok(Json(shared.show_gateway(record)))
}

async fn approve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(tunnel, gateway): Ids<TunnelId, ConnectionId>,
    JsonBody(body): JsonBody<ApproveConnection>,
) -> Result<Json<TunnelConnection>, ApiError> {
    let expected = body
        .gateway_key_fingerprint
        .map(|text| parsed("gateway_key_fingerprint", &text))
        .transpose()?;
    let change = caller.change(body.reason)?;
    let record = shared
        .store
        .approve(&change, tunnel, gateway, expected)
        .await
        .map_err(answer::<ConnectionId>)?;
    shared.publish().await;
    Ok(Json(shared.show_gateway(record)))
}

async fn refuse(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(tunnel, gateway): Ids<TunnelId, ConnectionId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<TunnelConnection>, ApiError> {
    let change = caller.change(body.reason)?;
    let record = shared
        .store
        .refuse(&change, tunnel, gateway)
        .await
        .map_err(answer::<ConnectionId>)?;
    shared.publish().await;
    Ok(Json(shared.show_gateway(record)))
}

async fn disconnect(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(tunnel, gateway): Ids<TunnelId, ConnectionId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<TunnelConnection>, ApiError> {
    let change = caller.change(body.reason)?;
    // While the turn is held no snapshot gets the number that the row will name.
    let (turn, links_from) = shared.publisher.hold(unix_ms(environment::now())).await;
    let record = shared
        .store
        .disconnect(&change, tunnel, gateway, links_from)
        .await
        .map_err(answer::<ConnectionId>)?;
    drop(turn);
    shared.publish().await;
    Ok(Json(shared.show_gateway(record)))
}

impl Shared {
    fn show_gateway(&self, record: GatewayRecord) -> TunnelConnection {
        let live = self.live.of(record.tunnel, record.fingerprint);
        TunnelConnection {
            id: record.id.to_string(),
            tunnel_id: record.tunnel.to_string(),
            status: match record.decision {
                Decision::Pending => ConnectionStatus::Pending,
                Decision::Refused => ConnectionStatus::Refused,
                Decision::Approved if live.links > 0 => ConnectionStatus::Active,
                Decision::Approved => ConnectionStatus::Disconnected,
            },
            live_links: live.links,
            gateway_key_fingerprint: record.fingerprint.to_string(),
            approval_code: record.approval_code.map(|code| code.to_string()),
            tunnel_token_id: record.token.map(|token| token.to_string()),
            gateway_version: record.version,
            remote_address: record.remote_address.map(|address| address.to_string()),
            several_addresses: live.several_addresses,
            routes: record.routes.iter().map(ToString::to_string).collect(),
            connected_at: record.connected_at,
            last_seen_at: live.last_seen_at.max(record.last_seen_at),
            rtt_ms: live.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        }
    }
}
