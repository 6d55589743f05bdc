use serde_json::{Value, json};

use crate::common::{FOREIGNER, OPERATOR, World, bash, kinds, message, result, text};

#[tokio::test]
async fn the_same_result_again_is_the_stored_one_and_another_is_refused() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let first = world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    assert_eq!(first.status, 200, "{}", first.body);
    world.finished(&session).await;
    let before = world.events(&session).await;
    let again = world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    assert_eq!(again.body, first.body);
    let other = world.send(&session, OPERATOR, result(&calls[0], "y")).await;
    assert_eq!(other.status, 400, "{}", other.body);
    assert!(text(&other.body["error"], "message").contains("another result"));
    let strange = world.send(&session, OPERATOR, result("sevt_x", "y")).await;
    assert_eq!(strange.status, 400, "{}", strange.body);
    assert_eq!(
        world.events(&session).await,
        before,
        "nothing of it is left"
    );
}

#[tokio::test]
async fn an_event_is_kept_as_it_came() {
    let world = World::new().await;
    let session = world.session().await;
    let sent = r#"{"events":[{"type":"user.message","content":[{"type":"text","text":"\u0061"}],"n":123456789012345678901234567890.10}]}"#;
    let path = format!("/v1/sessions/{session}/events");
    let answer = world.raw("POST", &path, OPERATOR, sent.to_owned()).await;
    for text in [
        answer,
        world.raw("GET", &path, OPERATOR, String::new()).await,
    ] {
        assert!(text.contains("123456789012345678901234567890.10"), "{text}");
        assert!(text.contains(r#""text":"\u0061""#), "{text}");
    }
}

#[tokio::test]
async fn a_message_during_a_turn_waits_for_its_end() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let sent = world.send(&session, OPERATOR, message(&json!([]))).await;
    let queued = sent.body["data"][0].clone();
    assert_eq!(queued["processed_at"], Value::Null);
    assert_eq!(
        world.events(&session).await.last(),
        Some(&queued),
        "what is queued comes last"
    );
    world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    world.finished(&session).await;
    let done = async || {
        let events = world.events(&session).await;
        let place = events
            .iter()
            .position(|event| event["id"] == queued["id"])
            .expect("it is there");
        let idle = events
            .iter()
            .filter(|event| event["stop_reason"]["type"] == "end_turn")
            .count();
        (events[place]["processed_at"].is_string() && idle == 2).then_some(place)
    };
    let mut place = done().await;
    while place.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        place = done().await;
    }
    let events = world.events(&session).await;
    let before = &kinds(&events)[..place.expect("it was taken up")];
    assert_eq!(
        before.last(),
        Some(&"session.status_idle"),
        "behind the turn before"
    );
}

#[tokio::test]
async fn what_a_client_does_not_say_is_refused() {
    let world = World::new().await;
    let session = world.session().await;
    let cases = [
        (
            json!({"type": "agent.message", "content": []}),
            "agent.message",
        ),
        (json!({"type": "session.status_running"}), "status_running"),
        (json!({"type": "user.message", "content": "x"}), "events"),
        (json!({"no": "type"}), "events"),
        (json!("text"), "events"),
    ];
    for (event, word) in cases {
        let refused = world.send(&session, OPERATOR, event).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert!(refused.body.to_string().contains(word), "{}", refused.body);
    }
    let path = format!("/v1/sessions/{session}/events");
    assert_eq!(world.post(&path, json!({"events": []})).await.status, 400);
    assert_eq!(world.events(&session).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_history_is_read_in_pages() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    world.calls(&session).await;
    let all = world.events(&session).await;
    for order in ["asc", "desc"] {
        let mut found = Vec::new();
        let mut page = String::new();
        loop {
            let path = format!("/v1/sessions/{session}/events?limit=2&order={order}{page}");
            let answer = world.get(&path).await.body;
            found.extend(answer["data"].as_array().expect("a page").clone());
            match answer["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => break,
            }
        }
        if order == "desc" {
            found.reverse();
        }
        assert_eq!(found, all);
    }
    let path = format!("/v1/sessions/{session}/events?types[]=user.message&types[]=agent.tool_use");
    let some = world.get(&path).await.body;
    let some = some["data"].as_array().expect("a page");
    assert_eq!(kinds(some), ["user.message", "agent.tool_use"]);
    for wrong in ["limit=0", "limit=1001", "page=x", "order=up"] {
        let path = format!("/v1/sessions/{session}/events?{wrong}");
        assert_eq!(world.get(&path).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_foreign_session_is_missing() {
    let world = World::new().await;
    let session = world.session().await;
    let events = format!("/v1/sessions/{session}/events");
    let body = json!({"events": [message(&json!([]))]});
    for (method, path, body) in [
        ("GET", events.clone(), &Value::Null),
        ("POST", events.clone(), &body),
        ("GET", format!("{events}/stream"), &Value::Null),
        ("GET", format!("/v1/sessions/{session}"), &Value::Null),
        (
            "GET",
            format!("/v1/sessions/{session}/threads"),
            &Value::Null,
        ),
        ("DELETE", format!("/v1/sessions/{session}"), &Value::Null),
    ] {
        let answer = world.call(method, &path, FOREIGNER, body).await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
}
