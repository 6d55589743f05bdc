//! The vendor's operations and ours, as a client sees them.

use crate::common;
use crate::common::{World, certificate, config, request, text};
use mcp_tunnel_auth::{Approval, TunnelToken};
use serde_json::{Value, json};

#[tokio::test]
async fn a_tunnel_has_the_vendors_shape() {
    let world = World::new().await;
    let made = world
        .post(
            "/v1/tunnels?beta=true",
            json!({"display_name": "demo", "later": 1}),
        )
        .await;
    assert_eq!(made.status, 200);
    assert!(text(&made.body, "id").starts_with("tnl_"));
    assert!(text(&made.body, "domain").ends_with(".tunnel.example"));
    assert_eq!(made.body["type"], "tunnel");
    assert_eq!(made.body["display_name"], "demo");
    assert_eq!(made.body["archived_at"], Value::Null);
    assert!(made.body["created_at"].as_str().unwrap().ends_with('Z'));
    let id = made.headers["request-id"].to_str().unwrap();
    assert!(id.starts_with("req_"));
    let found = world
        .get(&format!("/v1/tunnels/{}", text(&made.body, "id")))
        .await;
    assert_eq!(found.body, made.body);
}

#[tokio::test]
async fn both_places_and_both_headers_are_one_api() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let bearer = format!("Bearer {}", world.home);
    let variants: [&[(&str, &str)]; 5] = [
        &[("authorization", &bearer)],
        &[("x-api-key", &world.home)],
        &[
            ("x-api-key", &world.home),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "mcp-tunnels-2026-06-22"),
        ],
        &[
            ("authorization", &bearer),
            ("anthropic-version", "2026-10-21"),
            ("anthropic-beta", "other-2026-01-01,mcp-tunnels-2026-05-19"),
            ("anthropic-workspace-id", common::HOME),
        ],
        &[("authorization", &bearer), ("x-stainless-lang", "python")],
    ];
    for headers in variants {
        for place in ["/v1/tunnels", "/v1/organizations/tunnels"] {
            let path = format!("{place}/{tunnel}?beta=true");
            let answer = world
                .send(request("GET", &path, headers, &Value::Null))
                .await;
            assert_eq!(answer.status, 200, "{path} {headers:?}: {}", answer.body);
        }
    }
    let key = ("x-api-key", world.home.as_str());
    let abroad = [key, ("anthropic-workspace-id", common::ABROAD)];
    let answer = world
        .send(request("GET", "/v1/tunnels", &abroad, &Value::Null))
        .await;
    assert_eq!(answer.status, 403);
    let odd = [key, ("anthropic-version", "latest")];
    let answer = world
        .send(request("GET", "/v1/tunnels", &odd, &Value::Null))
        .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn errors_are_envelopes_that_repeat_the_request_id() {
    let world = World::new().await;
    for (method, path, status, kind) in [
        ("GET", "/v1/tunnels/tnl_none", 404, "not_found_error"),
        ("GET", "/v1/tunnels/%FF%FE", 404, "not_found_error"),
        ("GET", "/v1/nothing", 404, "not_found_error"),
        ("DELETE", "/v1/tunnels", 405, "invalid_request_error"),
        ("GET", "/v1/tunnels?limit=0", 400, "invalid_request_error"),
        (
            "GET",
            "/v1/tunnels?page=nonsense",
            400,
            "invalid_request_error",
        ),
    ] {
        let answer = world.call(method, path, &world.home, &Value::Null).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.body["type"], "error");
        assert_eq!(answer.body["error"]["type"], kind);
        assert_eq!(
            answer.body["request_id"],
            answer.headers["request-id"].to_str().unwrap()
        );
    }
    let page = tunnels_page(&world, "limit=1").await;
    assert_eq!(page, (vec![], None));
}

