//! The link is cut under every kind of exchange, and nobody notices.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{CallCounters, FixtureOptions, FixtureServer},
    relay::{Mood, Relay},
    rmcp_client::http_client,
    soak::{self, LinkSoak},
    stack::{AT_ONCE, Cloud, CloudOptions, Gateway, SOON, Stack, Tunnel},
    upstream::{Ended, Exchange, Step, Upstream, script},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio_util::sync::CancellationToken;

/// A cloud and a gateway with a relay between them that cuts.
pub(crate) struct Cuttable {
    pub(crate) cloud: Cloud,
    tunnel: Tunnel,
    pub(crate) relay: Relay,
    pub(crate) gateway: Gateway,
}

impl Cuttable {
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let cloud = Cloud::start(CloudOptions::default()).await?;
        let tunnel = cloud.create_tunnel("test").await?;
        let relay = Relay::start(cloud.addresses().edge).await?;
        let (server, edge) = (server.to_string(), relay.address().to_string());
        let arguments = ["--mcp-server", &server, "--edge", &edge];
        let gateway = Gateway::start(&tunnel.token, &arguments)?;
        cloud.approve(&tunnel).await?;
        let this = Self {
            cloud,
            tunnel,
            relay,
            gateway,
        };
        Ok(this)
    }

    fn dev(&self) -> Result<Caller> {
        Caller::plain(self.cloud.dev_url(0))
    }

    pub(crate) async fn https(&self) -> Result<Caller> {
        let key = self.cloud.create_caller_key().await?;
        let url = self.cloud.path_url(&self.tunnel, "mcp");
        let value = format!("Bearer {key}");
        Ok(Caller::trusting(&self.cloud.ca(), url)?
            .with_headers(&[("mcp-tunnel-authorization", &value)]))
    }

    /// Cuts, and waits until the gateway has come back.
    async fn cut(&self) -> Result<()> {
        let before = self.resumed();
        self.relay.cut();
        let back = async || self.resumed() > before;
        ensure!(
            crate::until(SOON, back).await,
            "no link again: {}",
            self.gateway.process().log().text()
        );
        Ok(())
    }

    /// Takes the link away, until the relay passes again; both ends know when this returns.
    async fn lose(&self) -> Result<()> {
        self.relay.set(Mood::Cutting);
        let gateway = |line: &str| line.contains("link lost, resuming");
        self.gateway.process().line(SOON, gateway).await?;
        self.cloud.wait_lost().await
    }

    /// How often the gateway has said that its link goes on.
    fn resumed(&self) -> usize {
        let log = self.gateway.process().log().text();
        log.matches("resumed after").count()
    }
}

/// Events of a stream so far, data only, comments left out.
pub(crate) fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim()).ok())
        .collect()
}

/// Reads an answer to its end, and cuts the link once `after` events are there.
async fn read_cut(
    world: &Cuttable,
    mut answer: reqwest::Response,
    after: usize,
) -> Result<Vec<Value>> {
    let (mut text, mut cut) = (String::new(), false);
    while let Some(chunk) = answer.chunk().await.context(text.clone())? {
        text += std::str::from_utf8(&chunk)?;
        if !cut && events(&text).len() >= after {
            cut = true;
            world.cut().await?;
        }
    }
    ensure!(cut, "over before the cut: {text}");
    Ok(events(&text))
}

/// Every progress notification once and in order, then the result.
pub(crate) fn check_progress(events: &[Value], steps: u32) {
    let progress: Vec<f64> = events
        .iter()
        .filter_map(|event| event["params"]["progress"].as_f64())
        .collect();
    let wanted: Vec<f64> = (1..=steps).map(f64::from).collect();
    assert_eq!(progress, wanted, "{events:?}");
    let results = events.iter().filter(|event| event["result"].is_object());
    assert_eq!(results.count(), 1, "{events:?}");
    assert!(events[events.len() - 1]["result"].is_object(), "{events:?}");
}

fn counted(started: u64) -> CallCounters {
    let mut counters = CallCounters::default();
    (counters.started, counters.finished) = (started, started);
    counters
}

#[tokio::test]
async fn a_modern_call_survives_a_cut() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let world = Cuttable::start(fixture.address()).await?;
    for (calls, caller) in [(1, world.dev()?), (2, world.https().await?)] {
        let arguments = json!({ "seconds": 1.5, "steps": 6 });
        let answer = caller.begin(&json!(1), "slow", arguments).await?;
        let events = read_cut(&world, answer, 2).await?;
        check_progress(&events, 6);
        assert_eq!(fixture.counters(), counted(calls));
    }
    Ok(())
}

/// A legacy session, by hand.
pub(crate) struct Legacy {
    client: reqwest::Client,
    url: String,
    session: String,
}

