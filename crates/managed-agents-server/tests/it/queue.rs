use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::{OPERATOR, World, bash, result, text};

#[tokio::test]
async fn an_empty_poll_waits_and_answers_null() {
    let world = World::new().await;
    let at = Instant::now();
    let answer = world
        .call(
            "GET",
            &world.queue("/poll?block_ms=300"),
            &world.key,
            &Value::Null,
        )
        .await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &Value::Null));
    assert!(at.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer.headers["mcp-sandbox-poll"], "immediate");
    assert_eq!(answer.headers["content-type"], "application/json");
    for wrong in ["block_ms=0", "block_ms=1000", "block_ms=x"] {
        let path = world.queue(&format!("/poll?{wrong}"));
        let answer = world.call("GET", &path, &world.key, &Value::Null).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_poll_that_waits_is_woken_by_work() {
    let world = World::new().await;
    let agent = world.agent().await;
    let body = json!({"agent": agent, "environment_id": world.environment});
    let path = world.queue("/poll?block_ms=999");
    loop {
        let polled = world.call("GET", &path, &world.key, &Value::Null);
        let made = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.post("/v1/sessions", body.clone()).await
        };
        let (polled, made) = tokio::join!(polled, made);
        if polled.body.is_null() {
            // The machine was so busy that the poll ended before there was anything.
            let held = world.held().await;
            world
                .work(&held, "stop", &held.token, json!({"force": true}))
                .await;
            continue;
        }
        // Had it slept instead, the poll would have ended with nothing.
        assert_eq!(
            polled.body["data"]["id"], made.body["id"],
            "{}",
            polled.body
        );
        assert_eq!(polled.body["state"], "queued");
        assert!(polled.body["secret"].is_string());
        assert_eq!(polled.headers["cache-control"], "no-store");
        break;
    }
}

#[tokio::test]
async fn only_a_poll_shows_the_secret() {
    let world = World::new().await;
    world.session().await;
    let held = world.held().await;
    let path = world.queue(&format!("/{}", held.work));
    let item = world.get(&path).await.body;
    assert_eq!(
        (&item["state"], &item["secret"]),
        (&json!("starting"), &Value::Null)
    );
    let listed = world
        .call("GET", &world.queue(""), &world.key, &Value::Null)
        .await
        .body;
    assert_eq!(listed["data"][0]["secret"], Value::Null);
    let labelled = world
        .post(&path, json!({"metadata": {"a": "b"}}))
        .await
        .body;
    assert_eq!(labelled["metadata"], json!({"a": "b"}));
}

#[tokio::test]
async fn a_heartbeat_that_expects_another_is_told_how_things_are() {
    let world = World::new().await;
    world.session().await;
    let held = world.held().await;
    let first = world
        .work(
            &held,
            "heartbeat?expected_last_heartbeat=NO_HEARTBEAT",
            &held.token,
            Value::Null,
        )
        .await
        .body;
    assert_eq!(
        (&first["type"], &first["state"]),
        (&json!("work_heartbeat"), &json!("active"))
    );
    assert_eq!(
        (&first["lease_extended"], &first["ttl_seconds"]),
        (&json!(true), &json!(90))
    );
    let again = world
        .work(
            &held,
            "heartbeat?expected_last_heartbeat=NO_HEARTBEAT",
            &held.token,
            Value::Null,
        )
        .await;
    assert_eq!(again.status, 412, "{}", again.body);
    let details = &again.body["error"]["details"];
    assert_eq!(details["error_code"], "heartbeat_precondition_failed");
    assert_eq!(details["current_state"]["state"], "active");
    assert_eq!(
        details["current_state"]["last_heartbeat"],
        first["last_heartbeat"]
    );
    assert_eq!(again.body["error"]["type"], "invalid_request_error");
    let last = text(&first, "last_heartbeat").replace(':', "%3A");
    let path = format!("heartbeat?desired_ttl_seconds=30&expected_last_heartbeat={last}");
    let second = world
        .work(&held, &path, &held.token, Value::Null)
        .await
        .body;
    assert_eq!(second["ttl_seconds"], 30, "{second}");
}

#[tokio::test]
async fn a_stop_is_asked_for_confirmed_and_then_over() {
    let world = World::new().await;
    world.session().await;
    let held = world.held().await;
    let asked = world.work(&held, "stop", OPERATOR, Value::Null).await.body;
    assert_eq!(asked["state"], "stopping");
    let beaten = world
        .work(&held, "heartbeat", &held.token, Value::Null)
        .await
        .body;
    assert_eq!(
        (&beaten["state"], &beaten["lease_extended"]),
        (&json!("stopping"), &json!(false))
    );
    let body = json!({"force": true});
    let stopped = world.work(&held, "stop", &held.token, body.clone()).await;
    assert_eq!(
        (stopped.status.as_u16(), &stopped.body["state"]),
        (200, &json!("stopped"))
    );
    let again = world.work(&held, "stop", &held.token, body).await;
    assert_eq!(again.status, 409, "{}", again.body);
    assert_eq!(again.headers["x-should-retry"], "false");
    let acked = world.work(&held, "ack", &world.key, Value::Null).await;
    assert_eq!(
        (
            acked.status.as_u16(),
            acked.headers["x-should-retry"].as_bytes()
        ),
        (409, &b"false"[..])
    );
}

