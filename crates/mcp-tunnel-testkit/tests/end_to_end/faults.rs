//! Processes killed, peers half open, links cut, drains.

use crate::{until, with_fixture, with_upstream};
use anyhow::{Context, Result};
use http::Method;
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{FixtureOptions, FixtureServer},
    relay::{Mood, Relay},
    stack::{Cloud, CloudOptions, Gateway, SOON, Stack},
    upstream::{Ended, Step, Upstream, script},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

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
    let mut options = CloudOptions::default();
    // A gateway that was killed cannot be told from one whose link was cut, until it has not come back.
    options.arguments = vec!["--link-keep".to_owned(), "1".to_owned()];
    let server = upstream.address().to_string();
    let mut stack = Stack::start(options, &[&server]).await?;
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
    stack.cloud.wait_lost().await?;
    let answer = caller.call("echo", json!({ "text": "hello" })).await?;
    answer.assert_own_failure(503, "offline");
    stack.gateway.start_again()?;
    stack.gateway.wait_active().await?;
    caller.echo().await
}

#[tokio::test]
async fn a_call_waits_a_little_for_a_gateway_that_comes_back() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    // The wait is five seconds; a busy machine may need longer to start a program.
    let mut waited = Ok(());
    let log = stack.cloud.process().log();
    let losses = || log.text().matches("kept for its gateway").count();
    for round in 1..=3 {
        stack.gateway.kill().await?;
        assert!(until(SOON, async || losses() >= round).await);
        stack.gateway.start_again()?;
        waited = caller.echo().await;
        if waited.is_ok() {
            break;
        }
        stack.gateway.wait_active().await?;
    }
    waited
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
    let mut options = CloudOptions::default();
    options.arguments = vec!["--link-keep".to_owned(), "5".to_owned()];
    let cloud = Cloud::start(options).await?;
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
    cloud.wait_lost().await?;
    assert!(caller.echo().await.is_err(), "a call passes a cut relay");
    relay.set(Mood::Passing);
    let works = async || caller.echo().await.is_ok();
    assert!(until(SOON, works).await, "no call passes again");
    Ok(())
}

/// For a program to end that has nothing more to do: well before its drain deadline of half a minute.
const FINISHED: Duration = Duration::from_secs(20);

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
    let status = stack.gateway.exit(FINISHED).await?;
    assert_eq!(status.code(), Some(0), "{}", logs(&stack, ""));
    Ok(())
}

#[tokio::test]
async fn a_cloud_that_is_asked_to_stop_finishes_its_calls() -> Result<()> {
    let mut stack = asked_to_stop(|stack| stack.cloud.process().signal(Signal::TERM)).await?;
    let status = stack.cloud.exit(FINISHED).await?;
    assert_eq!(status.code(), Some(0), "{}", logs(&stack, ""));
    Ok(())
}

#[tokio::test]
async fn idle_programs_stop_at_once() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    Caller::https(&stack, "mcp")?.echo().await?;
    assert_eq!(stack.gateway.stop(FINISHED).await?.code(), Some(0));
    assert_eq!(stack.cloud.stop(FINISHED).await?.code(), Some(0));
    Ok(())
}

/// A call is under way when the token is rotated; what the tunnel's new token is. The gateway has been told to go by
/// then, and has been refused where it asked for another link.
async fn rotate_under(stack: &Stack) -> Result<String> {
    let path = format!("/v1/tunnels/{}/rotate_token", stack.tunnel.id);
    let body = json!({ "reason": "test" });
    let fresh = stack.cloud.api(Method::POST, &path, Some(body)).await?;
    let gateway = stack.gateway.process();
    gateway
        .line(SOON, |line| line.contains("takes this link down"))
        .await?;
    let fresh = fresh["tunnel_token"].as_str().context("a token")?;
    Ok(fresh.to_owned())
}

#[tokio::test]
async fn a_rotation_lets_a_running_call_finish() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    let slow = json!({ "seconds": 5, "steps": 5 });
    let mut answer = caller.begin(&json!(1), "slow", slow).await?;
    rotate_under(&stack).await?;
    let mut text = String::new();
    while let Some(chunk) = answer.chunk().await.with_context(|| logs(&stack, &text))? {
        text += &String::from_utf8_lossy(&chunk);
    }
    assert!(text.contains("took 5 s"), "{}", logs(&stack, &text));
    // With its last call the gateway ends, and says why.
    let status = stack.gateway.exit(SOON).await?;
    let said = stack.gateway.process().log().text();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(
        said.contains("start the gateway with the new token"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_gateway_killed_while_a_rotation_drains_is_an_error_for_its_calls_only() -> Result<()> {
    let upstream = Upstream::start(|exchange| {
        if exchange.head().contains("x-slow: 1") {
            return vec![
                script::event_stream(),
                script::event("1"),
                Step::UntilPeerLeaves,
            ];
        }
        script::json("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    })
    .await?;
    let mut stack = with_upstream(&upstream).await?;
    let caller = Caller::https(&stack, "mcp")?;
    let (header, value) = stack.caller_header();
    let slow = caller
        .clone()
        .with_headers(&[(&header, &value), ("x-slow", "1")]);
    let mut answer = slow.begin(&json!(1), "slow", json!({})).await?;
    assert!(answer.chunk().await?.is_some());
    let fresh = rotate_under(&stack).await?;
    stack.gateway.kill().await?;
    let rest = tokio::time::timeout(SOON, async {
        while answer.chunk().await?.is_some() {}
        Ok::<_, reqwest::Error>(())
    });
    assert!(rest.await?.is_err(), "a clean end after the kill");
    // The server has been let go of, and the next gateway has nothing to wait for.
    upstream
        .wait(SOON, |all| all[0].ended == Some(Ended::PeerLeft))
        .await?;
    let server = upstream.address().to_string();
    let _gateway = Gateway::start(&fresh, &["--mcp-server", &server])?;
    stack.cloud.approve(&stack.tunnel).await?;
    assert_eq!(caller.call("echo", json!({})).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_leaves_under_load_loses_no_call() -> Result<()> {
    let (_stays, stack) = with_fixture().await?;
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let server = fixture.address().to_string();
    let mut leaving = Gateway::start(&stack.tunnel.token, &["--mcp-server", &server])?;
    stack.cloud.approve(&stack.tunnel).await?;
    let two = |all: &[Value]| all.iter().filter(|one| one["status"] == "active").count() == 2;
    stack.cloud.wait_connections(&stack.tunnel, two).await?;
    let caller = Caller::https(&stack, "mcp")?;
    let (stopped, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    // The newest link gets the calls: those of the gateway that leaves. Each goes out with its body before the edge can
    // know that the gateway leaves, and is never sent twice.
    let calling = async || -> Result<()> {
        while !stopped.load(Ordering::Relaxed) {
            caller.echo().await?;
            calls.fetch_add(1, Ordering::Relaxed);
        }
        caller.echo().await
    };
    let leave = async {
        let busy = async || calls.load(Ordering::Relaxed) > 50;
        assert!(until(SOON, busy).await, "no calls");
        assert!(
            fixture.counters().started > 0,
            "no call takes the newest link"
        );
        let status = leaving.stop(SOON).await?;
        stopped.store(true, Ordering::Relaxed);
        assert_eq!(status.code(), Some(0), "{}", leaving.process().log().text());
        Ok(())
    };
    tokio::try_join!(leave, calling(), calling(), calling(), calling())?;
    Ok(())
}
