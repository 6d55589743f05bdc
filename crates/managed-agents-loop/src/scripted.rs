//! The loop that does what a message spells out.

mod report;
mod script;

use crate::ledger::{CallKind, CallState};
use crate::turn::{AgentLoop, Said, Turn, TurnError, TurnRequest};
use async_trait::async_trait;
use managed_agents_api::{AgentMcpToolResult, AgentToolResult, ContentBlock, EventBody, EventType};

pub use script::{Script, ScriptError};

/// The loop of agents whose model is [`AgentModel::SCRIPTED`](managed_agents_api::AgentModel::SCRIPTED).
///
/// The last fenced JSON block of a message is a list of calls, `{"name": …, "input": {…}}`, one turn each; an inner list
/// is one turn whose calls run in parallel. The agent's tools and policies hold as for any other agent. A closing message
/// quotes what each call came to. Of a message without such a block, it says what is wrong, and calls nothing.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state, by design")]
pub struct Scripted;

#[async_trait]
impl AgentLoop for Scripted {
    async fn turn(&self, request: TurnRequest<'_>) -> Result<Turn, TurnError> {
        let own = own_calls(&request);
        if !own.is_empty() {
            return Ok(Turn::more(own));
        }
        let turns = match turns(&request) {
            Ok(turns) => turns,
            Err(error) => return Ok(closing(error.to_string())),
        };
        let mut made = request.ledger.run().map_or(0, |run| run.calls.len());
        for turn in turns {
            if made == 0 {
                return Ok(Turn::more(turn.into_iter().map(Said::Call).collect()));
            }
            made = made.saturating_sub(turn.len());
        }
        Ok(closing(report::of(&request)))
    }
}

/// Results for the calls that a loop must carry out itself: this one cannot.
fn own_calls(request: &TurnRequest<'_>) -> Vec<Said> {
    let content = |name: &str| {
        let text = format!("{name} runs on a server with a model; the scripted agent has none");
        vec![ContentBlock::text(text)]
    };
    let run = request.ledger.run().into_iter();
    run.flat_map(|run| &run.calls)
        .filter_map(|id| request.ledger.call(id))
        .filter(|call| call.state == CallState::Ready)
        .filter_map(|call| match call.kind {
            CallKind::Worker | CallKind::Custom => None,
            CallKind::Server => Some(EventBody::AgentToolResult(AgentToolResult {
                tool_use_id: call.id.clone(),
                content: content(&call.name),
                is_error: Some(true),
            })),
            CallKind::Mcp => Some(EventBody::AgentMcpToolResult(AgentMcpToolResult {
                mcp_tool_use_id: call.id.clone(),
                content: content(&call.name),
                is_error: Some(true),
            })),
        })
        .map(|event| Said::Event(Box::new(event)))
        .collect()
}

/// The turns that the messages of this run spell out, all of them or none.
fn turns(request: &TurnRequest<'_>) -> Result<Vec<Vec<crate::ToolCall>>, ScriptError> {
    let prompts = request.ledger.run().map_or(&[][..], |run| &run.prompts);
    let mut turns = Vec::new();
    for prompt in prompts {
        let event = request.history.iter().rfind(|event| event.id() == prompt);
        let text = match event.map(|event| (event.kind(), event.body())) {
            Some((EventType::UserMessage, Ok(EventBody::UserMessage(message)))) => {
                let texts: Vec<&str> = message
                    .content
                    .iter()
                    .filter_map(ContentBlock::as_text)
                    .collect();
                texts.join("\n")
            }
            _ => String::new(),
        };
        turns.extend(Script::find(&text)?.turns);
    }
    Ok(turns)
}

fn closing(text: String) -> Turn {
    Turn::last(vec![Said::Message(vec![ContentBlock::text(text)])])
}

#[cfg(test)]
mod tests;
