//! Processes killed, peers half open, links cut, drains.

use crate::{until, with_fixture, with_upstream};
use anyhow::{Context, Result};
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{FixtureOptions, FixtureServer},
    relay::{Mood, Relay},
    stack::{Cloud, CloudOptions, Gateway, SOON, Stack},
    upstream::{Step, Upstream, script},
};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// Begins an answer of each framing through each ingress, ends `killed`, and wants an error for all.
async fn killed_in_mid_body(
    kill: impl AsyncFnOnce(&mut Stack, Upstream) -> Result<()>,
) -> Result<()> {
    let upstream = Upstream::start(|exchange| {
        if exchange.head().contains("x-events: 1") {
            return vec![
                script::event_stream(),
                script::event("1"),
                Step::UntilPeerLeaves,
            ];
        }
        vec![
            script::head(1 << 20),
            Step::Fill(1000),
            Step::UntilPeerLeaves,
        ]
    })
    .await?;
    let mut stack = with_upstream(&upstream).await?;
    let (header, value) = stack.caller_header();
    let mut answers = Vec::new();
    for caller in [Caller::dev(&stack)?, Caller::https(&stack, "mcp")?] {
        for events in ["0", "1"] {
            let caller = caller
                .clone()
                .with_headers(&[(&header, &value), ("x-events", events)]);
            let mut answer = caller.begin(&json!(1), "slow", json!({})).await?;
            assert!(answer.chunk().await?.is_some());
            answers.push(answer);
        }
    }
    kill(&mut stack, upstream).await?;
    for mut answer in answers {
        let end = async {
            loop {
                match answer.chunk().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        let end = tokio::time::timeout(SOON, end).await?;
        assert!(end.is_err(), "a clean end after the kill");
    }
    Ok(())
}

#[tokio::test]
async fn server_killed_in_mid_body_is_an_error() -> Result<()> {
    killed_in_mid_body(async |_, upstream| {
        drop(upstream);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn gateway_killed_in_mid_body_is_an_error() -> Result<()> {
    killed_in_mid_body(async |stack, _upstream| stack.gateway.kill().await).await
}

#[tokio::test]
async fn edge_killed_in_mid_body_is_an_error() -> Result<()> {
    killed_in_mid_body(async |stack, _upstream| stack.cloud.kill().await).await
}

#[tokio::test]
async fn gateway_killed_comes_back_without_a_new_approval() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    caller.echo().await?;
    stack.gateway.kill().await?;
    let answer = caller.call("echo", json!({ "text": "hello" })).await?;
    answer.assert_own_failure(503, "offline");
    stack.gateway.start_again()?;
    stack.cloud.wait_active(&stack.tunnel).await?;
    caller.echo().await
}

#[tokio::test]
async fn a_call_waits_a_little_for_a_gateway_that_comes_back() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    stack.gateway.kill().await?;
    let call = caller.echo();
    stack.gateway.start_again()?;
    call.await
}

#[tokio::test]
async fn cloud_killed_keeps_tunnels_keys_and_approvals() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    Caller::https(&stack, "mcp")?.echo().await?;
    for _ in 0..2 {
        stack.cloud.kill().await?;
        stack.cloud.start_again().await?;
        stack.cloud.wait_active(&stack.tunnel).await?;
        Caller::https(&stack, "mcp")?.echo().await?;
        Caller::dev(&stack)?.echo().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_waits_for_an_edge_that_is_down_at_its_start() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let mut cloud = Cloud::start(CloudOptions::default()).await?;
    let tunnel = cloud.create_tunnel("test").await?;
    assert!(cloud.stop(SOON).await?.success());
    let server = fixture.address().to_string();
    let mut strict = Gateway::start(
        &tunnel.token,
        &["--mcp-server", &server, "--exit-on-failure"],
    )?;
    let status = strict.exit(SOON).await?;
    assert_eq!(status.code(), Some(4), "{}", strict.process().log().text());

    let _gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server])?;
    cloud.start_again().await?;
    cloud.approve(&tunnel).await
}

#[tokio::test]
async fn a_half_open_link_is_noticed_on_both_sides() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let tunnel = cloud.create_tunnel("test").await?;
    let relay = Relay::start(cloud.addresses().edge).await?;
    let (server, edge) = (fixture.address().to_string(), relay.address().to_string());
    let _gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server, "--edge", &edge])?;
    cloud.approve(&tunnel).await?;
    let caller = Caller::plain(cloud.dev_url(0))?;
    caller.echo().await?;

    relay.set(Mood::Stalled);
    let start = Instant::now();
    let answer = caller.call("echo", json!({ "text": "hello" })).await?;
    assert!(
        matches!(answer.status.as_u16(), 502..=504),
        "{}",
        answer.body
    );
    assert!(
        start.elapsed() < Duration::from_secs(40),
        "{:?}",
        start.elapsed()
    );

    // What was stalled stays dead; a new link through the same relay works.
    relay.set(Mood::Cutting);
    relay.set(Mood::Passing);
    let works = async || caller.echo().await.is_ok();
    assert!(
        until(Duration::from_secs(40), works).await,
        "no call passes again"
    );
    assert!(relay.accepted() >= 2);
    Ok(())
}

