use serde_json::{Value, json};

use crate::common::{FOREIGNER, OPERATOR, World, bash, kinds, result, text};

#[tokio::test]
async fn a_session_runs_its_calls_and_ends_its_turn() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a"), bash("b")])).await;
    let held = world.held().await;
    assert_eq!(held.session, session);
    let beaten = world
        .work(
            &held,
            "heartbeat?expected_last_heartbeat=NO_HEARTBEAT",
            &held.token,
            Value::Null,
        )
        .await;
    assert_eq!(beaten.body["lease_extended"], true, "{}", beaten.body);
    for answer in ["one", "two"] {
        let calls = world.calls(&session).await;
        assert_eq!(calls.len(), 1);
        let sent = world
            .send(&session, &held.token, result(&calls[0], answer))
            .await;
        assert_eq!(sent.status, 200, "{}", sent.body);
        world
            .until(&session, |last| {
                last["type"] == "session.status_idle"
                    && last["stop_reason"]["event_ids"] != json!(calls)
            })
            .await;
    }
    world.finished(&session).await;
    let events = world.events(&session).await;
    let kinds = kinds(&events);
    assert_eq!(kinds[0], "user.message");
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| **kind == "agent.tool_use")
            .count(),
        2
    );
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| **kind == "user.tool_result")
            .count(),
        2
    );
    assert_eq!(
        kinds[kinds.len() - 2..],
        ["agent.message", "session.status_idle"]
    );
    let stopped = world
        .work(&held, "stop", &held.token, json!({"force": true}))
        .await;
    assert_eq!(stopped.body["state"], "stopped");
    let shown = world.get(&format!("/v1/sessions/{session}")).await.body;
    assert_eq!(shown["status"], "idle");
    assert_eq!(shown["worker"]["stuck"], Value::Null);
    assert!(
        world.poll().await.is_none(),
        "an idle session needs no worker"
    );
}

