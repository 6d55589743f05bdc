use super::*;
use crate::scene::{Scene, TOOLSET, confirmation, interrupt, result, script};
use crate::{Call, CallState, Ledger, Scripted, ToolCall};
use async_trait::async_trait;
use managed_agents_api::{
    AgentToolResult, Confirmation, ContentBlock, EventType, RawJson, SessionErrorKind,
    SessionStatus, SessionUsage,
};
use proptest::prelude::*;

#[test]
fn a_turn_waits_for_its_calls_and_the_next_follows() {
    let mut scene = Scene::new(TOOLSET);
    scene
        .send(&script(
            r#"[[{"name":"bash"},{"name":"read"}],{"name":"glob"}]"#,
        ))
        .unwrap();
    let first = scene.calls();
    assert_eq!(
        scene.kinds(),
        [
            "message",
            "status_running",
            "tool_use",
            "tool_use",
            "requires_action"
        ]
    );
    assert_eq!(scene.ledger.status(), SessionStatus::Idle);
    scene.send(&result(&first[1], "x")).unwrap();
    assert_eq!(scene.calls(), &first[..1], "the rest is named again");
    scene.send(&result(&first[0], "x")).unwrap();
    let second = scene.calls();
    scene.send(&result(&second[0], "x")).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    assert_eq!(
        scene.kinds()[5..],
        [
            "tool_result",
            "requires_action",
            "tool_result",
            "status_running",
            "tool_use",
            "requires_action",
            "tool_result",
            "status_running",
            "message",
            "end_turn"
        ]
    );
}

