use super::*;
use crate::scene::{Scene, TOOLSET, confirmation, interrupt, result, script};
use crate::{Append, Waiting};
use managed_agents_api::{SessionStatusTerminated, UserCustomToolResult, UserDefineOutcome};

fn asking(tool: &str) -> String {
    format!(
        r#"{{"type":"agent_toolset_20260401","configs":[{{"name":"{tool}","permission_policy":{{"type":"always_ask"}}}}]}}"#
    )
}

#[test]
fn each_result_is_taken_once_and_only_for_a_call_that_waits() {
    let mut scene = Scene::new(&asking("read"));
    let message = scene
        .send(&script(
            r#"[[{"name":"bash"},{"name":"read"},{"name":"web_search"}]]"#,
        ))
        .unwrap();
    let calls = scene.calls();
    let [bash, read] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    let refused = |scene: &mut Scene, body: &EventBody| scene.send(body).unwrap_err();
    assert!(matches!(
        refused(&mut scene, &result(&message, "x")),
        Refused::NoSuchCall { .. }
    ));
    assert!(matches!(
        refused(&mut scene, &result(read, "x")),
        Refused::NotConfirmed { .. }
    ));
    assert!(matches!(
        refused(&mut scene, &confirmation(bash, Confirmation::Allow)),
        Refused::NotHeld { .. }
    ));
    let custom = EventBody::UserCustomToolResult(UserCustomToolResult {
        custom_tool_use_id: bash.clone(),
        content: Vec::new(),
        is_error: None,
    });
    assert!(matches!(
        refused(&mut scene, &custom),
        Refused::OtherResult { .. }
    ));
    let search = scene.ledger.calls().nth(2).unwrap().clone();
    assert_eq!(
        (search.kind, search.state),
        (CallKind::Server, CallState::Ready)
    );
    assert!(matches!(
        refused(&mut scene, &result(&search.id, "x")),
        Refused::OtherResult {
            by: "the server itself",
            ..
        }
    ));

    let answer = scene.send(&result(bash, "x")).unwrap();
    let again = refused(&mut scene, &result(bash, "x"));
    assert_eq!(
        again,
        Refused::Answered {
            id: bash.clone(),
            result_id: answer
        }
    );
    assert!(!scene.ledger.needs_worker(), "the other call is held");
    scene
        .send(&confirmation(read, Confirmation::Allow))
        .unwrap();
    assert!(scene.ledger.needs_worker());
    scene.send(&interrupt()).unwrap();
    assert!(matches!(
        refused(&mut scene, &result(read, "x")),
        Refused::Interrupted { .. }
    ));
    assert_eq!(scene.settle(), Waiting::Idle);
}

#[test]
fn a_denied_call_takes_no_result() {
    let mut scene = Scene::new(&asking("bash"));
    scene.send(&script(r#"[{"name":"bash"}]"#)).unwrap();
    let calls = scene.calls();
    scene
        .send(&confirmation(&calls[0], Confirmation::Deny))
        .unwrap();
    let late = scene.send(&result(&calls[0], "x")).unwrap_err();
    assert!(matches!(late, Refused::Denied { .. }));
}

#[test]
fn clients_send_what_is_theirs() {
    let mut scene = Scene::new(TOOLSET);
    let foreign = scene.send(&EventBody::running()).unwrap_err();
    assert_eq!(
        foreign.to_string(),
        "session.status_running is no event that a client sends"
    );
    let outcome = EventBody::UserDefineOutcome(UserDefineOutcome {
        description: "d".into(),
        rubric: None,
        max_iterations: None,
        outcome_id: None,
    });
    scene.send(&outcome).unwrap();
    let end = EventBody::SessionStatusTerminated(SessionStatusTerminated {});
    scene.append(&Append {
        events: vec![end],
        ..Append::default()
    });
    assert_eq!(scene.ledger.status(), SessionStatus::Terminated);
    let late = scene.send(&EventBody::user_text("x")).unwrap_err();
    assert_eq!(late, Refused::Ended);
    assert_eq!(scene.settle(), Waiting::Ended);
}

#[test]
fn a_message_is_taken_at_once_only_by_an_agent_at_rest() {
    let mut scene = Scene::new(TOOLSET);
    assert!(scene.ledger.takes_messages_now());
    scene.send(&script(r#"[{"name":"bash"}]"#)).unwrap();
    assert!(!scene.ledger.takes_messages_now(), "one is enough to do");
    let calls = scene.calls();
    assert!(!scene.ledger.takes_messages_now());
    scene.send(&result(&calls[0], "x")).unwrap();
    assert_eq!(scene.settle(), Waiting::Idle);
    assert!(scene.ledger.takes_messages_now());
}
