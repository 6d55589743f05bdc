//! A real MCP server on rmcp: Streamable HTTP, both eras on one endpoint.
//!
//! It exposes what the official conformance suite calls, so that every scored scenario of
//! `2025-11-25` and `2026-07-28` passes, and a few friendly tools for people: `add`, `echo`,
//! `slow`, `big`.

mod ask;
mod catalogue;
mod content;
mod counters;
mod documents;
mod friendly;
mod handler;
mod rounds;
mod tasks;

use anyhow::{Context, Result};
use axum::{Json, Router, body::Body, extract::Path, routing::get, serve::ListenerExt};
use bytes::Bytes;
use rmcp::transport::{
    StreamableHttpServerConfig, StreamableHttpService,
    streamable_http_server::session::local::LocalSessionManager,
};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use counters::{CallCounters, Counters};
pub use handler::{Change, Fixture};

/// How a fixture server listens and what it offers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FixtureOptions {
    /// Loopback address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Whether accepted sockets get `TCP_NODELAY`. Off is axum's default, and costs 40 ms a call
    /// to clients that delay their acknowledgements.
    pub nodelay: bool,
    /// Which tools `tools/list` shows.
    pub tools: ToolSet,
    /// Host names that requests may carry besides loopback ones.
    pub extra_hosts: Vec<String>,
}

impl Default for FixtureOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            nodelay: true,
            tools: ToolSet::All,
            extra_hosts: Vec::new(),
        }
    }
}

/// The tools that `tools/list` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum ToolSet {
    /// Those of the conformance suite and the friendly ones.
    All,
    /// `add`, `echo`, `slow` and `big` only.
    Friendly,
}

/// A fixture server that runs until it is dropped.
#[derive(Debug)]
pub struct FixtureServer {
    address: SocketAddr,
    counters: Counters,
    fixture: Fixture,
    stop: CancellationToken,
    _task: JoinSet<Result<()>>,
}

impl FixtureServer {
    /// Binds and serves in a task of the current runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(options: FixtureOptions) -> Result<Self> {
        let listener = bind(options.listen).await?;
        let address = listener.local_addr()?;
        let (stop, counters) = (CancellationToken::new(), Counters::default());
        let fixture = Fixture::new(options.tools, counters.clone());
        let mut task = JoinSet::new();
        task.spawn(serve(listener, options, fixture.clone(), stop.clone()));
        Ok(Self {
            address,
            counters,
            fixture,
            stop,
            _task: task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// How many tool calls began, ended and were cancelled.
    #[must_use]
    pub fn counters(&self) -> CallCounters {
        self.counters.read()
    }

    /// What answers, to have it say something by itself.
    #[must_use]
    pub fn fixture(&self) -> &Fixture {
        &self.fixture
    }
}

impl Drop for FixtureServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Binds the listener of a fixture server.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("binding {address}"))
}

/// Serves MCP on `/mcp`, the call counters on `/counters` and so many bytes on `/blob/{bytes}`
/// until `stop`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    options: FixtureOptions,
    fixture: Fixture,
    stop: CancellationToken,
) -> Result<()> {
    let mut config = StreamableHttpServerConfig::default();
    config.cancellation_token = stop.child_token();
    config.allowed_hosts.extend(options.extra_hosts);
    let counters = fixture.counters().clone();
    let mcp = StreamableHttpService::new(
        move || Ok(fixture.clone()),
        LocalSessionManager::default().into(),
        config,
    );
    let router = Router::new()
        .nest_service("/mcp", mcp)
        .route("/counters", get(async move || Json(counters.read())))
        .route("/blob/{bytes}", get(async |Path(bytes)| blob(bytes)));
    let nodelay = options.nodelay;
    let listener = listener.tap_io(move |socket| {
        // A socket that is already closed refuses; the read that follows says so.
        let _ = socket.set_nodelay(nodelay);
    });
    let serve = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    serve.await.context("serving MCP")
}

/// A body of known length without ever being in memory whole.
fn blob(bytes: u64) -> axum::response::Response {
    static BLOCK: [u8; 64 << 10] = [b'x'; 64 << 10];
    let blocks = futures_util::stream::unfold(bytes, async |left| {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK.len());
        let block = Bytes::from_static(BLOCK.get(..now).unwrap_or_default());
        (now > 0).then(|| (Ok::<_, std::io::Error>(block), left - now as u64))
    });
    let mut response = axum::response::Response::new(Body::from_stream(blocks));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_LENGTH, bytes.into());
    response
}
