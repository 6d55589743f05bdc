//! Agents: who thinks, with which tools and under which policies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RawJson;
use crate::patch::nullable;
use crate::vocabulary::{tagged, words};

/// Text by name, for whoever made the object.
pub type Metadata = BTreeMap<String, String>;

/// Changes of metadata: a text sets, `None` deletes, what is absent stays.
pub type MetadataPatch = BTreeMap<String, Option<String>>;

/// An agent in one of its versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "agent")]
pub struct Agent {
    /// `agent_…`, opaque.
    pub id: String,
    /// Counts from 1; each update makes one.
    pub version: u64,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Who thinks.
    pub model: AgentModel,
    /// The system prompt.
    pub system: Option<String>,
    /// Tools, with every default filled in.
    #[serde(default)]
    pub tools: Vec<AgentTool>,
    /// MCP servers that its toolsets name.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Skills.
    #[serde(default)]
    pub skills: Vec<SkillRef>,
    /// How it works with other agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiagent: Option<RawJson>,
    /// As whom its tools act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_identity: Option<RawJson>,
    /// Text by name.
    #[serde(default)]
    pub metadata: Metadata,
    /// When its first version was made.
    pub created_at: Timestamp,
    /// When this version was made.
    pub updated_at: Timestamp,
    /// When it was archived; no session can be created with it since.
    pub archived_at: Option<Timestamp>,
}

/// The copy of an agent that a session works with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "agent")]
pub struct SessionAgent {
    /// `agent_…`, opaque.
    pub id: String,
    /// The version it was copied from.
    pub version: u64,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Who thinks.
    pub model: AgentModel,
    /// The system prompt.
    pub system: Option<String>,
    /// Tools, with every default filled in.
    #[serde(default)]
    pub tools: Vec<AgentTool>,
    /// MCP servers that its toolsets name.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Skills: what a worker mounts.
    #[serde(default)]
    pub skills: Vec<SkillRef>,
    /// How it works with other agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiagent: Option<RawJson>,
    /// As whom its tools act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_identity: Option<RawJson>,
}

impl From<&Agent> for SessionAgent {
    fn from(agent: &Agent) -> Self {
        let agent = agent.clone();
        Self {
            id: agent.id,
            version: agent.version,
            name: agent.name,
            description: agent.description,
            model: agent.model,
            system: agent.system,
            tools: agent.tools,
            mcp_servers: agent.mcp_servers,
            skills: agent.skills,
            multiagent: agent.multiagent,
            execution_identity: agent.execution_identity,
        }
    }
}

/// Who thinks: a name alone, or a name with settings, is read; the latter is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentModel {
    /// Its name; [`AgentModel::SCRIPTED`] needs no model at all.
    pub id: String,
    /// How hard it thinks: a word, written as an object of that type.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_object")]
    pub effort: Option<String>,
    /// How fast it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<String>,
}

impl AgentModel {
    /// The name of the agent that does what messages spell out, without a model.
    pub const SCRIPTED: &'static str = "scripted";

    /// The model with this name, settings left to the server.
    pub fn named(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            effort: None,
            speed: None,
            inference_geo: None,
        }
    }
}

fn as_object<S: Serializer>(effort: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Effort<'a> {
        #[serde(rename = "type")]
        kind: Option<&'a str>,
    }
    let kind = effort.as_deref();
    Effort { kind }.serialize(serializer)
}

impl<'de> Deserialize<'de> for AgentModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Effort {
            Word(String),
            Object {
                #[serde(rename = "type")]
                kind: String,
            },
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Name(String),
            Settings {
                id: String,
                effort: Option<Effort>,
                speed: Option<String>,
                inference_geo: Option<String>,
            },
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Name(id) => Self::named(id),
            Either::Settings {
                id,
                effort,
                speed,
                inference_geo,
            } => Self {
                id,
                effort: effort.map(|effort| match effort {
                    Effort::Word(kind) | Effort::Object { kind } => kind,
                }),
                speed,
                inference_geo,
            },
        })
    }
}

tagged! {
    /// A tool, or a set of them.
    pub enum AgentTool {
        /// The built-in tools: six that run in the sandbox, two that run on the server.
        Toolset(AgentToolset) = "agent_toolset_20260401",
        /// The tools of an MCP server.
        Mcp(McpToolset) = "mcp_toolset",
        /// A tool that the application runs.
        Custom(CustomTool) = "custom",
    }
}

/// The built-in tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "agent_toolset_20260401")]
pub struct AgentToolset {
    /// What holds for each tool that `configs` does not name.
    #[serde(default)]
    pub default_config: ToolDefaults,
    /// What holds for single tools.
    #[serde(default)]
    pub configs: Vec<ToolConfig>,
}