#[tokio::test]
async fn a_session_is_a_copy_of_its_agent() {
    let world = World::new().await;
    let agent = world.agent().await;
    let body = json!({"agent": {"type": "agent", "id": agent, "system": "be brief"},
        "environment_id": world.environment, "title": "t", "metadata": {"a": "b"}});
    let made = world.post("/v1/sessions", body).await.body;
    assert_eq!(made["type"], "session");
    assert_eq!(made["status"], "idle");
    assert_eq!(made["agent"]["system"], "be brief");
    assert_eq!(made["agent"]["version"], 1);
    assert_eq!(made["agent"]["tools"][0]["default_config"]["enabled"], true);
    assert_eq!(
        (&made["resources"], &made["vault_ids"]),
        (&json!([]), &json!([]))
    );
    let path = format!("/v1/sessions/{}", text(&made, "id"));
    assert_eq!(world.get(&path).await.body["id"], made["id"]);
    let body = json!({"title": null, "metadata": {"a": null, "c": "d"}});
    let changed = world.post(&path, body).await.body;
    assert_eq!(
        (&changed["title"], &changed["metadata"]),
        (&Value::Null, &json!({"c": "d"}))
    );
    let body = json!({"agent": {"tools": [{"type": "custom", "name": "look_up",
        "description": "d", "input_schema": {"type": "object"}}]}});
    let changed = world.post(&path, body).await.body;
    assert_eq!(changed["agent"]["tools"][0]["name"], "look_up");
    let events = world.events(&text(&made, "id")).await;
    assert_eq!(kinds(&events), ["session.updated", "session.updated"]);
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_by_name() {
    let world = World::new().await;
    let agent = world.agent().await;
    let (cloud, _) = world.environment("cloud").await;
    let home = world.environment.clone();
    let file = json!([{"type": "file", "file_id": "file_1"}]);
    let store = json!([{"type": "memory_store", "memory_store_id": "ms_1"}]);
    let cases = [
        (
            json!({"agent": agent, "environment_id": cloud}),
            400,
            "cloud environment",
        ),
        (
            json!({"agent": agent, "environment_id": "env_x"}),
            404,
            "environment",
        ),
        (
            json!({"agent": "agent_x", "environment_id": home}),
            404,
            "agent",
        ),
        (
            json!({"agent": agent, "environment_id": home, "resources": file}),
            400,
            "file",
        ),
        (
            json!({"agent": agent, "environment_id": home, "resources": store}),
            400,
            "memory",
        ),
        (
            json!({"agent": agent, "environment_id": home, "vault_ids": ["v"]}),
            400,
            "vaults",
        ),
        (
            json!({"agent": agent, "environment_id": home, "budget": {"type": "limit"}}),
            400,
            "budget",
        ),
        (
            json!({"agent": agent, "environment_id": home, "initial_events": [{"type": "user.interrupt"}]}),
            400,
            "user.interrupt",
        ),
        (json!({"environment_id": home}), 400, "agent"),
    ];
    for (body, status, word) in cases {
        let refused = world.post("/v1/sessions", body).await;
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(refused.body.to_string().contains(word), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_session_may_begin_with_a_message() {
    let world = World::new().await;
    let first = crate::common::message(&json!([bash("a")]));
    let body = json!({"agent": world.agent().await, "environment_id": world.environment,
        "initial_events": [first]});
    let made = world.post("/v1/sessions", body).await.body;
    assert_eq!(world.calls(&text(&made, "id")).await.len(), 1);
}

#[tokio::test]
async fn sessions_are_listed_by_what_they_are() {
    let world = World::new().await;
    let agent = world.agent().await;
    let body = json!({"agent": agent, "environment_id": world.environment});
    let one = text(&world.post("/v1/sessions", body.clone()).await.body, "id");
    let two = text(&world.post("/v1/sessions", body).await.body, "id");
    let other = world.session().await;
    let listed = async |query: &str| -> Vec<String> {
        let answer = world.get(&format!("/v1/sessions?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let data = answer.body["data"].as_array().expect("a page").iter();
        data.map(|session| text(session, "id")).collect()
    };
    assert_eq!(listed("").await, [other.clone(), two.clone(), one.clone()]);
    assert_eq!(
        listed(&format!("agent_id={agent}&order=asc")).await,
        [one.clone(), two.clone()]
    );
    assert_eq!(
        listed(&format!("agent_id={agent}&agent_version=2")).await,
        [] as [String; 0]
    );
    assert_eq!(listed("statuses[]=running").await, [] as [String; 0]);
    assert_eq!(
        listed("statuses[]=running&statuses[]=idle&limit=1").await,
        [other]
    );
    assert_eq!(
        listed("created_at[gt]=2100-01-01T00%3A00%3A00Z").await,
        [] as [String; 0]
    );
    assert_eq!(listed("memory_store_id=ms_1").await, [] as [String; 0]);
    world
        .post(&format!("/v1/sessions/{one}/archive"), Value::Null)
        .await;
    assert_eq!(listed(&format!("agent_id={agent}")).await, [two]);
    assert_eq!(
        listed(&format!("agent_id={agent}&include_archived=true"))
            .await
            .len(),
        2
    );
    let page = world.get("/v1/sessions?limit=1").await.body;
    let next = format!("limit=1&page={}", text(&page, "next_page"));
    assert_eq!(listed(&next).await.len(), 1);
    let wrong = world.get("/v1/sessions?page=x").await;
    assert_eq!(wrong.status, 400);
    let abroad = world
        .call("GET", "/v1/sessions", FOREIGNER, &Value::Null)
        .await;
    assert_eq!(abroad.body["data"], json!([]));
}

#[tokio::test]
async fn an_archived_session_is_terminated_and_a_deleted_one_gone() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    let held = world.held().await;
    let path = format!("/v1/sessions/{session}");
    let archived = world
        .post(&format!("{path}/archive"), Value::Null)
        .await
        .body;
    assert_eq!(archived["status"], "terminated");
    let events = world.events(&session).await;
    assert_eq!(kinds(&events).last(), Some(&"session.status_terminated"));
    let late = world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    assert_eq!(late.status, 409, "{}", late.body);
    assert_eq!(late.headers["x-should-retry"], "false");
    let beaten = world
        .work(&held, "heartbeat", &world.key, Value::Null)
        .await
        .body;
    assert_eq!(
        (&beaten["state"], &beaten["lease_extended"]),
        (&json!("stopped"), &json!(false))
    );
    let deleted = world
        .call("DELETE", &path, OPERATOR, &Value::Null)
        .await
        .body;
    assert_eq!(deleted, json!({"id": session, "type": "session_deleted"}));
    assert_eq!(world.get(&path).await.status, 404);
    assert_eq!(world.get(&format!("{path}/events")).await.status, 404);
}

#[tokio::test]
async fn the_primary_thread_is_the_session() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    world.calls(&session).await;
    let path = format!("/v1/sessions/{session}/threads");
    let threads = world.get(&path).await.body;
    let thread = threads["data"][0].clone();
    assert_eq!(
        (&thread["session_id"], &thread["parent_thread_id"]),
        (&json!(session), &Value::Null)
    );
    let one = format!("{path}/{}", text(&thread, "id"));
    assert_eq!(world.get(&one).await.body["id"], thread["id"]);
    let events = world.get(&format!("{one}/events?limit=1000")).await.body;
    assert_eq!(
        events["data"].as_array().map(Vec::len),
        Some(world.events(&session).await.len())
    );
    assert_eq!(
        world
            .post(&format!("{one}/archive"), Value::Null)
            .await
            .status,
        400
    );
    let nothing = "0".repeat(26);
    assert_eq!(
        world.get(&format!("{path}/sthr_{nothing}")).await.status,
        404
    );
}

#[tokio::test]
async fn a_model_that_nobody_thinks_for_ends_the_turn_and_says_so() {
    let world = World::new().await;
    let body = json!({"name": "tester", "model": "claude-opus-9"});
    let agent = text(&world.post("/v1/agents", body).await.body, "id");
    let body = json!({"agent": agent, "environment_id": world.environment});
    let session = text(&world.post("/v1/sessions", body).await.body, "id");
    let hello = json!({"type": "user.message", "content": [{"type": "text", "text": "hello"}]});
    world.send(&session, OPERATOR, hello).await;
    world
        .until(&session, |last| last["type"] == "session.status_idle")
        .await;
    let events = world.events(&session).await;
    let error = events
        .iter()
        .find(|event| event["type"] == "session.error")
        .expect("an error");
    assert!(error.to_string().contains("claude-opus-9"), "{error}");
    assert!(error.to_string().contains("scripted"), "{error}");
}

#[tokio::test]
async fn a_call_that_must_be_confirmed_waits_for_it() {
    let world = World::new().await;
    let session = world.asking(&json!([[bash("a"), bash("b")]])).await;
    let calls = world.calls(&session).await;
    assert_eq!(calls.len(), 2, "both of one turn");
    let confirm = |call: &str, answer: &str| json!({"type": "user.tool_confirmation", "tool_use_id": call, "result": answer});
    let early = world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    assert_eq!(early.status, 400, "nothing was allowed yet: {}", early.body);
    world
        .send(&session, OPERATOR, confirm(&calls[0], "allow"))
        .await;
    world
        .send(&session, OPERATOR, confirm(&calls[1], "deny"))
        .await;
    let denied = world.send(&session, OPERATOR, result(&calls[1], "x")).await;
    assert_eq!(denied.status, 400, "{}", denied.body);
    let allowed = world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    assert_eq!(allowed.status, 200, "{}", allowed.body);
    world.finished(&session).await;
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_and_late_results_are_refused() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a"), bash("b")])).await;
    let calls = world.calls(&session).await;
    world
        .send(&session, OPERATOR, json!({"type": "user.interrupt"}))
        .await;
    world.finished(&session).await;
    let late = world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    assert_eq!(late.status, 400, "{}", late.body);
    world
        .send(
            &session,
            OPERATOR,
            crate::common::message(&json!([bash("c")])),
        )
        .await;
    let next = world.calls(&session).await;
    world.send(&session, OPERATOR, result(&next[0], "x")).await;
    world.finished(&session).await;
}

#[tokio::test]
async fn a_session_says_how_long_it_was_busy_and_what_it_used() {
    let world = World::new().await;
    let session = world.calling(&json!([bash("a")])).await;
    let calls = world.calls(&session).await;
    world.send(&session, OPERATOR, result(&calls[0], "x")).await;
    world.finished(&session).await;
    let path = format!("/v1/sessions/{session}");
    let shown = world.get(&path).await.body;
    let seconds = |shown: &Value| {
        shown["stats"]["duration_seconds"]
            .as_f64()
            .expect("seconds")
    };
    let active = shown["stats"]["active_seconds"].as_f64().expect("seconds");
    assert!((0.0..=seconds(&shown)).contains(&active), "{shown}");
    let usage = json!({"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
        "server_tool_use": {"web_fetch_requests": 0, "web_search_requests": 0},
        "active_seconds": active});
    assert_eq!(shown["usage"], usage, "and no cost");
    let threads = world.get(&format!("{path}/threads")).await.body;
    assert_eq!(threads["data"][0]["usage"], usage);
    let over = world
        .post(&format!("{path}/archive"), Value::Null)
        .await
        .body;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let later = world.get(&path).await.body;
    assert!(
        (seconds(&later) - seconds(&over)).abs() < 1e-9,
        "its time has ended"
    );
}
