//! `soak link`: the real programs for minutes, with the link between them cut every few seconds.
#![expect(
    clippy::print_stdout,
    reason = "a command line program speaks on its terminal"
)]

use anyhow::{Result, ensure};
use clap::Parser;
use mcp_tunnel_testkit::soak::{LinkSoak, link};
use std::time::Duration;

/// What either program may have grown by between a quarter of the run and its end, bytes.
const GROWTH: u64 = 32 << 20;

#[derive(Parser)]
struct Args {
    #[arg(value_parser = ["link"])]
    what: String,
    #[arg(long, default_value_t = 200)]
    clients: usize,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let soak = LinkSoak::new(args.clients, Duration::from_secs(args.seconds));
    let report = link(soak).await?;
    println!("soak {}: {report}", args.what);
    for [early, end] in [report.cloud, report.gateway] {
        ensure!(end < early + GROWTH, "{early} bytes grew to {end}");
    }
    Ok(())
}
