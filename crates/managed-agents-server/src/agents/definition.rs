//! What an agent is, judged, with every default filled in.

use std::collections::BTreeSet;

use managed_agents_api::serve::ApiError;
use managed_agents_api::{
    Agent, AgentModel, AgentTool, AgentToolset, CreateAgent, CustomTool, McpServer, McpToolset,
    Metadata, PermissionPolicy, PolicyKind, RawJson, SessionAgent, SkillRef, ToolConfig,
    ToolDefaults, UpdateAgent,
};
use serde::{Deserialize, Serialize};

use crate::hooks::{NAME_MOST, checked_text};
use crate::metadata;
use crate::store::AgentRecord;

/// What an agent is: a version's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Definition {
    name: String,
    description: Option<String>,
    model: AgentModel,
    system: Option<String>,
    pub(super) tools: Vec<AgentTool>,
    pub(super) mcp_servers: Vec<McpServer>,
    pub(super) skills: Vec<SkillRef>,
    multiagent: Option<RawJson>,
    execution_identity: RawJson,
    metadata: Metadata,
}

impl Definition {
    pub(super) fn new(body: CreateAgent) -> Result<Self, ApiError> {
        Self {
            name: body.name,
            description: body.description,
            model: body.model,
            system: body.system,
            tools: body.tools.unwrap_or_default(),
            mcp_servers: body.mcp_servers.unwrap_or_default(),
            skills: body.skills.unwrap_or_default(),
            multiagent: body.multiagent,
            execution_identity: identity(body.execution_identity)?,
            metadata: body.metadata.unwrap_or_default(),
        }
        .checked()
    }

    /// What a session's copy of an agent is.
    pub(super) fn of_session(agent: &SessionAgent) -> Result<Self, ApiError> {
        let agent = agent.clone();
        Ok(Self {
            name: agent.name,
            description: agent.description,
            model: agent.model,
            system: agent.system,
            tools: agent.tools,
            mcp_servers: agent.mcp_servers,
            skills: agent.skills,
            multiagent: agent.multiagent,
            execution_identity: identity(agent.execution_identity)?,
            metadata: Metadata::new(),
        })
    }