async fn tunnels_page(world: &World, query: &str) -> (Vec<String>, Option<String>) {
    let answer = world.get(&format!("/v1/tunnels?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let names = answer.body["data"].as_array().expect("a page").iter();
    (
        names.map(|tunnel| text(tunnel, "display_name")).collect(),
        answer.body["next_page"].as_str().map(str::to_owned),
    )
}

#[tokio::test]
async fn pages_are_newest_first_and_opaque() {
    let world = World::new().await;
    let first = world.tunnel("1").await;
    for name in ["2", "3", "4", "5"] {
        world.tunnel(name).await;
    }
    let (names, next) = tunnels_page(&world, "limit=2").await;
    assert_eq!(names, ["5", "4"]);
    let next = next.unwrap();
    assert!(!next.contains("tnl_"));
    let (names, after) = tunnels_page(&world, &format!("limit=2&page={next}")).await;
    assert_eq!(names, ["3", "2"]);
    let (names, end) = tunnels_page(&world, &format!("limit=2&page={}", after.unwrap())).await;
    assert_eq!((names, end), (vec!["1".to_owned()], None));
    world
        .post(&format!("/v1/tunnels/{first}/archive"), Value::Null)
        .await;
    let (names, _) = tunnels_page(&world, "").await;
    assert_eq!(names.len(), 4);
    let (names, _) = tunnels_page(&world, "include_archived=true").await;
    assert_eq!(names.len(), 5);
    // A page token of one listing is none of another.
    let answer = world.get(&format!("/v1/caller_keys?page={next}")).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn names_have_one_to_255_characters() {
    let world = World::new().await;
    for (name, status) in [
        (json!("ä".repeat(255)), 200),
        (json!("a".repeat(256)), 400),
        (json!(""), 400),
        (json!(null), 200),
        (json!(7), 400),
        (
            json!("mck_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7"),
            400,
        ),
    ] {
        let answer = world
            .post("/v1/tunnels", json!({ "display_name": name }))
            .await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
    }
    let unnamed = world.post("/v1/tunnels", Value::Null).await;
    assert_eq!(unnamed.body["display_name"], Value::Null);
}

#[tokio::test]
async fn a_token_is_revealed_rotated_and_never_cached() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let path = |action: &str| format!("/v1/tunnels/{tunnel}/{action}");
    let first = world.post(&path("reveal_token"), Value::Null).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.headers["cache-control"], "no-store");
    assert_eq!(first.body["type"], "tunnel_token");
    let token = TunnelToken::parse(&text(&first.body, "tunnel_token")).unwrap();
    assert_eq!(token.tunnel_id.to_string(), tunnel);
    assert_eq!(token.token_id.to_string(), text(&first.body, "id"));
    assert_eq!(
        (token.edge_host.as_str(), token.edge_port),
        ("edge.example", 7844)
    );
    let again = world.post(&path("reveal_token"), Value::Null).await;
    assert_eq!(again.body, first.body);

    let reason = json!({ "reason": "it leaked" });
    let rotated = world.post(&path("rotate_token"), reason).await;
    assert_eq!(rotated.headers["cache-control"], "no-store");
    assert_ne!(rotated.body["id"], first.body["id"]);
    assert_ne!(rotated.body["tunnel_token"], first.body["tunnel_token"]);
    let revealed = world.post(&path("reveal_token"), Value::Null).await;
    assert_eq!(revealed.body, rotated.body);
    let audit = world.audit().await;
    let rotation = audit
        .iter()
        .find(|row| row.action == "tunnel_token.rotate")
        .unwrap();
    assert_eq!(rotation.change.reason.as_deref(), Some("it leaked"));
    assert_eq!(rotation.change.address, Some([192, 0, 2, 1].into()));
    assert!(rotation.change.actor.starts_with("api_key:akey_"));
}

#[tokio::test]
async fn the_audit_is_read_by_pages_and_of_ones_own_workspace_only() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let reason = json!({ "reason": "it leaked" });
    let path = format!("/v1/tunnels/{tunnel}/rotate_token");
    let rotated = world.post(&path, reason).await.body;
    let newest = world.get("/v1/audit?limit=1").await.body;
    let entry = &newest["data"][0];
    assert_eq!(entry["type"], "audit_entry");
    assert_eq!(entry["action"], "tunnel_token.rotate");
    assert_eq!(entry["object_id"], rotated["id"]);
    assert_eq!(entry["reason"], "it leaked");
    assert_eq!(entry["address"], "192.0.2.1");
    assert!(text(entry, "actor").starts_with("api_key:akey_"));
    assert!(text(entry, "created_at").ends_with('Z'));

    // Page by page it is the whole, each row once, and nothing of another workspace.
    let mut ids = Vec::new();
    let mut path = "/v1/audit?limit=1".to_owned();
    loop {
        let page = world.get(&path).await.body;
        let rows = page["data"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{page}");
        ids.push(text(&rows[0], "id"));
        match page["next_page"].as_str() {
            Some(next) => path = format!("/v1/audit?limit=1&page={next}"),
            None => break,
        }
    }
    let whole: Vec<String> = world
        .audit()
        .await
        .into_iter()
        .map(|row| row.change.audit_id)
        .collect();
    assert!(whole.len() >= 3, "the key, the tunnel, the rotation");
    assert_eq!(ids, whole);
    let abroad = world
        .call("GET", "/v1/audit", &world.abroad, &Value::Null)
        .await;
    let abroad = abroad.body["data"].as_array().unwrap();
    assert!(!abroad.is_empty());
    assert!(abroad.iter().all(|row| !ids.contains(&text(row, "id"))));
    let wrong = world.get("/v1/audit?page=dG5sXzAx").await;
    assert_eq!(wrong.status, 400, "{}", wrong.body);
}

#[tokio::test]
async fn archiving_ends_a_tunnel_and_may_be_repeated() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let path = |action: &str| format!("/v1/tunnels/{tunnel}/{action}");
    let pem = json!({ "ca_certificate_pem": certificate() });
    let certificate = world.post(&path("certificates"), pem.clone()).await;
    let archived = world.post(&path("archive"), Value::Null).await;
    assert!(archived.body["archived_at"].is_string());
    let again = world.post(&path("archive"), Value::Null).await;
    assert_eq!(again.body, archived.body);
    let id = text(&certificate.body, "id");
    let kept = world.get(&path(&format!("certificates/{id}"))).await;
    assert_eq!(kept.body["archived_at"], archived.body["archived_at"]);
    for (action, body) in [
        ("reveal_token", Value::Null),
        ("rotate_token", Value::Null),
        ("certificates", pem),
        ("settings", json!({"approval": "auto"})),
    ] {
        let refused = world.post(&path(action), body).await;
        assert_eq!(refused.status, 409, "{action}: {}", refused.body);
        assert_eq!(refused.headers["x-should-retry"], "false");
        assert!(
            refused.body["error"]["message"]
                .as_str()
                .unwrap()
                .contains("archived")
        );
    }
}

