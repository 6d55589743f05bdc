//! The testkit judged by itself: without any tunnel, all of it must work.

use anyhow::Result;
use mcp_tunnel_testkit::{
    conformance::{self, Requirements},
    drivers::{Driver, Target},
    fixture::{FixtureOptions, FixtureServer},
    process::{Process, listening_sockets, processor_time, resident_bytes},
    recorder::Recorder,
    relay::{Mood, Relay},
    rmcp_client::http_client,
    tools::{Need, have},
    upstream::{Ended, Step, Upstream, script},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn fixture_passes_every_scored_scenario_of_both_revisions() -> Result<()> {
    if !have(&[Need::Node]) {
        return Ok(());
    }
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let url = format!("http://localhost:{}/mcp", fixture.address().port());
    for requirements in [Requirements::Legacy2025, Requirements::Modern2026] {
        let run = conformance::run(&url, requirements, Duration::from_secs(120)).await?;
        assert!(run.passed, "{requirements}:\n{}", run.report);
        assert_eq!(run.checks.with_status("FAILURE"), 0, "{}", run.report);
    }
    Ok(())
}

#[tokio::test]
async fn every_client_lists_and_calls_tools_of_the_fixture() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let target = Target::new(fixture.url());
    for driver in Driver::STREAMABLE_HTTP {
        if !have(driver.needs()) {
            continue;
        }
        let outcome = driver.drive(&target).await?;
        assert!(outcome.ok, "{driver:?}: {outcome:?}");
        assert_eq!(outcome.text, "hello", "{driver:?}");
        assert!(outcome.tools.contains(&"add".to_owned()), "{driver:?}");
    }
    let calls = fixture.counters();
    assert_eq!((calls.started, calls.cancelled), (calls.finished, 0));
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_call() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let mut target = Target::new(fixture.url());
    target.tool = "slow".to_owned();
    target.arguments = serde_json::json!({ "seconds": 600 });
    let started = async {
        while fixture.counters().started == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = Driver::RmcpModern.drive(&target) => panic!("ended early: {outcome:?}"),
        () = started => {}
    }
    let cancelled = async {
        while fixture.counters().cancelled == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, cancelled).await?;
    Ok(())
}

#[tokio::test]
async fn upstream_records_exact_bytes_and_notices_a_leaving_peer() -> Result<()> {
    let upstream = Upstream::start(|exchange| {
        if exchange.head().starts_with("POST /answer ") {
            return script::json("200 OK", "{}");
        }
        vec![
            script::event_stream(),
            script::event("1"),
            Step::UntilPeerLeaves,
        ]
    })
    .await?;
    let url = format!("http://{}", upstream.address());
    let client = http_client(None, None, &url)?;
    let answer = client
        .post(format!("{url}/answer"))
        .body("one two")
        .send()
        .await?;
    assert_eq!(answer.text().await?, "{}");
    let mut answer = client.get(format!("{url}/events")).send().await?;
    assert!(answer.chunk().await?.is_some());
    drop(answer);
    let record = upstream
        .wait(SOON, |all| {
            all.iter().any(|one| one.ended == Some(Ended::PeerLeft))
        })
        .await?;
    assert_eq!(record[0].body(), "one two");
    assert!(record[1].head().starts_with("GET /events HTTP/1.1\r\n"));
    Ok(())
}

#[tokio::test]
async fn upstream_cut_in_mid_body_is_an_error_for_the_client() -> Result<()> {
    for last in [Step::Reset, Step::Close] {
        let upstream =
            Upstream::start(move |_| vec![script::head(1 << 20), Step::Fill(1000), last.clone()])
                .await?;
        let url = format!("http://{}", upstream.address());
        let answer = http_client(None, None, &url)?.get(url).send().await;
        let body = match answer {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        assert!(body.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn relay_passes_stalls_and_cuts() -> Result<()> {
    let gate = CancellationToken::new();
    let opened = gate.clone();
    let upstream = Upstream::start(move |_| {
        let mut steps = vec![script::head(2), Step::Fill(1), Step::Gate(opened.clone())];
        steps.push(Step::Fill(1));
        steps
    })
    .await?;
    let relay = Relay::start(upstream.address()).await?;
    let url = format!("http://{}", relay.address());
    let client = http_client(None, None, &url)?;
    let mut answer = client.get(&url).send().await?;
    assert_eq!(answer.chunk().await?.as_deref(), Some(b"x".as_slice()));
    relay.set(Mood::Stalled);
    gate.cancel();
    let stalled = tokio::time::timeout(Duration::from_millis(100), answer.chunk()).await;
    assert!(
        stalled.is_err(),
        "a stalled relay passed something: {stalled:?}"
    );
    relay.set(Mood::Passing);
    assert_eq!(answer.chunk().await?.as_deref(), Some(b"x".as_slice()));
    relay.set(Mood::Cutting);
    // The connection that is kept alive, then a new one.
    assert!(client.get(&url).send().await.is_err());
    assert!(client.get(&url).send().await.is_err());
    assert!(relay.accepted() >= 2);
    Ok(())
}

#[tokio::test]
async fn recorder_passes_calls_and_notes_them() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let origin = format!("http://{}", fixture.address());
    let recorder = Recorder::start(http_client(None, None, &origin)?, &origin).await?;
    let outcome = Driver::RmcpModern
        .drive(&Target::new(recorder.url("/mcp")))
        .await?;
    assert!(outcome.ok, "{outcome:?}");
    let methods: Vec<_> = recorder
        .recorded()
        .into_iter()
        .filter_map(|one| one.rpc_method)
        .collect();
    assert_eq!(methods, ["server/discover", "tools/list", "tools/call"]);
    Ok(())
}

#[tokio::test]
async fn fixture_program_prints_its_address_and_ends_on_sigterm() -> Result<()> {
    let program = env!("CARGO_BIN_EXE_mcp-fixture-server");
    let mut server = Process::start("fixture", tokio::process::Command::new(program))?;
    let line = server
        .line(SOON, |line| line.starts_with("listening on http://"))
        .await?;
    let url = line.trim_start_matches("listening on ").to_owned();
    let outcome = Driver::RmcpLegacy.drive(&Target::new(url)).await?;
    assert!(outcome.ok, "{outcome:?}");
    let pid = server.pid().expect("it runs");
    assert_eq!(listening_sockets(pid)?.len(), 1);
    assert!(resident_bytes(pid)? > 1 << 20);
    assert!(processor_time(pid)? < SOON);
    server.signal(rustix::process::Signal::TERM)?;
    assert!(server.exit(SOON).await?.success());
    Ok(())
}
