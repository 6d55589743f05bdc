//! A program with users of its own takes in the whole cloud side of tunnels: console and edge in its axum router.
//!
//! `cargo run -p embed --example axum_own_auth`
//!
//! ```text
//!   users ── /v1/… ──► ┌── axum router ──┐ ◄── /t/TUNNEL/ROUTE/mcp ── MCP clients
//!                      │ own pages       │
//!                      │ console.router()│ ──► snapshots ──► edge ◄── TLS ── gateway ──► MCP server
//!                      │ edge.ingress()  │ ◄── reports ──────┘
//!                      └─────────────────┘
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Json, Router, routing};
use http::request::Parts;
use http_body_util::BodyExt as _;
use managed_agents_api::serve::{
    ApiError, Authenticate, Permission, Permissions, Principal, bearer,
};
use mcp_console::store::{SqliteConfig, SqliteStore};
use mcp_console::{Config, Console};
use mcp_tunnel_auth::{DomainName, GatewayKey, HostName, MasterKey, TunnelToken};
use mcp_tunnel_connector::{Connector, ConnectorConfig, Event, ServerConfig, ServerSet};
use mcp_tunnel_edge::{Edge, EdgeConfig, PeerInfo};
use mcp_tunnel_transport::{local_ca::LocalCa, tls};
use rustls::sign::SingleCertAndKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// The program's own idea of who its users are: a table here, an identity provider elsewhere.
struct Users;