#[tokio::test]
async fn a_cut_link_is_made_again_within_seconds() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let tunnel = cloud.create_tunnel("test").await?;
    let relay = Relay::start(cloud.addresses().edge).await?;
    let (server, edge) = (fixture.address().to_string(), relay.address().to_string());
    let _gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server, "--edge", &edge])?;
    cloud.approve(&tunnel).await?;
    let caller = Caller::plain(cloud.dev_url(0))?;
    // One cut: the waits of a link that is cut again and again grow, which the transport tests in virtual time.
    caller.echo().await?;
    relay.set(Mood::Cutting);
    let failed = async || caller.echo().await.is_err();
    assert!(until(SOON, failed).await, "calls pass through a cut relay");
    relay.set(Mood::Passing);
    let works = async || caller.echo().await.is_ok();
    assert!(until(SOON, works).await, "no call passes again");
    Ok(())
}

/// A call of three seconds is under way when `stop` says who is asked to stop; it must end well.
async fn asked_to_stop(stop: impl FnOnce(&Stack) -> Result<()>) -> Result<Stack> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let mut options = CloudOptions::default();
    options.log_level = "debug".to_owned();
    let stack = Stack::start(options, &[&fixture.address().to_string()]).await?;
    let caller = Caller::https(&stack, "mcp")?;
    let slow = json!({ "seconds": 3, "steps": 3 });
    let mut answer = caller.begin(&json!(1), "slow", slow).await?;
    stop(&stack)?;
    let mut text = String::new();
    while let Some(chunk) = answer.chunk().await.with_context(|| logs(&stack, &text))? {
        text += &String::from_utf8_lossy(&chunk);
    }
    assert!(text.contains("took 3 s"), "{}", logs(&stack, &text));
    Ok(stack)
}

fn logs(stack: &Stack, answer: &str) -> String {
    let [cloud, gateway] =
        [stack.cloud.process(), stack.gateway.process()].map(|one| one.log().text());
    format!("the cloud wrote:\n{cloud}\nthe gateway wrote:\n{gateway}\nthe caller got:\n{answer}")
}

#[tokio::test]
async fn a_gateway_that_is_asked_to_stop_finishes_its_calls() -> Result<()> {
    let mut stack = asked_to_stop(|stack| stack.gateway.process().signal(Signal::TERM)).await?;
    let status = stack.gateway.exit(Duration::from_secs(5)).await?;
    assert_eq!(status.code(), Some(0), "{}", logs(&stack, ""));
    Ok(())
}

#[tokio::test]
async fn a_cloud_that_is_asked_to_stop_finishes_its_calls() -> Result<()> {
    let mut stack = asked_to_stop(|stack| stack.cloud.process().signal(Signal::TERM)).await?;
    let status = stack.cloud.exit(Duration::from_secs(5)).await?;
    assert_eq!(status.code(), Some(0), "{}", logs(&stack, ""));
    Ok(())
}

#[tokio::test]
async fn idle_programs_stop_at_once() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    Caller::https(&stack, "mcp")?.echo().await?;
    let soon = Duration::from_secs(3);
    assert_eq!(stack.gateway.stop(soon).await?.code(), Some(0));
    assert_eq!(stack.cloud.stop(soon).await?.code(), Some(0));
    Ok(())
}
