//! The real programs as separate processes, and everything that goes wrong around them.

mod access;
mod by_hand;
mod cuts;
mod faults;
mod host;
mod hostile;
mod restarts;
mod resume;
mod secrets;
mod servers;
mod sessions;
mod streams;

use anyhow::Result;
use mcp_tunnel_testkit::{
    fixture::{FixtureOptions, FixtureServer},
    stack::{CloudOptions, Stack},
    upstream::Upstream,
};
use std::time::Duration;

/// A fixture server behind a tunnel.
async fn with_fixture() -> Result<(FixtureServer, Stack)> {
    let fixture = FixtureServer::start(FixtureOptions::default()).await?;
    let server = fixture.address().to_string();
    let stack = Stack::start(CloudOptions::default(), &[&server]).await?;
    Ok((fixture, stack))
}

/// A scripted server behind a tunnel.
async fn with_upstream(upstream: &Upstream) -> Result<Stack> {
    let server = upstream.address().to_string();
    Stack::start(CloudOptions::default(), &[&server]).await
}

/// Looks again until `done`, at most for `within`.
async fn until(within: Duration, mut done: impl AsyncFnMut() -> bool) -> bool {
    let looks = async {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while !done().await {
            pause.tick().await;
        }
    };
    tokio::time::timeout(within, looks).await.is_ok()
}
