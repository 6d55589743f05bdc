//! What edges report, what people decide, and what edges are told of it.

use std::sync::Arc;
use std::time::Duration;

use crate::common;
use crate::common::{World, config, text};
use mcp_console::store::{SqliteConfig, TunnelStore as _};
use mcp_tunnel_auth::{
    AccessSnapshot, Announcement, ApprovalCode, CallerKey, DownReason, GatewayKey, GatewayState,
    LinkCredential, LinkId, LinkIdentity, LinkRefusal, LinkReport, LinkReportKind, RouteName,
    TokenId, TokenState, TunnelId, TunnelToken,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn snapshot(world: &World) -> Arc<AccessSnapshot> {
    Arc::clone(&world.console.snapshots().borrow())
}

/// A gateway that holds a tunnel's token, as the console hears of it.
struct Gateway {
    token: TunnelToken,
    key: GatewayKey,
    links: u8,
}

impl Gateway {
    async fn new(world: &World, tunnel: &str) -> Self {
        let path = format!("/v1/tunnels/{tunnel}/reveal_token");
        let revealed = world.post(&path, Value::Null).await;
        Self {
            token: TunnelToken::parse(&text(&revealed.body, "tunnel_token")).expect("a token"),
            key: GatewayKey::from_bytes([9; 32]),
            links: 0,
        }
    }

    fn report(&self, kind: LinkReportKind) -> LinkReport {
        let identity = LinkIdentity::new(
            self.token.tunnel_id,
            self.token.token_id,
            self.key.public_key(),
        );
        let routes = vec![RouteName::default()];
        let announcement = Announcement::new("1.2.3", "host", routes).expect("an announcement");
        let link = LinkId::new(1, &[self.links; 10]);
        let address = ([198, 51, 100, self.links], 1000).into();
        LinkReport::new(
            link,
            identity,
            address,
            announcement,
            1_790_000_000_000,
            kind,
        )
    }

    async fn reports(&self, world: &World, kind: LinkReportKind) {
        world.console.record(self.report(kind)).await;
    }

    fn waits() -> LinkReportKind {
        let approval_code = ApprovalCode::from_entropy([1, 2, 3, 4, 5]);
        LinkReportKind::Pending { approval_code }
    }

    /// What an edge would say to it now.
    fn judged(&self, world: &World) -> Result<mcp_tunnel_auth::LinkDecision, LinkRefusal> {
        let announcement = Announcement::new("1.2.3", "host", vec![]).expect("an announcement");
        let credential = LinkCredential::sign(&self.token, &self.key, &[1; 32], announcement);
        snapshot(world).judge_link(&credential, &self.token.edge_name, &[1; 32])
    }
}

async fn connections(world: &World, tunnel: &str) -> Value {
    let answer = world
        .get(&format!("/v1/tunnels/{tunnel}/connections"))
        .await;
    assert_eq!(answer.status, 200);
    answer.body["data"].clone()
}

#[tokio::test]
async fn a_gateway_waits_until_a_person_lets_it_in() {
    use mcp_tunnel_auth::LinkDecision::{Active, Pending};
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let gateway = Gateway::new(&world, &tunnel).await;
    assert_eq!(gateway.judged(&world), Ok(Pending));
    gateway.reports(&world, Gateway::waits()).await;
    let waiting = connections(&world, &tunnel).await[0].clone();
    assert_eq!(waiting["type"], "tunnel_connection");
    assert_eq!(waiting["status"], "pending");
    assert_eq!(waiting["approval_code"], "0410-6105");
    assert_eq!(waiting["remote_address"], "198.51.100.0:1000");
    assert_eq!(waiting["gateway_version"], "1.2.3");
    assert_eq!(waiting["routes"], json!(["mcp"]));
    assert_eq!(
        waiting["tunnel_token_id"],
        gateway.token.token_id.to_string()
    );
    let fingerprint = gateway.key.public_key().fingerprint().to_string();
    assert_eq!(waiting["gateway_key_fingerprint"], fingerprint);

    let path = format!("/v1/tunnels/{tunnel}/connections/{}", text(&waiting, "id"));
    let other = GatewayKey::from_bytes([8; 32])
        .public_key()
        .fingerprint()
        .to_string();
    let body = json!({ "gateway_key_fingerprint": other });
    let refused = world.post(&format!("{path}/approve"), body).await;
    assert_eq!(refused.status, 409);
    assert_eq!(
        refused.body["error"]["details"]["error_code"],
        "fingerprint_mismatch"
    );
    assert_eq!(gateway.judged(&world), Ok(Pending));
    let body = json!({ "gateway_key_fingerprint": "SHA256:short" });
    assert_eq!(
        world.post(&format!("{path}/approve"), body).await.status,
        400
    );

    let body = json!({ "gateway_key_fingerprint": fingerprint });
    let approved = world.post(&format!("{path}/approve"), body).await;
    assert_eq!(approved.body["status"], "disconnected");
    assert!(
        matches!(gateway.judged(&world), Ok(Active { .. })),
        "edges are told before the answer"
    );

    gateway.reports(&world, LinkReportKind::Up).await;
    let time = Duration::from_millis(12);
    gateway
        .reports(&world, LinkReportKind::RoundTrip { time })
        .await;
    let up = connections(&world, &tunnel).await[0].clone();
    assert_eq!(
        (&up["status"], &up["live_links"]),
        (&json!("active"), &json!(1))
    );
    assert_eq!(up["rtt_ms"], 12.0);
    let reason = DownReason::Closed;
    gateway
        .reports(&world, LinkReportKind::Down { reason })
        .await;
    let down = connections(&world, &tunnel).await[0].clone();
    assert_eq!(down["status"], "disconnected");
    assert_eq!(down["rtt_ms"], Value::Null);

    let out = world
        .post(&format!("{path}/refuse"), json!({"reason": "left"}))
        .await;
    assert_eq!(out.body["status"], "refused");
    assert_eq!(gateway.judged(&world), Err(LinkRefusal::GatewayRefused));
}

#[tokio::test]
async fn one_key_from_two_addresses_is_shown_as_such() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let mut gateway = Gateway::new(&world, &tunnel).await;
    let fingerprint = gateway.key.public_key().fingerprint().to_string();
    let body = json!({ "gateway_key_fingerprint": fingerprint });
    let path = format!("/v1/tunnels/{tunnel}/connections");
    assert_eq!(world.post(&path, body).await.body["status"], "disconnected");
    for link in 1..=2 {
        gateway.links = link;
        gateway.reports(&world, LinkReportKind::Up).await;
    }
    let shown = connections(&world, &tunnel).await[0].clone();
    assert_eq!(
        (&shown["live_links"], &shown["several_addresses"]),
        (&json!(2), &json!(true))
    );
}