impl AgentToolset {
    /// Built-in tools that run in the sandbox.
    pub const IN_SANDBOX: [&'static str; 6] = ["bash", "read", "write", "edit", "glob", "grep"];

    /// Built-in tools that run on the server.
    pub const ON_SERVER: [&'static str; 2] = ["web_search", "web_fetch"];
}

/// The tools of an MCP server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "mcp_toolset")]
pub struct McpToolset {
    /// The name that the agent's list of servers gives it.
    pub mcp_server_name: String,
    /// What holds for each tool that `configs` does not name.
    #[serde(default)]
    pub default_config: ToolDefaults,
    /// What holds for single tools.
    #[serde(default)]
    pub configs: Vec<ToolConfig>,
}

/// A tool that the application runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "custom")]
pub struct CustomTool {
    /// 1 to 128 of letters, digits, `_` and `-`.
    pub name: String,
    /// For the model.
    pub description: String,
    /// JSON Schema of an object.
    pub input_schema: RawJson,
}

/// What holds for every tool of a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolDefaults {
    /// Whether the tools can be called; absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Who decides about a call; absent: nobody, it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_policy: Option<PermissionPolicy>,
}

/// What holds for one tool of a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolConfig {
    /// The tool's kind, where the set has kinds.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The tool.
    pub name: String,
    /// Whether it can be called; absent: as the set says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Who decides about a call; absent: as the set says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_policy: Option<PermissionPolicy>,
    /// Hosts that `web_fetch` and `web_search` are limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_domains: Option<Vec<String>>,
    /// Hosts that `web_fetch` and `web_search` leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_domains: Option<Vec<String>>,
    /// Bound of what `web_fetch` returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_content_tokens: Option<u64>,
    /// Where addresses for `web_fetch` may come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_sources: Option<RawJson>,
    /// Where the person is who asks, for `web_search`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_location: Option<RawJson>,
}

/// Who decides about a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionPolicy {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: PolicyKind,
}

impl From<PolicyKind> for PermissionPolicy {
    fn from(kind: PolicyKind) -> Self {
        Self { kind }
    }
}

words! {
    /// Kinds of permission policy.
    pub enum PolicyKind {
        /// The call runs.
        AlwaysAllow = "always_allow",
        /// A person confirms each call.
        AlwaysAsk = "always_ask",
        /// The server decides call by call.
        Auto = "auto",
    }
}

/// A skill in one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillRef {
    /// `anthropic` or `custom`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `skill_…`, or the vendor's name.
    pub skill_id: String,
    /// An id of a version, or `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

tagged! {
    /// An MCP server that an agent can use.
    pub enum McpServer {
        /// One at an address.
        Url(UrlMcpServer) = "url",
    }
}

/// An MCP server at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "url")]
pub struct UrlMcpServer {
    /// What toolsets call it.
    pub name: String,
    /// Where it is.
    pub url: String,
}

/// Body of `POST /v1/agents`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateAgent {
    /// For people.
    pub name: String,
    /// Who thinks.
    pub model: AgentModel,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<AgentTool>>,
    /// MCP servers: at most 20, each named by a toolset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<McpServer>>,
    /// Skills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<SkillRef>>,
    /// At most 16 pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// How it works with other agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiagent: Option<RawJson>,
    /// As whom its tools act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_identity: Option<RawJson>,
}

impl CreateAgent {
    /// An agent without tools.
    pub fn new(name: impl Into<String>, model: AgentModel) -> Self {
        Self {
            name: name.into(),
            model,
            description: None,
            system: None,
            tools: None,
            mcp_servers: None,
            skills: None,
            metadata: None,
            multiagent: None,
            execution_identity: None,
        }
    }
}

/// Body of `POST /v1/agents/{id}`: what is absent stays, and `null` clears.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateAgent {
    /// The version that the change is meant for: 409 when it is not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who thinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<AgentModel>,
    /// For people.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub description: Option<Option<String>>,
    /// The system prompt.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub system: Option<Option<String>>,
    /// All tools.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub tools: Option<Option<Vec<AgentTool>>>,
    /// All MCP servers.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub mcp_servers: Option<Option<Vec<McpServer>>>,
    /// All skills.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub skills: Option<Option<Vec<SkillRef>>>,
    /// Changes of metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataPatch>,
    /// How it works with other agents.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub multiagent: Option<Option<RawJson>>,
    /// As whom its tools act.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub execution_identity: Option<Option<RawJson>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_name_or_settings() {
        let named: AgentModel = serde_json::from_str(r#""scripted""#).unwrap();
        assert_eq!(named, AgentModel::named(AgentModel::SCRIPTED));
        let written = r#"{"id":"m","effort":{"type":"high"}}"#;
        for text in [r#"{"id":"m","effort":"high"}"#, written] {
            let set: AgentModel = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&set).unwrap(), written);
        }
    }

    #[test]
    fn tools_keep_what_they_hold() {
        let text = concat!(
            r#"[{"type":"agent_toolset_20260401","default_config":{"enabled":true,"permission_policy":{"type":"always_ask"}},"#,
            r#""configs":[{"type":"bash","name":"bash","enabled":false}]},"#,
            r#"{"type":"mcp_toolset","mcp_server_name":"s","default_config":{},"configs":[]},"#,
            r#"{"type":"custom","name":"n","description":"d","input_schema":{"type":"object","maximum": 1e400}},"#,
            r#"{"type":"later", "x":1.0}]"#,
        );
        let tools: Vec<AgentTool> = serde_json::from_str(text).unwrap();
        let kinds: Vec<_> = tools.iter().map(AgentTool::kind).collect();
        assert_eq!(
            kinds,
            ["agent_toolset_20260401", "mcp_toolset", "custom", "later"]
        );
        assert_eq!(serde_json::to_string(&tools).unwrap(), text);
        let short: AgentTool =
            serde_json::from_str(r#"{"type":"agent_toolset_20260401"}"#).unwrap();
        assert_eq!(short, AgentToolset::default().into());
    }

    #[test]
    fn an_update_tells_absent_from_null() {
        let update: UpdateAgent =
            serde_json::from_str(r#"{"system":null,"metadata":{"a":"b","c":null}}"#).unwrap();
        assert_eq!((update.system, update.description), (Some(None), None));
        assert_eq!(update.metadata.unwrap()["c"], None);
    }
}
