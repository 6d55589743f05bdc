//! `soak link`: the real programs for minutes, with the link between them cut every few seconds.
#![expect(
    clippy::print_stdout,
    reason = "a command line program speaks on its terminal"
)]

use anyhow::{Context, Result};
use clap::Parser;
use mcp_tunnel_testkit::soak::{LinkSoak, link};
use std::{fs, path::PathBuf, time::Duration};

#[derive(Parser)]
struct Args {
    #[arg(value_parser = ["link"])]
    what: String,
    #[arg(long, default_value_t = 200)]
    clients: usize,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Write the report here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let soak = LinkSoak::new(args.clients, Duration::from_secs(args.seconds));
    let report = link(soak).await?;
    println!("soak {}\n{report}", args.what);
    if let Some(file) = args.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    report.check_calls()?;
    report.check_growth()
}