#[tokio::test]
async fn certificates_are_judged_capped_and_archived() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let path = format!("/v1/tunnels/{tunnel}/certificates");
    let wrong = world
        .post(&path, json!({ "ca_certificate_pem": "hello" }))
        .await;
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.body["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("ca_certificate_pem: ")
    );
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = world
            .post(&path, json!({ "ca_certificate_pem": certificate() }))
            .await;
        assert_eq!(made.status, 200, "{}", made.body);
        assert_eq!(made.body["type"], "tunnel_certificate");
        assert_eq!(made.body["tunnel_id"], tunnel.as_str());
        assert_eq!(text(&made.body, "fingerprint").len(), 64);
        ids.push(text(&made.body, "id"));
    }
    let third = world
        .post(&path, json!({ "ca_certificate_pem": certificate() }))
        .await;
    assert_eq!(third.status, 409);
    for id in &ids {
        let archived = world
            .post(&format!("{path}/{id}/archive"), Value::Null)
            .await;
        assert_eq!(archived.status, 200);
        assert!(archived.body["archived_at"].is_string());
    }
    assert_eq!(world.get(&path).await.body["data"], json!([]));
    let all = world
        .get(&format!("{path}?include_archived=true&limit=1"))
        .await;
    assert_eq!(all.body["data"][0]["id"], ids[1].as_str());
    assert!(all.body["next_page"].is_string());
}

