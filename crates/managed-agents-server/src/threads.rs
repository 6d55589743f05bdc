//! Threads of a session: there is the primary one, whose events are the session's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::request::Parts;
use managed_agents_api::serve::{ApiError, Params, Permission};
use managed_agents_api::{Event, EventFilter, Page, Thread};
use mcp_tunnel_auth::{SessionId, ThreadId};

use crate::environment;
use crate::events::{self, Watcher};
use crate::failure::answer;
use crate::history::agent_of;
use crate::hooks::{Caller, Id, Ids, Route, Takes, not_found};
use crate::sessions::{stats, usage};
use crate::shared::Shared;
use crate::store::SessionRecord;

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::SessionsRead);
    let manage = Takes::api(Permission::SessionsManage);
    vec![
        Route::get("/v1/sessions/{session}/threads", read, list),
        Route::get("/v1/sessions/{session}/threads/{thread}", read, retrieve),
        Route::get(
            "/v1/sessions/{session}/threads/{thread}/events",
            read,
            thread_events,
        ),
        Route::get(
            "/v1/sessions/{session}/threads/{thread}/stream",
            read,
            stream,
        ),
        Route::post(
            "/v1/sessions/{session}/threads/{thread}/archive",
            manage,
            archive,
        ),
    ]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
) -> Result<Json<Page<Thread>>, ApiError> {
    let found = shared.store.session(&caller.acting(), session).await;
    let data = vec![shown(&found.map_err(answer::<SessionId>)?)?];
    Ok(Json(Page {
        data,
        next_page: None,
    }))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(session, thread): Ids<SessionId, ThreadId>,
) -> Result<Json<Thread>, ApiError> {
    shown(&find(&shared, &caller, session, thread).await?).map(Json)
}

async fn thread_events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(session, thread): Ids<SessionId, ThreadId>,
    Params(filter): Params<EventFilter>,
) -> Result<Json<Page<Event>>, ApiError> {
    find(&shared, &caller, session, thread).await?;
    events::page(&shared, &caller, session, filter)
        .await
        .map(Json)
}

async fn stream(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(session, thread): Ids<SessionId, ThreadId>,
    head: Parts,
) -> Result<Response, ApiError> {
    find(&shared, &caller, session, thread).await?;
    events::open(shared, Watcher { caller, head }, session).await
}

async fn archive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(session, thread): Ids<SessionId, ThreadId>,
) -> Result<Json<Thread>, ApiError> {
    find(&shared, &caller, session, thread).await?;
    Err(ApiError::invalid(
        "the primary thread ends with its session: archive the session",
    ))
}

async fn find(
    shared: &Shared,
    caller: &Caller,
    session: SessionId,
    thread: ThreadId,
) -> Result<SessionRecord, ApiError> {
    let found = shared.store.session(&caller.acting(), session).await;
    let found = found.map_err(answer::<ThreadId>)?;
    Some(found)
        .filter(|found| found.thread == thread)
        .ok_or_else(not_found::<ThreadId>)
}

fn shown(record: &SessionRecord) -> Result<Thread, ApiError> {
    let now = environment::now();
    Ok(Thread {
        id: record.thread.to_string(),
        session_id: record.id.to_string(),
        agent: agent_of(record).map_err(answer::<SessionId>)?,
        status: record.status.as_str().into(),
        parent_thread_id: None,
        stats: stats(record, now),
        usage: usage(record, now).map_err(answer::<SessionId>)?,
        created_at: record.created_at,
        updated_at: record.updated_at,
        archived_at: record.archived_at,
    })
}
