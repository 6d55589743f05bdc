//! The official conformance suite, direct, through the development ingress, and through a link that is cut again and
//! again: the same checks end the same way.

use anyhow::Result;
use mcp_tunnel_testkit::{
    conformance::{self, Requirements, Run},
    fixture::{FixtureOptions, FixtureServer},
    relay::Relay,
    stack::{Cloud, CloudOptions, Gateway, Stack},
    tools::{Need, have},
};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn revision_2025_11_25_is_the_same_through_the_tunnel() -> Result<()> {
    compare(Requirements::Legacy2025).await
}

#[tokio::test]
async fn revision_2026_07_28_is_the_same_through_the_tunnel() -> Result<()> {
    compare(Requirements::Modern2026).await
}

async fn compare(requirements: Requirements) -> Result<()> {
    if !have(&[Need::Node]) {
        return Ok(());
    }
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let stack = Stack::start(CloudOptions::default(), &[&fixture.address().to_string()]).await?;
    let direct = format!("http://localhost:{}/mcp", fixture.address().port());
    let direct = conformance::run(&direct, requirements, DEADLINE).await?;
    let through = conformance::run(&stack.cloud.dev_url(0), requirements, DEADLINE).await?;
    assert!(direct.passed, "{}", direct.report);
    assert!(through.passed, "{}", through.report);
    let differences = direct.checks.differences(&through.checks);
    assert!(
        differences.is_empty(),
        "{differences:#?}\n{}",
        through.report
    );
    assert!(direct.checks.count() >= 80, "{}", direct.checks.count());
    drop(stack);
    let cut = through_cuts(&fixture, requirements).await?;
    let differences = direct.checks.differences(&cut.checks);
    assert!(differences.is_empty(), "{differences:#?}\n{}", cut.report);
    Ok(())
}

/// The suite while the link is cut every second and a half.
async fn through_cuts(fixture: &FixtureServer, requirements: Requirements) -> Result<Run> {
    let cloud = Cloud::start(CloudOptions::default()).await?;
    let tunnel = cloud.create_tunnel("test").await?;
    let relay = Relay::start(cloud.addresses().edge).await?;
    let (server, edge) = (fixture.address().to_string(), relay.address().to_string());
    let arguments = ["--mcp-server", &server, "--edge", &edge];
    let _gateway = Gateway::start(&tunnel.token, &arguments)?;
    cloud.approve(&tunnel).await?;
    let mut pause = tokio::time::interval(Duration::from_millis(1500));
    let cuts = async {
        loop {
            pause.tick().await;
            relay.cut();
        }
    };
    let url = cloud.dev_url(0);
    let run = tokio::select! {
        run = conformance::run(&url, requirements, DEADLINE) => run?,
        () = cuts => unreachable!("it never ends"),
    };
    assert!(relay.cuts() >= 2 && relay.accepted() >= 2);
    Ok(run)
}
