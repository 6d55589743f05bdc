//! What follows on a history.

use crate::ledger::{Ledger, Status};
use crate::policy;
use crate::turn::{AgentLoop, Retry, Said, Turn, TurnError, TurnRequest};
use crate::usage;
use managed_agents_api::{
    AgentMessage, Event, EventBody, RetriesExhausted, RetryKind, SessionAgent, SessionError,
    SessionErrorDetail, SessionStatusRescheduled, SessionStatusTerminated, SessionUsageUpdated,
    StopReason,
};
use std::time::Duration;

/// How often a turn is tried again after passing errors. With the pauses, about a minute in all.
const RETRIES: u32 = 6;

/// First pause after a passing error; doubles each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest pause, also of those that a loop asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What follows on a history.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "something follows, or nothing does"
)]
pub enum Step {
    /// These events; then ask again.
    Append(Append),
    /// Nothing, until the history grows by another hand.
    Wait(Waiting),
}

/// What to append in one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Append {
    /// Queued messages that are processed now: each gets its time, and its place before `events`.
    pub taken_up: Vec<String>,
    /// The events; ids and times are the caller's to give.
    pub events: Vec<EventBody>,
    /// Ask again only after this pause, unless the history grows before.
    pub pause: Option<Duration>,
}

/// What a session waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Waiting {
    /// Results or confirmations of these calls.
    Calls(Vec<String>),
    /// A message.
    Idle,
    /// Nothing any more.
    Ended,
}

/// What follows on `history`, which `ledger` is the fold of: the same whenever it is asked.
///
/// To be asked after every append of an earlier answer, after every event of a client, and after a start. Where another
/// event came in between question and append, the answer is void: append only to the history that was asked about.
///
/// # Cancel safety
/// May be dropped at any instant: to be asked anew after an interrupt, for example.
pub async fn next_step(
    agent_loop: &dyn AgentLoop,
    agent: &SessionAgent,
    history: &[Event],
    ledger: &Ledger,
) -> Step {
    if *ledger.position() == Status::Ended {
        return Step::Wait(Waiting::Ended);
    }
    if ledger.interrupted() {
        return append(vec![EventBody::idle(StopReason::end_turn())]);
    }
    if ledger.run().is_none() {
        return begin(ledger);
    }
    let outstanding: Vec<String> = ledger.outstanding().map(|call| call.id.clone()).collect();
    if !outstanding.is_empty() {
        return wait_for(outstanding, ledger.position());
    }
    if *ledger.position() != Status::Running {
        return append(vec![EventBody::running()]);
    }
    let request = TurnRequest::new(agent, history, ledger);
    match agent_loop.turn(request).await {
        Ok(mut turn) => {
            usage::complete(&mut turn, history, ledger);
            append(turn_events(agent, turn))
        }
        Err(error) => after_error(error, ledger.failures()),
    }
}

fn append(events: Vec<EventBody>) -> Step {
    Step::Append(Append {
        events,
        ..Append::default()
    })
}

/// Takes up what was said to an agent that has nothing to do.
fn begin(ledger: &Ledger) -> Step {
    if !ledger.has_fresh() && ledger.queued().is_empty() {
        return Step::Wait(Waiting::Idle);
    }
    Step::Append(Append {
        taken_up: ledger.queued().to_vec(),
        events: vec![EventBody::running()],
        pause: None,
    })
}

fn wait_for(outstanding: Vec<String>, position: &Status) -> Step {
    if matches!(position, Status::RequiresAction(said) if *said == outstanding) {
        return Step::Wait(Waiting::Calls(outstanding));
    }
    append(vec![EventBody::idle(StopReason::requires_action(
        outstanding,
    ))])
}

fn turn_events(agent: &SessionAgent, turn: Turn) -> Vec<EventBody> {
    let silent = turn.said.is_empty();
    let mut events: Vec<EventBody> = turn
        .said
        .into_iter()
        .map(|said| match said {
            Said::Message(content) => EventBody::AgentMessage(AgentMessage { content }),
            Said::Call(call) => policy::place(agent, call),
            Said::Event(event) => *event,
        })
        .collect();
    events.extend(turn.usage.map(|usage| {
        EventBody::SessionUsageUpdated(SessionUsageUpdated {
            usage,
            budget: None,
        })
    }));
    let calls = events.iter().any(is_call);
    // A loop that says nothing would be asked for ever.
    let end = turn.end.or_else(|| silent.then(StopReason::end_turn));
    events.extend(end.filter(|_| !calls).map(EventBody::idle));
    events
}

fn is_call(event: &EventBody) -> bool {
    matches!(
        event,
        EventBody::AgentToolUse(_)
            | EventBody::AgentCustomToolUse(_)
            | EventBody::AgentMcpToolUse(_)
    )
}

fn after_error(error: TurnError, failures: u32) -> Step {
    let retry = match error.retry {
        Retry::After(_) if failures >= RETRIES => Retry::Exhausted,
        retry => retry,
    };
    let (kind, then, pause) = match retry {
        Retry::After(asked) => {
            let grown = PAUSE.saturating_mul(1 << failures.min(RETRIES));
            (
                RetryKind::Retrying,
                EventBody::SessionStatusRescheduled(SessionStatusRescheduled {}),
                Some(asked.unwrap_or(grown).min(LONGEST_PAUSE)),
            )
        }
        Retry::Exhausted => (
            RetryKind::Exhausted,
            EventBody::idle(RetriesExhausted {}.into()),
            None,
        ),
        Retry::Terminal => (
            RetryKind::Terminal,
            EventBody::SessionStatusTerminated(SessionStatusTerminated {}),
            None,
        ),
    };
    let said = EventBody::SessionError(SessionError {
        error: SessionErrorDetail {
            kind: error.kind,
            message: error.message,
            retry_status: kind.into(),
            mcp_server_name: None,
        },
    });
    Step::Append(Append {
        taken_up: Vec::new(),
        events: vec![said, then],
        pause,
    })
}

#[cfg(test)]
mod tests;
