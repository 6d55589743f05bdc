//! Makes private MCP servers reachable through one outbound connection.
#![forbid(unsafe_code)]

mod args;
mod config;
mod run;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no failure; a usage error is one for clap too, with the same code.
            let _ = error.print();
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
