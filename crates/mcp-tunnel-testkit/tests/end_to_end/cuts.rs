//! One of every kind of exchange is half done when the link goes: nobody notices.
//!
//! The link goes in two ways: a relay resets it, and (as root) its gateway gets another address, so that what was sent to
//! the old one is lost without a word.

use crate::{
    resume::{Legacy, check_progress, events},
    until,
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{CallCounters, Change, FixtureOptions, FixtureServer},
    network::{self, Host},
    process,
    relay::{Mood, Relay},
    stack::{Cloud, CloudOptions, Gateway, SOON, Tunnel},
    tools::{Need, have},
    upstream::{Ended, Exchange, Step, Upstream, script},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// A call of six seconds.
const STEPS: u32 = 12;
const STEP: Duration = Duration::from_millis(500);
/// The link goes two and a half seconds into it.
const HALF: usize = 5;
/// Of the download, bytes.
const LARGE: u64 = 200_000_000;
/// Of the upload: so many pieces of so many bytes.
const PIECES: usize = 256;
const PIECE: usize = 64 << 10;
/// Exchanges of [`Scene::survive`] that take their time.
const TIMED: u32 = 6;
/// A download and an upload.
const BULK: u32 = 2;

/// What the exchanges wait for.
struct Acts {
    /// Bulk transfers that are well on their way.
    flowing: Semaphore,
    /// The other exchanges that are half done.
    half: Semaphore,
    /// The link has gone.
    gone: CancellationToken,
}

impl Acts {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flowing: Semaphore::new(0),
            half: Semaphore::new(0),
            gone: CancellationToken::new(),
        })
    }

    /// Waits for one more piece of a bulk transfer: a moment while the link is still to go, so that some is always under
    /// way; `last` ones wait until it has gone.
    async fn pace(&self, last: bool) {
        let gone = self.gone.cancelled();
        if last {
            gone.await;
        } else {
            let _ = timeout(Duration::from_millis(10), gone).await;
        }
    }
}

/// A real MCP server, and one that sends what no SDK sends any more.
struct Servers {
    fixture: FixtureServer,
    scripted: Upstream,
}

impl Servers {
    async fn start() -> Result<Self> {
        let posted = CancellationToken::new();
        let scripted = Upstream::start(move |exchange| answer(exchange, &posted)).await?;
        let fixture = FixtureServer::start(FixtureOptions::default()).await?;
        Ok(Self { fixture, scripted })
    }

    fn gateway(&self, tunnel: &Tunnel, edge: SocketAddr) -> Result<Gateway> {
        let docs = format!("docs={}", self.fixture.address());
        let old = format!("old={}", self.scripted.address());
        let edge = edge.to_string();
        let arguments = ["--mcp-server", &docs, "--mcp-server", &old, "--edge", &edge];
        Gateway::start(&tunnel.token, &arguments)
    }
}

/// HTTP+SSE of 2024-11-05 at `/sse`, an event stream of the next version at `/mcp`, and a place for uploads.
fn answer(exchange: &Exchange, posted: &CancellationToken) -> Vec<Step> {
    let head = exchange.head();
    if head.starts_with("GET /mcp") {
        return script::events(STEPS as usize, STEP);
    }
    if head.starts_with("POST /messages") {
        posted.cancel();
        return script::json("202 Accepted", "{}");
    }
    if !head.starts_with("GET /sse") {
        return script::json("200 OK", "{}");
    }
    let mut steps = vec![
        script::event_stream(),
        script::chunk("event: endpoint\ndata: \"/messages\"\n\n"),
        Step::Gate(posted.clone()),
    ];
    for step in 1..=STEPS {
        let progress =
            json!({ "method": "notifications/progress", "params": { "progress": step } });
        steps.extend([Step::Wait(STEP), script::event(&progress.to_string())]);
    }
    steps.push(script::event("{\"id\":1,\"result\":{}}"));
    steps.push(Step::Send("0\r\n\r\n".into()));
    steps
}

