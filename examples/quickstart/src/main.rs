//! A guided first run of tunnels and sandboxes in one terminal.
//!
//! Starts a cloud, a private MCP server and a gateway, each as a process of its own, and follows one
//! tool call from a real MCP client through the tunnel and back; then a worker, which runs the tool
//! calls of an agent's session in a sandbox.
#![expect(clippy::print_stdout, reason = "a guided tour speaks on its terminal")]

mod client;
mod process;
mod session;
mod steps;
mod tour;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "quickstart",
    about = "Make one MCP call through a tunnel, run an agent's session in a sandbox, and see every step"
)]
struct Args {
    /// Keep everything running afterwards, and print what to try next.
    #[arg(long)]
    serve: bool,
    /// Keep the data of the run in this folder instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    data: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(tour::run(args.data, args.serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
