//! The reference cloud of MCP tunnels in one process, and its administration.
//!
//! ```text
//! args ─┬─ serve ──► data folder, certificates ──► console + edge ──► listeners ──► drain
//!       └─ admin ──► REST client of a running one ──► table or JSON
//! ```

#![expect(clippy::print_stderr, reason = "what went wrong goes to the terminal")]

mod admin;
mod args;
mod data;
mod failure;
mod out;
mod serve;
mod serving;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use mcp_tunnel_auth::without_credentials;

use crate::args::{Args, Command};
use crate::failure::Failure;

/// Each call takes some dozens of buffers: with the C library's allocator that is a tenth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match parsed() {
        Ok(args) => args,
        Err(error) => return complain(&error),
    };
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let told = failure.to_string();
            eprintln!("{}", without_credentials(&told, given()).unwrap_or(told));
            ExitCode::from(failure.code())
        }
    }
}

fn parsed() -> Result<Args, clap::Error> {
    let matches = Args::command().try_get_matches()?;
    let args = Args::from_arg_matches(&matches)?;
    args.check(&matches)?;
    Ok(args)
}

/// clap repeats what it does not understand; a credential in the wrong place must not end in a log that way.
fn complain(error: &clap::Error) -> ExitCode {
    match without_credentials(&error.render().to_string(), given()) {
        Some(told) => eprint!("{told}"),
        None => drop(error.print()),
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// What the program was called with, as far as it is text.
fn given() -> impl Iterator<Item = String> {
    let arguments = std::env::args_os().skip(1);
    arguments.filter_map(|argument| argument.into_string().ok())
}

/// One thread: on few cores the relay is faster for it, and SQLite has threads of its own.
fn run(args: Args) -> Result<u8, Failure> {
    mcp_diagnostics::telemetry::init(args.log_level, args.log_format).map_err(Failure::internal)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(async {
        match args.command {
            None => serve::run(args.data.as_deref(), &args.serve).await?,
            Some(Command::Serve(serve)) => serve::run(args.data.as_deref(), &serve).await?,
            Some(Command::Admin(command)) => {
                return admin::run(args.data.as_deref(), &args.remote, command).await;
            }
        }
        Ok(0)
    })
}
