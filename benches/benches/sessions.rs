//! The console of sessions on SQLite, in one process with its clients: medians of one run.
//!
//! Every acknowledged write is on the disk (`synchronous = FULL`); the file is below the
//! folder that `BENCH_FOLDER` names, else below the temporary one.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use http::Request;
use http::request::Parts;
use http_body_util::BodyExt as _;
use managed_agents_api::WorkSecret;
use managed_agents_api::serve::{ApiError, Authenticate, Permissions, Principal};
use managed_agents_server::store::{SqliteConfig, SqliteStore};
use managed_agents_server::{Config, Server};
use mcp_tunnel_auth::MasterKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Clients and workers at once.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 200;
const SESSIONS: usize = 64;
const CALLS: usize = 10;
const IDLE: usize = 1000;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load {}", load.trim());
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let folder = env::var_os("BENCH_FOLDER").map_or_else(env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("bench-sessions-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(&SqliteConfig::new(folder.join("sessions.db"))).await?;
    let store = Arc::new(store);
    let (sessions, library) = (Arc::clone(&store), store);
    let config = Config::new(MasterKey::from_bytes([7; 32]));
    let server = Server::new(sessions, library, config, Arc::new(Anybody));
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let (driven, stopped) = (server.clone(), stop.clone());
    running.spawn(async move { driven.run(stopped).await });
    let console = Console::new(server.router()).await?;
    polls(&console).await?;
    wake_ups(&console).await?;
    first_calls(&console).await?;
    beats(&console).await?;
    turns(&console).await?;
    idle(&console).await?;
    stop.cancel();
    running.join_next().await;
    fs::remove_dir_all(folder)?;
    Ok(())
}

struct Anybody;

#[async_trait::async_trait]
impl Authenticate for Anybody {
    async fn authenticate(&self, _: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        Ok(Principal::new("bench", "wrkspc_bench", Permissions::all()))
    }
}

/// The router, and what every measurement needs.
#[derive(Clone)]
struct Console {
    router: Router,
    agent: String,
    environment: String,
    key: String,
}

/// An item that a worker took over.
struct Held {
    path: String,
    token: String,
    session: String,
}

impl Console {
    async fn new(router: Router) -> Result<Self> {
        let mut console = Self {
            router,
            agent: String::new(),
            environment: String::new(),
            key: "operator".to_owned(),
        };
        let body = json!({"name": "bench", "config": {"type": "self_hosted"}});
        console.environment = id(&console.post("/v1/environments", body).await?)?;
        let body = json!({"name": "bench", "model": "scripted",
            "tools": [{"type": "agent_toolset_20260401"}]});
        console.agent = id(&console.post("/v1/agents", body).await?)?;
        let path = format!("/v1/environments/{}/keys", console.environment);
        let made = console.post(&path, json!({"name": "bench"})).await?;
        console.key = made["key"].as_str().context("a key")?.to_owned();
        Ok(console)
    }

    async fn session(&self) -> Result<String> {
        let body = json!({"agent": self.agent, "environment_id": self.environment});
        id(&self.post("/v1/sessions", body).await?)
    }

    /// Makes a session's agent do so many calls, one turn each.
    async fn ask(&self, session: &str, calls: usize) -> Result<()> {
        let script = json!(vec![
            json!({"name": "bash", "input": {"command": "true"}});
            calls
        ]);
        let text = format!("```json\n{script}\n```");
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let path = format!("/v1/sessions/{session}/events");
        self.post(&path, json!({"events": [event]})).await?;
        Ok(())
    }

    async fn poll(&self) -> Result<Option<Value>> {
        let path = format!(
            "/v1/environments/{}/work/poll?block_ms=999",
            self.environment
        );
        let polled = self.call("GET", &path, &self.key, Value::Null).await?;
        Ok(Some(polled).filter(|polled| !polled.is_null()))
    }

    async fn hold(&self) -> Result<Option<Held>> {
        let Some(item) = self.poll().await? else {
            return Ok(None);
        };
        let secret = item["secret"].as_str().context("a secret")?.into();
        let secret = WorkSecret::decode(&secret)?;
        let held = Held {
            path: format!("/v1/environments/{}/work/{}", self.environment, id(&item)?),
            token: secret.sessions_token.expose_secret().to_owned(),
            session: id(&item["data"])?,
        };
        let path = format!("{}/ack", held.path);
        self.call("POST", &path, &self.key, Value::Null).await?;
        Ok(Some(held))
    }

    async fn stop(&self, held: &Held) -> Result<()> {
        let path = format!("{}/stop", held.path);
        self.call("POST", &path, &held.token, json!({"force": true}))
            .await?;
        Ok(())
    }

    async fn stream(&self, session: &str) -> Result<BodyDataStream> {
        let path = format!("/v1/sessions/{session}/events/stream");
        let request = request("GET", &path, "operator", Value::Null)?;
        let response = self.router.clone().oneshot(request).await?;
        Ok(response.into_body().into_data_stream())
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call("POST", path, "operator", body).await
    }

    async fn call(&self, method: &str, path: &str, who: &str, body: Value) -> Result<Value> {
        let response = self
            .router
            .clone()
            .oneshot(request(method, path, who, body)?)
            .await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        anyhow::ensure!(status.is_success(), "{method} {path}: {status} {text}");
        Ok(serde_json::from_slice(&body)?)
    }
}

fn request(method: &str, path: &str, who: &str, body: Value) -> Result<Request<Body>> {
    let body = match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    let request = Request::builder().method(method).uri(path);
    Ok(request
        .header("authorization", format!("Bearer {who}"))
        .body(body)?)
}

fn id(body: &Value) -> Result<String> {
    Ok(body["id"]
        .as_str()
        .with_context(|| format!("an id in {body}"))?
        .to_owned())
}

/// Polls of an empty queue that do not wait.
async fn polls(console: &Console) -> Result<()> {
    let path = format!("/v1/environments/{}/work/poll", console.environment);
    let one = async |console: &Console| {
        console
            .call("GET", &path, &console.key, Value::Null)
            .await?;
        Ok(())
    };
    rate("empty polls", console, one).await
}

/// From the request for a session to the end of a poll that waited for it.
async fn wake_ups(console: &Console) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS / 4 {
        let made = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let at = Instant::now();
            console.session().await?;
            anyhow::Ok((at, Instant::now()))
        };
        let polled = async {
            let held = console.hold().await?.context("the session")?;
            anyhow::Ok((Instant::now(), held))
        };
        let (made, polled) = tokio::try_join!(made, polled)?;
        times.push(polled.0 - made.0);
        console.stop(&polled.1).await?;
    }
    median("session made to item acknowledged", times);
    Ok(())
}