#[test]
fn an_interrupt_ends_the_turn_and_leaves_what_is_queued() {
    let mut scene = Scene::new(TOOLSET);
    scene
        .send(&script(r#"[{"name":"bash"},{"name":"bash"}]"#))
        .unwrap();
    let calls = scene.calls();
    scene.send(&script(r#"[{"name":"read"}]"#)).unwrap();
    assert_eq!(scene.calls(), calls, "a queued message changes nothing");
    scene.send(&interrupt()).unwrap();
    let next = scene.calls();
    assert_ne!(next, calls);
    assert_eq!(scene.ledger.call(&next[0]).unwrap().name, "read");
    assert_eq!(
        scene.kinds()[4..],
        [
            "interrupt",
            "end_turn",
            "message",
            "status_running",
            "tool_use",
            "requires_action"
        ]
    );
    scene.send(&interrupt()).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    let before = scene.history().len();
    scene.send(&interrupt()).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    assert_eq!(
        scene.history().len(),
        before + 1,
        "nothing was there to end"
    );
}

#[test]
fn an_interrupt_reaches_a_message_that_nothing_took_up_yet() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&script(r#"[{"name":"bash"}]"#)).unwrap();
    scene.send(&interrupt()).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    assert_eq!(scene.kinds(), ["message", "interrupt", "end_turn"]);
}

#[test]
fn a_denial_lets_the_agent_go_on() {
    let mut scene = Scene::new(
        r#"{"type":"agent_toolset_20260401","default_config":{"permission_policy":{"type":"always_ask"}}}"#,
    );
    scene
        .send(&script(r#"[{"name":"bash"},{"name":"read"}]"#))
        .unwrap();
    let calls = scene.calls();
    assert!(!scene.ledger.needs_worker());
    scene
        .send(&confirmation(&calls[0], Confirmation::Deny))
        .unwrap();
    let calls = scene.calls();
    scene
        .send(&confirmation(&calls[0], Confirmation::Allow))
        .unwrap();
    assert_eq!(scene.calls(), calls, "it is still to be carried out");
    assert!(scene.ledger.needs_worker());
    scene.send(&result(&calls[0], "x")).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
}

/// A loop that fails in one way, so often, and then says something.
struct Failing(Retry, u32);

#[async_trait]
impl AgentLoop for Failing {
    async fn turn(&self, request: TurnRequest<'_>) -> Result<Turn, TurnError> {
        if request.ledger.failures() < self.1 {
            let kind = SessionErrorKind::ModelOverloaded;
            return Err(TurnError::new(kind, "try later", self.0));
        }
        Ok(Turn {
            usage: Some(SessionUsage {
                input_tokens: Some(7),
                ..SessionUsage::default()
            }),
            ..Turn::last(vec![Said::Message(vec![ContentBlock::text("done")])])
        })
    }
}

#[test]
fn a_passing_error_is_told_and_tried_again() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&EventBody::user_text("x")).unwrap();
    let (waiting, pauses) = scene.settle_with(&Failing(Retry::After(None), 2));
    assert_eq!(waiting, Waiting::Idle);
    assert_eq!(pauses, [PAUSE, PAUSE * 2]);
    assert_eq!(
        scene.kinds()[1..],
        [
            "status_running",
            "error",
            "status_rescheduled",
            "status_running",
            "error",
            "status_rescheduled",
            "status_running",
            "message",
            "usage",
            "end_turn"
        ]
    );
    assert_eq!(scene.ledger.failures(), 0);
}

#[test]
fn errors_that_do_not_pass_end_the_turn_or_the_session() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&EventBody::user_text("x")).unwrap();
    let asked = Some(Duration::from_secs(3600));
    let (waiting, pauses) = scene.settle_with(&Failing(Retry::After(asked), u32::MAX));
    assert_eq!(waiting, Waiting::Idle);
    assert_eq!(pauses, [LONGEST_PAUSE; RETRIES as usize]);
    assert_eq!(scene.kinds().last().unwrap(), "retries_exhausted");

    scene.send(&EventBody::user_text("x")).unwrap();
    let (waiting, _) = scene.settle_with(&Failing(Retry::Terminal, u32::MAX));
    assert_eq!(waiting, Waiting::Ended);
    assert_eq!(scene.ledger.status(), SessionStatus::Terminated);
}

/// A loop that searches, and says what the model used, but not how often it has searched.
struct Searching;

#[async_trait]
impl AgentLoop for Searching {
    async fn turn(&self, request: TurnRequest<'_>) -> Result<Turn, TurnError> {
        let calls: Vec<_> = request.ledger.calls().collect();
        let mut turn = match calls.last() {
            Some(call) if call.result_id.is_none() => {
                let result = EventBody::AgentToolResult(AgentToolResult {
                    tool_use_id: call.id.clone(),
                    content: Vec::new(),
                    is_error: (calls.len() == 2).then_some(true),
                });
                Turn::more(vec![Said::Event(Box::new(result))])
            }
            _ if calls.len() < 3 => {
                let input = RawJson::empty_object();
                Turn::more(vec![Said::Call(ToolCall::new("web_search", input))])
            }
            _ => Turn::last(Vec::new()),
        };
        turn.usage = Some(SessionUsage::default());
        Ok(turn)
    }
}

#[test]
fn searches_are_counted_where_the_loop_does_not_say_them() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&EventBody::user_text("x")).unwrap();
    assert_eq!(scene.settle_with(&Searching).0, Waiting::Idle);
    let history = scene.history();
    let usages = history.iter().filter_map(|event| match event.body() {
        Ok(EventBody::SessionUsageUpdated(said)) => said.usage.server_tool_use,
        _ => None,
    });
    let usages: Vec<_> = usages.map(|usage| usage.as_str().to_owned()).collect();
    let said = |searches| format!(r#"{{"web_fetch_requests":0,"web_search_requests":{searches}}}"#);
    // Three calls, of which the second one failed.
    assert_eq!(usages, [0, 1, 1, 1, 1, 2, 2].map(said));
}

/// A loop that says nothing at all.
struct Silent;

#[async_trait]
impl AgentLoop for Silent {
    async fn turn(&self, _: TurnRequest<'_>) -> Result<Turn, TurnError> {
        Ok(Turn::default())
    }
}

#[test]
fn silence_ends_a_turn() {
    let mut scene = Scene::new(TOOLSET);
    scene.send(&EventBody::user_text("x")).unwrap();
    assert_eq!(scene.settle_with(&Silent).0, Waiting::Idle);
    assert_eq!(scene.kinds(), ["message", "status_running", "end_turn"]);
}

#[derive(Clone, Debug)]
enum Act {
    Step,
    Message(Vec<u8>),
    Result(prop::sample::Index),
    Confirm(prop::sample::Index, bool),
    Interrupt,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Step),
        1 => prop::collection::vec(1..4u8, 0..4).prop_map(Act::Message),
        3 => any::<prop::sample::Index>().prop_map(Act::Result),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, allow)| Act::Confirm(which, allow)),
        1 => Just(Act::Interrupt),
    ]
}

