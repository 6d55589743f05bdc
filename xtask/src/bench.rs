//! `cargo xtask bench NAME`: measurements in the release profile.

mod instructions;
mod mux;

use crate::{
    setup,
    shell::{cargo, root, step},
};
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs the benchmark `name`: `tunnel`, `mux`, `sessions`, or another one of the package `benches`.
pub(crate) fn run(name: &str, quick: bool, json: Option<&Path>) -> Result<()> {
    match name {
        "tunnel" => tunnel(quick, json),
        "mux" => mux::run(quick, json),
        "sessions" => sessions(quick, json),
        _ => {
            let command = format!("bench --package benches --bench {name} --locked");
            step(name, &mut cargo(&command))
        }
    }
}

/// Our worker beside the official ones, and the console.
fn sessions(quick: bool, json: Option<&Path>) -> Result<()> {
    if !quick {
        setup::run()?;
    }
    let build = "build --release --locked --package mcp-sandbox";
    step("release build of the worker", &mut cargo(build))?;
    let mut bench = cargo("bench --package benches --bench sessions --locked --");
    bench.env("MCP_SANDBOX", target().join("release/mcp-sandbox"));
    told(&mut bench, quick, json)?;
    step("sessions, from the message to the tool", &mut bench)
}

/// Passes on what was asked for. A benchmark of cargo runs in a folder of its own.
fn told(bench: &mut Command, quick: bool, json: Option<&Path>) -> Result<()> {
    if quick {
        bench.arg("--quick");
    }
    if let Some(file) = json {
        bench.arg("--json").arg(std::path::absolute(file)?);
    }
    Ok(())
}

fn tunnel(quick: bool, json: Option<&Path>) -> Result<()> {
    setup::run_for_benches()?;
    step(
        "release build of what is measured",
        &mut cargo(
            "build --release --locked --package mcp-cloud --package mcp-tunnel-gateway \
             --package mcp-tunnel-testkit --bins",
        ),
    )?;
    let programs = target().join("release");
    let mut bench = Command::new(programs.join("bench-tunnel"));
    bench.env("MCP_TESTKIT_BIN_DIR", &programs);
    told(&mut bench, quick, json)?;
    step("one server direct, through us, through others", &mut bench)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