#[async_trait]
impl Authenticate for Users {
    async fn authenticate(&self, head: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        let password = bearer(head).ok_or_else(|| ApiError::unauthenticated("log in first"))?;
        let (name, may) = match password.expose_secret() {
            "password-of-ada" => ("ada", Permissions::all()),
            "password-of-bob" => ("bob", Permissions::none().with(Permission::TunnelsRead)),
            _ => return Err(ApiError::unauthenticated("no such user")),
        };
        Ok(Principal::new(format!("user:{name}"), "staff", may))
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let domain = DomainName::parse("tunnel.localhost")?;
    let ca = LocalCa::generate(domain.as_str(), SystemTime::now())?;
    let gateways = TcpListener::bind("127.0.0.1:0").await?;
    let port = gateways.local_addr()?.port();

    let store = SqliteStore::open(&SqliteConfig::new(folder.path().join("console.db"))).await?;
    let config = Config::new(
        MasterKey::from_bytes([7; 32]),
        domain.clone(),
        (HostName::parse("127.0.0.1")?, port),
    )
    .with_ca_pin(ca.pin());
    let console = Console::with_authenticate(Arc::new(store), config, Arc::new(Users)).await?;
    let edge = Edge::new(EdgeConfig::new(domain));

    // Everything runs in tasks that this program owns: dropping them ends it all.
    let mut tasks = JoinSet::new();
    relate(&mut tasks, &console, &edge);
    tasks.spawn(take_gateways(gateways, edge.clone(), acceptor(&ca)?));

    let app = Router::new()
        .route(
            "/hello",
            routing::get(async || "a page of the program's own"),
        )
        .merge(console.router())
        .fallback_service(edge.ingress())
        .layer(middleware::from_fn(name_the_peer));
    use_it(&app, &console, &edge, &mut tasks).await
}

fn relate(tasks: &mut JoinSet<()>, console: &Console, edge: &Edge) {
    let (to, mut snapshots) = (edge.clone(), console.snapshots());
    tasks.spawn(async move {
        while to.apply(Arc::clone(&snapshots.borrow_and_update())).is_ok() {
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    });
    let (console, from) = (console.clone(), edge.clone());
    tasks.spawn(async move {
        loop {
            console.record(from.next_report().await).await;
        }
    });
}

fn acceptor(ca: &LocalCa) -> Result<TlsAcceptor> {
    let certificate = SingleCertAndKey::from(ca.issue(SystemTime::now())?.certified_key()?);
    Ok(TlsAcceptor::from(tls::server_config(Arc::new(
        certificate,
    ))?))
}

async fn take_gateways(listener: TcpListener, edge: Edge, acceptor: TlsAcceptor) {
    let mut links = JoinSet::new();
    while let Ok((socket, remote)) = listener.accept().await {
        let (edge, acceptor) = (edge.clone(), acceptor.clone());
        links.spawn(async move {
            if let Ok(tls) = acceptor.accept(socket).await {
                let _ = edge.accept_link(tls, PeerInfo::tls(remote)).await;
            }
        });
    }
}

/// What the program's server knows about a connection, in the form that the edge reads.
async fn name_the_peer(mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(peer)) = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .copied()
    {
        request.extensions_mut().insert(PeerInfo::tls(peer));
    }
    next.run(request).await
}

/// A user makes a tunnel, a gateway comes, the user lets it in, and a caller calls.
async fn use_it(
    app: &Router,
    console: &Console,
    edge: &Edge,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let tunnel = ask(
        app,
        "POST",
        "/v1/tunnels",
        "password-of-ada",
        json!({"display_name": "demo"}),
    )
    .await?;
    let id = tunnel["id"].as_str().context("no tunnel")?;
    let seen = ask(
        app,
        "GET",
        &format!("/v1/tunnels/{id}"),
        "password-of-bob",
        Value::Null,
    )
    .await?;
    println!("bob sees the tunnel {}", seen["id"]);
    let token = ask(
        app,
        "POST",
        &format!("/v1/tunnels/{id}/reveal_token"),
        "password-of-ada",
        json!({}),
    )
    .await?;

    let server = TcpListener::bind("127.0.0.1:0").await?;
    let servers = ServerSet::new(vec![server.local_addr()?.port().to_string().parse()?])?;
    tasks.spawn(async move {
        let answer = async || {
            Json(json!({"jsonrpc": "2.0", "id": 1, "result": {"from": "a private server"}}))
        };
        let _ = axum::serve(server, Router::new().route("/mcp", routing::post(answer))).await;
    });
    let token = TunnelToken::parse(token["tunnel_token"].as_str().context("no token")?)?;
    let key = GatewayKey::from_bytes([8; 32]);
    let mut gateway = Connector::new(ConnectorConfig::new(token, key, ServerConfig::new(servers)))?;
    loop {
        match gateway.next_event().await {
            Event::Pending {
                approval_code,
                fingerprint,
            } => {
                println!("a gateway waits with the code {approval_code}");
                let connections = format!("/v1/tunnels/{id}/connections");
                let approval = json!({"gateway_key_fingerprint": fingerprint.to_string()});
                ask(app, "POST", &connections, "password-of-ada", approval).await?;
            }
            Event::Active { .. } => break,
            other => println!("{other}"),
        }
    }
    tasks.spawn(async move { while !matches!(gateway.next_event().await, Event::Stopped) {} });

    let key = ask(
        app,
        "POST",
        "/v1/caller_keys",
        "password-of-ada",
        json!({"name": "laptop"}),
    )
    .await?;
    let key = key["key"].as_str().context("no caller key")?;
    // Published already; the edge takes it in the task that relates the two.
    while edge.snapshot_number() < console.snapshots().borrow().number() {
        tokio::task::yield_now().await;
    }
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = ask(app, "POST", &format!("/t/{id}/mcp/mcp"), key, call).await?;
    println!("the caller got {}", answer["result"]);
    anyhow::ensure!(answer["result"]["from"] == "a private server");
    Ok(())
}

/// One request to the program, as its HTTP server would hand it over.
async fn ask(app: &Router, method: &str, path: &str, secret: &str, body: Value) -> Result<Value> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "app.example")
        .header("authorization", format!("Bearer {secret}"))
        .header("content-type", "application/json")
        .body(if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        })?;
    let answer = app.clone().oneshot(request).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    anyhow::ensure!(
        status.is_success(),
        "{method} {path}: {status} {}",
        String::from_utf8_lossy(&bytes)
    );
    Ok(serde_json::from_slice(&bytes)?)
}
