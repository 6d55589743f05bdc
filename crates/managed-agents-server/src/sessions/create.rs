//! Making a session.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use managed_agents_api::serve::{ApiError, JsonBody};
use managed_agents_api::{
    AgentRef, CreateSession, RawJson, Session, SessionAgent, SessionResource, UpdateAgent,
};
use mcp_tunnel_auth::{AgentId, EnvironmentId, SessionId, ThreadId};

use super::{BODY_BYTES_MOST, TITLE_MOST, shown};
use crate::agents;
use crate::environment::{self, entropy, unix_ms};
use crate::events::first_events;
use crate::failure::answer;
use crate::hooks::{Caller, checked_text, not_found};
use crate::metadata;
use crate::shared::Shared;
use crate::store::{AgentRecord, NewSession};

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateSession, BODY_BYTES_MOST>,
) -> Result<Json<Session>, ApiError> {
    refuse_what_is_not_served(&body)?;
    let environment =
        EnvironmentId::parse(&body.environment_id).map_err(|_| not_found::<EnvironmentId>())?;
    let (record, agent) = snapshot(&shared, &caller, body.agent).await?;
    let now = environment::now();
    let id = SessionId::new(unix_ms(now), &entropy());
    let events = body.initial_events.unwrap_or_default();
    let title = body
        .title
        .map(|title| checked_text("title", &title, TITLE_MOST));
    let agent = RawJson::of(&agent).map_err(|_| ApiError::internal())?;
    let new = NewSession {
        id,
        thread: ThreadId::new(unix_ms(now), &entropy()),
        environment,
        agent: agent.as_str().to_owned(),
        agent_id: record.id,
        agent_version: record.version,
        title: title.transpose()?,
        metadata: metadata::checked(body.metadata.unwrap_or_default())?,
        resources: "[]".to_owned(),
        events: first_events(&events, &caller.authority, now)?,
        work: environment::work_id(now),
    };
    let made = shared
        .store
        .create_session(&caller.workspace, now, new)
        .await;
    shown(made.map_err(answer::<EnvironmentId>)?).map(Json)
}

/// The agent as it is now, with what the session wants otherwise.
async fn snapshot(
    shared: &Shared,
    caller: &Caller,
    wanted: AgentRef,
) -> Result<(AgentRecord, SessionAgent), ApiError> {
    let (id, version, overrides) = match wanted {
        AgentRef::Newest(id) => (id, None, UpdateAgent::default()),
        AgentRef::Version(wanted) => {
            let overrides = UpdateAgent {
                system: wanted.system,
                model: wanted.model,
                tools: wanted.tools.map(Some),
                mcp_servers: wanted.mcp_servers.map(Some),
                skills: wanted.skills.map(Some),
                ..UpdateAgent::default()
            };
            (wanted.id, wanted.version, overrides)
        }
    };
    let id = AgentId::parse(&id).map_err(|_| not_found::<AgentId>())?;
    let found = shared.store.agent(&caller.workspace, id, version).await;
    let record = found.map_err(answer::<AgentId>)?;
    if record.archived_at.is_some() {
        return Err(ApiError::invalid(
            "agent: it is archived, which nothing undoes; create another one",
        ));
    }
    let agent = agents::session_agent(shared, caller, &record, overrides).await?;
    Ok((record, agent))
}

/// A session that silently lacks what was asked for would be worse than none.
fn refuse_what_is_not_served(body: &CreateSession) -> Result<(), ApiError> {
    if let Some(resource) = body.resources.iter().flatten().next() {
        return Err(match resource {
            SessionResource::MemoryStore(_) => {
                ApiError::invalid("resources: memory stores are not served here yet")
            }
            other => ApiError::invalid(format!(
                "resources: {:?} is not mounted on self-hosted environments; \
                 put what a worker needs to find it into metadata",
                other.kind()
            ))
            .with_code("self_hosted_resources_unsupported_error"),
        });
    }
    if body.vault_ids.as_ref().is_some_and(|ids| !ids.is_empty()) {
        return Err(ApiError::invalid(
            "vault_ids: vaults are not served here yet",
        ));
    }
    if body.budget.is_some() {
        return Err(ApiError::invalid("budget: budgets are not served here"));
    }
    Ok(())
}
