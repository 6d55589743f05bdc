//! Who may do what with an item and its session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{OPERATOR, World, bash, message, result, text};

#[tokio::test]
async fn a_token_that_was_used_shuts_the_environment_key_out() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a"), bash("b")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let beaten = world
        .work(&held, "heartbeat", &world.key, Value::Null)
        .await;
    assert_eq!(
        beaten.status, 200,
        "until then the key may: {}",
        beaten.body
    );
    world
        .work(&held, "heartbeat", &held.token, Value::Null)
        .await;
    let beaten = world
        .work(&held, "heartbeat", &world.key, Value::Null)
        .await;
    assert_eq!(beaten.status, 403, "{}", beaten.body);
    let stopped = world
        .work(&held, "stop", &world.key, json!({"force": true}))
        .await;
    assert_eq!(stopped.status, 409, "{}", stopped.body);
    assert_eq!(stopped.headers["x-should-retry"], "false");
    let sent = world
        .send(&session, &world.key, result(&calls[0], "x"))
        .await;
    assert_eq!(sent.status, 403, "{}", sent.body);
    let path = format!("/v1/sessions/{session}");
    let read = world.call("GET", &path, &world.key, &Value::Null).await;
    assert_eq!(read.status, 200, "reading is not writing");
    let sent = world
        .send(&session, &held.token, result(&calls[0], "x"))
        .await;
    assert_eq!(sent.status, 200, "{}", sent.body);
}

#[tokio::test]
async fn an_item_token_dies_with_its_claim() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    world
        .work(&held, "stop", &held.token, json!({"force": true}))
        .await;
    let path = format!("/v1/sessions/{session}");
    for (method, path) in [("GET", path.clone()), ("GET", format!("{path}/events"))] {
        let answer = world.call(method, &path, &held.token, &Value::Null).await;
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.body);
    }
    let sent = world
        .send(&session, &held.token, result(&calls[0], "x"))
        .await;
    assert_eq!(sent.status, 401, "{}", sent.body);
    let begun = world
        .work(&held, "begun", &held.token, json!({"tool_use_ids": calls}))
        .await;
    assert_eq!(begun.status, 401, "{}", begun.body);
}

#[tokio::test]
async fn an_item_token_reaches_one_session_and_a_key_one_environment() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    world.calls(&session).await;
    let held = world.held().await;
    let other = world.session().await;
    let path = format!("/v1/sessions/{other}");
    assert_eq!(
        world
            .call("GET", &path, &held.token, &Value::Null)
            .await
            .status,
        404
    );
    let (_, key) = world.environment("self_hosted").await;
    let path = format!("/v1/sessions/{session}");
    assert_eq!(
        world.call("GET", &path, &key, &Value::Null).await.status,
        404
    );
    let polled = world
        .call("GET", &world.queue("/poll"), &key, &Value::Null)
        .await;
    assert_eq!(polled.status, 404, "{}", polled.body);
    let mut forged = held.token.clone();
    let last = if forged.pop() == Some('0') { '1' } else { '0' };
    forged.push(last);
    assert_eq!(
        world.call("GET", &path, &forged, &Value::Null).await.status,
        401
    );
}

#[tokio::test]
async fn a_worker_answers_calls_and_says_nothing_else() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let allow =
        json!({"type": "user.tool_confirmation", "tool_use_id": calls[0], "result": "allow"});
    for event in [
        message(&json!([])),
        allow,
        json!({"type": "user.interrupt"}),
    ] {
        for who in [&world.key, &held.token] {
            let refused = world.send(&session, who, event.clone()).await;
            assert_eq!(refused.status, 403, "{}", refused.body);
        }
    }
}

#[tokio::test]
async fn begun_calls_are_told_to_the_next_holder() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let body = json!({"tool_use_ids": calls});
    for _ in 0..2 {
        let begun = world.work(&held, "begun", &held.token, body.clone()).await;
        assert_eq!(
            begun.body,
            json!({"begun_before": []}),
            "the same claim may say it again"
        );
    }
    let by_key = world.work(&held, "begun", &world.key, body.clone()).await;
    assert_eq!(by_key.status, 403, "{}", by_key.body);
    let strange = json!({"tool_use_ids": ["sevt_x"]});
    assert_eq!(
        world
            .work(&held, "begun", &held.token, strange)
            .await
            .status,
        400
    );
    world
        .work(&held, "stop", &held.token, json!({"force": true}))
        .await;
    let next = world.held().await;
    let begun = world.work(&next, "begun", &next.token, body).await;
    assert_eq!(begun.body, json!({"begun_before": calls}));
}

#[tokio::test]
async fn a_revoked_key_ends_polls_streams_and_heartbeats() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let mut by_key = world.stream(&session, &world.key).await;
    let mut by_token = world.stream(&session, &held.token).await;
    let keys = format!("/v1/environments/{}/keys", world.environment);
    let listed = world.get(&keys).await.body;
    let key = text(&listed["data"][0], "id");
    let path = world.queue("/poll?block_ms=999");
    let polled = world.call("GET", &path, &world.key, &Value::Null);
    let revoked = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world
            .post(&format!("{keys}/{key}/revoke"), Value::Null)
            .await;
        Instant::now()
    };
    let (mut polled, revoked) = tokio::join!(polled, revoked);
    if polled.body.is_null() {
        // The machine was so busy that the poll ended before the key was revoked.
        polled = world.call("GET", &path, &world.key, &Value::Null).await;
    }
    assert_eq!(polled.status, 401, "{}", polled.body);
    assert_eq!(by_key.next().await, None);
    assert_eq!(by_token.next().await, None);
    for who in [&world.key, &held.token] {
        let beaten = world.work(&held, "heartbeat", who, Value::Null).await;
        assert_eq!(beaten.status, 401, "{}", beaten.body);
        let sent = world.send(&session, who, result(&calls[0], "x")).await;
        assert_eq!(sent.status, 401, "{}", sent.body);
    }
    // The next ping of a stream is fifteen seconds away: nothing waited for it.
    assert!(revoked.elapsed() < Duration::from_secs(10));
    world.send(&session, OPERATOR, result(&calls[0], "x")).await;
}