/// A script with turns of these many calls; every second one asks.
fn turns(sizes: &[u8]) -> EventBody {
    let turns: Vec<String> = sizes
        .iter()
        .map(|size| {
            let names = ["bash", "read", "web_search"];
            let calls = names.iter().take(usize::from(*size));
            let calls: Vec<_> = calls
                .map(|name| format!(r#"{{"name":"{name}"}}"#))
                .collect();
            format!("[{}]", calls.join(","))
        })
        .collect();
    script(&format!("[{}]", turns.join(",")))
}

fn waiting(ledger: &Ledger, wanted: impl Fn(&Call) -> bool) -> Vec<String> {
    let calls = ledger.outstanding().filter(|call| wanted(call));
    calls.map(|call| call.id.clone()).collect()
}

fn perform(scene: &mut Scene, act: &Act) {
    let held = |call: &Call| call.state == CallState::Held;
    match act {
        Act::Step => {
            if let Step::Append(append) = scene.next(&Scripted) {
                scene.append(&append);
            }
        }
        Act::Message(sizes) => {
            scene.send(&turns(sizes)).unwrap();
        }
        Act::Result(which) => {
            let calls = waiting(&scene.ledger, |call| !held(call));
            if !calls.is_empty() {
                scene
                    .send(&result(&calls[which.index(calls.len())], "x"))
                    .unwrap();
            }
        }
        Act::Confirm(which, allow) => {
            let calls = waiting(&scene.ledger, held);
            let said = if *allow {
                Confirmation::Allow
            } else {
                Confirmation::Deny
            };
            if !calls.is_empty() {
                scene
                    .send(&confirmation(&calls[which.index(calls.len())], said))
                    .unwrap();
            }
        }
        Act::Interrupt => {
            scene.send(&interrupt()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever clients do, and wherever a server dies: each prefix has one continuation (`Scene::next` asks twice), each
    /// call is settled once, and the session comes to rest with every message taken up.
    #[test]
    fn every_history_comes_to_rest(acts in prop::collection::vec(act(), 0..40)) {
        let mut scene = Scene::new(
            r#"{"type":"agent_toolset_20260401","configs":[{"name":"read","permission_policy":{"type":"always_ask"}}]}"#,
        );
        for act in &acts {
            perform(&mut scene, act);
        }
        while let Waiting::Calls(calls) = scene.settle() {
            let held = scene.ledger.call(&calls[0]).unwrap().state == CallState::Held;
            let body = if held {
                confirmation(&calls[0], Confirmation::Allow)
            } else {
                result(&calls[0], "x")
            };
            scene.send(&body).unwrap();
        }
        prop_assert_eq!(scene.ledger.status(), SessionStatus::Idle);
        prop_assert!(scene.ledger.takes_messages_now());
        for call in scene.ledger.calls() {
            prop_assert!(!matches!(call.state, CallState::Held | CallState::Ready), "{:?}", call);
        }
        let history = scene.history();
        prop_assert!(history.iter().all(|event| event.processed_at().is_some()));
        let ends = scene.kinds().iter().filter(|kind| *kind == "end_turn").count();
        let messages = history.iter().filter(|event| event.kind() == &EventType::UserMessage).count();
        prop_assert!(ends <= messages);
    }
}
