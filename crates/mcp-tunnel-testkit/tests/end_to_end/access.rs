//! Tokens, approval and callers.

use crate::{until, with_fixture};
use anyhow::Result;
use http::Method;
use mcp_tunnel_testkit::{
    caller::Caller,
    rmcp_client::http_client,
    stack::{Cloud, CloudOptions, Gateway, SOON},
};
use serde_json::json;
use std::time::Duration;

/// The bound of security 8, and as much again and more for the machine: the edge's own tests hold it exactly.
const REVOKED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_pending_gateway_carries_nothing_until_it_is_approved() -> Result<()> {
    let (fixture, stack) = with_fixture().await?;
    let tunnel = stack.cloud.create_tunnel("second").await?;
    let server = fixture.address().to_string();
    let gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server])?;
    let pending = stack
        .cloud
        .wait_connections(&tunnel, |all| {
            all.iter().any(|one| one["status"] == "pending")
        })
        .await?;
    let code = pending[0]["approval_code"]
        .as_str()
        .expect("a code")
        .to_owned();
    gateway
        .process()
        .line(SOON, |line| line.contains(&code))
        .await?;

    let url = stack.cloud.path_url(&tunnel, "mcp");
    let client = http_client(Some(&stack.cloud.ca()), None, &url)?;
    let (header, value) = stack.caller_header();
    let call = || client.post(&url).header(&header, &value).body("{}").send();
    assert_eq!(call().await?.status(), 503);
    assert_eq!(fixture.counters().started, 0);
    stack.cloud.approve(&tunnel).await?;
    assert_ne!(call().await?.status(), 503);
    Ok(())
}

