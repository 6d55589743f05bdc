//! The console in one process with its clients and workers, without a network.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use managed_agents_api::WorkSecret;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::report::Report;

/// Clients and workers at once.
const AT_ONCE: usize = 8;
const CALLS: usize = 10;

/// How much is done.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    sessions: usize,
    idle: usize,
}

/// Measures everything that the console does by itself.
pub(crate) async fn measure(report: &mut Report, router: Router, quick: bool) -> Result<()> {
    let size = match quick {
        true => Size {
            rounds: 20,
            sessions: 8,
            idle: 100,
        },
        false => Size {
            rounds: 200,
            sessions: 64,
            idle: 1000,
        },
    };
    let console = Console::new(router).await?;
    polls(report, &console, size).await?;
    wake_ups(report, &console, size).await?;
    first_calls(report, &console, size).await?;
    beats(report, &console, size).await?;
    turns(report, &console, size).await?;
    idle(report, &console, size).await
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
async fn polls(report: &mut Report, console: &Console, size: Size) -> Result<()> {
    let path = format!("/v1/environments/{}/work/poll", console.environment);
    let one = async |console: &Console| {
        console
            .call("GET", &path, &console.key, Value::Null)
            .await?;
        Ok(())
    };
    rate(report, "empty polls, 8 at once", console, size, one).await
}

/// From the request for a session to the end of a poll that waited for it.
async fn wake_ups(report: &mut Report, console: &Console, size: Size) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..size.rounds / 4 {
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
    report.times("session made to item acknowledged", times);
    Ok(())
}

/// From a message to its first tool call on a stream that is open.
async fn first_calls(report: &mut Report, console: &Console, size: Size) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..size.rounds / 4 {
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
    report.times("message to tool call on a stream", times);
    Ok(())
}

/// Heartbeats, each of an item of its own.
async fn beats(report: &mut Report, console: &Console, size: Size) -> Result<()> {
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
    rate(report, "heartbeats, 8 at once", console, size, one).await?;
    console.stop(&held).await
}

/// Whole sessions: every event is decided, appended, streamed to nobody and answered.
async fn turns(report: &mut Report, console: &Console, size: Size) -> Result<()> {
    let at = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..size.sessions {
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
    let (sessions, calls) = (size.sessions, size.sessions * CALLS);
    let what = format!("{sessions} sessions, {CALLS} calls each, {AT_ONCE} workers");
    report.figure(&what, per_second(events, took), "events per second");
    report.figure(&what, per_second(calls, took), "calls per second");
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
async fn idle(report: &mut Report, console: &Console, size: Size) -> Result<()> {
    let before = resident()?;
    let mut streams = Vec::new();
    for _ in 0..size.idle {
        let session = console.session().await?;
        streams.push(console.stream(&session).await?);
    }
    let grown = resident()?.saturating_sub(before);
    let what = format!("{} idle sessions with a stream each", size.idle);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    report.figure(&what, (grown / 1024 / size.idle) as f64, "KiB each");
    Ok(())
}

/// How often `one` is done in a second by so many at once.
async fn rate(
    report: &mut Report,
    what: &str,
    console: &Console,
    size: Size,
    one: impl AsyncFn(&Console) -> Result<()>,
) -> Result<()> {
    let at = Instant::now();
    let client = async || {
        for _ in 0..size.rounds {
            one(console).await?;
        }
        anyhow::Ok(())
    };
    futures_util::future::try_join_all((0..AT_ONCE).map(|_| client())).await?;
    let done = per_second(AT_ONCE * size.rounds, at.elapsed());
    report.figure(what, done, "per second");
    Ok(())
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
