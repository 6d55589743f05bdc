//! One turn of thinking.

use crate::ledger::Ledger;
use async_trait::async_trait;
use managed_agents_api::{
    ContentBlock, Event, EventBody, RawJson, SessionAgent, SessionErrorKind, SessionUsage,
    StopReason,
};
use std::time::Duration;

/// What thinks, one turn at a time.
///
/// A function of its request: no state of its own decides what it says. The same request may come again, after a crash
/// or an interrupt that came to nothing; a turn is what was appended, not what was returned.
#[async_trait]
pub trait AgentLoop: Send + Sync {
    /// The next turn. Every call of the turns before has its result, was denied, or is the loop's own to carry out.
    ///
    /// # Errors
    /// The turn did not come about; [`next_step`](crate::next_step) tells the session and tries again where that helps.
    ///
    /// # Cancel safety
    /// May be dropped at any instant; the turn then counts as never begun.
    async fn turn(&self, request: TurnRequest<'_>) -> Result<Turn, TurnError>;
}

/// All that a turn may depend on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TurnRequest<'a> {
    /// Who thinks, with which tools.
    pub agent: &'a SessionAgent,
    /// Everything that happened, in [its order](crate#the-order-of-a-history).
    pub history: &'a [Event],
    /// What that comes to. [`Ledger::run`] is what this turn is part of, and always there.
    pub ledger: &'a Ledger,
}

impl<'a> TurnRequest<'a> {
    /// A request, for a loop's own tests.
    #[must_use]
    pub fn new(agent: &'a SessionAgent, history: &'a [Event], ledger: &'a Ledger) -> Self {
        Self {
            agent,
            history,
            ledger,
        }
    }
}

/// What a turn came to.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Turn {
    /// What was said, in order.
    pub said: Vec<Said>,
    /// Why no turn follows; `None`: one does, once every call is settled. Counts for nothing where a call of this turn
    /// waits for somebody, or where nothing was said at all.
    pub end: Option<StopReason>,
    /// What the session has used so far, this turn included, where that is known. Requests of `web_search` and
    /// `web_fetch` are counted from the history where the loop does not say them.
    pub usage: Option<SessionUsage>,
}

impl Turn {
    /// A turn after which another follows.
    #[must_use]
    pub fn more(said: Vec<Said>) -> Self {
        Self {
            said,
            ..Self::default()
        }
    }

    /// The last turn.
    #[must_use]
    pub fn last(said: Vec<Said>) -> Self {
        Self {
            said,
            end: Some(StopReason::end_turn()),
            usage: None,
        }
    }
}

/// One thing that is said in a turn.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Said {
    /// A message: `agent.message`.
    Message(Vec<ContentBlock>),
    /// A call. Which event it becomes and whether it may run, the agent's tools and policies decide.
    Call(ToolCall),
    /// Another event: the result of a call that the loop carried out, a span of a model.
    Event(Box<EventBody>),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub input: RawJson,
    /// The MCP server that has it; `None`: a built-in or custom tool.
    pub mcp_server: Option<String>,
}

impl ToolCall {
    /// A call of a built-in or custom tool.
    pub fn new(name: impl Into<String>, input: RawJson) -> Self {
        Self {
            name: name.into(),
            input,
            mcp_server: None,
        }
    }
}

/// Why a turn did not come about. Its words are shown in the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct TurnError {
    /// Its class.
    pub kind: SessionErrorKind,
    /// For people; nothing secret.
    pub message: String,
    /// Whether trying again helps.
    pub retry: Retry,
}

impl TurnError {
    /// A turn that failed for this reason.
    pub fn new(kind: SessionErrorKind, message: impl Into<String>, retry: Retry) -> Self {
        Self {
            kind,
            message: message.into(),
            retry,
        }
    }
}

/// Whether trying a turn again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as the API has them")]
pub enum Retry {
    /// After this pause, or one that grows with each error.
    After(Option<Duration>),
    /// Not before somebody says something: the session goes idle.
    Exhausted,
    /// Never: the session is over.
    Terminal,
}