impl Legacy {
    pub(crate) async fn start(url: String) -> Result<Self> {
        let client = http_client(None, None, &url)?;
        let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "test", "version": "0" }
        }});
        let mut this = Self {
            client,
            url,
            session: String::new(),
        };
        let answer = this.post(&initialize).await?;
        let session = answer.headers().get("mcp-session-id");
        let session = session.context("no session")?.to_str()?.to_owned();
        answer.text().await?;
        this.session = session;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        this.post(&initialized).await?.text().await?;
        Ok(this)
    }

    /// Begins a call of the tool `slow`.
    pub(crate) async fn slow(&self, seconds: f64, steps: u32) -> Result<reqwest::Response> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "slow", "arguments": { "seconds": seconds, "steps": steps },
            "_meta": { "progressToken": "p" }
        }});
        self.post(&call).await
    }

    async fn post(&self, message: &Value) -> Result<reqwest::Response> {
        let mut request = self
            .client
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .timeout(Duration::from_secs(60))
            .json(message);
        if !self.session.is_empty() {
            request = request
                .header("mcp-session-id", &self.session)
                .header("mcp-protocol-version", "2025-06-18");
        }
        Ok(request.send().await?.error_for_status()?)
    }
}

#[tokio::test]
async fn a_legacy_call_survives_a_cut() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let world = Cuttable::start(fixture.address()).await?;
    let legacy = Legacy::start(world.cloud.dev_url(0)).await?;
    let answer = legacy.slow(1.5, 6).await?;
    let events = read_cut(&world, answer, 2).await?;
    check_progress(&events, 6);
    assert_eq!(fixture.counters(), counted(1));
    Ok(())
}

#[tokio::test]
async fn an_event_stream_survives_a_cut() -> Result<()> {
    let upstream = Upstream::start(|_| script::events(12, Duration::from_millis(100))).await?;
    let world = Cuttable::start(upstream.address()).await?;
    for caller in [world.dev()?, world.https().await?] {
        let answer = caller.get("/mcp").await?;
        let events = read_cut(&world, answer, 4).await?;
        let wanted: Vec<Value> = (0..12).map(|number| json!({ "number": number })).collect();
        assert_eq!(events, wanted);
    }
    let all = upstream.exchanges();
    let ended: Vec<_> = all.iter().map(|exchange| exchange.ended).collect();
    assert_eq!(ended, [Some(Ended::Done); 2]);
    Ok(())
}

/// HTTP+SSE of 2024-11-05: the answer to a POST comes as an event of a GET.
#[tokio::test]
async fn a_call_of_the_oldest_transport_survives_a_cut() -> Result<()> {
    let posted = CancellationToken::new();
    let upstream = Upstream::start({
        let posted = posted.clone();
        move |exchange| {
            if exchange.head().starts_with("POST") {
                posted.cancel();
                return script::json("202 Accepted", "{}");
            }
            vec![
                script::event_stream(),
                script::chunk("event: endpoint\ndata: \"/messages\"\n\n"),
                Step::Gate(posted.clone()),
                script::event("{\"id\":1,\"result\":{}}"),
                Step::Send("0\r\n\r\n".into()),
            ]
        }
    })
    .await?;
    let world = Cuttable::start(upstream.address()).await?;
    let caller = world.dev()?;
    let mut stream = caller.get("/sse").await?;
    let first = stream.chunk().await?.context("no endpoint")?;
    assert!(first.starts_with(b"event: endpoint"));
    // Posted while the link is down: it waits for the link, and so does the answer.
    world.relay.cut();
    let posted = caller.call("slow", json!({})).await?;
    assert_eq!(posted.status, 202);
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await? {
        text += std::str::from_utf8(&chunk)?;
    }
    assert_eq!(events(&text), [json!({ "id": 1, "result": {} })]);
    Ok(())
}

