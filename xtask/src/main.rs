//! Workspace commands: set-up, tests, checks, benchmarks.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program speaks on its terminal"
)]

mod api;
mod bench;
mod ci;
mod fuzz;
mod miri;
mod packages;
mod release;
mod setup;
mod shell;
mod soak;
mod tidy;
mod tools;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Workspace commands",
    disable_help_subcommand = true
)]
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
        /// Also what only `ci --full` needs: compilers, cargo tools, guests for sandboxes.
        #[arg(long)]
        full: bool,
    },
    /// Pass every test; installs what is missing first.
    Test,
    /// Everything that must hold before a change lands: tests, lints, docs, licences.
    Ci {
        /// Add the long checks: feature powerset, miri, sandboxes in guests, public API, packages, benchmarks.
        #[arg(long)]
        full: bool,
    },
    /// Measure: `tunnel` (beside other tunnels), `mux` (codec, multiplexers and memory side by side), or another benchmark
    /// of the package `benches`.
    Bench {
        name: String,
        /// One short round: to see that it works.
        #[arg(long)]
        quick: bool,
        /// Write the results here as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Compare the public API of the crates without IO with the lists under xtask/api.
    Api {
        /// Write the lists: the change was meant.
        #[arg(long)]
        bless: bool,
    },
    /// What a release asks: versions that fit what has changed, and crates that package.
    Release,
    /// Run the programs for minutes under faults.
    Soak(soak::Soak),
    /// Check the rules of the house that no compiler knows.
    Tidy,
    /// Fuzz one target, or all of them in turn.
    Fuzz {
        /// A folder of fuzz/corpus.
        name: Option<String>,
        /// How long each target runs.
        #[arg(long, default_value_t = 300)]
        seconds: u32,
        /// Commit the least number of inputs that reach all the code that was reached: under fuzz/found.
        #[arg(long)]
        keep: bool,
    },
    /// Look up known vulnerabilities (needs the advisory database on the network).
    Audit,
}

fn set_up(benches: bool, full: bool) -> anyhow::Result<()> {
    setup::run()?;
    if benches {
        setup::run_for_benches()?;
    }
    if full {
        setup::run_for_long()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Task::Setup { benches, full } => set_up(benches, full),
        Task::Test => ci::test(ci::Skipping::Allowed),
        Task::Ci { full } => ci::run(full),
        Task::Api { bless } => api::run(bless),
        Task::Release => release::semver().and_then(|()| release::package()),
        Task::Bench { name, quick, json } => bench::run(&name, quick, json.as_deref()),
        Task::Soak(soak) => soak::run(&soak),
        Task::Tidy => tidy::run(),
        Task::Fuzz {
            name,
            seconds,
            keep,
        } => fuzz::run(name.as_deref(), seconds, keep),
        Task::Audit => ci::audit(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