/// Servers behind a tunnel, and callers of them.
struct Scene {
    cloud: Cloud,
    tunnel: Tunnel,
    gateway: Gateway,
    servers: Servers,
    key: String,
}

fn options() -> CloudOptions {
    let mut options = CloudOptions::default();
    options.dev_ingresses = vec!["docs".to_owned(), "old".to_owned()];
    options
}

impl Scene {
    async fn new(cloud: Cloud, tunnel: Tunnel, gateway: Gateway, servers: Servers) -> Result<Self> {
        cloud.approve(&tunnel).await?;
        Ok(Self {
            key: cloud.create_caller_key().await?,
            cloud,
            tunnel,
            gateway,
            servers,
        })
    }

    fn https(&self, route: &str) -> Result<Caller> {
        let url = self.cloud.path_url(&self.tunnel, route);
        let value = format!("Bearer {}", self.key);
        Ok(Caller::trusting(&self.cloud.ca(), url)?
            .with_headers(&[("mcp-tunnel-authorization", &value)]))
    }

    /// Waits until the gateway has written this so often.
    async fn wrote(&self, text: &str, times: usize) -> Result<()> {
        let log = self.gateway.process().log();
        let written = async || log.text().matches(text).count() >= times;
        ensure!(until(SOON, written).await, "no {text:?}: {}", log.text());
        Ok(())
    }

    /// Begins every kind of exchange, has the link go and come back by `lose`, which says when it has gone, and sees that
    /// each ends as if nothing had been, and that the servers saw nothing of it either.
    async fn survive(
        &self,
        lose: impl AsyncFnOnce(&CancellationToken) -> Result<()>,
    ) -> Result<()> {
        let acts = Acts::new();
        let (docs, old) = (self.https("docs")?, self.https("old")?);
        let plain = Caller::plain(self.cloud.dev_url(0))?;
        let lost = async {
            let _half = acts.half.acquire_many(TIMED).await?;
            lose(&acts.gone).await
        };
        let timed = async {
            let _flowing = acts.flowing.acquire_many(BULK).await?;
            tokio::try_join!(
                modern(&docs, &acts),
                modern(&plain, &acts),
                legacy(self.cloud.dev_url(0), &acts),
                listen(&docs, &self.servers.fixture, &acts),
                event_stream(&old, &acts),
                oldest(&old, &acts),
            )
        };
        let all =
            async { tokio::try_join!(lost, timed, download(&docs, &acts), upload(&old, &acts)) };
        let done = timeout(2 * SOON, all).await.context("it hangs")?;
        done.with_context(|| format!("gateway:\n{}", self.gateway.process().log().text()))?;
        self.check_servers().await
    }

    /// Each tool ran once, and every request came once and was served to its end.
    async fn check_servers(&self) -> Result<()> {
        let mut counters = CallCounters::default();
        (counters.started, counters.finished) = (3, 3);
        let Servers { fixture, scripted } = &self.servers;
        assert_eq!(fixture.counters(), counters);
        assert_eq!(fixture.fixture().subscriptions(), 1);
        let ended = |all: &[Exchange]| all.iter().all(|one| one.ended.is_some());
        let all = scripted.wait(SOON, ended).await?;
        let ended: Vec<_> = all.iter().map(|exchange| exchange.ended).collect();
        assert_eq!(ended, [Some(Ended::Done); 4]);
        let upload = all
            .iter()
            .find(|one| one.head().starts_with("POST /upload"));
        let upload = upload.expect("an upload").body();
        assert!(upload == pieces().concat(), "other bytes than were sent");
        Ok(())
    }
}

/// Reads an answer to its end, or until `enough` events are there; tells when it is half done.
async fn read(
    mut answer: reqwest::Response,
    acts: &Acts,
    enough: usize,
    arrived: impl Fn(usize),
) -> Result<Vec<Value>> {
    let (mut text, mut is_half) = (String::new(), false);
    let mut seen = Vec::new();
    while seen.len() < enough
        && let Some(chunk) = answer.chunk().await.context(text.clone())?
    {
        text += std::str::from_utf8(&chunk)?;
        seen = events(&text);
        arrived(seen.len());
        if !is_half && seen.len() >= HALF {
            is_half = true;
            acts.half.add_permits(1);
        }
    }
    ensure!(
        acts.gone.is_cancelled(),
        "over before the link went: {text}"
    );
    Ok(seen)
}

