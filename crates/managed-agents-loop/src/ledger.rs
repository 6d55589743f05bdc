//! What a history comes to: which calls wait, and where the session stands.

use managed_agents_api::{
    AgentToolset, Confirmation, EvaluatedPermission, Event, EventBody, EventType, RetryKind,
    SessionStatus, StopReason,
};
use std::collections::HashMap;

mod judge;

pub use judge::Refused;

/// A fold over a session's history.
///
/// The same whether it was made in one go or event by event, also where a queued message is applied a second time, once
/// it was taken up. Holds what every call of the session came to: some hundred bytes a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    status: Status,
    calls: Vec<Call>,
    places: HashMap<String, usize>,
    /// Places of the calls that nothing has settled yet, in order.
    unsettled: Vec<usize>,
    run: Option<Run>,
    /// Messages that are processed and belong to no run yet.
    fresh: Vec<String>,
    /// Messages that wait for the end of the run.
    queued: Vec<String>,
    /// An interrupt that the session has not gone idle for yet.
    interrupted: bool,
    /// Passing errors since a turn succeeded.
    failures: u32,
}

/// Where the session stands, by its last status event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Status {
    #[default]
    Idle,
    RequiresAction(Vec<String>),
    Running,
    Rescheduling,
    Ended,
}

/// What an agent does about the messages that it took up last, until it is idle again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// Ids of the messages.
    pub prompts: Vec<String>,
    /// Ids of the calls that it made so far, in order.
    pub calls: Vec<String>,
}

/// A call, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Id of its event.
    pub id: String,
    /// Who carries it out.
    pub kind: CallKind,
    /// The tool.
    pub name: String,
    /// What became of it.
    pub state: CallState,
    /// Id of the event that answers it.
    pub result_id: Option<String>,
    /// Why a person denied it.
    pub deny_message: Option<String>,
}

/// Who carries a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the three kinds of call, and who runs the first"
)]
pub enum CallKind {
    /// A worker: a built-in tool in the sandbox.
    Worker,
    /// The application: a custom tool.
    Custom,
    /// The loop itself: a built-in tool on the server.
    Server,
    /// The loop itself: a tool of an MCP server.
    Mcp,
}

/// What became of a call.
///
/// ```text
///            ┌── allowed ──► Ready ── result ──► Answered
///   Held ────┤                 │
///            ├── denied ───► Denied
///            └── interrupt ──► Interrupted ◄──┘ interrupt
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by the diagram")]
pub enum CallState {
    /// Waits for a confirmation.
    Held,
    /// Is to be carried out.
    Ready,
    /// Has its result.
    Answered,
    /// Was refused by a policy or a person; takes no result.
    Denied,
    /// Was given up; takes no result.
    Interrupted,
}

impl Call {
    /// Whether the session waits for somebody else about it.
    #[must_use]
    pub fn blocks(&self) -> bool {
        match self.state {
            CallState::Held => true,
            CallState::Ready => matches!(self.kind, CallKind::Worker | CallKind::Custom),
            CallState::Answered | CallState::Denied | CallState::Interrupted => false,
        }
    }
}

