//! Workspace commands: set-up, tests, checks, benchmarks.

#![expect(clippy::print_stdout, reason = "a command line program")]

mod setup;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::process::Command;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Workspace commands")]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the third-party tools that the tests run, under target/tools.
    Setup {
        /// Also what only benchmarks need (Debian packages, as root).
        #[arg(long)]
        benches: bool,
    },
    /// Run every test.
    Test,
    /// Run every test and every check, as continuous integration does.
    Ci,
}

fn main() -> Result<()> {
    match Args::parse().command {
        Task::Setup { benches } => {
            setup::run()?;
            if benches {
                setup::run_for_benches()?;
            }
            Ok(())
        }
        Task::Test => test(),
        Task::Ci => {
            cargo(&["fmt", "--all", "--check"])?;
            cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ])?;
            test()
        }
    }
}

fn test() -> Result<()> {
    cargo(&["test", "--workspace", "--locked"])
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .args(args)
        .status()
        .context("starting cargo")?;
    ensure!(
        status.success(),
        "cargo {} ended with {status}",
        args.join(" ")
    );
    Ok(())
}
