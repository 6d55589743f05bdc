//! Agents: who thinks, with which tools and under which policies.

mod definition;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use jiff::Timestamp;
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Permission};
use managed_agents_api::{
    Agent, AgentTool, CreateAgent, McpServer, Page, SessionAgent, SkillRef, UpdateAgent,
};
use managed_agents_service::listing;
use mcp_tunnel_auth::{AgentId, SkillId, SkillVersionId};
use tracing::error;

use crate::environment::{entropy, unix_ms};
use crate::failure::{answer, chain};
use crate::hooks::{Caller, Id, Route, Takes};
use crate::shared::Shared;
use crate::store::{AgentListing, AgentRecord, Listed, Refusal, StoreError};

use definition::Definition;

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::AgentsRead);
    let manage = Takes::api(Permission::AgentsManage);
    vec![
        Route::post("/v1/agents", manage, create),
        Route::get("/v1/agents", read, list),
        Route::get("/v1/agents/{agent}", read, retrieve),
        Route::post("/v1/agents/{agent}", manage, update),
        Route::post("/v1/agents/{agent}/archive", manage, archive),
        Route::get("/v1/agents/{agent}/versions", read, versions),
    ]
}

/// The agent of a row, as it is served.
///
/// # Errors
/// 500 where the row is damaged.
pub(crate) fn served(record: &AgentRecord) -> Result<Agent, ApiError> {
    definition_of(record).map(|definition| definition.into_agent(record))
}

/// The copy of an agent that a session works with, with what the session wants otherwise.
///
/// # Errors
/// 400 for what an agent could not have either.
pub(crate) async fn session_agent(
    shared: &Shared,
    caller: &Caller,
    record: &AgentRecord,
    overrides: UpdateAgent,
) -> Result<SessionAgent, ApiError> {
    let definition = definition_of(record)?.updated(overrides)?;
    check_skills(shared, caller, &definition.skills).await?;
    Ok(SessionAgent::from(&definition.into_agent(record)))
}

/// The agent of a session with other tools.
///
/// # Errors
/// 400 for what an agent could not have either.
pub(crate) fn with_tools(
    agent: SessionAgent,
    tools: Option<Vec<AgentTool>>,
    mcp_servers: Option<Vec<McpServer>>,
) -> Result<SessionAgent, ApiError> {
    let definition = Definition::of_session(&agent)?.updated(UpdateAgent {
        tools: tools.map(Some),
        mcp_servers: mcp_servers.map(Some),
        ..UpdateAgent::default()
    })?;
    Ok(SessionAgent {
        tools: definition.tools,
        mcp_servers: definition.mcp_servers,
        ..agent
    })
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateAgent, BODY_BYTES_MOST>,
) -> Result<Json<Agent>, ApiError> {
    let definition = Definition::new(body)?;
    check_skills(&shared, &caller, &definition.skills).await?;
    let change = caller.change(None)?;
    let id = AgentId::new(unix_ms(change.at), &entropy());
    let most = shared.config.agents_most;
    let record = shared
        .store
        .create_agent(&change, id, definition.to_text()?, most)
        .await
        .map_err(answer::<AgentId>)?;
    served(&record).map(Json)
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    params: PageParams,
    uri: Uri,
) -> Result<Json<Page<Agent>>, ApiError> {
    let mut wanted = AgentListing::new(listing::<AgentId>(params)?);
    for (name, value) in pairs(&uri)? {
        let time = match name.as_str() {
            "created_at[gte]" => &mut wanted.created_from,
            "created_at[lte]" => &mut wanted.created_until,
            _ => continue,
        };
        let parsed: Timestamp = value
            .parse()
            .map_err(|_| ApiError::invalid(format!("{name}: a time in RFC 3339")))?;
        *time = Some(parsed);
    }
    let listed = shared
        .store
        .agents(&caller.workspace, &wanted)
        .await
        .map_err(answer::<AgentId>)?;
    answered(listed, |record| record.id.to_string())
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<AgentId>,
    uri: Uri,
) -> Result<Json<Agent>, ApiError> {
    let version = asked_version(&uri)?;
    let found = shared.store.agent(&caller.workspace, id, version).await;
    served(&found.map_err(answer::<AgentId>)?).map(Json)
}

