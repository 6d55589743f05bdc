//! Sessions: an agent, an environment and a history.

mod create;
mod shown;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use managed_agents_api::serve::{ApiError, JsonBody, Params, Permission};
use managed_agents_api::{
    Deleted, EventBody, LIMIT_DEFAULT, LIMIT_MAX, Order, Page, RawJson, Session, SessionDeleted,
    SessionFilter, SessionStatusTerminated, SessionUpdated, UpdateSession,
};
use mcp_tunnel_auth::{AgentId, SessionId};

use crate::agents;
use crate::events::span;
use crate::failure::answer;
use crate::history::{agent_of, written};
use crate::hooks::{Caller, Id, Route, Takes, checked_text};
use crate::metadata;
use crate::shared::Shared;
use crate::store::{SessionChange, SessionListing, SessionStatus};

pub(crate) use shown::{shown, stats, usage};

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::SessionsRead);
    let manage = Takes::api(Permission::SessionsManage);
    vec![
        Route::post("/v1/sessions", manage, create::create),
        Route::get("/v1/sessions", read, list),
        Route::get("/v1/sessions/{session}", read.or_key().or_item(), retrieve),
        Route::post("/v1/sessions/{session}", manage, update),
        Route::delete("/v1/sessions/{session}", manage, delete),
        Route::post("/v1/sessions/{session}/archive", manage, archive),
        Route::get("/v1/sessions/{session}/resources", read, resources),
    ]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(filter): Params<SessionFilter>,
) -> Result<Json<Page<Session>>, ApiError> {
    let Some(listing) = listing(filter)? else {
        let data = Vec::new();
        return Ok(Json(Page {
            data,
            next_page: None,
        }));
    };
    let listed = shared.store.sessions(&caller.workspace, &listing).await;
    let listed = listed.map_err(answer::<SessionId>)?;
    let last = listed.rows.last().filter(|_| listed.more);
    let next_page = last.map(|row| URL_SAFE_NO_PAD.encode(row.id.to_string()));
    let data = listed
        .rows
        .into_iter()
        .map(shown)
        .collect::<Result<_, _>>()?;
    Ok(Json(Page { data, next_page }))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
) -> Result<Json<Session>, ApiError> {
    let found = shared.store.session(&caller.acting(), session).await;
    shown(found.map_err(answer::<SessionId>)?).map(Json)
}

async fn update(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
    JsonBody(body): JsonBody<UpdateSession, BODY_BYTES_MOST>,
) -> Result<Json<Session>, ApiError> {
    if body.budget.as_ref().is_some_and(Option::is_some) {
        return Err(ApiError::invalid("budget: budgets are not served here"));
    }
    let acting = caller.acting();
    let before = shared.store.session(&acting, session).await;
    let before = before.map_err(answer::<SessionId>)?;
    let mut change = SessionChange::default();
    if let Some(title) = body.title {
        let title = title.map(|title| checked_text("title", &title, TITLE_MOST));
        change.title = Some(title.transpose()?);
    }
    let mut event = SessionUpdated {
        agent: None,
        budget: None,
        metadata: body.metadata.clone(),
        title: change.title.clone().flatten(),
    };
    if let Some(patch) = body.metadata {
        change.metadata = Some(metadata::patched(before.metadata.clone(), patch)?);
    }
    if let Some(agent) = body.agent {
        let now = agent_of(&before).map_err(answer::<SessionId>)?;
        let agent = agents::with_tools(now, agent.tools, agent.mcp_servers)?;
        change.agent = Some(
            RawJson::of(&agent)
                .map_err(|_| ApiError::internal())?
                .as_str()
                .to_owned(),
        );
        event.agent = Some(Box::new(agent));
    }
    let event = written(&EventBody::SessionUpdated(event)).map_err(answer::<SessionId>)?;
    let updated = shared
        .store
        .update_session(&acting, session, change, event)
        .await;
    shown(updated.map_err(answer::<SessionId>)?).map(Json)
}

async fn archive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
) -> Result<Json<Session>, ApiError> {
    let event = EventBody::SessionStatusTerminated(SessionStatusTerminated {});
    let event = written(&event).map_err(answer::<SessionId>)?;
    let archived = shared
        .store
        .archive_session(&caller.acting(), session, event)
        .await;
    shown(archived.map_err(answer::<SessionId>)?).map(Json)
}

async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
) -> Result<Json<Deleted>, ApiError> {
    let event = EventBody::SessionDeleted(SessionDeleted {});
    let event = written(&event).map_err(answer::<SessionId>)?;
    let deleted = shared
        .store
        .delete_session(&caller.acting(), session, event)
        .await;
    deleted.map_err(answer::<SessionId>)?;
    shared.histories.forget(session);
    Ok(Json(Deleted::new(session.to_string(), "session_deleted")))
}

/// Resources are none here: a session on a self-hosted environment has only memory stores,
/// and those are not served yet.
async fn resources(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
) -> Result<Json<Page<RawJson>>, ApiError> {
    let found = shared.store.session(&caller.acting(), session).await;
    found.map_err(answer::<SessionId>)?;
    let data = Vec::new();
    Ok(Json(Page {
        data,
        next_page: None,
    }))
}

/// What the store is asked for; `None` where nothing can match.
fn listing(filter: SessionFilter) -> Result<Option<SessionListing>, ApiError> {
    let limit = filter.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid(format!(
            "limit: a number from 1 to {LIMIT_MAX}"
        )));
    }
    // There are neither deployments nor memory stores, so that no session has one.
    if filter.deployment_id.is_some() || filter.memory_store_id.is_some() {
        return Ok(None);
    }
    let agent = match filter.agent_id.as_deref().map(AgentId::parse) {
        Some(Err(_)) => return Ok(None),
        Some(Ok(agent)) => Some(agent),
        None => None,
    };
    let wrong = || ApiError::invalid("page: give the next_page of the page before, or nothing");
    let after = filter.page.map(|page| last_id(&page).ok_or_else(wrong));
    let mut statuses = Vec::new();
    for status in &filter.statuses {
        let known = SessionStatus::ALL
            .into_iter()
            .find(|known| known.as_str() == status.as_str())
            .ok_or_else(|| {
                ApiError::invalid("statuses[]: idle, running, rescheduling or terminated")
            })?;
        statuses.push(known);
    }
    Ok(Some(SessionListing {
        agent,
        agent_version: filter.agent_version,
        created: span(&filter.created_at),
        statuses,
        include_archived: filter.include_archived.unwrap_or(false),
        ascending: filter.order == Some(Order::Asc),
        after: after.transpose()?,
        limit,
    }))
}

fn last_id(token: &str) -> Option<SessionId> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    SessionId::parse(&text).ok()
}

/// Longest title, in characters.
const TITLE_MOST: usize = 500;

/// Largest body that makes or changes a session; events that it begins with have 1 MiB.
const BODY_BYTES_MOST: usize = 2 << 20;
