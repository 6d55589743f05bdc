//! Makes private MCP servers reachable through one outbound connection.
#![forbid(unsafe_code)]

mod args;
mod check;
mod config;
mod run;
mod voice;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mcp_tunnel_auth::without_credentials;

use crate::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            complain(&error);
            // Help and version are no failure; a usage error is one for clap too, with the same code.
            return ExitCode::from(if error.use_stderr() {
                run::EXIT_USAGE
            } else {
                0
            });
        }
    };
    match run::start(&args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}

/// clap repeats what it does not understand; a credential in the wrong place must not end in a log that way.
fn complain(error: &clap::Error) {
    let given = std::env::args_os()
        .skip(1)
        .filter_map(|argument| argument.into_string().ok());
    match without_credentials(&error.render().to_string(), given) {
        Some(text) => drop(write!(std::io::stderr(), "{text}")),
        None => drop(error.print()),
    }
}