/// From a message to its first tool call on a stream that is open.
async fn first_calls(console: &Console) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS / 4 {
        let session = console.session().await?;
        let held = console.hold().await?.context("the session")?;
        let mut stream = console.stream(&session).await?;
        let at = Instant::now();
        console.ask(&session, 1).await?;
        loop {
            let chunk = stream.next().await.context("the stream goes on")??;
            if String::from_utf8_lossy(&chunk).contains("event: agent.tool_use") {
                break;
            }
        }
        times.push(at.elapsed());
        let path = format!("/v1/sessions/{session}/archive");
        console.post(&path, Value::Null).await?;
        drop(held);
    }
    median("message to tool call on a stream", times);
    Ok(())
}

/// Heartbeats, each of an item of its own.
async fn beats(console: &Console) -> Result<()> {
    let session = console.session().await?;
    let held = console.hold().await?.context("the session")?;
    anyhow::ensure!(held.session == session, "the item of another session");
    let path = format!("{}/heartbeat", held.path);
    let one = async |console: &Console| {
        console
            .call("POST", &path, &held.token, Value::Null)
            .await?;
        Ok(())
    };
    rate("heartbeats", console, one).await?;
    console.stop(&held).await
}

/// Whole sessions: every event is decided, appended, streamed to nobody and answered.
async fn turns(console: &Console) -> Result<()> {
    let at = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..SESSIONS {
        let session = console.session().await?;
        console.ask(&session, CALLS).await?;
    }
    for _ in 0..AT_ONCE {
        let console = console.clone();
        workers.spawn(async move {
            let mut events = 0;
            while let Some(held) = console.hold().await? {
                events += serve(&console, &held).await?;
                console.stop(&held).await?;
            }
            anyhow::Ok(events)
        });
    }
    let mut events = 0;
    while let Some(done) = workers.join_next().await {
        events += done??;
    }
    // The last polls found nothing, for as long as they waited.
    let took = at.elapsed().saturating_sub(Duration::from_millis(999));
    let calls = SESSIONS * CALLS;
    println!(
        "{SESSIONS} sessions, {CALLS} calls each, {AT_ONCE} workers: {:.0} events/s, {:.0} calls/s",
        per_second(events, took),
        per_second(calls, took)
    );
    Ok(())
}

/// Answers the calls of one session; how many events it has in the end.
async fn serve(console: &Console, held: &Held) -> Result<usize> {
    let path = format!("/v1/sessions/{}/events", held.session);
    let mut stream = console.stream(&held.session).await?;
    loop {
        let listed = format!("{path}?limit=1000");
        let listed = console
            .call("GET", &listed, &held.token, Value::Null)
            .await?;
        let events = listed["data"].as_array().context("a page")?;
        let last = events.last().context("a message")?;
        if last["stop_reason"]["type"] == "end_turn" {
            return Ok(events.len());
        }
        for call in last["stop_reason"]["event_ids"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let event = json!({"type": "user.tool_result", "tool_use_id": call,
                "content": [{"type": "text", "text": "done"}]});
            let body = json!({"events": [event]});
            console.call("POST", &path, &held.token, body).await?;
        }
        stream.next().await.context("the stream goes on")??;
    }
}

/// What a session that does nothing takes, with a stream of its client open.
async fn idle(console: &Console) -> Result<()> {
    let before = resident()?;
    let mut streams = Vec::new();
    for _ in 0..IDLE {
        let session = console.session().await?;
        streams.push(console.stream(&session).await?);
    }
    let grown = resident()?.saturating_sub(before);
    println!(
        "{IDLE} idle sessions with a stream each: {} KiB each",
        grown / 1024 / IDLE
    );
    Ok(())
}

/// How often `one` is done in a second by so many at once.
async fn rate(
    what: &str,
    console: &Console,
    one: impl AsyncFn(&Console) -> Result<()>,
) -> Result<()> {
    let at = Instant::now();
    let client = async || {
        for _ in 0..ROUNDS {
            one(console).await?;
        }
        anyhow::Ok(())
    };
    futures_util::future::try_join_all((0..AT_ONCE).map(|_| client())).await?;
    let done = per_second(AT_ONCE * ROUNDS, at.elapsed());
    println!("{what}: {done:.0}/s, {AT_ONCE} at once");
    Ok(())
}

fn median(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| {
        times
            .get(times.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{what}: {:.1} ms, p90 {:.1} ms", ms(at(50)), ms(at(90)));
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(0.001)
}

/// Bytes of this process in memory.
fn resident() -> Result<usize> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).context("a number")?.parse()?;
    Ok(pages * 4096)
}