async fn modern(caller: &Caller, acts: &Acts) -> Result<()> {
    let arguments = json!({ "seconds": 6, "steps": STEPS });
    let answer = caller.begin(&json!(1), "slow", arguments).await?;
    check_progress(&read(answer, acts, usize::MAX, drop).await?, STEPS);
    Ok(())
}

async fn legacy(url: String, acts: &Acts) -> Result<()> {
    let legacy = Legacy::start(url).await?;
    let answer = legacy.slow(6.0, STEPS).await?;
    check_progress(&read(answer, acts, usize::MAX, drop).await?, STEPS);
    Ok(())
}

/// `subscriptions/listen`: changes are announced in turn, and the caller leaves after the last.
async fn listen(caller: &Caller, server: &FixtureServer, acts: &Acts) -> Result<()> {
    let id = json!("listen-1");
    let answer = caller.listen(&id).await?;
    let listening = CancellationToken::new();
    let announce = async {
        listening.cancelled().await;
        for step in 0..STEPS {
            sleep(STEP).await;
            let turn = [Change::Tools, Change::Prompts][step as usize % 2];
            server.fixture().announce(turn).await;
        }
        Ok(())
    };
    let enough = 1 + STEPS as usize;
    let arrived = |_| listening.cancel();
    let (seen, ()) = tokio::try_join!(read(answer, acts, enough, arrived), announce)?;
    let wanted = (0..STEPS as usize).map(|step| ["tools", "prompts"][step % 2]);
    let wanted = wanted.map(|list| format!("notifications/{list}/list_changed"));
    let wanted: Vec<_> = ["notifications/subscriptions/acknowledged".to_owned()]
        .into_iter()
        .chain(wanted)
        .collect();
    let methods: Vec<_> = seen.iter().map(|event| event["method"].clone()).collect();
    assert_eq!(methods, wanted);
    for event in &seen {
        let tag = &event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
        assert_eq!(*tag, id, "{event}");
    }
    Ok(())
}

async fn event_stream(caller: &Caller, acts: &Acts) -> Result<()> {
    let answer = caller.get("/mcp").await?;
    let wanted: Vec<_> = (0..STEPS)
        .map(|number| json!({ "number": number }))
        .collect();
    assert_eq!(read(answer, acts, usize::MAX, drop).await?, wanted);
    Ok(())
}

/// HTTP+SSE of 2024-11-05: the answer to a POST comes on the stream of a GET.
async fn oldest(caller: &Caller, acts: &Acts) -> Result<()> {
    let answer = caller.get("/sse").await?;
    let call = Bytes::from_static(b"{\"id\":1,\"method\":\"tools/call\"}");
    let posted = caller.post("/messages", call.len(), call.into()).await?;
    assert_eq!(posted.status(), 202);
    let seen = read(answer, acts, usize::MAX, drop).await?;
    assert_eq!(seen[0], "/messages");
    check_progress(&seen[1..], STEPS);
    Ok(())
}

async fn download(caller: &Caller, acts: &Acts) -> Result<()> {
    let mut answer = caller.get(&format!("/blob/{LARGE}")).await?;
    let (mut received, mut is_flowing) = (0, false);
    while let Some(chunk) = answer.chunk().await? {
        assert!(chunk.iter().all(|byte| *byte == b'x'));
        received += chunk.len() as u64;
        if received < LARGE / 10 {
            continue;
        }
        if !is_flowing {
            is_flowing = true;
            acts.flowing.add_permits(1);
        }
        if !acts.gone.is_cancelled() {
            acts.pace(received > LARGE / 10 * 9).await;
        }
    }
    assert_eq!(received, LARGE);
    Ok(())
}

