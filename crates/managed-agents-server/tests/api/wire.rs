//! Headers, versions, limits and what is not served.

use managed_agents_server::RateLimits;
use serde_json::{Value, json};

use crate::common::{Stage, World, named, request};

#[tokio::test]
async fn both_headers_and_every_version_are_taken() {
    let world = World::new(Stage::Acknowledged).await;
    let bearer = format!("Bearer {}", world.admin());
    let agents = "/v1/agents?beta=true&later=1";
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (credential, version, trace) in [
        (("x-api-key", world.admin()), "2023-06-01", trace),
        (
            ("authorization", bearer),
            "2026-10-21",
            "no trace \u{fc} at all",
        ),
    ] {
        let headers = [
            (credential.0, credential.1.as_str()),
            ("anthropic-version", version),
            (
                "anthropic-beta",
                "managed-agents-2026-04-01,later-2030-01-01",
            ),
            ("anthropic-workspace-id", "home"),
            ("traceparent", trace),
            ("tracestate", "a=b"),
            ("baggage", "c=d"),
        ];
        let answer = world
            .send(request("GET", agents, &headers, &Value::Null))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let id = answer.headers["request-id"].to_str().unwrap();
        assert!(id.starts_with("req_"), "{id}");
    }
    let admin = world.admin();
    for (name, value, status) in [
        ("anthropic-version", "newest", 400),
        ("anthropic-workspace-id", "abroad", 403),
    ] {
        let headers = [("x-api-key", admin.as_str()), (name, value)];
        let answer = world
            .send(request("GET", agents, &headers, &Value::Null))
            .await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let id = answer.headers["request-id"].to_str().unwrap();
        assert_eq!(answer.body["request_id"], id);
        let told = answer.body["error"]["message"].as_str().unwrap();
        assert!(told.starts_with(name), "{told}");
    }
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let world = World::new(Stage::Acknowledged).await;
    for path in [
        "/v1/memory_stores",
        "/v1/memory_stores/memstore_1/memories",
        "/v1/vaults",
        "/v1/files/file_1/content",
        "/v1/organizations/webhooks",
        "/v1/deployments/depl_1/run",
        "/v1/messages",
        "/v1/messages/batches",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = world.call(method, path, &world.admin(), &Value::Null).await;
            assert_eq!(answer.status, 404, "{method} {path}");
            let error = &answer.body["error"];
            assert_eq!(error["details"]["error_code"], "not_served", "{path}");
            let told = error["message"].as_str().unwrap();
            assert!(told.contains("not served here yet"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_workspace_that_asks_too_much_is_told_when_to_ask_again() {
    let mut limits = RateLimits::default();
    // As many as the world itself needs, and one.
    limits.writes_per_minute = Some(8);
    let world = World::with(Stage::Acknowledged, |config| {
        config.with_rate_limits(limits)
    })
    .await;
    let path = "/v1/environments";
    let mut refused = None;
    for _ in 0..9 {
        let answer = world
            .call("POST", path, &world.admin(), &named(&world))
            .await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a limit");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.body["error"]["type"], "rate_limit_error");
    let after: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&after), "{after}");
    world.get("/v1/environments").await;
    let poll = world.path("/v1/environments/{environment}/work/poll");
    let answer = world.call("GET", &poll, &world.key, &Value::Null).await;
    assert_eq!(answer.status, 200, "workers are not counted");
}

#[tokio::test]
async fn a_conflict_that_no_retry_cures_says_so() {
    let world = World::new(Stage::Acknowledged).await;
    let path = world.path("/v1/agents/{agent}");
    let late = json!({ "version": 7, "name": "late" });
    let answer = world.call("POST", &path, &world.admin(), &late).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert_eq!(answer.headers["x-should-retry"], "false");
    assert_eq!(answer.body["error"]["type"], "conflict_error");
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let world = World::new(Stage::Acknowledged).await;
    let poll = world.path("/v1/environments/{environment}/work/poll");
    let answer = world.call("GET", &poll, &world.key, &Value::Null).await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, Value::Null));
    let why = json!({ "reason": "its host is gone" });
    world
        .post("/v1/environments/{environment}/keys/{key}/revoke", &why)
        .await;
    let answer = world.call("GET", &poll, &world.key, &Value::Null).await;
    assert_eq!(answer.status, 401, "{}", answer.body);
}

#[tokio::test]
async fn keys_of_an_archived_environment_are_told_so() {
    let world = World::new(Stage::Acknowledged).await;
    world
        .post("/v1/environments/{environment}/archive", &Value::Null)
        .await;
    let poll = world.path("/v1/environments/{environment}/work/poll");
    let answer = world.call("GET", &poll, &world.key, &Value::Null).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let code = &answer.body["error"]["details"]["error_code"];
    assert_eq!(code, "environment_archived");
}

#[tokio::test]
async fn the_audit_is_read_by_pages_and_of_ones_own_workspace_only() {
    let world = World::new(Stage::Acknowledged).await;
    let why = json!({ "reason": "its host is gone" });
    world
        .post("/v1/environments/{environment}/keys/{key}/revoke", &why)
        .await;
    let first = world.get("/v1/audit/sessions?limit=2").await;
    let newest = &first["data"][0];
    assert_eq!(newest["action"], "environment_key.revoke");
    assert_eq!(newest["object_id"], world.id("{key}"));
    assert_eq!(newest["reason"], "its host is gone");
    assert_eq!(newest["actor"], "user:home");
    let mut actions = Vec::new();
    let mut next = first;
    loop {
        let rows = next["data"].as_array().unwrap().clone();
        actions.extend(rows.iter().map(|row| row["action"].clone()));
        let Some(page) = next["next_page"].as_str() else {
            break;
        };
        let path = format!("/v1/audit/sessions?limit=2&page={page}");
        next = world.get(&path).await;
    }
    assert_eq!(
        json!(actions),
        json!([
            "environment_key.revoke",
            "skill_version.create",
            "skill.create",
            "agent.create",
            "environment_key.create",
            "environment.create",
            "environment.create"
        ])
    );
    let abroad = "abroad/audit:read";
    let path = "/v1/audit/sessions";
    let answer = world.call("GET", path, abroad, &Value::Null).await;
    assert_eq!(answer.body["data"], json!([]));
}
