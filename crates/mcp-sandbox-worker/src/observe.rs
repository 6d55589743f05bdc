//! What each event of the API means for a worker.

use managed_agents_api::{
    Confirmation, EvaluatedPermission, Event, EventBody, EventType, StopReason,
};

use crate::calls::{Call, Observation, Permission};

/// The types that a worker asks a history for: everything that [`observe`] tells apart.
pub(crate) fn types() -> Vec<EventType> {
    vec![
        EventType::AgentToolUse,
        EventType::AgentToolResult,
        EventType::UserToolResult,
        EventType::UserToolConfirmation,
        EventType::UserInterrupt,
        EventType::SessionStatusRunning,
        EventType::SessionStatusIdle,
        EventType::SessionStatusRescheduled,
        EventType::SessionStatusTerminated,
        EventType::SessionDeleted,
        EventType::SessionThreadStatusTerminated,
    ]
}

/// Reads an event; one whose members make no sense says nothing.
pub(crate) fn observe(event: &Event) -> Observation {
    // Most events of a stream are none of ours: they are not read at all.
    if *event.kind() == EventType::UserMessage {
        return Observation::Active;
    }
    if !types().contains(event.kind()) {
        return Observation::Other;
    }
    if matches!(
        event.kind(),
        EventType::AgentToolResult | EventType::UserToolResult
    ) {
        // Its content is not needed, and must not keep a call from counting as answered.
        #[derive(serde::Deserialize)]
        struct Answer {
            tool_use_id: String,
        }
        return match event.raw().parse::<Answer>() {
            Ok(answer) => Observation::Answered {
                call: answer.tool_use_id,
            },
            Err(_) => Observation::Other,
        };
    }
    match event.body() {
        Ok(body) => of(event.id(), body),
        Err(error) => {
            tracing::warn!(event = event.id(), kind = event.kind().as_str(), %error, "an event cannot be read");
            Observation::Other
        }
    }
}

fn of(id: &str, body: EventBody) -> Observation {
    match body {
        EventBody::AgentToolUse(call) => match call.input.parse() {
            Ok(input) => Observation::Call(Call {
                id: id.to_owned(),
                tool: call.name,
                input,
                permission: permission(call.evaluated_permission.as_ref()),
                thread: call.session_thread_id,
            }),
            Err(_) => Observation::Other,
        },
        EventBody::UserToolConfirmation(said) => Observation::Confirmed {
            allowed: said.result == Confirmation::Allow,
            call: said.tool_use_id,
        },
        EventBody::UserInterrupt(interrupt) => Observation::Interrupted {
            thread: interrupt.session_thread_id,
        },
        EventBody::SessionStatusRunning(_) | EventBody::SessionStatusRescheduled(_) => {
            Observation::Active
        }
        EventBody::SessionStatusIdle(idle) => match idle.stop_reason {
            StopReason::RequiresAction(needed) => Observation::NeedsAction {
                calls: needed.event_ids,
            },
            _ => Observation::TurnEnded,
        },
        EventBody::SessionStatusTerminated(_) | EventBody::SessionDeleted(_) => {
            Observation::SessionEnded
        }
        EventBody::SessionThreadStatusTerminated(thread) => Observation::ThreadEnded {
            thread: thread.session_thread_id,
        },
        _ => Observation::Other,
    }
}

fn permission(evaluated: Option<&EvaluatedPermission>) -> Permission {
    match evaluated {
        None | Some(EvaluatedPermission::Allow) => Permission::Allow,
        Some(EvaluatedPermission::Deny) => Permission::Deny,
        Some(_) => Permission::Ask,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(event: Value) -> Observation {
        let event: Event = serde_json::from_str(&event.to_string()).unwrap();
        observe(&event)
    }

    fn call(permission: Value) -> Value {
        json!({"type": "agent.tool_use", "id": "e1", "processed_at": null, "name": "bash", "input": {"command": "ls"},
            "evaluated_permission": permission, "session_thread_id": null})
    }

    #[test]
    fn permissions_that_are_not_known_ask() {
        let permission = |value| match seen(call(value)) {
            Observation::Call(call) => call.permission,
            other => panic!("{other:?}"),
        };
        assert_eq!(permission(json!("allow")), Permission::Allow);
        assert_eq!(permission(json!(null)), Permission::Allow);
        assert_eq!(permission(json!("deny")), Permission::Deny);
        assert_eq!(permission(json!("ask")), Permission::Ask);
        assert_eq!(permission(json!("later")), Permission::Ask);
    }

    #[test]
    fn what_a_worker_must_read_is_read() {
        let answered = Observation::Answered {
            call: "e1".to_owned(),
        };
        for kind in ["user.tool_result", "agent.tool_result"] {
            let event = json!({"type": kind, "id": "e2", "tool_use_id": "e1", "content": 7});
            assert_eq!(seen(event), answered);
        }
        let idle =
            |stop| seen(json!({"type": "session.status_idle", "id": "e3", "stop_reason": stop}));
        let needs = Observation::NeedsAction {
            calls: vec!["e1".to_owned()],
        };
        assert_eq!(
            idle(json!({"type": "requires_action", "event_ids": ["e1"]})),
            needs
        );
        assert_eq!(idle(json!({"type": "end_turn"})), Observation::TurnEnded);
        assert_eq!(
            idle(json!({"type": "something_later"})),
            Observation::TurnEnded
        );
        assert_eq!(
            seen(json!({"type": "session.deleted", "id": "e4"})),
            Observation::SessionEnded
        );
        let other =
            seen(json!({"type": "agent.message", "id": "e5", "content": "not even blocks"}));
        assert_eq!(other, Observation::Other);
    }
}
