//! Events as lines for people.

use managed_agents_api::{
    Confirmation, ContentBlock, EvaluatedPermission, Event, EventBody, RawJson, StopReason,
};

use serde::Deserialize;

use crate::admin::table::visible;

/// Most of one text that is shown, in characters: `--json` has all of it.
const SHOWN: usize = 2000;

/// Says what events come to, one after the other.
#[derive(Debug)]
pub(super) struct Teller {
    /// Whether the reader wrote the commands, and wants to see what they print alone.
    commands_alone: bool,
    /// Calls without a result: their ids, and what they are called here.
    open: Vec<(String, String)>,
    failed: bool,
}

impl Teller {
    pub(super) fn new(commands_alone: bool) -> Self {
        Self {
            commands_alone,
            open: Vec::new(),
            failed: false,
        }
    }

    /// Whether a call, or the session, failed so far.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Lines about the next event; none about what only programs want to know.
    pub(super) fn tell(&mut self, event: &Event) -> Vec<String> {
        let Ok(body) = event.body() else {
            return vec![format!("({})", visible(event.kind().as_str()))];
        };
        match body {
            EventBody::UserMessage(said) if !self.commands_alone => said_by("you:", &said.content),
            EventBody::AgentMessage(said) if !self.commands_alone => {
                said_by("agent:", &said.content)
            }
            EventBody::AgentToolUse(call) => self.open(
                event.id(),
                &call.name,
                &call.input,
                call.evaluated_permission.as_ref(),
            ),
            EventBody::AgentMcpToolUse(call) => self.open(
                event.id(),
                &call.name,
                &call.input,
                call.evaluated_permission.as_ref(),
            ),
            EventBody::AgentCustomToolUse(call) => {
                let mut lines = self.open(event.id(), &call.name, &call.input, None);
                lines.push("(the application answers it)".to_owned());
                lines
            }
            EventBody::UserToolResult(result) => {
                self.close(&result.tool_use_id, &result.content, result.is_error)
            }
            EventBody::UserCustomToolResult(result) => {
                self.close(&result.custom_tool_use_id, &result.content, result.is_error)
            }
            EventBody::AgentToolResult(result) => {
                self.close(&result.tool_use_id, &result.content, result.is_error)
            }
            EventBody::AgentMcpToolResult(result) => {
                self.close(&result.mcp_tool_use_id, &result.content, result.is_error)
            }
            EventBody::UserToolConfirmation(said) if said.result == Confirmation::Allow => {
                vec!["(allowed by a person)".to_owned()]
            }
            EventBody::UserToolConfirmation(said) => {
                let why = said.deny_message.unwrap_or_default();
                self.close(&said.tool_use_id, &[], None);
                self.failed = true;
                vec![format!("(denied by a person) {}", visible(&why))]
            }
            EventBody::UserInterrupt(_) => {
                self.open.clear();
                vec!["(interrupted)".to_owned()]
            }
            EventBody::SessionError(said) => {
                self.failed = true;
                let error = said.error;
                vec![format!(
                    "error: {} ({})",
                    visible(&error.message),
                    visible(error.retry_status.kind.as_str())
                )]
            }
            EventBody::SessionStatusIdle(idle) => match idle.stop_reason {
                StopReason::EndTurn(_) | StopReason::RequiresAction(_) => Vec::new(),
                reason => vec![format!("(idle: {})", visible(reason.kind()))],
            },
            EventBody::SessionStatusTerminated(_) => vec!["(terminated)".to_owned()],
            EventBody::SessionDeleted(_) => vec!["(deleted)".to_owned()],
            _ => Vec::new(),
        }
    }

    fn open(
        &mut self,
        id: &str,
        name: &str,
        input: &RawJson,
        permission: Option<&EvaluatedPermission>,
    ) -> Vec<String> {
        let called = called(name, input);
        let mut lines = vec![called.clone()];
        match permission {
            Some(EvaluatedPermission::Deny) => {
                self.failed = true;
                lines.push("(denied: the agent's tools do not allow it)".to_owned());
                return lines;
            }
            Some(EvaluatedPermission::Ask) => lines.push("(waits for a confirmation)".to_owned()),
            _ => {}
        }
        self.open.push((id.to_owned(), called));
        lines
    }