#[tokio::test]
async fn a_caller_key_is_shown_once() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let body = json!({
        "name": "laptop",
        "tunnel_ids": [tunnel],
        "routes": ["docs"],
        "expires_at": "2100-01-01T00:00:00Z",
    });
    let made = world.post("/v1/caller_keys", body).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.headers["cache-control"], "no-store");
    assert!(text(&made.body, "key").starts_with("mck_"));
    let listed = world.get("/v1/caller_keys").await;
    assert_eq!(listed.body["data"][0]["name"], "laptop");
    assert_eq!(listed.body["data"][0]["tunnel_ids"], json!([tunnel]));
    assert_eq!(listed.body["data"][0].get("key"), None);
    let id = text(&made.body, "id");
    let revoked = world
        .post(&format!("/v1/caller_keys/{id}/revoke"), Value::Null)
        .await;
    assert!(revoked.body["revoked_at"].is_string());
    assert_eq!(world.get("/v1/caller_keys").await.body["data"], json!([]));
    for (wrong, status) in [
        (json!({}), 400),
        (
            json!({"name": "x", "expires_at": "2000-01-01T00:00:00Z"}),
            400,
        ),
        (json!({"name": "x", "expires_at": "soon"}), 400),
        (json!({"name": "x", "routes": ["a--b"]}), 400),
        (json!({"name": "x", "routes": []}), 400),
        (json!({"name": "x", "tunnel_ids": ["tnl_none"]}), 404),
        (
            json!({"name": "x", "tunnel_ids": [format!("tnl_{}", "0".repeat(26))]}),
            404,
        ),
    ] {
        let answer = world.post("/v1/caller_keys", wrong.clone()).await;
        assert_eq!(answer.status, status, "{wrong}: {}", answer.body);
    }
}

#[tokio::test]
async fn new_tunnels_approve_as_the_console_is_set_up() {
    let world = World::with(config().with_approval(Approval::Auto), |sqlite| sqlite).await;
    let tunnel = world.tunnel("a").await;
    let settings = world.get(&format!("/v1/tunnels/{tunnel}/settings")).await;
    assert_eq!(settings.body["approval"], "auto");
    assert_eq!(settings.body["caller_auth"], "key");
    assert_eq!(settings.body["open_to_any_caller"], false);
}

#[tokio::test]
async fn a_workspace_has_its_most_tunnels() {
    let world = World::with(config().with_tunnels_most(1), |sqlite| sqlite).await;
    world.tunnel("a").await;
    let second = world.post("/v1/tunnels", Value::Null).await;
    assert_eq!(second.status, 409);
    assert!(
        second.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("archive one first")
    );
}

#[tokio::test]
async fn a_full_disk_is_named_with_its_cure_and_nothing_is_lost() {
    let world = World::with(config(), |sqlite| sqlite.with_most_bytes(320 * 1024)).await;
    let mut made = 0;
    let full = loop {
        let answer = world
            .post("/v1/tunnels", json!({ "display_name": "x".repeat(255) }))
            .await;
        if answer.status != 200 {
            break answer;
        }
        made += 1;
    };
    assert_eq!(full.status, 503, "{}", full.body);
    assert_eq!(full.body["error"]["type"], "api_error");
    assert!(text(&full.body["error"], "message").contains("free some space"));
    assert_eq!(full.headers["retry-after"], "5");
    let listed = world.get("/v1/tunnels?limit=1000").await;
    assert_eq!(listed.body["data"].as_array().unwrap().len(), made);
    assert_eq!(world.console.snapshots().borrow().tunnels().len(), made);
}
