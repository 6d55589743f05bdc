//! `cargo xtask soak NAME`: long runs in the release profile.

use crate::shell::{cargo, root, step};
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs the soak `name` for `seconds` with `clients`.
pub(crate) fn run(name: &str, clients: u32, seconds: u32, json: Option<&Path>) -> Result<()> {
    step(
        "release build of what is soaked",
        &mut cargo(
            "build --release --locked --package mcp-cloud --package mcp-tunnel-gateway \
             --package mcp-tunnel-testkit --bins",
        ),
    )?;
    let programs = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("release");
    let mut soak = Command::new(programs.join("soak"));
    soak.env("MCP_TESTKIT_BIN_DIR", &programs).arg(name);
    soak.args(["--clients", &clients.to_string()]);
    soak.args(["--seconds", &seconds.to_string()]);
    if let Some(file) = json {
        soak.arg("--json").arg(file);
    }
    step("soak", &mut soak)
}
