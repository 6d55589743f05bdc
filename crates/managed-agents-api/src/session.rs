//! Sessions: an agent at work in an environment.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::agent::{
    AgentModel, AgentTool, McpServer, Metadata, MetadataPatch, SessionAgent, SkillRef,
};
use crate::patch::nullable;
use crate::query::{self, Order, TimeRange};
use crate::vocabulary::{tagged, words};
use crate::{EventType, RawJson, WorkState};

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "session")]
pub struct Session {
    /// `sesn_…`, opaque.
    pub id: String,
    /// The agent as it was when the session was made.
    pub agent: SessionAgent,
    /// Where its tools run.
    pub environment_id: String,
    /// Where it stands.
    pub status: SessionStatus,
    /// For people.
    pub title: Option<String>,
    /// Text by name.
    #[serde(default)]
    pub metadata: Metadata,
    /// What is mounted for it.
    #[serde(default)]
    pub resources: Vec<SessionResource>,
    /// Vaults whose credentials it may use.
    #[serde(default)]
    pub vault_ids: Vec<String>,
    /// How its outcomes were judged.
    #[serde(default)]
    pub outcome_evaluations: Vec<RawJson>,
    /// The deployment that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// What it may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RawJson>,
    /// How long it was busy.
    #[serde(default)]
    pub stats: SessionStats,
    /// What it used.
    #[serde(default)]
    pub usage: SessionUsage,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// When it was archived; it reads as terminated since.
    pub archived_at: Option<Timestamp>,
    /// Ours alone: how its work stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<SessionWorker>,
}

/// How the work of a session stands: only our own servers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionWorker {
    /// Its newest item.
    pub work_id: Option<String>,
    /// Where that item stands.
    pub state: Option<WorkState>,
    /// The name of the worker that holds it, or held it last.
    pub worker_id: Option<String>,
    /// When the item was last queued.
    pub queued_at: Option<Timestamp>,
    /// Items that ended since the last progress while calls waited.
    pub attempts: u32,
    /// What the last worker or operator that ended an item said about it.
    pub last_reason: Option<String>,
    /// Why nothing goes on, where calls wait and nobody carries them out.
    pub stuck: Option<String>,
}

words! {
    /// Where a session stands.
    pub enum SessionStatus {
        /// Waits for a message, a result or a confirmation.
        Idle = "idle",
        /// A turn is under way.
        Running = "running",
        /// A turn met a passing error and is tried again by itself.
        Rescheduling = "rescheduling",
        /// Over.
        Terminated = "terminated",
    }
}

tagged! {
    /// What is mounted for a session.
    pub enum SessionResource {
        /// A memory store.
        MemoryStore(MemoryStoreResource) = "memory_store",
        /// A file.
        File(FileResource) = "file",
        /// A repository.
        GithubRepository(RepositoryResource) = "github_repository",
    }
}

/// A memory store that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "memory_store")]
pub struct MemoryStoreResource {
    /// The store.
    pub memory_store_id: String,
    /// `read_write` or `read_only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// Where it appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// For people and the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people and the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

/// A file that is mounted; not in self-hosted environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "file")]
pub struct FileResource {
    /// Of the mount; the server draws it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The file.
    pub file_id: String,
    /// Where it appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
}

/// A repository that is checked out; not in self-hosted environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "github_repository")]
pub struct RepositoryResource {
    /// Of the mount; the server draws it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where it is cloned from.
    pub url: String,
    /// Where it appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// Branch or commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout: Option<RawJson>,
}

/// How long a session was busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionStats {
    /// Time in turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_seconds: Option<f64>,
    /// Time since it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
}

/// What a session used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionUsage {
    /// Read by the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Written by the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Read from its cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_input_tokens: Option<u64>,
    /// Written to its cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<RawJson>,
    /// Requests of tools that run on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tool_use: Option<RawJson>,
    /// Time in turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_seconds: Option<f64>,
    /// What that would cost by the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_cost: Option<RawJson>,
}

/// Body of `POST /v1/sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateSession {
    /// The agent.
    pub agent: AgentRef,
    /// Where its tools run.
    pub environment_id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// At most 16 pairs: names of 64, texts of 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// What to mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<SessionResource>>,
    /// Vaults whose credentials it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_ids: Option<Vec<String>>,
    /// At most 50, of the types `user.message` and `user.define_outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_events: Option<Vec<RawJson>>,
    /// What it may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RawJson>,
}

impl CreateSession {
    /// A session of the newest version of an agent.
    pub fn new(agent_id: impl Into<String>, environment_id: impl Into<String>) -> Self {
        Self {
            agent: AgentRef::Newest(agent_id.into()),
            environment_id: environment_id.into(),
            title: None,
            metadata: None,
            resources: None,
            vault_ids: None,
            initial_events: None,
            budget: None,
        }
    }
}

/// The agent of a new session.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a text or an object")]
pub enum AgentRef {
    /// The newest version: on the wire its id alone.
    Newest(String),
    /// One version, or one with members of its own.
    Version(Box<AgentVersion>),
}

