//! Long, large, slow and many answers.

use crate::{with_fixture, with_upstream};
use anyhow::Result;
use mcp_tunnel_testkit::{
    caller::Caller,
    process::resident_bytes,
    stack::{AT_ONCE, SOON, Stack},
    upstream::{Step, Upstream, script},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::time::{Duration, Instant};

const LARGE: u64 = 200_000_000;
/// What a process may grow by while a reader stalls, bytes: windows of a few MiB and what the
/// allocator keeps of them.
const GROWTH: u64 = 24 << 20;

fn resident(stack: &Stack) -> Result<[u64; 2]> {
    let pids = [stack.cloud.process().pid(), stack.gateway.process().pid()];
    let [cloud, gateway] = pids.map(|pid| resident_bytes(pid.expect("it runs")));
    Ok([cloud?, gateway?])
}

#[tokio::test]
async fn a_large_answer_arrives_whole() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    for caller in [Caller::dev(&stack)?, Caller::https(&stack, "mcp")?] {
        let mut answer = caller.get(&format!("/blob/{LARGE}")).await?;
        assert_eq!(answer.status(), 200);
        let mut received = 0;
        while let Some(chunk) = answer.chunk().await? {
            assert!(chunk.iter().all(|byte| *byte == b'x'));
            received += chunk.len() as u64;
        }
        assert_eq!(received, LARGE);
    }
    Ok(())
}

#[tokio::test]
async fn a_large_request_arrives_whole() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let stack = with_upstream(&upstream).await?;
    let text = "y".repeat(16 << 20);
    let answer = Caller::https(&stack, "mcp")?
        .call("echo", json!({ "text": text }))
        .await?;
    assert_eq!(answer.status, 200);
    assert!(upstream.exchanges()[0].body().len() > 16 << 20);
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_harms_neither_memory_nor_other_calls() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    let (dev, https) = (Caller::dev(&stack)?, Caller::https(&stack, "mcp")?);
    dev.echo().await?;
    https.echo().await?;
    let before = resident(&stack)?;
    let mut stalled = Vec::new();
    for caller in [&dev, &https, &dev, &https] {
        stalled.push(caller.get(&format!("/blob/{LARGE}")).await?);
    }
    for _ in 0..50 {
        let start = Instant::now();
        dev.echo().await?;
        https.echo().await?;
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
    let after = resident(&stack)?;
    for (before, after) in before.iter().zip(after) {
        assert!(after < before + GROWTH, "{before} grew to {after}");
    }
    Ok(())
}

#[tokio::test]
async fn events_arrive_one_by_one_and_unchanged() -> Result<()> {
    let upstream = Upstream::start(|_| script::events(5, Duration::from_millis(300))).await?;
    let stack = with_upstream(&upstream).await?;
    for caller in [Caller::dev(&stack)?, Caller::https(&stack, "mcp")?] {
        let mut answer = caller.begin(&json!(1), "slow", json!({})).await?;
        let (mut arrivals, mut text) = (Vec::new(), String::new());
        while let Some(chunk) = answer.chunk().await? {
            arrivals.push(Instant::now());
            text += &String::from_utf8_lossy(&chunk);
        }
        let expected: String = (0..5)
            .map(|n| format!("event: message\ndata: {{\"number\":{n}}}\n\n"))
            .collect();
        assert_eq!(text, expected);
        let span = arrivals[arrivals.len() - 1] - arrivals[0];
        assert!(
            span > Duration::from_millis(900),
            "they came together: {span:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn silence_brings_a_comment_between_events_only() -> Result<()> {
    let half = "event: message\ndata: {\"ha";
    let upstream = Upstream::start(move |exchange| {
        let pause = Step::Wait(Duration::from_secs(17));
        let first = if exchange.head().contains("x-half: 1") {
            script::chunk(half)
        } else {
            script::event("1")
        };
        let end = script::chunk("lf\":1}\n\n");
        vec![
            script::event_stream(),
            first,
            pause,
            end,
            Step::Send("0\r\n\r\n".into()),
        ]
    })
    .await?;
    let stack = with_upstream(&upstream).await?;
    let whole = Caller::dev(&stack)?;
    let broken = Caller::dev(&stack)?.with_headers(&[("x-half", "1")]);
    let (between, within) = tokio::join!(
        whole.call("slow", json!({})),
        broken.call("slow", json!({}))
    );
    let (between, within) = (between?.body, within?.body);
    assert!(
        between.lines().any(|line| line.starts_with(':')),
        "{between}"
    );
    assert_eq!(within, format!("{half}lf\":1}}\n\n"));
    Ok(())
}

#[tokio::test]
async fn a_thousand_idle_streams_leave_room_for_calls() -> Result<()> {
    const STREAMS: usize = 1000;
    if !enough_descriptors() {
        mcp_tunnel_testkit::tools::skip("a thousand streams need 8192 file descriptors");
        return Ok(());
    }
    let upstream = Upstream::start(|exchange| {
        if exchange.head().starts_with("GET ") {
            return vec![
                script::event_stream(),
                script::event("1"),
                Step::UntilPeerLeaves,
            ];
        }
        script::json("200 OK", "{}")
    })
    .await?;
    let stack = with_upstream(&upstream).await?;
    let caller = Caller::dev(&stack)?;
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut answer = caller.get("/mcp").await?;
        assert_eq!(answer.status(), 200);
        assert!(answer.chunk().await?.is_some());
        open.push(answer);
    }
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(caller.call("echo", json!({})).await?.status, 200);
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
    let [cloud, gateway] = resident(&stack)?;
    assert!(
        cloud < 256 << 20 && gateway < 160 << 20,
        "cloud {cloud}, gateway {gateway}"
    );
    drop(open);
    let left = |all: &[mcp_tunnel_testkit::upstream::Exchange]| {
        all.iter().filter(|one| one.ended.is_some()).count() >= STREAMS
    };
    upstream.wait(SOON, left).await?;
    Ok(())
}

/// Raises the soft limit, which the programs inherit, as far as the hard one allows.
fn enough_descriptors() -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = 8192;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = limit
            .maximum
            .map_or(Some(wanted), |most| Some(most.min(wanted)));
        if setrlimit(Resource::Nofile, limit).is_err() {
            return false;
        }
    }
    limit.current.is_none_or(|current| current >= wanted)
}
