//! The private MCP server is down, slow, broken, or where it must not be.

use crate::{with_fixture, with_upstream};
use anyhow::Result;
use bytes::Bytes;
use mcp_tunnel_testkit::{
    caller::Caller,
    rmcp_client::http_client,
    stack::{AT_ONCE, CloudOptions, Gateway, SOON, Stack},
    tools::free_port,
    upstream::{Ended, Step, Upstream, script},
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_server_that_is_down_is_a_502_that_says_so() -> Result<()> {
    let server = format!("127.0.0.1:{}", free_port()?);
    let stack = Stack::start(CloudOptions::default(), &[&server]).await?;
    for caller in [Caller::dev(&stack)?, Caller::https(&stack, "mcp")?] {
        let answer = caller.call("echo", json!({})).await?;
        answer.assert_own_failure(502, "unreachable");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_resets_before_its_answer_is_a_502() -> Result<()> {
    for last in [Step::Reset, Step::Close] {
        let upstream = Upstream::start(move |_| vec![last.clone()]).await?;
        let stack = with_upstream(&upstream).await?;
        let answer = Caller::dev(&stack)?.call("echo", json!({})).await?;
        answer.assert_own_failure(502, "broken");
        // It was written once, and so it was not sent again.
        assert_eq!(upstream.exchanges().len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_breaks_in_mid_body_is_an_error_for_the_client() -> Result<()> {
    for (head, last) in [
        (script::head(1 << 20), Step::Reset),
        (script::head(1 << 20), Step::Close),
        (script::event_stream(), Step::Reset),
        (script::event_stream(), Step::Close),
    ] {
        // A reset may overtake what was sent before it, so it waits until that has arrived.
        let arrived = CancellationToken::new();
        let gate = arrived.clone();
        let upstream = Upstream::start(move |_| {
            let part = script::chunk("data: 1\n\n");
            vec![head.clone(), part, Step::Gate(gate.clone()), last.clone()]
        })
        .await?;
        let stack = with_upstream(&upstream).await?;
        let (dev, https) = (Caller::dev(&stack)?, Caller::https(&stack, "mcp")?);
        let mut answers = Vec::new();
        for caller in [&dev, &https] {
            let mut answer = caller.begin(&json!(1), "slow", json!({})).await?;
            assert!(answer.chunk().await?.is_some());
            answers.push(answer);
        }
        arrived.cancel();
        for answer in answers {
            let rest = answer.bytes().await;
            assert!(rest.is_err(), "a clean end: {rest:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_http_is_a_502() -> Result<()> {
    let garbage = Bytes::from_static(b"SSH-2.0-OpenSSH_9.2p1\r\n");
    let upstream = Upstream::start(move |_| vec![Step::Send(garbage.clone()), Step::Close]).await?;
    let stack = with_upstream(&upstream).await?;
    let answer = Caller::dev(&stack)?.call("echo", json!({})).await?;
    answer.assert_own_failure(502, "broken");
    Ok(())
}

#[tokio::test]
async fn a_slow_first_byte_is_waited_for() -> Result<()> {
    let upstream = Upstream::start(|_| {
        let mut steps = vec![Step::Wait(Duration::from_secs(8))];
        steps.extend(script::json(
            "200 OK",
            r#"{"jsonrpc":"2.0","id":"call-7","result":{}}"#,
        ));
        steps
    })
    .await?;
    let stack = with_upstream(&upstream).await?;
    let answer = Caller::https(&stack, "mcp")?
        .call("echo", json!({}))
        .await?;
    assert_eq!(answer.status, 200);
    assert!(answer.message()?["result"].is_object());
    Ok(())
}

#[tokio::test]
async fn a_forbidden_address_is_never_dialled() -> Result<()> {
    // Link-local: clouds keep their instance metadata there.
    let fixture = with_fixture().await?;
    let arguments = ["--mcp-server", "docs=http://169.254.169.254/mcp"];
    let tunnel = fixture.1.cloud.create_tunnel("metadata").await?;
    let mut gateway = Gateway::start(&tunnel.token, &arguments)?;
    let refused_at_once = gateway.exit(Duration::from_secs(2)).await;
    let said = gateway.process().log().text();
    if let Ok(status) = refused_at_once {
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("169.254.169.254"), "{said}");
        return Ok(());
    }
    fixture.1.cloud.approve(&tunnel).await?;
    let url = fixture.1.cloud.path_url(&tunnel, "docs");
    let (header, value) = fixture.1.caller_header();
    let client = http_client(Some(&fixture.1.cloud.ca()), None, &url)?;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let answer = client
        .post(&url)
        .header(header, value)
        .body(body)
        .send()
        .await?;
    assert_eq!(answer.status(), 502);
    let text = answer.text().await?;
    assert!(text.contains("forbidden_address"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_reaches_the_server_at_once() -> Result<()> {
    let upstream = Upstream::start(|_| {
        vec![
            script::event_stream(),
            script::event("1"),
            Step::UntilPeerLeaves,
        ]
    })
    .await?;
    let stack = with_upstream(&upstream).await?;
    for (index, caller) in [Caller::dev(&stack)?, Caller::https(&stack, "mcp")?]
        .iter()
        .enumerate()
    {
        let mut answer = caller.begin(&json!(1), "slow", json!({})).await?;
        assert!(answer.chunk().await?.is_some());
        let left = Instant::now();
        drop(answer);
        let noticed = |all: &[_]| {
            let one: Option<&mcp_tunnel_testkit::upstream::Exchange> = all.get(index);
            one.is_some_and(|one| one.ended == Some(Ended::PeerLeft))
        };
        upstream.wait(SOON, noticed).await?;
        assert!(left.elapsed() < AT_ONCE, "{:?}", left.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_reaches_the_server_too() -> Result<()> {
    let upstream = Upstream::start(|_| vec![Step::UntilPeerLeaves]).await?;
    let stack = with_upstream(&upstream).await?;
    let caller = Caller::https(&stack, "mcp")?;
    let id = json!(1);
    let call = caller.begin(&id, "slow", json!({}));
    let arrived = upstream.wait(SOON, |all| !all.is_empty());
    tokio::select! {
        answer = call => panic!("an answer out of nothing: {answer:?}"),
        arrived = arrived => { arrived?; }
    }
    upstream
        .wait(AT_ONCE, |all| all[0].ended == Some(Ended::PeerLeft))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_server_comes_back_without_anybody_doing_anything() -> Result<()> {
    let port = free_port()?;
    let stack = Stack::start(CloudOptions::default(), &[&format!("127.0.0.1:{port}")]).await?;
    let caller = Caller::dev(&stack)?;
    caller
        .call("echo", json!({}))
        .await?
        .assert_own_failure(502, "unreachable");
    let mut options = mcp_tunnel_testkit::fixture::FixtureOptions::default();
    options.listen.set_port(port);
    let fixture = mcp_tunnel_testkit::fixture::FixtureServer::start(options).await?;
    caller.echo().await?;
    assert_eq!(fixture.counters().finished, 1);
    Ok(())
}

#[tokio::test]
async fn requests_arrive_byte_for_byte_with_the_servers_own_host() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let stack = with_upstream(&upstream).await?;
    let caller = Caller::https(&stack, "mcp")?.with_headers(&[
        ("Mcp-Tunnel-Authorization", &stack.caller_header().1),
        ("Authorization", "Bearer of-the-server"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Mcp-Param-Value", "=?base64?aGVsbG8=?="),
        ("X-Unknown", "kept"),
    ]);
    let odd = json!({ "big": 18_446_744_073_709_551_615_u64, "text": "\u{2028}ß" });
    caller.call("echo", odd.clone()).await?;
    let seen = &upstream.exchanges()[0];
    let head = seen.head().to_ascii_lowercase();
    assert!(head.starts_with("post /mcp http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nhost: {}\r\n", upstream.address())),
        "{head}"
    );
    assert!(
        head.contains("\r\nauthorization: bearer of-the-server\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nmcp-param-value: =?base64?agvsbg8=?=\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nx-unknown: kept\r\n"), "{head}");
    assert!(!head.contains("mcp-tunnel-authorization"), "{head}");
    assert!(!head.contains("192.0.2.1"), "{head}");
    let body = String::from_utf8_lossy(&seen.body()).into_owned();
    assert!(
        body.contains("18446744073709551615") && body.contains("\u{2028}ß"),
        "{body}"
    );
    Ok(())
}

/// What a server behind a cloud of this log level sees as `traceparent`.
async fn traces_at(log_level: &str) -> Result<[Option<String>; 2]> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let mut options = CloudOptions::default();
    options.log_level = log_level.to_owned();
    let stack = Stack::start(options, &[&upstream.address().to_string()]).await?;
    let caller = Caller::dev(&stack)?;
    caller.call("echo", json!({})).await?;
    let caller = caller.with_headers(&[("traceparent", TRACE)]);
    caller.call("echo", json!({})).await?;
    let seen = upstream.wait(SOON, |all| all.len() == 2).await?;
    Ok([0, 1].map(|number: usize| {
        let head = seen[number].head();
        let value = head
            .lines()
            .find_map(|line| line.strip_prefix("traceparent: "));
        value.map(str::to_owned)
    }))
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_callers_trace_reaches_the_server_and_a_log_of_calls_begins_one() -> Result<()> {
    let own = Some(TRACE.to_owned());
    assert_eq!(traces_at("info").await?, [None, own.clone()]);
    let [begun, passed] = traces_at("debug").await?;
    assert_eq!(passed, own);
    let begun = begun.expect("a trace of the edge's own");
    assert!(
        begun.starts_with("00-") && begun.len() == TRACE.len(),
        "{begun}"
    );
    Ok(())
}

#[tokio::test]
async fn an_unknown_host_is_misdirected_on_the_development_ingress() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    for host in [
        "evil.example.com",
        "localhost.evil.example.com",
        "192.0.2.1",
    ] {
        let caller = Caller::dev(&stack)?.with_headers(&[("host", host)]);
        let answer = caller.call("echo", json!({ "text": "hello" })).await?;
        assert_eq!(answer.status, 421, "{host}: {}", answer.body);
    }
    let caller = Caller::dev(&stack)?.with_headers(&[("origin", "https://evil.example.com")]);
    let answer = caller.call("echo", json!({ "text": "hello" })).await?;
    assert_eq!(answer.status, 403, "{}", answer.body);
    // It has no caller key to ask for.
    assert!(
        answer.body.contains("evil.example.com") && !answer.body.contains("caller key"),
        "{}",
        answer.body
    );
    Ok(())
}

#[tokio::test]
async fn an_unknown_route_is_named_with_those_that_exist() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let server = format!("docs={}", upstream.address());
    let stack = Stack::start(CloudOptions::default(), &[&server]).await?;
    let answer = Caller::https(&stack, "other")?
        .call("echo", json!({}))
        .await?;
    answer.assert_own_failure(502, "no_route");
    assert!(answer.body.contains("docs"), "{}", answer.body);
    assert_eq!(upstream.exchanges().len(), 0);
    Ok(())
}