async fn upload(caller: &Caller, acts: &Arc<Acts>) -> Result<()> {
    let (pieces, acts) = (pieces().into_iter().enumerate(), Arc::clone(acts));
    let body = stream::unfold((pieces, acts), async |(mut pieces, acts)| {
        let (number, piece) = pieces.next()?;
        if number == PIECES / 4 {
            acts.flowing.add_permits(1);
        }
        if number >= PIECES / 4 && !acts.gone.is_cancelled() {
            acts.pace(number > PIECES / 10 * 9).await;
        }
        Some((Ok::<_, std::io::Error>(piece), (pieces, acts)))
    });
    let body = reqwest::Body::wrap_stream(body);
    let answer = caller.post("/upload", PIECES * PIECE, body).await?;
    assert_eq!(answer.status(), 200);
    Ok(())
}

/// What is uploaded: bytes that tell their places.
fn pieces() -> Vec<Bytes> {
    let piece = |number: usize| {
        let first = number * PIECE / 8;
        let places = (first..first + PIECE / 8).map(usize::to_be_bytes);
        Bytes::from(places.collect::<Vec<_>>().concat())
    };
    (0..PIECES).map(piece).collect()
}

#[tokio::test]
async fn every_kind_of_exchange_survives_a_cut_in_its_middle() -> Result<()> {
    let servers = Servers::start().await?;
    let cloud = Cloud::start(options()).await?;
    let tunnel = cloud.create_tunnel("test").await?;
    let relay = Relay::start(cloud.addresses().edge).await?;
    let gateway = servers.gateway(&tunnel, relay.address())?;
    let scene = Scene::new(cloud, tunnel, gateway, servers).await?;
    let cut = async |gone: &CancellationToken| {
        relay.set(Mood::Cutting);
        scene.wrote("link lost, resuming", 1).await?;
        gone.cancel();
        relay.set(Mood::Passing);
        scene.wrote("resumed after", 1).await
    };
    scene.survive(cut).await
}

/// The gateway's host goes to another network, as a laptop does, or as it looks through a NAT that has forgotten it: what
/// was under way is lost without a word to either side.
#[test]
fn every_kind_of_exchange_survives_a_move_to_another_address() -> Result<()> {
    if !have(&[Need::Networks]) {
        return Ok(());
    }
    process::binary("mcp-cloud")?; // before there is no way to anywhere
    network::alone(moved)
}

async fn moved() -> Result<()> {
    let (near, far) = (Host::new()?, Host::new()?);
    near.join(("edge0", "10.77.0.1/24"), &far, ("up0", "10.77.0.2/24"))?;
    far.enter()?;
    let servers = Servers::start().await?;
    near.enter()?;
    let mut options = options();
    options.edge_host = [10, 77, 0, 1].into();
    let cloud = Cloud::start(options).await?;
    let tunnel = cloud.create_tunnel("test").await?;
    far.enter()?;
    let gateway = servers.gateway(&tunnel, cloud.addresses().edge)?;
    near.enter()?;
    let scene = Scene::new(cloud, tunnel, gateway, servers).await?;
    let at = async |address: &str| {
        let is_there = |one: &Value| {
            let remote = one["remote_address"].as_str();
            remote.is_some_and(|remote| remote.starts_with(address))
        };
        let connections = scene
            .cloud
            .wait_connections(&scene.tunnel, |all| all.iter().any(is_there));
        connections.await.map(drop)
    };
    at("10.77.0.2:").await?;
    let go = async |gone: &CancellationToken| {
        for step in [
            "link set up0 down",
            "address delete 10.77.0.2/24 dev up0",
            "address add 10.77.0.3/24 dev up0",
            "link set up0 up",
        ] {
            far.ip(step)?;
        }
        gone.cancel();
        scene.wrote("nothing was heard from the peer", 1).await?;
        scene.wrote("resumed after", 1).await
    };
    scene.survive(go).await?;
    at("10.77.0.3:").await
}
