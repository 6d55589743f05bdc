//! What a person does with two terminals, by what the programs print.

use anyhow::{Context, Result};
use mcp_tunnel_testkit::{
    drivers::{Driver, Target},
    fixture::{FixtureOptions, FixtureServer},
    process::{self, Process},
    stack::{Cloud, CloudOptions, SOON},
};
use serde_json::Value;

#[tokio::test]
async fn each_command_prints_what_to_do_next() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let made = cloud.administer(&["tunnel", "create", "demo"]).await?;
    let attach = made
        .lines()
        .find(|line| line.trim().starts_with("mcp-tunnel-gateway "));
    let attach = attach.context("no command for the gateway")?.trim();
    let attach = attach.replace("localhost:50051", &fixture.address().to_string());

    let state = tempfile::tempdir()?;
    let mut command = process::command("mcp-tunnel-gateway")?;
    command
        .args(attach.split_whitespace().skip(1))
        .arg("--state-dir")
        .arg(state.path());
    let gateway = Process::start("gateway", command)?;
    let line = gateway
        .line(SOON, |line| line.contains("connection approve "))
        .await?;
    let code = line
        .split("connection approve ")
        .nth(1)
        .context("no code")?;
    let code: String = code
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();

    let approved = cloud.administer(&["connection", "approve", &code]).await?;
    assert!(approved.contains("caller-key create"), "{approved}");
    let key = cloud
        .administer(&["caller-key", "create", "laptop"])
        .await?;
    let start = key.find('{').context("no client configuration")?;
    let end = key.rfind('}').context("no client configuration")?;
    let configuration: Value = serde_json::from_str(&key[start..=end])?;
    let servers = configuration["mcpServers"]
        .as_object()
        .context("no servers")?;
    let server = servers.values().next().context("no server")?;
    let mut target = Target::new(server["url"].as_str().context("no url")?);
    for (name, value) in server["headers"].as_object().context("no headers")? {
        target
            .headers
            .push((name.clone(), value.as_str().context("no value")?.to_owned()));
    }
    target.ca = Some(cloud.ca());
    let outcome = Driver::RmcpModern.drive(&target).await?;
    assert!(outcome.ok, "{outcome:?}");

    let probe = cloud.administer(&["probe", "demo"]).await?;
    assert!(probe.contains("ms"), "{probe}");
    // A token on the command line works, and is warned about.
    let said = gateway.log().text();
    assert!(said.contains("--token-file"), "{said}");
    Ok(())
}

#[tokio::test]
async fn check_says_what_does_not_work() -> Result<()> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let tunnel = cloud.create_tunnel("demo").await?;
    let (good, bad) = (
        format!("docs={}", fixture.address()),
        "down=127.0.0.1:1".to_owned(),
    );
    let state = tempfile::tempdir()?;
    let mut command = process::command("mcp-tunnel-gateway")?;
    command
        .args([
            "check",
            "--json",
            "--mcp-server",
            &good,
            "--mcp-server",
            &bad,
        ])
        .arg("--state-dir")
        .arg(state.path())
        .env("MCP_TUNNEL_TOKEN", &tunnel.token);
    let mut check = Process::start("check", command)?;
    let status = check.exit(SOON).await?;
    let said = check.log().text();
    assert!(!status.success(), "{said}");
    let start = said.find('{').context("no report")?;
    let end = said.rfind('}').context("no report")?;
    let report: Value = serde_json::from_str(&said[start..=end])?;
    let text = report.to_string();
    assert!(text.contains("docs") && text.contains("down"), "{text}");
    assert!(!said.contains(&tunnel.token), "{said}");
    Ok(())
}