#[tokio::test]
async fn a_disconnection_closes_what_was_admitted_before() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let gateway = Gateway::new(&world, &tunnel).await;
    let identity = LinkIdentity::new(
        gateway.token.tunnel_id,
        gateway.token.token_id,
        gateway.key.public_key(),
    );
    let fingerprint = gateway.key.public_key().fingerprint().to_string();
    let path = format!("/v1/tunnels/{tunnel}/connections");
    let made = world
        .post(&path, json!({ "gateway_key_fingerprint": fingerprint }))
        .await;
    let admitted_under = snapshot(&world).number();
    let path = format!("{path}/{}/disconnect", text(&made.body, "id"));
    assert_eq!(world.post(&path, Value::Null).await.status, 200);
    let now = snapshot(&world);
    assert_eq!(
        now.rejudge(&identity, admitted_under),
        Err(LinkRefusal::Disconnected)
    );
    assert!(
        now.rejudge(&identity, now.number()).is_ok(),
        "it may come back"
    );
}

#[tokio::test]
async fn rotation_and_archival_reach_edges_before_the_answer() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let gateway = Gateway::new(&world, &tunnel).await;
    world
        .post(&format!("/v1/tunnels/{tunnel}/rotate_token"), Value::Null)
        .await;
    assert_eq!(gateway.judged(&world), Err(LinkRefusal::TokenRotated));
    let id = TunnelId::parse(&tunnel).unwrap();
    let tokens = snapshot(&world).tunnel_by_id(&id).unwrap().tokens.clone();
    assert_eq!(tokens.len(), 2);
    assert_eq!(tokens[0].state, TokenState::Current);
    world
        .post(&format!("/v1/tunnels/{tunnel}/archive"), Value::Null)
        .await;
    assert_eq!(gateway.judged(&world), Err(LinkRefusal::Unrecognised));
    assert!(snapshot(&world).tunnel_by_id(&id).is_none());
}

