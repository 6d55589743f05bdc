//! A real MCP server for tests, measurements and the quickstart.

#![expect(clippy::print_stdout, reason = "a command line program")]

use anyhow::Result;
use clap::{ArgAction, Parser};
use mcp_tunnel_testkit::fixture::{Counters, Fixture, FixtureOptions, ToolSet, bind, serve};
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// An MCP server over Streamable HTTP with tools for tests.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 lets the system choose, the address is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Set TCP_NODELAY on accepted sockets (servers on axum do not by themselves).
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
    nodelay: bool,
    /// Which tools to list.
    #[arg(long, value_enum, default_value_t = ToolSet::All)]
    tools: ToolSet,
    /// A host name that requests may carry besides loopback ones (repeatable).
    #[arg(long = "allow-host", value_name = "HOST")]
    extra_hosts: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut options = FixtureOptions::default();
    options.nodelay = args.nodelay;
    options.tools = args.tools;
    options.extra_hosts = args.extra_hosts;
    let listener = bind(args.listen).await?;
    println!("listening on http://{}/mcp", listener.local_addr()?);

    let stop = CancellationToken::new();
    let fixture = Fixture::new(options.tools, Counters::default());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = serve(listener, options, fixture, stop.clone()) => ended,
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
