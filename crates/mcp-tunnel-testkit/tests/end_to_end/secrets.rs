//! No secret and no payload in any log, at the finest level.

use anyhow::Result;
use http::Method;
use mcp_tunnel_testkit::{
    caller::Caller,
    fixture::{FixtureOptions, FixtureServer},
    stack::{CloudOptions, Gateway, SOON, Stack},
};
use serde_json::json;
use std::fs;

/// What the caller sends: none of it is the tunnel's business.
const PAYLOAD: &str = "canary-in-the-payload";
const CREDENTIAL: &str = "canary-credential-of-the-server";
const HEADER: &str = "canary-in-a-header";
const QUERY: &str = "canary-in-a-query";

#[tokio::test]
async fn no_secret_and_no_payload_is_logged_at_trace() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let server = fixture.address().to_string();
    let mut options = CloudOptions::default();
    options.log_level = "trace".to_owned();
    let mut stack = Stack::start(options, &[&server]).await?;
    let mut secrets = vec![
        stack.tunnel.token.clone(),
        stack.caller_key.clone(),
        stack.cloud.admin_key()?,
        PAYLOAD.to_owned(),
        CREDENTIAL.to_owned(),
        HEADER.to_owned(),
        QUERY.to_owned(),
    ];
    calls(&stack).await?;
    let wrong = format!("mck_{}", "7".repeat(52));
    let headers = [("Mcp-Tunnel-Authorization", format!("Bearer {wrong}"))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    Caller::https(&stack, "mcp")?
        .with_headers(&headers)
        .call("echo", json!({}))
        .await?;
    secrets.push(wrong);

    // Two tokens of one tunnel, the first of them refused now; tokens given in every way.
    let path = format!("/v1/tunnels/{}/rotate_token", stack.tunnel.id);
    let fresh = stack.cloud.api(Method::POST, &path, None).await?;
    let fresh = fresh["tunnel_token"].as_str().expect("a token").to_owned();
    let mut refused = Gateway::start(
        &stack.tunnel.token,
        &["--log-level", "trace", "--mcp-server", &server],
    )?;
    refused.exit(SOON).await?;
    let given = [
        "--log-level",
        "trace",
        "--mcp-server",
        &server,
        "--log-format",
        "json",
    ];
    let accepted = Gateway::start(&fresh, &given)?;
    stack.cloud.approve(&stack.tunnel).await?;
    calls(&stack).await?;
    secrets.push(fresh);
    secrets.extend(encodings_of_files(&stack)?);

    stack.gateway.kill().await?;
    stack.cloud.stop(SOON).await?;
    let logs = [
        ("cloud", stack.cloud.process().log()),
        ("gateway", stack.gateway.process().log()),
        ("refused gateway", refused.process().log()),
        ("second gateway", accepted.process().log()),
    ];
    for (name, log) in logs {
        assert!(log.is_complete(), "{name} wrote too much to check");
        let text = log.text();
        assert!(!text.is_empty(), "{name} wrote nothing");
        for secret in &secrets {
            let found = text.lines().find(|line| holds(line, secret));
            assert_eq!(
                found,
                None,
                "{name} tells {}…",
                &secret[..8.min(secret.len())]
            );
        }
        let credential = text.lines().find(|line| shows_a_credential(line));
        assert_eq!(credential, None, "{name} tells a credential");
    }
    Ok(())
}

async fn calls(stack: &Stack) -> Result<()> {
    let caller = Caller::https(stack, "mcp")?.with_headers(&[
        ("Mcp-Tunnel-Authorization", &stack.caller_header().1),
        ("Authorization", &format!("Bearer {CREDENTIAL}")),
        ("X-Private", HEADER),
        ("Cookie", &format!("session={HEADER}")),
    ]);
    caller.call("echo", json!({ "text": PAYLOAD })).await?;
    caller
        .get(&format!("/blob/10?q={QUERY}"))
        .await?
        .bytes()
        .await?;
    Caller::dev(stack)?
        .call("echo", json!({ "text": PAYLOAD }))
        .await?;
    Ok(())
}

/// The forms in which a short secret file of the data folder could appear.
fn encodings_of_files(stack: &Stack) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(stack.cloud.data())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.contains("key") || path.is_dir() {
            continue;
        }
        let bytes = fs::read(path)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let lines = text
                .lines()
                .filter(|line| line.len() >= 32 && !line.starts_with('-'));
            all.extend(lines.map(str::to_owned));
        }
        if bytes.len() == 32 {
            all.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            all.push(format!("{bytes:?}"));
        }
    }
    Ok(all)
}

/// The secret itself, or a long enough piece of it.
fn holds(line: &str, secret: &str) -> bool {
    const PIECE: usize = 24;
    if secret.len() <= PIECE {
        return line.contains(secret);
    }
    // The first characters of a token may be public; its middle and end are not.
    let middle = secret.len() / 2;
    let pieces = [
        &secret[middle..middle + PIECE.min(secret.len() - middle)],
        &secret[secret.len() - PIECE..],
    ];
    pieces.iter().any(|piece| line.contains(piece))
}

/// Anything that looks like one of our own credentials with enough of its secret part.
fn shows_a_credential(line: &str) -> bool {
    ["mct_", "mck_", "mca_", "mce_", "mci_"]
        .iter()
        .any(|prefix| {
            line.match_indices(prefix).any(|(at, _)| {
                let rest = &line[at + prefix.len()..];
                let secret = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                rest.chars().take_while(|c| secret(*c)).count() >= 16
            })
        })
}