#[tokio::test]
async fn a_download_survives_cuts() -> Result<()> {
    const LENGTH: u64 = 24_000_000;
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let world = Cuttable::start(fixture.address()).await?;
    for caller in [world.dev()?, world.https().await?] {
        let before = world.relay.cuts();
        let mut answer = caller.get(&format!("/blob/{LENGTH}")).await?;
        let (mut received, mut next) = (0, 0);
        while let Some(chunk) = answer.chunk().await? {
            assert!(chunk.iter().all(|byte| *byte == b'x'));
            received += chunk.len() as u64;
            if received >= next && next < LENGTH {
                world.relay.cut_after(1_000_000);
                next += LENGTH / 4;
            }
        }
        assert_eq!(received, LENGTH);
        assert!(world.relay.cuts() > before, "it was not cut");
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_survives_a_cut() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let world = Cuttable::start(upstream.address()).await?;
    let text: String = (0..1_500_000).map(|n| format!("{n:08}")).collect();
    for (count, caller) in [(1, world.dev()?), (2, world.https().await?)] {
        world.relay.cut_after(3_000_000);
        let answer = caller.call("echo", json!({ "text": text })).await?;
        assert_eq!(answer.status, 200);
        assert_eq!(world.relay.cuts(), count);
        let all = upstream.exchanges();
        assert_eq!(all.len() as u64, count, "the server was asked twice");
        let body = all[all.len() - 1].body();
        assert!(holds(&body, text.as_bytes()), "other bytes than were sent");
    }
    Ok(())
}

fn holds(body: &Bytes, text: &[u8]) -> bool {
    let start = body.windows(8).position(|window| window == b"00000000");
    start.is_some_and(|start| body.get(start..start + text.len()) == Some(text))
}

/// The short form of `cargo xtask soak link`.
#[tokio::test]
async fn many_clients_never_notice_cut_after_cut() -> Result<()> {
    let soak = LinkSoak::new(20, Duration::from_secs(7));
    let report = soak::link(soak).await?;
    println!("{report}");
    report.check_calls()?;
    assert!(
        report.calls > 20 && report.cuts >= 3 && report.resumed >= 2,
        "{report}"
    );
    Ok(())
}

#[tokio::test]
async fn an_archived_tunnel_cuts_a_link_that_is_kept() -> Result<()> {
    let upstream = endless().await?;
    let mut world = Cuttable::start(upstream.address()).await?;
    let mut answer = world.dev()?.get("/mcp").await?;
    assert!(answer.chunk().await?.is_some());
    world.gateway.kill().await?;
    let path = format!("/v1/tunnels/{}/archive", world.tunnel.id);
    world.cloud.api(http::Method::POST, &path, None).await?;
    let end = async { while let Ok(Some(_)) = answer.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(10), end).await?;
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_does_not_come_back_ends_its_calls_in_time() -> Result<()> {
    let upstream = endless().await?;
    let mut options = CloudOptions::default();
    options.arguments = vec!["--link-keep".to_owned(), "2".to_owned()];
    let server = upstream.address().to_string();
    let mut stack = Stack::start(options, &[&server]).await?;
    let mut answer = Caller::dev(&stack)?.get("/mcp").await?;
    assert!(answer.chunk().await?.is_some());
    stack.gateway.kill().await?;
    let end = async {
        loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    };
    let end = tokio::time::timeout(SOON, end).await?;
    assert!(end.is_err(), "a clean end of a call whose gateway is gone");
    // The server behind a gateway that was killed sees its connection close.
    let gone = |all: &[Exchange]| all.iter().all(|one| one.ended == Some(Ended::PeerLeft));
    upstream.wait(SOON, gone).await?;
    Ok(())
}

/// A server that begins an answer and never ends it.
async fn endless() -> Result<Upstream> {
    Upstream::start(|_| {
        vec![
            script::event_stream(),
            script::event("1"),
            Step::UntilPeerLeaves,
        ]
    })
    .await
}

#[tokio::test]
async fn a_caller_that_leaves_while_the_link_is_away_reaches_the_server() -> Result<()> {
    let upstream = endless().await?;
    let world = Cuttable::start(upstream.address()).await?;
    let mut answer = world.dev()?.get("/mcp").await?;
    assert!(answer.chunk().await?.is_some());
    world.lose().await?;
    drop(answer);
    assert!(upstream.exchanges()[0].ended.is_none());
    world.relay.set(Mood::Passing);
    let left = |all: &[Exchange]| all[0].ended == Some(Ended::PeerLeft);
    upstream.wait(SOON, left).await?;
    assert!(world.resumed() > 0, "it left with the link");
    Ok(())
}

#[tokio::test]
async fn a_gateway_asked_to_stop_while_its_link_is_away_finishes_its_calls() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let mut world = Cuttable::start(fixture.address()).await?;
    let arguments = json!({ "seconds": 2, "steps": 4 });
    let answer = world.https().await?;
    let answer = answer.begin(&json!(1), "slow", arguments).await?;
    world.lose().await?;
    world.gateway.process().signal(Signal::TERM)?;
    world.relay.set(Mood::Passing);
    check_progress(&events(&answer.text().await?), 4);
    assert_eq!(fixture.counters(), counted(1));
    assert_eq!(world.gateway.exit(SOON).await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn an_edge_asked_to_stop_while_a_link_is_away_does_not_wait_for_it() -> Result<()> {
    let upstream = endless().await?;
    let mut world = Cuttable::start(upstream.address()).await?;
    let mut answer = world.dev()?.get("/mcp").await?;
    assert!(answer.chunk().await?.is_some());
    world.lose().await?;
    world.cloud.process().signal(Signal::TERM)?;
    let end = tokio::time::timeout(AT_ONCE, answer.chunk()).await?;
    assert!(end.is_err(), "a clean end of a broken call");
    assert!(world.cloud.exit(AT_ONCE).await?.success());
    Ok(())
}