#[tokio::test]
async fn a_caller_key_reaches_edges_and_leaves_them() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let made = world.post("/v1/caller_keys", json!({"name": "x"})).await;
    let key = CallerKey::parse(&text(&made.body, "key")).unwrap();
    let id = TunnelId::parse(&tunnel).unwrap();
    let allowed = |world: &World| {
        let snapshot = snapshot(world);
        let tunnel = snapshot.tunnel_by_id(&id);
        snapshot
            .authorise_caller(Some(&key), tunnel, &RouteName::default(), 0)
            .is_ok()
    };
    assert!(allowed(&world));
    let path = format!("/v1/caller_keys/{}/revoke", text(&made.body, "id"));
    world.post(&path, Value::Null).await;
    assert!(!allowed(&world));
}

#[tokio::test]
async fn an_automatic_gateway_gets_its_row_when_it_is_up() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let path = format!("/v1/tunnels/{tunnel}/settings");
    world.post(&path, json!({"approval": "auto"})).await;
    let gateway = Gateway::new(&world, &tunnel).await;
    assert!(gateway.judged(&world).is_ok());
    gateway.reports(&world, LinkReportKind::Up).await;
    assert_eq!(connections(&world, &tunnel).await[0]["status"], "active");
    let audit = world.audit().await;
    assert!(
        audit
            .iter()
            .any(|row| row.action == "connection.approve" && row.change.actor == "edge")
    );
}

#[tokio::test]
async fn snapshots_are_numbered_and_said_again() {
    let often = config().with_republish(Duration::from_millis(20));
    let world = World::with(often, |sqlite| sqlite).await;
    world.tunnel("a").await;
    let mut snapshots = world.console.snapshots();
    let mut last = Arc::clone(&snapshots.borrow_and_update());
    let stop = CancellationToken::new();
    let run = world.console.run(stop.clone());
    let watch = async {
        for _ in 0..3 {
            snapshots.changed().await.unwrap();
            let again = Arc::clone(&snapshots.borrow_and_update());
            assert!(again.supersedes(&last), "though nothing changed");
            assert_eq!(again.tunnels().len(), 1);
            last = again;
        }
        stop.cancel();
    };
    tokio::join!(run, watch);
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_close_links_again() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let id = TunnelId::parse(&tunnel).unwrap();
    let path = format!("/v1/tunnels/{tunnel}/connections");
    let fingerprint = GatewayKey::from_bytes([9; 32]).public_key().fingerprint();
    let made = world
        .post(
            &path,
            json!({ "gateway_key_fingerprint": fingerprint.to_string() }),
        )
        .await;
    // As if the row had been written when the clock was a year ahead.
    use mcp_console::store::{Change, GatewayStore as _};
    use mcp_tunnel_auth::{ConnectionId, WorkspaceId};
    let ahead = snapshot(&world).number() + 365 * 86_400_000;
    let gateway = ConnectionId::parse(&text(&made.body, "id")).unwrap();
    let home = WorkspaceId::parse(common::HOME).unwrap();
    let change = Change::new("audit_zz", home, "test", jiff::Timestamp::now());
    world
        .store
        .disconnect(&change, id, gateway, ahead)
        .await
        .unwrap();
    world.tunnel("b").await;
    let now = snapshot(&world);
    assert!(now.number() >= ahead);
    let row = &now.tunnel_by_id(&id).unwrap().gateways[0];
    assert_eq!((row.state, row.links_from), (GatewayState::Approved, ahead));
}

#[tokio::test]
async fn numbers_go_on_after_a_start_with_a_clock_that_went_back() {
    let world = World::new().await;
    // As if the console before had run when the clock was a year ahead.
    let ahead = snapshot(&world).number() + 365 * 86_400_000;
    world.store.note_snapshot(ahead).await.unwrap();
    let again = world.again(config()).await;
    assert_eq!(snapshot(&again).number(), ahead + 1);
    again.tunnel("a").await;
    assert_eq!(snapshot(&again).number(), ahead + 2);
    let third = world.again(config()).await;
    assert_eq!(snapshot(&third).number(), ahead + 3, "each is kept");
}

