//! Whether an event that a client sends fits the history.

use super::{Call, CallKind, CallState, Ledger, Status};
use managed_agents_api::EventBody;

/// Why an event of a client does not fit the history. Nothing of it may be appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The session is terminated or deleted.
    #[error("the session is over")]
    Ended,
    /// Clients send no events of this type.
    #[error("{kind} is no event that a client sends")]
    NotForClients {
        /// The type.
        kind: String,
    },
    /// No event with this id calls a tool.
    #[error("{id} is no tool call of this session")]
    NoSuchCall {
        /// What was named.
        id: String,
    },
    /// The call takes another type of result, or none from a client.
    #[error("the call {id} is answered by {by}")]
    OtherResult {
        /// The call.
        id: String,
        /// What answers it.
        by: &'static str,
    },
    /// The call waits for a confirmation first.
    #[error("the call {id} waits for user.tool_confirmation and takes no result before it")]
    NotConfirmed {
        /// The call.
        id: String,
    },
    /// The call waits for no confirmation.
    #[error("the call {id} waits for no confirmation")]
    NotHeld {
        /// The call.
        id: String,
    },
    /// The call was refused by a policy or a person.
    #[error("the call {id} was denied and takes no result")]
    Denied {
        /// The call.
        id: String,
    },
    /// The call was given up.
    #[error("the call {id} was interrupted and takes no result")]
    Interrupted {
        /// The call.
        id: String,
    },
    /// The call has its result. A byte-identical repeat is no harm: compare it with the event named here.
    #[error("the call {id} has another result already")]
    Answered {
        /// The call.
        id: String,
        /// The event that answers it.
        result_id: String,
    },
}

impl Ledger {
    /// Whether an event that a client sends may be appended.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn judge(&self, event: &EventBody) -> Result<(), Refused> {
        if *self.position() == Status::Ended {
            return Err(Refused::Ended);
        }
        match event {
            EventBody::UserMessage(_)
            | EventBody::UserDefineOutcome(_)
            | EventBody::UserInterrupt(_) => Ok(()),
            EventBody::UserToolConfirmation(said) => self.judge_confirmation(&said.tool_use_id),
            EventBody::UserToolResult(result) => {
                self.judge_result(&result.tool_use_id, CallKind::Worker)
            }
            EventBody::UserCustomToolResult(result) => {
                self.judge_result(&result.custom_tool_use_id, CallKind::Custom)
            }
            other => Err(Refused::NotForClients {
                kind: other.kind().to_owned(),
            }),
        }
    }

    fn judge_confirmation(&self, id: &str) -> Result<(), Refused> {
        match self.known(id)?.state {
            CallState::Held => Ok(()),
            _ => Err(Refused::NotHeld { id: id.to_owned() }),
        }
    }

    fn judge_result(&self, id: &str, kind: CallKind) -> Result<(), Refused> {
        let call = self.known(id)?;
        let id = id.to_owned();
        if call.kind != kind {
            let by = answered_by(call.kind);
            return Err(Refused::OtherResult { id, by });
        }
        match call.state {
            CallState::Ready => Ok(()),
            CallState::Held => Err(Refused::NotConfirmed { id }),
            CallState::Denied => Err(Refused::Denied { id }),
            CallState::Interrupted => Err(Refused::Interrupted { id }),
            CallState::Answered => {
                let result_id = call.result_id.clone().unwrap_or_default();
                Err(Refused::Answered { id, result_id })
            }
        }
    }

    fn known(&self, id: &str) -> Result<&Call, Refused> {
        self.call(id)
            .ok_or_else(|| Refused::NoSuchCall { id: id.to_owned() })
    }
}

fn answered_by(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Worker => "user.tool_result",
        CallKind::Custom => "user.custom_tool_result",
        CallKind::Server | CallKind::Mcp => "the server itself",
    }
}
