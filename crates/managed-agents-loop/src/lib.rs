//! What decides a session's next step: the `AgentLoop` trait and the scripted loop.
//!
//! A first cut: messages, calls one after the other, results. Permissions, interrupts,
//! parallel calls and errors come with the whole of it.
#![forbid(unsafe_code)]

use std::time::Duration;

use managed_agents_api::{
    AgentToolUse, EvaluatedPermission, Event, EventBody, EventType, RawJson, SessionAgent,
    SessionStatus, StopReason,
};

/// What follows from a history.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    running: bool,
    ended: bool,
    calls: Vec<Call>,
    queued: Vec<String>,
    /// The calls that the last idle event named.
    said: Option<Vec<String>>,
    /// The message that is being worked on.
    message: Option<String>,
}

/// A call of a tool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Id of its event.
    pub id: String,
    /// Id of the event with its result.
    pub result_id: Option<String>,
}

/// Why a client's event does not fit the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such call, or it does not wait.
    NotWaiting,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such call waits")
    }
}

impl std::error::Error for Refused {}

impl Ledger {
    /// Of a whole history.
    #[must_use]
    pub fn of(history: &[Event]) -> Self {
        let mut ledger = Self::default();
        for event in history {
            ledger.apply(event);
        }
        ledger
    }

    /// One event more; a queued message again once it is processed.
    pub fn apply(&mut self, event: &Event) {
        let id = event.id().to_owned();
        let Ok(body) = event.body() else { return };
        match body {
            EventBody::UserMessage(_) if event.processed_at().is_none() => self.queued.push(id),
            EventBody::UserMessage(_) => {
                self.queued.retain(|queued| *queued != id);
                self.message = Some(id);
                self.said = None;
            }
            EventBody::AgentToolUse(_) => self.calls.push(Call {
                id,
                result_id: None,
            }),
            EventBody::UserToolResult(result) => {
                let call = self
                    .calls
                    .iter_mut()
                    .find(|call| call.id == result.tool_use_id);
                if let Some(call) = call {
                    call.result_id = Some(id);
                }
            }
            EventBody::SessionStatusRunning(_) => self.running = true,
            EventBody::SessionStatusIdle(_) => {
                self.running = false;
                let waiting = self.waiting();
                self.message = self.message.take().filter(|_| !waiting.is_empty());
                self.said = Some(waiting);
            }
            EventBody::SessionStatusTerminated(_) => self.ended = true,
            _ => {}
        }
    }

    /// What the session does.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        match (self.ended, self.running) {
            (true, _) => SessionStatus::Terminated,
            (false, true) => SessionStatus::Running,
            (false, false) => SessionStatus::Idle,
        }
    }

    /// Whether a message is processed at once.
    #[must_use]
    pub fn takes_messages_now(&self) -> bool {
        !self.running && self.message.is_none() && self.queued.is_empty()
    }

    /// The call of this id.
    #[must_use]
    pub fn call(&self, id: &str) -> Option<&Call> {
        self.calls.iter().find(|call| call.id == id)
    }

    /// Whether a call waits for a worker.
    #[must_use]
    pub fn needs_worker(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// Whether a client's event fits.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, body: &EventBody) -> Result<(), Refused> {
        let EventBody::UserToolResult(result) = body else {
            return Ok(());
        };
        self.waiting()
            .contains(&result.tool_use_id)
            .then_some(())
            .ok_or(Refused::NotWaiting)
    }

    fn waiting(&self) -> Vec<String> {
        let open = self.calls.iter().filter(|call| call.result_id.is_none());
        open.map(|call| call.id.clone()).collect()
    }
}

/// What is to be done next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// Write this down, then ask again.
    Append(Append),
    /// Nothing.
    Wait(Waiting),
}

/// What a session waits for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Waiting {
    /// Results of these calls.
    Calls(Vec<String>),
    /// A message.
    Idle,
    /// Nothing any more.
    Ended,
}

/// What is to be written down, in one transaction.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Append {
    /// Queued messages that are processed now.
    pub taken_up: Vec<String>,
    /// New events.
    pub events: Vec<EventBody>,
    /// Ask again only after this.
    pub pause: Option<Duration>,
}

/// Who thinks.
pub trait AgentLoop: Send + Sync {}

/// Does what messages say.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "complete by definition")]
pub struct Scripted;

impl AgentLoop for Scripted {}

/// The next step of a session.
pub async fn next_step(
    _thinks: &dyn AgentLoop,
    _agent: &SessionAgent,
    history: &[Event],
    ledger: &Ledger,
) -> Step {
    let append = |events| {
        Step::Append(Append {
            events,
            ..Append::default()
        })
    };
    if ledger.ended {
        return Step::Wait(Waiting::Ended);
    }
    let Some(message) = &ledger.message else {
        return match ledger.queued.first() {
            Some(queued) => Step::Append(Append {
                taken_up: vec![queued.clone()],
                ..Append::default()
            }),
            None => Step::Wait(Waiting::Idle),
        };
    };
    let waiting = ledger.waiting();
    if !waiting.is_empty() {
        if ledger.said.as_ref() == Some(&waiting) {
            return Step::Wait(Waiting::Calls(waiting));
        }
        return append(vec![EventBody::idle(StopReason::requires_action(waiting))]);
    }
    if !ledger.running {
        return append(vec![EventBody::running()]);
    }
    let turn = history.iter().skip_while(|event| event.id() != message);
    let made = turn
        .filter(|event| *event.kind() == EventType::AgentToolUse)
        .count();
    match scripted(history, message).into_iter().nth(made) {
        Some(call) => append(vec![EventBody::AgentToolUse(call)]),
        None => append(vec![
            EventBody::agent_text("done"),
            EventBody::idle(StopReason::end_turn()),
        ]),
    }
}

fn scripted(history: &[Event], message: &str) -> Vec<AgentToolUse> {
    let read = || -> Option<Vec<AgentToolUse>> {
        let message = history.iter().find(|event| event.id() == message)?;
        let message: serde_json::Value = message.raw().parse().ok()?;
        let text = message["content"].as_array()?.last()?["text"].as_str()?;
        let (before, _) = text.rsplit_once("```")?;
        let (_, fenced) = before.rsplit_once("```")?;
        let calls: Vec<serde_json::Value> =
            serde_json::from_str(fenced.trim_start_matches("json")).ok()?;
        let call = |call: serde_json::Value| {
            Some(AgentToolUse {
                name: call["name"].as_str()?.to_owned(),
                input: RawJson::of(&call["input"]).ok()?,
                evaluated_permission: Some(EvaluatedPermission::Allow),
                evaluation: None,
                session_thread_id: None,
            })
        };
        calls.into_iter().map(call).collect()
    };
    read().unwrap_or_default()
}