#[tokio::test]
async fn the_audit_is_kept_as_long_as_the_console_is_told() {
    let often = config()
        .with_republish(Duration::from_millis(20))
        .with_audit_kept(Duration::ZERO);
    let world = World::with(often, |sqlite| sqlite).await;
    world.tunnel("a").await;
    assert!(!world.audit().await.is_empty());
    let stop = CancellationToken::new();
    let run = world.console.run(stop.clone());
    let watch = async {
        while !world.audit().await.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(run, watch);
}

#[tokio::test]
async fn a_report_that_the_store_did_not_take_is_written_later() {
    let impatient = |sqlite: SqliteConfig| sqlite.with_busy_timeout(Duration::from_millis(100));
    let world = World::with(config(), impatient).await;
    let tunnel = world.tunnel("a").await;
    let gateway = Gateway::new(&world, &tunnel).await;
    let held = sqlite_lock(&world).await;
    gateway.reports(&world, Gateway::waits()).await;
    let refused = world.post("/v1/tunnels", Value::Null).await;
    assert_eq!(refused.status, 529);
    assert_eq!(refused.body["error"]["type"], "overloaded_error");
    held.rollback().await.unwrap();
    assert_eq!(connections(&world, &tunnel).await, json!([]));
    let mut changes = world.store.changes();
    let stop = CancellationToken::new();
    let run = world.console.run(stop.clone());
    let watch = async {
        changes.changed().await.unwrap();
        stop.cancel();
    };
    tokio::join!(run, watch);
    assert_eq!(connections(&world, &tunnel).await[0]["status"], "pending");
}

/// Another process that holds the file, so that no write goes through.
async fn sqlite_lock(world: &World) -> sqlx::Transaction<'static, sqlx::Sqlite> {
    let pool = pool(&world.file).await;
    pool.begin_with("BEGIN IMMEDIATE").await.expect("the lock")
}

async fn pool(file: &std::path::Path) -> sqlx::SqlitePool {
    let url = format!("sqlite://{}", file.display());
    sqlx::SqlitePool::connect(&url).await.expect("a pool")
}

#[tokio::test]
async fn another_master_key_reveals_nothing_until_the_old_one_is_back() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let path = format!("/v1/tunnels/{tunnel}/reveal_token");
    let first = world.post(&path, Value::Null).await;
    let domain = config().domain().clone();
    let edge = (
        mcp_tunnel_auth::HostName::parse("edge.example").unwrap(),
        7844,
    );
    let new = || mcp_tunnel_auth::MasterKey::from_bytes([8; 32]);
    let old = mcp_tunnel_auth::MasterKey::from_bytes([7; 32]);
    let config = mcp_console::Config::new(new(), domain.clone(), edge.clone());
    let lost = world.again(config).await;
    let refused = lost.post(&path, Value::Null).await;
    assert_eq!(refused.status, 503);
    assert!(text(&refused.body["error"], "message").contains("rotate the token"));
    let config = mcp_console::Config::new(new(), domain, edge).with_older_master(old);
    let back = world.again(config).await;
    assert_eq!(back.post(&path, Value::Null).await.body, first.body);
    let rotate = format!("/v1/tunnels/{tunnel}/rotate_token");
    assert_eq!(back.post(&rotate, Value::Null).await.status, 200);
    let in_use = mcp_console::store::TunnelStore::master_keys_in_use(&*world.store)
        .await
        .unwrap();
    assert_eq!(in_use, [new().id()], "the old key may go");
}

#[tokio::test]
async fn a_restored_backup_brings_no_leaked_token_back() {
    let world = World::new().await;
    let tunnel = world.tunnel("a").await;
    let rotate = format!("/v1/tunnels/{tunnel}/rotate_token");
    let backup = world.file.with_extension("backup");
    let copy = format!("VACUUM INTO '{}'", backup.display());
    let pool = pool(&world.file).await;
    sqlx::query(sqlx::AssertSqlSafe(copy))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    // Rotated, leaked, then the backup of before is restored, and rotated again.
    let leaked = world.post(&rotate, Value::Null).await;
    let restored = world.restored(&backup).await;
    let fresh = restored.post(&rotate, Value::Null).await;
    assert_eq!(fresh.status, 200, "{}", fresh.body);
    assert_ne!(fresh.body["id"], leaked.body["id"]);
    assert_ne!(fresh.body["tunnel_token"], leaked.body["tunnel_token"]);
    let token = TunnelToken::parse(&text(&leaked.body, "tunnel_token")).unwrap();
    let id = TokenId::parse(&text(&leaked.body, "id")).unwrap();
    assert_eq!(token.token_id, id);
    let tunnel = snapshot(&restored)
        .tunnel_by_id(&token.tunnel_id)
        .cloned()
        .unwrap();
    assert!(
        tunnel.tokens.iter().all(|token| token.id != id),
        "the leaked one is unknown"
    );
}