    /// What is absent in `body` stays.
    pub(super) fn updated(self, body: UpdateAgent) -> Result<Self, ApiError> {
        let cleared = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            name: body.name.unwrap_or(self.name),
            description: body.description.map_or(self.description, cleared),
            model: match body.model {
                Some(mut model) => {
                    model.effort = model.effort.or(self.model.effort);
                    model
                }
                None => self.model,
            },
            system: body.system.map_or(self.system, cleared),
            tools: body.tools.map_or(self.tools, Option::unwrap_or_default),
            mcp_servers: body
                .mcp_servers
                .map_or(self.mcp_servers, Option::unwrap_or_default),
            skills: body.skills.map_or(self.skills, Option::unwrap_or_default),
            multiagent: body.multiagent.unwrap_or(self.multiagent),
            execution_identity: match body.execution_identity {
                Some(given) => identity(given)?,
                None => self.execution_identity,
            },
            metadata: metadata::patched(self.metadata, body.metadata.unwrap_or_default())?,
        }
        .checked()
    }

    /// The text of a row.
    pub(super) fn to_text(&self) -> Result<String, ApiError> {
        serde_json::to_string(self).map_err(|_| ApiError::internal())
    }

    /// The text of a row, read.
    pub(super) fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The object that is served.
    pub(super) fn into_agent(self, record: &AgentRecord) -> Agent {
        Agent {
            id: record.id.to_string(),
            version: record.version,
            name: self.name,
            description: self.description,
            model: self.model,
            system: self.system,
            tools: self.tools,
            mcp_servers: self.mcp_servers,
            skills: self.skills,
            multiagent: self.multiagent,
            execution_identity: Some(self.execution_identity),
            metadata: self.metadata,
            created_at: record.created_at,
            updated_at: record.updated_at,
            archived_at: record.archived_at,
        }
    }

    fn checked(mut self) -> Result<Self, ApiError> {
        self.name = checked_text("name", &self.name, NAME_MOST)?;
        at_most("description", self.description.as_deref(), DESCRIPTION_MOST)?;
        at_most("system", self.system.as_deref(), SYSTEM_MOST)?;
        if !(1..=NAME_MOST).contains(&self.model.id.chars().count()) {
            return Err(ApiError::invalid(format!(
                "model: a name of 1 to {NAME_MOST} characters; \
                 {} runs what messages spell out",
                AgentModel::SCRIPTED
            )));
        }
        self.metadata = metadata::checked(self.metadata)?;
        self.check_servers()?;
        if self.tools.len() > TOOLS_MOST {
            return Err(ApiError::invalid(format!("tools: at most {TOOLS_MOST}")));
        }
        self.tools = self
            .tools
            .into_iter()
            .map(checked_tool)
            .collect::<Result<_, _>>()?;
        self.check_tool_names()?;
        self.skills = checked_skills(self.skills)?;
        Ok(self)
    }

    /// Names are unique, and each server is used by a toolset, as the other way round.
    fn check_servers(&self) -> Result<(), ApiError> {
        if self.mcp_servers.len() > SERVERS_MOST {
            return Err(ApiError::invalid(format!(
                "mcp_servers: at most {SERVERS_MOST}"
            )));
        }
        let mut named = BTreeSet::new();
        for server in &self.mcp_servers {
            let McpServer::Url(server) = server else {
                return Err(ApiError::invalid("mcp_servers: type is url"));
            };
            checked_text("mcp_servers: name", &server.name, NAME_MOST)?;
            if !server.url.starts_with("https://") && !server.url.starts_with("http://") {
                return Err(ApiError::invalid(
                    "mcp_servers: url is an http or https address",
                ));
            }
            if !named.insert(server.name.as_str()) {
                return Err(ApiError::invalid(format!(
                    "mcp_servers: {} is given twice",
                    server.name
                )));
            }
        }
        let mut used = BTreeSet::new();
        for tool in &self.tools {
            let AgentTool::Mcp(toolset) = tool else {
                continue;
            };
            if !named.contains(toolset.mcp_server_name.as_str()) {
                return Err(ApiError::invalid(format!(
                    "tools: mcp_servers has no {}",
                    toolset.mcp_server_name
                )));
            }
            used.insert(toolset.mcp_server_name.as_str());
        }
        match named.difference(&used).next() {
            None => Ok(()),
            Some(unused) => Err(ApiError::invalid(format!(
                "mcp_servers: no mcp_toolset in tools uses {unused}"
            ))),
        }
    }

    /// A call names its tool, so that no two may have one name.
    fn check_tool_names(&self) -> Result<(), ApiError> {
        let mut names = BTreeSet::new();
        let mut toolsets = 0;
        for tool in &self.tools {
            match tool {
                AgentTool::Toolset(_) => toolsets += 1,
                AgentTool::Custom(custom) if !names.insert(custom.name.as_str()) => {
                    return Err(ApiError::invalid(format!(
                        "tools: {} is given twice",
                        custom.name
                    )));
                }
                _ => {}
            }
        }
        if toolsets > 1 {
            return Err(ApiError::invalid("tools: one built-in toolset at most"));
        }
        Ok(())
    }
}

fn at_most(field: &str, text: Option<&str>, most: usize) -> Result<(), ApiError> {
    if text.is_some_and(|text| text.chars().count() > most) {
        return Err(ApiError::invalid(format!(
            "{field}: at most {most} characters"
        )));
    }
    Ok(())
}

fn checked_tool(tool: AgentTool) -> Result<AgentTool, ApiError> {
    Ok(match tool {
        AgentTool::Toolset(set) => AgentTool::Toolset(built_in(set)?),
        AgentTool::Mcp(set) => AgentTool::Mcp(of_server(set)),
        AgentTool::Custom(custom) => AgentTool::Custom(checked_custom(custom)?),
        _ => {
            return Err(ApiError::invalid(
                "tools: type is agent_toolset_20260401, mcp_toolset or custom",
            ));
        }
    })
}

