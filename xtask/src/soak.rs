//! `cargo xtask soak NAME`: long runs under faults, in the release profile unless told otherwise.

use crate::shell::{cargo, root, step};
use anyhow::{Result, bail};
use clap::Args;
use std::{path::PathBuf, process::Command};

/// What is soaked, and how long.
#[derive(Args)]
pub(crate) struct Soak {
    /// `link` (cut every two seconds, and no call fails) or `sessions` (workers and cloud killed with -9, and nothing is
    /// lost or done twice).
    name: String,
    /// link: callers at the same time.
    #[arg(long, default_value_t = 200)]
    clients: u32,
    /// sessions: how many in all.
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// sessions: processes that serve them.
    #[arg(long, default_value_t = 8)]
    workers: u32,
    /// How long; of sessions: how long anything is killed, at most.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// sessions: what chance is made of; printed by each run.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the report here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The programs of the dev profile: to see that it works.
    #[arg(long)]
    debug: bool,
}

/// Builds the programs and runs the soak.
pub(crate) fn run(soak: &Soak) -> Result<()> {
    let packages = "--package mcp-cloud --package mcp-tunnel-gateway --package mcp-sandbox \
                    --package mcp-tunnel-testkit";
    let (profile, folder) = if soak.debug {
        ("", "debug")
    } else {
        ("--release", "release")
    };
    step(
        "build of what is soaked",
        &mut cargo(&format!("build {profile} --locked {packages} --bins")),
    )?;
    let programs = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join(folder);
    let mut command = Command::new(programs.join("soak"));
    command
        .env("MCP_TESTKIT_BIN_DIR", &programs)
        .arg(&soak.name)
        .args(["--seconds", &soak.seconds.to_string()]);
    match soak.name.as_str() {
        "link" => {
            command.args(["--clients", &soak.clients.to_string()]);
        }
        "sessions" => {
            command.args(["--sessions", &soak.sessions.to_string()]);
            command.args(["--workers", &soak.workers.to_string()]);
            let seed = soak.seed.map(|seed| seed.to_string());
            command.args(seed.iter().flat_map(|seed| ["--seed", seed]));
        }
        other => bail!("there is no soak {other}: link or sessions"),
    }
    if let Some(file) = &soak.json {
        command.arg("--json").arg(file);
    }
    step("soak", &mut command)
}
