//! `soak link` and `soak sessions`: the real programs for minutes, under faults.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program speaks on its terminal"
)]

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use mcp_tunnel_testkit::soak::{LinkSoak, link, sessions::SessionsSoak, sessions::sessions};
use serde::Serialize;
use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// What the cloud and a worker may have at most, bytes: several times what they have when little is to be done.
const MEMORY: u64 = 512 << 20;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Calls over a link that is cut every two seconds.
    Link {
        #[arg(long, default_value_t = 200)]
        clients: usize,
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Write the report here as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Sessions whose workers and cloud are killed at random.
    Sessions {
        #[arg(long, default_value_t = 1000)]
        sessions: usize,
        #[arg(long, default_value_t = 8)]
        workers: usize,
        /// How long anything is killed, at most; 0: nothing is.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// The same seed makes the same choices.
        #[arg(long)]
        seed: Option<u64>,
        /// Write the report here as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().what {
        What::Link {
            clients,
            seconds,
            json,
        } => {
            let report = link(LinkSoak::new(clients, Duration::from_secs(seconds))).await?;
            println!("soak link\n{report}");
            write(json, &report)?;
            report.check_calls()?;
            report.check_growth()?;
        }
        What::Sessions {
            sessions: many,
            workers,
            seconds,
            seed,
            json,
        } => {
            let seed = seed.unwrap_or_else(drawn);
            eprintln!("seed {seed}");
            let mut soak = SessionsSoak::new(many, workers, Duration::from_secs(seconds), seed);
            soak.loud = true;
            let report = sessions(soak)
                .await?
                .context("no sandbox can be made here")?;
            print!("soak sessions\n{report}");
            write(json, &report)?;
            for (what, memory) in [("the cloud", report.cloud), ("a worker", report.worker)] {
                ensure!(memory.most < MEMORY, "{what} had {} bytes", memory.most);
            }
        }
    }
    Ok(())
}

fn write(file: Option<PathBuf>, report: &impl Serialize) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

/// A seed of this moment.
fn drawn() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_micros()))
}
