use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{GUEST, OPERATOR, World, bash, kinds, message, result, text};

#[tokio::test]
async fn a_stream_has_what_the_history_has_from_then_on() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let before = world.events(&session).await.len();
    let mut frames = world.stream(&session, OPERATOR).await;
    world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    let mut streamed = Vec::new();
    loop {
        let (name, event) = frames.next().await.expect("it goes on");
        assert_eq!(name, text(&event, "type"));
        let ended = event["stop_reason"]["type"] == "end_turn";
        streamed.push(event);
        if ended {
            break;
        }
    }
    assert_eq!(streamed, world.events(&session).await[before..]);
}

#[tokio::test]
async fn an_event_is_listed_no_later_than_streamed() {
    let world = World::new().await;
    let session = world.session().await;
    let mut frames = world.stream(&session, OPERATOR).await;
    world
        .send(&session, OPERATOR, message(&json!([bash("a")])))
        .await;
    loop {
        let (_, event) = frames.next().await.expect("it goes on");
        let listed = world.events(&session).await;
        assert!(
            listed.contains(&event),
            "{event} is not in {:?}",
            kinds(&listed)
        );
        if event["stop_reason"]["type"] == "requires_action" {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let world = World::new().await;
    let session = world.session().await;
    let mut frames = world.stream(&session, OPERATOR).await;
    let path = format!("/v1/sessions/{session}");
    world.call("DELETE", &path, OPERATOR, &Value::Null).await;
    let (name, _) = frames.next().await.expect("it is told");
    assert_eq!(name, "session.deleted");
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn a_worker_is_told_that_its_session_is_over() {
    let world = World::new().await;
    let session = world.session().await;
    let held = world.held().await;
    let mut frames = world.stream(&session, &held.token).await;
    world
        .post(&format!("/v1/sessions/{session}/archive"), Value::Null)
        .await;
    let (name, _) = frames.next().await.expect("it is told");
    assert_eq!(name, "session.status_terminated");
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn a_worker_that_comes_back_is_told_that_its_session_is_over() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let path = format!("/v1/sessions/{session}");
    world.post(&format!("{path}/archive"), Value::Null).await;
    // Its stream broke just before: it opens another one, as official workers do.
    for who in [&held.token, &world.key] {
        let mut frames = world.stream(&session, who).await;
        let (name, _) = frames.next().await.expect("it is told");
        assert_eq!(name, "session.status_terminated");
        assert_eq!(frames.next().await, None);
        let read = world.call("GET", &path, who, &Value::Null).await;
        assert_eq!(read.body["status"], "terminated", "{}", read.body);
    }
    let sent = world
        .send(&session, &held.token, result(&calls[0], "x"))
        .await;
    assert_eq!(sent.status, 401, "{}", sent.body);
}

#[tokio::test]
async fn a_stream_ends_with_the_key_that_it_was_opened_with() {
    let world = World::new().await;
    let session = world.session().await;
    let mut guests = world.stream(&session, GUEST).await;
    let mut operators = world.stream(&session, OPERATOR).await;
    world.closed.store(true, Ordering::Relaxed);
    let revoked = Instant::now();
    assert_eq!(guests.next().await, None);
    // The next ping is fifteen seconds away: nothing waited for it.
    assert!(revoked.elapsed() < Duration::from_secs(10));
    world.send(&session, OPERATOR, message(&json!([]))).await;
    assert!(operators.next().await.is_some(), "others' streams go on");
}

#[tokio::test]
async fn a_session_has_so_many_streams() {
    let world = World::new().await;
    let session = world.session().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(world.stream(&session, OPERATOR).await);
    }
    let path = format!("/v1/sessions/{session}/events/stream");
    let refused = world.get(&path).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    streams.pop();
    world.stream(&session, OPERATOR).await;
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let world = World::new().await;
    let session = world.session().await;
    let mut frames = world.stream(&session, OPERATOR).await;
    let mut sent = Vec::new();
    for number in 0..8 {
        let text = format!("{number} {}", "x".repeat(100_000));
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let answer = world.send(&session, OPERATOR, event).await;
        sent.push(crate::common::text(&answer.body["data"][0], "id"));
    }
    // Nobody read meanwhile: it is paged from the store, not kept in memory.
    while let Some(id) = sent.first() {
        let (_, event) = frames.next().await.expect("it goes on");
        if event["id"] == **id {
            sent.remove(0);
        }
    }
}
