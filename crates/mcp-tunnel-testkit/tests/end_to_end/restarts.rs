//! What becomes of calls when one of the programs is started again under them.

use crate::{resume::Cuttable, with_fixture, with_upstream};
use anyhow::{Result, ensure};
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{CallCounters, FixtureOptions, FixtureServer},
    stack::{AT_ONCE, SOON},
    upstream::{Ended, Exchange, Step, Upstream, script},
};
use rustix::process::Signal;
use serde_json::json;
use std::time::Instant;

/// A server whose calls begin, or not even that, and never end; `echo` is answered.
async fn endless() -> Result<Upstream> {
    Upstream::start(|exchange| {
        let head = exchange.head();
        if head.contains("mcp-name: echo") {
            return script::json("200 OK", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        }
        let mut steps = vec![Step::UntilPeerLeaves];
        if head.contains("mcp-name: begun") {
            steps.splice(0..0, [script::event_stream(), script::event("1")]);
        }
        steps
    })
    .await
}

/// Reads an answer to its end, which must be none that a server would make.
async fn broken(mut answer: reqwest::Response) -> Result<()> {
    loop {
        match answer.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("a clean end of a broken call"),
            Err(_) => return Ok(()),
        }
    }
}

#[tokio::test]
async fn a_gateway_killed_and_started_again_ends_the_calls_that_it_left() -> Result<()> {
    let upstream = endless().await?;
    let mut stack = with_upstream(&upstream).await?;
    let caller = Caller::https(&stack, "mcp")?;
    let id = json!(1);
    let begun = caller.begin(&id, "begun", json!({})).await?;
    let waiting = caller.call("waiting", json!({}));
    tokio::pin!(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("an answer out of nothing: {answer:?}"),
        both = upstream.wait(SOON, |all| all.len() == 2) => { both?; }
    }
    stack.gateway.kill().await?;
    stack.gateway.start_again()?;
    stack.gateway.wait_active().await?;
    // Well within the minute that calls wait for a gateway whose connection is lost.
    let up = Instant::now();
    waiting.await?.assert_own_failure(502, "broken");
    broken(begun).await?;
    assert!(up.elapsed() < AT_ONCE, "{:?}", up.elapsed());
    assert_eq!(caller.call("echo", json!({})).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_check_beside_a_gateway_ends_no_call() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let world = Cuttable::start(fixture.address()).await?;
    let caller = world.https().await?;
    let slow = json!({ "seconds": 3, "steps": 3 });
    let answer = caller.begin(&json!(1), "slow", slow).await?;
    world.gateway.check().await?;
    // And beside one that cannot have come back yet when its session is found without a connection.
    let gateway = world.gateway.process();
    gateway.signal(Signal::STOP)?;
    world.relay.cut();
    world.cloud.wait_lost().await?;
    let checked = world.gateway.check().await;
    gateway.signal(Signal::CONT)?;
    checked?;
    let text = answer.text().await?;
    ensure!(text.contains("took 3 s in 3 steps"), "{text}");
    let mut counters = CallCounters::default();
    (counters.started, counters.finished) = (1, 1);
    assert_eq!(fixture.counters(), counters);
    let resumed = |line: &str| line.contains("resumed after");
    gateway.line(SOON, resumed).await?;
    Ok(())
}

#[tokio::test]
async fn an_edge_that_restarts_finishes_its_calls_and_takes_the_next_ones() -> Result<()> {
    let (fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    let slow = json!({ "seconds": 3, "steps": 3 });
    let answer = caller.begin(&json!(1), "slow", slow).await?;
    stack.cloud.process().signal(Signal::TERM)?;
    let text = answer.text().await?;
    ensure!(text.contains("took 3 s in 3 steps"), "{text}");
    assert!(stack.cloud.exit(SOON).await?.success());
    stack.cloud.start_again().await?;
    stack.cloud.wait_active(&stack.tunnel).await?;
    caller.echo().await?;
    assert_eq!(fixture.counters().cancelled, 0);
    Ok(())
}

/// The edge's end of a session is in its memory: calls break with it, and the server hears of that from the gateway as
/// soon as an edge is there again, not after the minute that a session is kept.
#[tokio::test]
async fn an_edge_killed_in_mid_call_breaks_it_at_both_ends() -> Result<()> {
    let upstream = endless().await?;
    let mut stack = with_upstream(&upstream).await?;
    let caller = Caller::https(&stack, "mcp")?;
    let begun = caller.begin(&json!(1), "begun", json!({})).await?;
    stack.cloud.kill().await?;
    broken(begun).await?;
    assert!(upstream.exchanges().iter().all(|one| one.ended.is_none()));
    stack.cloud.start_again().await?;
    stack.cloud.wait_active(&stack.tunnel).await?;
    let left = |all: &[Exchange]| all.iter().all(|one| one.ended == Some(Ended::PeerLeft));
    upstream.wait(AT_ONCE, left).await?;
    assert_eq!(caller.call("echo", json!({})).await?.status, 200);
    Ok(())
}