    fn close(&mut self, id: &str, content: &[ContentBlock], is_error: Option<bool>) -> Vec<String> {
        let mut lines = Vec::new();
        let place = self.open.iter().position(|(open, _)| open == id);
        let several = self.open.len() > 1;
        let closed = place.map(|place| self.open.remove(place));
        if let Some((_, called)) = closed.filter(|_| several) {
            lines.push(format!("(result of) {called}"));
        }
        lines.extend(cut(&text(content)).lines().map(visible));
        if is_error == Some(true) {
            self.failed = true;
            lines.push("(failed)".to_owned());
        }
        lines
    }
}

/// A command as in a terminal, another call with its arguments.
fn called(name: &str, input: &RawJson) -> String {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bash {
        command: String,
    }
    match input.parse() {
        Ok(Bash { command }) if name == "bash" => format!("$ {}", visible(&cut(&command))),
        _ => format!("{} {}", visible(name), visible(&cut(input.as_str()))),
    }
}

fn said_by(who: &str, content: &[ContentBlock]) -> Vec<String> {
    let text = cut(&text(content));
    let lines = text.lines().map(|line| format!("  {}", visible(line)));
    std::iter::once(who.to_owned()).chain(lines).collect()
}

fn text(content: &[ContentBlock]) -> String {
    let block = |block: &ContentBlock| {
        let text = block.as_text().map(str::to_owned);
        text.unwrap_or_else(|| format!("({})", block.kind()))
    };
    content.iter().map(block).collect::<Vec<_>>().join("\n")
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(events: &[&str], expected: &[&str], failed: bool) {
        let mut teller = Teller::new(false);
        let told: Vec<String> = events
            .iter()
            .flat_map(|json| teller.tell(&serde_json::from_str(json).unwrap()))
            .collect();
        assert_eq!(told, expected);
        assert_eq!(teller.failed(), failed);
    }

    #[test]
    fn what_tools_return_cannot_steer_a_terminal() {
        check(
            &[
                r#"{"type":"agent.tool_use","id":"a","name":"bash","input":{"command":"l\u001bs"}}"#,
                r#"{"type":"user.tool_result","tool_use_id":"a","content":[{"type":"text","text":"a\u001b[2J\nb"}],"is_error":true}"#,
            ],
            &["$ l\u{fffd}s", "a\u{fffd}[2J", "b", "(failed)"],
            true,
        );
    }

    #[test]
    fn results_of_calls_at_once_are_told_apart() {
        let read = r#"{"type":"agent.tool_use","id":"a","name":"read","input":{"file_path":"f"}}"#;
        let bash = r#"{"type":"agent.tool_use","id":"b","name":"bash","input":{"command":"c"}}"#;
        let result = |id: &str| {
            format!(
                r#"{{"type":"user.tool_result","tool_use_id":"{id}","content":[{{"type":"text","text":"{id}"}}]}}"#
            )
        };
        check(
            &[read, bash, &result("b"), &result("a")],
            &[
                r#"read {"file_path":"f"}"#,
                "$ c",
                "(result of) $ c",
                "b",
                "a",
            ],
            false,
        );
    }

    #[test]
    fn what_is_not_a_result_is_told_in_brackets() {
        check(
            &[
                r#"{"type":"agent.tool_use","id":"a","name":"none","input":{},"evaluated_permission":"deny"}"#,
                r#"{"type":"session.status_running"}"#,
                r#"{"type":"session.status_idle","stop_reason":{"type":"retries_exhausted"}}"#,
                r#"{"type":"later"}"#,
                r#"{"type":"agent.message"}"#,
            ],
            &[
                "none {}",
                "(denied: the agent's tools do not allow it)",
                "(idle: retries_exhausted)",
                "(agent.message)",
            ],
            true,
        );
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        assert_eq!(cut(&"é".repeat(SHOWN)), "é".repeat(SHOWN));
        assert_eq!(cut(&"é".repeat(SHOWN + 1)).chars().count(), SHOWN + 1);
    }
}