/// One version of an agent, with members that replace the agent's for one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "agent")]
pub struct AgentVersion {
    /// `agent_…`, opaque.
    pub id: String,
    /// Absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Replaces the system prompt.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub system: Option<Option<String>>,
    /// Replaces the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<AgentModel>,
    /// Replaces all tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<AgentTool>>,
    /// Replaces all MCP servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<McpServer>>,
    /// Replaces all skills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<SkillRef>>,
}

impl Serialize for AgentRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Newest(id) => serializer.serialize_str(id),
            Self::Version(version) => version.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AgentRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawJson::deserialize(deserializer)?;
        if raw.is_object() {
            raw.parse().map(Self::Version)
        } else {
            raw.parse().map(Self::Newest)
        }
        .map_err(serde::de::Error::custom)
    }
}

/// Body of `POST /v1/sessions/{id}`: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateSession {
    /// For people; `null` clears.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub title: Option<Option<String>>,
    /// Changes of metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataPatch>,
    /// Changes of the agent; refused while the session runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<UpdateSessionAgent>,
    /// What it may cost; `null` lifts the bound.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub budget: Option<Option<RawJson>>,
}

/// Changes of a session's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateSessionAgent {
    /// Replaces all tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<AgentTool>>,
    /// Replaces all MCP servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<McpServer>>,
}

/// Query of `GET /v1/sessions`: newest first, unless `order` says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Of this agent.
    pub agent_id: Option<String>,
    /// Of this version of the agent.
    pub agent_version: Option<u64>,
    /// Made by this deployment.
    pub deployment_id: Option<String>,
    /// With this memory store.
    pub memory_store_id: Option<String>,
    /// Archived ones too.
    pub include_archived: Option<bool>,
    /// By the time of creation.
    pub order: Option<Order>,
    /// Entries of a page.
    pub limit: Option<u32>,
    /// `next_page` of the page before.
    pub page: Option<String>,
    /// In one of these; empty: in any.
    pub statuses: Vec<SessionStatus>,
    /// Made in this range.
    pub created_at: TimeRange,
}

query::flat!(SessionFilter {
    agent_id,
    agent_version,
    deployment_id,
    memory_store_id,
    include_archived,
    order,
    limit,
    page,
}
lists { statuses as "statuses[]", }
ranges {
    created_at as ("created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"),
});

/// Query of `GET /v1/sessions/{id}/events`: oldest first, unless `order` says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// By `processed_at`.
    pub order: Option<Order>,
    /// Entries of a page.
    pub limit: Option<u32>,
    /// `next_page` of the page before.
    pub page: Option<String>,
    /// Of one of these types; empty: of any.
    pub types: Vec<EventType>,
    /// Processed in this range.
    pub created_at: TimeRange,
}

query::flat!(EventFilter { order, limit, page, }
lists { types as "types[]", }
ranges {
    created_at as ("created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"),
});

/// Query of `GET /v1/sessions/{id}/events/stream`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// Types of events whose text is wanted while it is written.
    pub event_deltas: Vec<EventType>,
}

query::flat!(StreamFilter {}
lists { event_deltas as "event_deltas[]", });

/// A thread of a session: one agent's part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "session_thread")]
pub struct Thread {
    /// `sthr_…`, opaque.
    pub id: String,
    /// The session.
    pub session_id: String,
    /// The agent that works in it.
    pub agent: SessionAgent,
    /// Where it stands.
    pub status: SessionStatus,
    /// The thread that made it; `None` of the primary thread.
    pub parent_thread_id: Option<String>,
    /// How long it was busy.
    #[serde(default)]
    pub stats: SessionStats,
    /// What it used.
    #[serde(default)]
    pub usage: SessionUsage,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_named_in_three_ways() {
        for text in [
            r#""agent_1""#,
            r#"{"type":"agent","id":"agent_1","version":3}"#,
            r#"{"type":"agent","id":"agent_1","system":null,"tools":[{"type":"later","n":1.0}]}"#,
        ] {
            let agent: AgentRef = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&agent).unwrap(), text);
        }
        assert!(serde_json::from_str::<AgentRef>("3").is_err());
    }

    #[test]
    fn a_session_of_another_server_is_read() {
        let text = r#"{"type":"session","id":"sesn_1","environment_id":"env_1","status":"later","new":{},
            "agent":{"type":"agent","id":"agent_1","version":1,"name":"a","model":{"id":"m"},
                "skills":[{"type":"custom","skill_id":"skill_1","version":"latest"}]},
            "resources":[{"type":"memory_store","memory_store_id":"ms_1","access":null},{"type":"later","id":"x"}],
            "title":null,"metadata":{"a":"b"},"stats":{"active_seconds":1.5},"usage":{},
            "created_at":"2026-11-24T07:00:00Z","updated_at":"2026-11-24T07:00:00Z"}"#;
        let session: Session = serde_json::from_str(text).unwrap();
        assert_eq!(session.agent.skills[0].skill_id, "skill_1");
        assert_eq!(session.resources[1].kind(), "later");
        let again: Session =
            serde_json::from_str(&serde_json::to_string(&session).unwrap()).unwrap();
        assert_eq!(again, session);
    }
}
