//! Which tool a call means, and whether it may run.

use crate::turn::ToolCall;
use managed_agents_api::{
    AgentCustomToolUse, AgentMcpToolUse, AgentTool, AgentToolUse, AgentToolset, AutoPermission,
    EvaluatedPermission, Evaluation, EventBody, PolicyKind, SessionAgent, ToolConfig, ToolDefaults,
};

/// Why `auto` asks: nothing here can judge a call.
const NO_JUDGE: &str = "no_classifier";

/// A verdict; without an evaluation the call was refused before any policy applied.
type Verdict = (EvaluatedPermission, Option<Evaluation>);

/// The event of a call, with what the agent's policies say about it.
pub(crate) fn place(agent: &SessionAgent, call: ToolCall) -> EventBody {
    let ToolCall {
        name,
        input,
        mcp_server,
    } = call;
    if let Some(mcp_server_name) = mcp_server {
        let (permission, evaluation) = of_mcp(agent, &mcp_server_name, &name);
        return EventBody::AgentMcpToolUse(AgentMcpToolUse {
            mcp_server_name,
            name,
            input,
            evaluated_permission: Some(permission),
            evaluation,
            session_thread_id: None,
        });
    }
    let verdict = of_built_in(agent, &name);
    if verdict.is_none() && is_custom(agent, &name) {
        return EventBody::AgentCustomToolUse(AgentCustomToolUse {
            name,
            input,
            session_thread_id: None,
        });
    }
    let (permission, evaluation) = verdict.unwrap_or((EvaluatedPermission::Deny, None));
    EventBody::AgentToolUse(AgentToolUse {
        name,
        input,
        evaluated_permission: Some(permission),
        evaluation,
        session_thread_id: None,
    })
}

/// `None` where no toolset of the agent has a tool of this name.
fn of_built_in(agent: &SessionAgent, name: &str) -> Option<Verdict> {
    let exists =
        AgentToolset::IN_SANDBOX.contains(&name) || AgentToolset::ON_SERVER.contains(&name);
    let toolset = agent.tools.iter().find_map(|tool| match tool {
        AgentTool::Toolset(toolset) => Some(toolset),
        _ => None,
    });
    let toolset = toolset.filter(|_| exists)?;
    Some(verdict(&toolset.default_config, &toolset.configs, name))
}

fn of_mcp(agent: &SessionAgent, server: &str, name: &str) -> Verdict {
    let toolset = agent.tools.iter().find_map(|tool| match tool {
        AgentTool::Mcp(toolset) if toolset.mcp_server_name == server => Some(toolset),
        _ => None,
    });
    toolset.map_or((EvaluatedPermission::Deny, None), |toolset| {
        verdict(&toolset.default_config, &toolset.configs, name)
    })
}

fn is_custom(agent: &SessionAgent, name: &str) -> bool {
    agent
        .tools
        .iter()
        .any(|tool| matches!(tool, AgentTool::Custom(custom) if custom.name == name))
}

fn verdict(defaults: &ToolDefaults, configs: &[ToolConfig], name: &str) -> Verdict {
    let config = configs.iter().find(|config| config.name == name);
    let own = config.and_then(|config| config.enabled);
    if !own.or(defaults.enabled).unwrap_or(true) {
        return (EvaluatedPermission::Deny, None);
    }
    let policy = config
        .and_then(|config| config.permission_policy.as_ref())
        .or(defaults.permission_policy.as_ref());
    let kind = policy.map_or(PolicyKind::AlwaysAllow, |policy| policy.kind.clone());
    let permission = match kind {
        PolicyKind::AlwaysAllow => EvaluatedPermission::Allow,
        // Whatever cannot be judged here is asked about.
        _ => EvaluatedPermission::Ask,
    };
    let auto = (kind == PolicyKind::Auto).then(|| AutoPermission {
        kind: permission.clone(),
        reason_code: Some(NO_JUDGE.to_owned()),
    });
    let evaluation = Evaluation {
        kind,
        evaluated_permission: auto,
    };
    (permission, Some(evaluation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, server: Option<&str>, expected: &str) {
        let agent = serde_json::from_str(
            r#"{"id":"agent_1","version":1,"name":"a","model":"scripted","tools":[
                {"type":"agent_toolset_20260401","configs":[
                    {"name":"bash","permission_policy":{"type":"always_ask"}},
                    {"name":"read","enabled":false},
                    {"name":"edit","permission_policy":{"type":"auto"}},
                    {"name":"glob","permission_policy":{"type":"later"}}]},
                {"type":"mcp_toolset","mcp_server_name":"s","default_config":{"enabled":false},
                    "configs":[{"name":"on","enabled":true}]},
                {"type":"custom","name":"mine","description":"d","input_schema":{}}]}"#,
        )
        .unwrap();
        let call = ToolCall {
            name: name.into(),
            input: Default::default(),
            mcp_server: server.map(str::to_owned),
        };
        let text = serde_json::to_string(&place(&agent, call)).unwrap();
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn policies_are_those_of_the_agent() {
        let ask = r#""evaluated_permission":"ask","evaluation":{"type":"#;
        let allow = r#""evaluated_permission":"allow","evaluation":{"type":"always_allow"}"#;
        let refused = r#""evaluated_permission":"deny","session_thread_id""#;
        check("bash", None, &format!(r#"{ask}"always_ask"}}"#));
        check("write", None, allow);
        check("web_search", None, allow);
        check("read", None, refused);
        check(
            "edit",
            None,
            &format!(r#"{ask}"auto","evaluated_permission":{{"type":"ask""#),
        );
        check("glob", None, &format!(r#"{ask}"later"}}"#));
        check("none", None, refused);
        check(
            "mine",
            None,
            r#"{"type":"agent.custom_tool_use","name":"mine""#,
        );
        check("on", Some("s"), allow);
        check("off", Some("s"), refused);
        check("on", Some("other"), refused);
    }
}