impl Ledger {
    /// What this history, which stands in [its order](crate#the-order-of-a-history), comes to.
    #[must_use]
    pub fn of<'a>(history: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut ledger = Self::default();
        for event in history {
            ledger.apply(event);
        }
        ledger
    }

    /// Takes the next event, or a queued message that was taken up.
    pub fn apply(&mut self, event: &Event) {
        match event.kind() {
            EventType::UserMessage | EventType::UserDefineOutcome => self.on_message(event),
            EventType::UserInterrupt => self.on_interrupt(),
            EventType::SessionStatusRunning => self.on_running(),
            EventType::SessionStatusRescheduled => self.status = Status::Rescheduling,
            EventType::SessionStatusTerminated | EventType::SessionDeleted => {
                self.settle_all();
                self.status = Status::Ended;
            }
            EventType::AgentMessage | EventType::AgentThinking => self.failures = 0,
            EventType::AgentToolUse
            | EventType::AgentCustomToolUse
            | EventType::AgentMcpToolUse
            | EventType::UserToolConfirmation
            | EventType::UserToolResult
            | EventType::UserCustomToolResult
            | EventType::AgentToolResult
            | EventType::AgentMcpToolResult
            | EventType::SessionStatusIdle
            | EventType::SessionError => {
                if let Ok(body) = event.body() {
                    self.on_body(event.id(), body);
                }
            }
            _ => {}
        }
    }

    /// The session's `status`.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        match self.status {
            Status::Idle | Status::RequiresAction(_) => SessionStatus::Idle,
            Status::Running => SessionStatus::Running,
            Status::Rescheduling => SessionStatus::Rescheduling,
            Status::Ended => SessionStatus::Terminated,
        }
    }

    /// Whether a new `user.message` is processed on receipt; otherwise it is queued, without `processed_at`.
    #[must_use]
    pub fn takes_messages_now(&self) -> bool {
        self.run.is_none() && self.fresh.is_empty() && self.queued.is_empty() && !self.interrupted
    }

    /// The call whose event has this id.
    #[must_use]
    pub fn call(&self, tool_use_id: &str) -> Option<&Call> {
        self.calls.get(*self.places.get(tool_use_id)?)
    }

    /// Every call of the session, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter()
    }

    /// The calls that the session waits for: what `requires_action` names.
    pub fn outstanding(&self) -> impl Iterator<Item = &Call> {
        let unsettled = self.unsettled.iter();
        unsettled
            .filter_map(|place| self.calls.get(*place))
            .filter(|call| call.blocks())
    }

    /// Whether a call waits that only a worker can carry out.
    #[must_use]
    pub fn needs_worker(&self) -> bool {
        self.outstanding()
            .any(|call| call.kind == CallKind::Worker && call.state == CallState::Ready)
    }

    /// What the agent is at; `None` while it has nothing to do.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// Passing errors since a turn succeeded.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn position(&self) -> &Status {
        &self.status
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted
    }

    pub(crate) fn queued(&self) -> &[String] {
        &self.queued
    }

    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    fn on_message(&mut self, event: &Event) {
        let id = event.id().to_owned();
        if event.processed_at().is_none() {
            self.queued.push(id);
            return;
        }
        self.queued.retain(|queued| *queued != id);
        self.fresh.push(id);
    }

    fn on_interrupt(&mut self) {
        self.interrupted |= self.run.is_some() || !self.fresh.is_empty();
        self.fresh.clear();
        self.settle_all();
    }

    fn on_running(&mut self) {
        self.status = Status::Running;
        if self.run.is_none() {
            self.run = Some(Run {
                prompts: std::mem::take(&mut self.fresh),
                calls: Vec::new(),
            });
        }
    }

    fn on_body(&mut self, id: &str, body: EventBody) {
        match body {
            EventBody::AgentToolUse(call) => {
                let in_sandbox = AgentToolset::IN_SANDBOX.contains(&call.name.as_str());
                let kind = if in_sandbox {
                    CallKind::Worker
                } else {
                    CallKind::Server
                };
                self.open(id, kind, call.name, call.evaluated_permission.as_ref());
            }
            EventBody::AgentCustomToolUse(call) => self.open(id, CallKind::Custom, call.name, None),
            EventBody::AgentMcpToolUse(call) => {
                self.open(
                    id,
                    CallKind::Mcp,
                    call.name,
                    call.evaluated_permission.as_ref(),
                );
            }
            EventBody::UserToolConfirmation(said) => {
                let state = match said.result {
                    Confirmation::Allow => CallState::Ready,
                    _ => CallState::Denied,
                };
                if let Some(call) = self.unsettled(&said.tool_use_id) {
                    call.state = state;
                    call.deny_message = said.deny_message;
                }
            }
            EventBody::UserToolResult(result) => self.answer(&result.tool_use_id, id),
            EventBody::UserCustomToolResult(result) => self.answer(&result.custom_tool_use_id, id),
            EventBody::AgentToolResult(result) => self.answer(&result.tool_use_id, id),
            EventBody::AgentMcpToolResult(result) => self.answer(&result.mcp_tool_use_id, id),
            EventBody::SessionStatusIdle(idle) => self.on_idle(idle.stop_reason),
            EventBody::SessionError(said)
                if said.error.retry_status.kind == RetryKind::Retrying =>
            {
                self.failures = self.failures.saturating_add(1);
            }
            _ => {}
        }
        let calls = &self.calls;
        self.unsettled.retain(|place| {
            let state = calls.get(*place).map(|call| call.state);
            matches!(state, Some(CallState::Held | CallState::Ready))
        });
    }

    fn on_idle(&mut self, reason: StopReason) {
        if let StopReason::RequiresAction(waiting) = reason {
            self.status = Status::RequiresAction(waiting.event_ids);
            return;
        }
        self.status = Status::Idle;
        self.run = None;
        self.interrupted = false;
        self.failures = 0;
    }

    fn open(
        &mut self,
        id: &str,
        kind: CallKind,
        name: String,
        permission: Option<&EvaluatedPermission>,
    ) {
        let state = match permission {
            None | Some(EvaluatedPermission::Allow) => CallState::Ready,
            Some(EvaluatedPermission::Deny) => CallState::Denied,
            // Of what is not known, a person decides.
            Some(_) => CallState::Held,
        };
        self.failures = 0;
        if let Some(run) = &mut self.run {
            run.calls.push(id.to_owned());
        }
        self.places.insert(id.to_owned(), self.calls.len());
        self.unsettled.push(self.calls.len());
        self.calls.push(Call {
            id: id.to_owned(),
            kind,
            name,
            state,
            result_id: None,
            deny_message: None,
        });
    }

    fn answer(&mut self, tool_use_id: &str, result_id: &str) {
        if let Some(call) = self.unsettled(tool_use_id) {
            call.state = CallState::Answered;
            call.result_id = Some(result_id.to_owned());
        }
    }

    /// The call with this id, unless it is settled.
    fn unsettled(&mut self, tool_use_id: &str) -> Option<&mut Call> {
        let call = self.calls.get_mut(*self.places.get(tool_use_id)?)?;
        matches!(call.state, CallState::Held | CallState::Ready).then_some(call)
    }

    fn settle_all(&mut self) {
        for place in self.unsettled.drain(..) {
            if let Some(call) = self.calls.get_mut(place) {
                call.state = CallState::Interrupted;
            }
        }
    }
}

#[cfg(test)]
mod tests;