#[tokio::test]
async fn an_item_that_ends_while_calls_wait_is_followed_and_the_session_says_why() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    world.calls(&session).await;
    let held = world.held().await;
    let body = json!({"force": true, "reason": "no sandbox: the disk is full"});
    world.work(&held, "stop", &held.token, body).await;
    let path = format!("/v1/sessions/{session}");
    let shown = world.get(&path).await.body;
    assert_eq!(
        shown["worker"]["last_reason"],
        "no sandbox: the disk is full"
    );
    assert!(
        text(&shown["worker"], "stuck").contains("wait for a worker"),
        "{shown}"
    );
    let next = world.held().await;
    assert_ne!(next.work, held.work);
    assert_eq!(next.session, session);
    assert_eq!(world.get(&path).await.body["worker"]["stuck"], Value::Null);
    let stopped = world
        .work(&next, "stop", OPERATOR, json!({"force": true}))
        .await;
    assert_eq!(stopped.status, 200, "{}", stopped.body);
    assert!(world.poll().await.is_none(), "an operator is obeyed");
    let shown = world.get(&path).await.body;
    assert!(
        text(&shown["worker"], "stuck").contains("operator"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_worker_that_is_silent_loses_its_item() {
    let world = World::with(|config| config.with_lease(SignedDuration::from_secs(5))).await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let lost = async || {
        world
            .get(&world.queue(&format!("/{}", held.work)))
            .await
            .body["state"]
            == "queued"
    };
    while !lost().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = world
        .work(&held, "heartbeat", &held.token, Value::Null)
        .await;
    assert_eq!(late.status, 412, "{}", late.body);
    let late = world
        .send(&session, &held.token, result(&calls[0], "x"))
        .await;
    assert_eq!(late.status, 401, "{}", late.body);
    let late = world
        .work(&held, "stop", &held.token, json!({"force": true}))
        .await;
    assert_eq!(
        (
            late.status.as_u16(),
            late.headers["x-should-retry"].as_bytes()
        ),
        (409, &b"false"[..])
    );
    let next = world.held().await;
    assert_eq!((next.work, next.session), (held.work, session));
    assert_ne!(next.token, held.token);
}

#[tokio::test]
async fn stats_count_items_and_workers() {
    let world = World::new().await;
    world.session().await;
    world.session().await;
    world.poll_as("worker-1").await;
    let stats = world
        .call("GET", &world.queue("/stats"), &world.key, &Value::Null)
        .await
        .body;
    assert_eq!(
        (&stats["type"], &stats["depth"]),
        (&json!("work_queue_stats"), &json!(1))
    );
    assert_eq!(
        (&stats["pending"], &stats["workers_polling"]),
        (&json!(1), &json!(1))
    );
    assert!(stats["oldest_queued_at"].is_string());
    assert_eq!(world.get(&world.queue("/stats")).await.body, stats);
}

#[tokio::test]
async fn an_archived_environment_says_so_to_its_workers() {
    let world = World::new().await;
    let path = format!("/v1/environments/{}/archive", world.environment);
    assert_eq!(world.post(&path, Value::Null).await.status, 200);
    let polled = world
        .call("GET", &world.queue("/poll"), &world.key, &Value::Null)
        .await;
    assert_eq!(polled.status, 400, "{}", polled.body);
    assert_eq!(
        polled.body["error"]["details"]["error_code"],
        "environment_archived"
    );
}

#[tokio::test]
async fn a_session_that_was_left_waiting_is_queued_when_the_confirmation_comes() {
    let world = World::new().await;
    let session = world.asking(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let stop = json!({"force": true});
    let stopped = world.work(&held, "stop", &held.token, stop).await;
    assert_eq!(stopped.body["state"], "stopped", "{}", stopped.body);
    let stats = world.get(&world.queue("/stats")).await.body;
    assert_eq!(stats["depth"], 0, "nobody can do anything: {stats}");
    let allow =
        json!({"type": "user.tool_confirmation", "tool_use_id": calls[0], "result": "allow"});
    world.send(&session, OPERATOR, allow).await;
    let next = world.held().await;
    assert_eq!(next.session, session);
    world
        .send(&session, &next.token, result(&calls[0], "x"))
        .await;
    world.finished(&session).await;
}
