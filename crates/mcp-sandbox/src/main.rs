//! Runs agent tool calls in real isolation on your own machines.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]
#![forbid(unsafe_code)]

mod args;
mod check;
mod exec;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // In the launcher this does not return; nothing may come before it.
    mcp_sandbox_linux::enter_helper();
    let cli = Cli::parse();
    if let Err(error) = mcp_diagnostics::telemetry::init(cli.log_level, cli.log_format) {
        eprintln!("mcp-sandbox: {error}");
    }
    if let Command::Files { request } = &cli.command {
        return mcp_sandbox_tools::files::main(request.as_deref())
            .map_or_else(|_| ExitCode::from(5), |()| ExitCode::SUCCESS);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mcp-sandbox: {error}");
            return ExitCode::from(5);
        }
    };
    let code = match cli.command {
        Command::Exec(args) => runtime.block_on(exec::run(args)),
        Command::Check(args) => runtime.block_on(check::run(args)),
        Command::Files { .. } => 0,
    };
    // Reading standard input may block for ever; nothing else is left to do.
    runtime.shutdown_background();
    ExitCode::from(code)
}