async fn update(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<AgentId>,
    JsonBody(body): JsonBody<UpdateAgent, BODY_BYTES_MOST>,
) -> Result<Json<Agent>, ApiError> {
    for _ in 0..TRIES {
        let found = shared.store.agent(&caller.workspace, id, None).await;
        let before = found.map_err(answer::<AgentId>)?;
        if body
            .version
            .is_some_and(|version| version != before.version)
        {
            let newest = before.version;
            return Err(answer::<AgentId>(Refusal::OtherVersion { newest }.into()));
        }
        let old = definition_of(&before)?;
        let new = old.clone().updated(body.clone())?;
        if new == old && before.archived_at.is_none() {
            // Nothing changes, so that there is no new version.
            return served(&before).map(Json);
        }
        check_skills(&shared, &caller, &new.skills).await?;
        let change = caller.change(None)?;
        let text = new.to_text()?;
        let from = before.version;
        match shared.store.update_agent(&change, id, from, text).await {
            Ok(record) => return served(&record).map(Json),
            // Somebody was faster, and the caller did not say that it minds.
            Err(StoreError::Refused(Refusal::OtherVersion { .. })) => {}
            Err(failure) => return Err(answer::<AgentId>(failure)),
        }
    }
    Err(
        ApiError::conflict("the agent is changed by others all the time: nothing was changed")
            .with_retry(true),
    )
}

async fn archive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<AgentId>,
) -> Result<Json<Agent>, ApiError> {
    let change = caller.change(None)?;
    let archived = shared.store.archive_agent(&change, id).await;
    served(&archived.map_err(answer::<AgentId>)?).map(Json)
}

async fn versions(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<AgentId>,
    params: PageParams,
) -> Result<Json<Page<Agent>>, ApiError> {
    let before = params
        .page
        .map(|token| {
            let bytes = URL_SAFE_NO_PAD.decode(token).ok();
            bytes
                .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
                .ok_or_else(|| {
                    ApiError::invalid("page: give the next_page of the page before, or nothing")
                })
        })
        .transpose()?;
    let listed = shared
        .store
        .agent_versions(&caller.workspace, id, before, params.limit)
        .await
        .map_err(answer::<AgentId>)?;
    answered(listed, |record| record.version.to_string())
}

fn answered(
    listed: Listed<AgentRecord>,
    id_of: impl Fn(&AgentRecord) -> String,
) -> Result<Json<Page<Agent>>, ApiError> {
    let last = listed.rows.last().filter(|_| listed.more).map(id_of);
    Ok(Json(Page {
        next_page: last.map(|id| URL_SAFE_NO_PAD.encode(id)),
        data: listed.rows.iter().map(served).collect::<Result<_, _>>()?,
    }))
}

fn definition_of(record: &AgentRecord) -> Result<Definition, ApiError> {
    Definition::from_text(&record.definition).map_err(|error| {
        error!(error = chain(&error), agent = %record.id, "an agent's row is damaged");
        ApiError::internal()
    })
}

/// A skill that is not there would be missed by a worker, in the middle of a session.
async fn check_skills(
    shared: &Shared,
    caller: &Caller,
    skills: &[SkillRef],
) -> Result<(), ApiError> {
    for skill in skills {
        let missing = || {
            ApiError::invalid(format!(
                "skills: there is no {} in that version in this workspace",
                skill.skill_id
            ))
        };
        let id: SkillId = skill.skill_id.parse().map_err(|_| missing())?;
        let version = match skill.version.as_deref() {
            None | Some("latest") => None,
            Some(text) => Some(text.parse::<SkillVersionId>().map_err(|_| missing())?),
        };
        let found = shared
            .library
            .skill_version(&caller.workspace, id, version)
            .await;
        match found {
            Ok(_) => {}
            Err(StoreError::NotFound) => return Err(missing()),
            Err(failure) => return Err(answer::<SkillId>(failure)),
        }
    }
    Ok(())
}

fn asked_version(uri: &Uri) -> Result<Option<u64>, ApiError> {
    let pairs = pairs(uri)?;
    let asked = pairs.iter().rev().find(|(name, _)| name == "version");
    asked
        .map(|(_, text)| {
            text.parse()
                .map_err(|_| ApiError::invalid("version: a number from 1"))
        })
        .transpose()
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    Query::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|_| ApiError::invalid("the query is not well-formed"))
}

/// Largest body: a system prompt at its longest, and as much again for tools.
const BODY_BYTES_MOST: usize = 1024 * 1024;

/// How often an update is tried on whatever version is the newest by then.
const TRIES: usize = 5;