#[tokio::test]
async fn approval_of_another_fingerprint_is_a_conflict() -> Result<()> {
    let (fixture, stack) = with_fixture().await?;
    let tunnel = stack.cloud.create_tunnel("second").await?;
    let server = fixture.address().to_string();
    let _gateway = Gateway::start(&tunnel.token, &["--mcp-server", &server])?;
    let all = stack
        .cloud
        .wait_connections(&tunnel, |all| !all.is_empty())
        .await?;
    let id = all[0]["id"].as_str().expect("an id");
    let path = format!("/v1/tunnels/{}/connections/{id}/approve", tunnel.id);
    let known = &stack.cloud.connections(&stack.tunnel).await?[0]["gateway_key_fingerprint"];
    let body = json!({ "gateway_key_fingerprint": known });
    let refused = stack.cloud.api(Method::POST, &path, Some(body)).await;
    let error = format!(
        "{:#}",
        refused.expect_err("it is another key's fingerprint")
    );
    assert!(error.contains("409"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_rotated_token_lets_nobody_in_again() -> Result<()> {
    let (fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    caller.echo().await?;
    let path = format!("/v1/tunnels/{}/rotate_token", stack.tunnel.id);
    let fresh = stack
        .cloud
        .api(Method::POST, &path, Some(json!({ "reason": "test" })))
        .await?;
    let fresh = fresh["tunnel_token"].as_str().expect("a token").to_owned();
    assert_ne!(fresh, stack.tunnel.token);

    // The live link is sent away, and the old value lets nobody in again: now, and after a start.
    for start in 0..2 {
        if start > 0 {
            stack.gateway.start_again()?;
        }
        let status = stack.gateway.exit(SOON).await?;
        let said = stack.gateway.process().log().text();
        assert_eq!(status.code(), Some(3), "{said}");
        assert!(said.contains("token"), "{said}");
    }

    // Another gateway with the new value takes over, once it is approved.
    let server = fixture.address().to_string();
    let _gateway = Gateway::start(&fresh, &["--mcp-server", &server])?;
    stack.cloud.approve(&stack.tunnel).await?;
    caller.echo().await
}

#[tokio::test]
async fn an_archived_tunnel_ends_within_the_bound() -> Result<()> {
    let (_fixture, mut stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    caller.echo().await?;
    let path = format!("/v1/tunnels/{}/archive", stack.tunnel.id);
    stack.cloud.api(Method::POST, &path, None).await?;
    let refused = async || {
        let answer = caller.call("echo", json!({ "text": "hello" })).await;
        answer.is_ok_and(|answer| answer.status == 403)
    };
    assert!(until(REVOKED, refused).await, "calls still pass");
    let status = stack.gateway.exit(SOON).await?;
    assert_eq!(
        status.code(),
        Some(3),
        "{}",
        stack.gateway.process().log().text()
    );
    Ok(())
}

#[tokio::test]
async fn a_refused_gateway_is_cut_within_the_bound() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    caller.echo().await?;
    let all = stack.cloud.connections(&stack.tunnel).await?;
    let id = all[0]["id"].as_str().expect("an id");
    let path = format!("/v1/tunnels/{}/connections/{id}/refuse", stack.tunnel.id);
    stack.cloud.api(Method::POST, &path, None).await?;
    let cut = async || {
        let answer = caller.call("echo", json!({ "text": "hello" })).await;
        answer.is_ok_and(|answer| answer.status == 503)
    };
    assert!(
        until(REVOKED + Duration::from_secs(5), cut).await,
        "calls still pass"
    );
    Ok(())
}

#[tokio::test]
async fn a_revoked_caller_key_ends_within_the_bound() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    let caller = Caller::https(&stack, "mcp")?;
    caller.echo().await?;
    let keys = stack
        .cloud
        .api(Method::GET, "/v1/caller_keys", None)
        .await?;
    let id = keys["data"][0]["id"].as_str().expect("an id");
    let path = format!("/v1/caller_keys/{id}/revoke");
    stack.cloud.api(Method::POST, &path, None).await?;
    let refused = async || caller.echo().await.is_err();
    assert!(until(REVOKED, refused).await, "the key still works");
    let answer = caller.call("echo", json!({ "text": "hello" })).await?;
    assert_eq!(answer.status, 403);
    Ok(())
}

#[tokio::test]
async fn refusals_are_the_same_to_the_byte() -> Result<()> {
    let (_fixture, stack) = with_fixture().await?;
    let (header, right) = stack.caller_header();
    let wrong = format!("Bearer mck_{}", "0".repeat(52));
    let known = stack.cloud.path_url(&stack.tunnel, "mcp");
    let unknown = known.replace(&stack.tunnel.id, &format!("tnl_{}", "0".repeat(26)));
    let client = http_client(Some(&stack.cloud.ca()), None, &known)?;
    let ask = async |url: &str, value: Option<&str>| -> Result<_> {
        let mut request = client
            .post(url)
            .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        if let Some(value) = value {
            request = request.header(&header, value);
        }
        let answer = request.send().await?;
        let mut headers = answer.headers().clone();
        headers.remove("date");
        Ok((answer.status(), headers, answer.bytes().await?))
    };
    let first = ask(&known, None).await?;
    assert_eq!(first.0, 403);
    assert!(!first.1.contains_key("www-authenticate"));
    assert_eq!(ask(&known, Some(&wrong)).await?, first);
    assert_eq!(ask(&unknown, None).await?, first);
    assert_eq!(ask(&unknown, Some(&right)).await?, first);
    Ok(())
}

#[tokio::test]
async fn a_token_of_another_cloud_reaches_neither() -> Result<()> {
    let (fixture, stack) = with_fixture().await?;
    let other = Cloud::start(CloudOptions::default()).await?;
    let foreign = other.create_tunnel("foreign").await?;
    let (server, edge) = (
        fixture.address().to_string(),
        stack.cloud.addresses().edge.to_string(),
    );
    let arguments = [
        "--mcp-server",
        &server,
        "--edge",
        &edge,
        "--exit-on-failure",
    ];
    let mut gateway = Gateway::start(&foreign.token, &arguments)?;
    let status = gateway.exit(SOON).await?;
    let said = gateway.process().log().text();
    assert!(matches!(status.code(), Some(3 | 4)), "{status}: {said}");
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(other.connections(&foreign).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn what_is_no_tunnel_token_is_named_and_not_echoed() -> Result<()> {
    let (fixture, stack) = with_fixture().await?;
    let server = fixture.address().to_string();
    let admin = stack.cloud.admin_key()?;
    for (token, words) in [
        (admin.as_str(), "API key"),
        (stack.caller_key.as_str(), "caller key"),
        ("complete-nonsense", "token"),
    ] {
        let mut gateway = Gateway::start(token, &["--mcp-server", &server])?;
        let status = gateway.exit(SOON).await?;
        let said = gateway.process().log().text();
        assert!(matches!(status.code(), Some(2 | 3)), "{status}: {said}");
        assert!(said.contains(words), "{said}");
        assert!(!said.contains(token), "{said}");
    }
    Ok(())
}
