//! The official conformance suite, direct and through the development ingress: the same checks end
//! the same way.

use anyhow::Result;
use mcp_tunnel_testkit::{
    conformance::{self, Requirements},
    fixture::{FixtureOptions, FixtureServer},
    stack::{CloudOptions, Stack},
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
    Ok(())
}