fn built_in(set: AgentToolset) -> Result<AgentToolset, ApiError> {
    let defaults = filled(set.default_config, PolicyKind::AlwaysAllow);
    let mut seen = BTreeSet::new();
    let configs = set.configs.into_iter().map(|config| {
        let mut all = AgentToolset::IN_SANDBOX
            .into_iter()
            .chain(AgentToolset::ON_SERVER);
        let known = all.any(|name| name == config.name);
        let same = config.kind.as_ref().is_none_or(|kind| *kind == config.name);
        if !known || !same || !seen.insert(config.name.clone()) {
            return Err(ApiError::invalid(format!(
                "tools: configs name each built-in tool once at most: {}",
                AgentToolset::IN_SANDBOX
                    .into_iter()
                    .chain(AgentToolset::ON_SERVER)
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        let mut config = inheriting(config, &defaults);
        config.kind = Some(config.name.clone());
        Ok(config)
    });
    Ok(AgentToolset {
        configs: configs.collect::<Result<_, _>>()?,
        default_config: defaults,
    })
}

fn of_server(set: McpToolset) -> McpToolset {
    // Whose tools nobody here has seen, a person confirms, unless the agent says otherwise.
    let defaults = filled(set.default_config, PolicyKind::AlwaysAsk);
    McpToolset {
        configs: set
            .configs
            .into_iter()
            .map(|config| inheriting(config, &defaults))
            .collect(),
        default_config: defaults,
        ..set
    }
}

fn filled(defaults: ToolDefaults, policy: PolicyKind) -> ToolDefaults {
    ToolDefaults {
        enabled: Some(defaults.enabled.unwrap_or(true)),
        permission_policy: Some(
            defaults
                .permission_policy
                .unwrap_or_else(|| PermissionPolicy::from(policy)),
        ),
    }
}

fn inheriting(mut config: ToolConfig, defaults: &ToolDefaults) -> ToolConfig {
    config.enabled = config.enabled.or(defaults.enabled);
    config.permission_policy = config
        .permission_policy
        .or_else(|| defaults.permission_policy.clone());
    config
}

fn checked_custom(custom: CustomTool) -> Result<CustomTool, ApiError> {
    #[derive(Deserialize)]
    struct Schema {
        #[serde(rename = "type")]
        kind: String,
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=TOOL_NAME_MOST).contains(&custom.name.len()) || !custom.name.bytes().all(allowed) {
        return Err(ApiError::invalid(format!(
            "tools: a custom tool's name is 1 to {TOOL_NAME_MOST} letters, digits, _ and -"
        )));
    }
    let schema: Result<Schema, _> = custom.input_schema.parse();
    if !schema.is_ok_and(|schema| schema.kind == "object") {
        return Err(ApiError::invalid(format!(
            "tools: input_schema of {} is a JSON Schema of type object",
            custom.name
        )));
    }
    Ok(custom)
}

fn checked_skills(skills: Vec<SkillRef>) -> Result<Vec<SkillRef>, ApiError> {
    if skills.len() > SKILLS_MOST {
        return Err(ApiError::invalid(format!("skills: at most {SKILLS_MOST}")));
    }
    skills
        .into_iter()
        .map(|mut skill| {
            if skill.kind != "custom" {
                return Err(ApiError::invalid(
                    "skills: type is custom; Anthropic's own skills are not served here, \
                     upload them as your own",
                ));
            }
            skill.version.get_or_insert_with(|| "latest".to_owned());
            Ok(skill)
        })
        .collect()
}

/// As whom an agent's tools act: a name for the vendor's own service account, or a role
/// of a cloud that is kept as it is given.
fn identity(given: Option<RawJson>) -> Result<RawJson, ApiError> {
    match given {
        Some(given) if given.is_object() => Ok(given),
        Some(given) if given.as_str().trim() != "null" => {
            Err(ApiError::invalid("execution_identity: an object"))
        }
        _ => RawJson::from_text(SERVICE_ACCOUNT.to_owned()).map_err(|_| ApiError::internal()),
    }
}

const SERVICE_ACCOUNT: &str = r#"{"type":"service_account"}"#;

// The vendor's limits, where it states them.
const TOOLS_MOST: usize = 256;
const TOOL_NAME_MOST: usize = 128;
const SERVERS_MOST: usize = 20;
const SKILLS_MOST: usize = 64;
const DESCRIPTION_MOST: usize = 2048;
const SYSTEM_MOST: usize = 100_000;
