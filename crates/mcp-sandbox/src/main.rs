//! Runs agent tool calls in real isolation on your own machines.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]
#![forbid(unsafe_code)]

mod args;
mod check;
mod compose;
mod exec;
mod worker;
mod workers;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use mcp_diagnostics::telemetry::LogLevel;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // In the launcher this does not return; nothing may come before it.
    mcp_sandbox_linux::enter_helper();
    let cli = Cli::parse_from(command_line());
    let serves = matches!(cli.command, Command::Worker(_) | Command::Run(_));
    let usual = if serves {
        LogLevel::INFO
    } else {
        LogLevel::WARN
    };
    let level = cli.log_level.unwrap_or(usual);
    if let Err(error) = mcp_diagnostics::telemetry::init(level, cli.log_format) {
        eprintln!("mcp-sandbox: {error}");
    }
    if let Command::Files { request } = &cli.command {
        return mcp_sandbox_tools::files::main(request.as_deref())
            .map_or_else(|_| ExitCode::from(5), |()| ExitCode::SUCCESS);
    }
    let mut builder = if serves {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mcp-sandbox: {error}");
            return ExitCode::from(5);
        }
    };
    let code = match cli.command {
        Command::Exec(args) => runtime.block_on(exec::run(args)),
        Command::Check(args) => runtime.block_on(check::run(*args)),
        Command::Worker(args) => runtime.block_on(worker::worker(*args)),
        Command::Run(args) => runtime.block_on(worker::run(*args)),
        Command::Ps(args) => runtime.block_on(workers::ps(args)),
        Command::Logs { session, socket } => runtime.block_on(workers::logs(session, socket)),
        Command::Stop { session, socket } => runtime.block_on(workers::stop(session, socket)),
        Command::Files { .. } => 0,
    };
    // Reading standard input may block for ever; nothing else is left to do.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// The arguments; a container that says nothing is a worker, or serves the item that it was started for.
fn command_line() -> Vec<OsString> {
    let mut arguments = env::args_os().collect::<Vec<_>>();
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if arguments.len() == 1 {
        if is_set("ANTHROPIC_WORK_ID") {
            arguments.push("run".into());
        } else if is_set("ANTHROPIC_ENVIRONMENT_KEY") {
            arguments.push("worker".into());
        }
    }
    arguments
}
