//! The command line. Its names are fixed: documentation and packaging rely on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mcp_diagnostics::telemetry::{LogFormat, LogLevel, chain};
use mcp_tunnel_auth::RouteName;
use mcp_tunnel_connector::{McpServer, ServerError};
use mcp_tunnel_transport::EdgeAddress;
use secrecy::SecretString;

const ABOUT: &str = "Makes private MCP servers reachable through one outbound connection.

Runs next to MCP servers inside a private network, makes a single TLS connection out to an edge, and serves the calls \
that come down it. Nothing listens inside: no port, no firewall rule, no public address.";

const AFTER: &str = "\
Examples:
  One server, everything else from the token:
    mcp-tunnel-gateway --mcp-server localhost:50051 --token-file token

  Several servers, each with the name that callers use in the URL:
    mcp-tunnel-gateway --mcp-server docs=localhost:3000 --mcp-server jira=https://jira.corp.example/mcp

  Find out what does not work, hop by hop, with the cure:
    mcp-tunnel-gateway check --mcp-server localhost:50051 --token-file token

Exit codes:
  0  stopped cleanly, or check found nothing wrong
  1  check: an MCP server does not work
  2  wrong usage or configuration
  3  the edge refused the credential
  4  the edge cannot be reached (run: only with --exit-on-failure)
  5  internal fault";

const SERVER_HELP: &str = "An MCP server to expose: PORT, HOST:PORT, http(s)://HOST[:PORT][/PATH], or NAME= and one of these";

const SERVER_LONG_HELP: &str =
    "An MCP server to expose: PORT, HOST:PORT, http(s)://HOST[:PORT][/PATH], or NAME= and one of these

Repeat it for several servers. NAME is the first part of the public host name, NAME--TUNNEL.DOMAIN. One server \
without a name is called mcp and also answers on the bare TUNNEL.DOMAIN. With a PATH only that path and the OAuth \
well-known documents are exposed; it is never rewritten.";

/// What the gateway is told.
#[derive(Debug, Parser)]
#[command(name = "mcp-tunnel-gateway", version, about = ABOUT.split('\n').next(), long_about = ABOUT, after_help = AFTER)]
#[command(
    args_conflicts_with_subcommands = false,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[arg(long, value_name = "SERVER", help = SERVER_HELP, long_help = SERVER_LONG_HELP, value_parser = mcp_server, global = true)]
    pub(crate) mcp_server: Vec<McpServer>,

    /// Let the server of this NAME see the public Host and Origin instead of its own
    ///
    /// For servers that know their public name, as OAuth needs. Repeatable.
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) preserve_host: Vec<RouteName>,

    /// File that holds the tunnel token
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,

    /// The tunnel token itself; others on this machine can see it in the process list
    ///
    /// --token-file and the variable MCP_TUNNEL_TOKEN do not show it.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true, global = true)]
    pub(crate) token: Option<SecretString>,

    /// Edge to dial instead of the one in the token
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub(crate) edge: Option<EdgeAddress>,

    /// PEM file with the authority of the edge's certificate, instead of the one that the token or the system trusts
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) edge_ca: Option<PathBuf>,

    /// PEM file with an authority for https MCP servers, beside the system's
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) mcp_server_ca: Option<PathBuf>,

    /// Folder for the gateway's own key, which an administrator approves once
    ///
    /// Gateways that serve one route with one token need a folder each: with one key they are taken for one that
    /// restarts, and the start of one may end calls of another.
    ///
    /// [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/mcp-tunnel-gateway, else ~/.local/state/mcp-tunnel-gateway]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) state_dir: Option<PathBuf>,

    /// Serve /healthz, /readyz and /metrics there; loopback only
    #[arg(long, value_name = "127.0.0.1:PORT", value_parser = admin, global = true)]
    pub(crate) admin: Option<SocketAddr>,

    /// Seconds that running calls get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, global = true)]
    pub(crate) drain_timeout: Duration,

    /// Exit with code 4 when the edge cannot be reached, instead of trying for ever
    #[arg(long, global = true)]
    pub(crate) exit_on_failure: bool,

    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    pub(crate) log_level: LogLevel,

    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at every hop and say what does not work, with the cure
    #[command(visible_alias = "doctor")]
    Check {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Print the version
    Version,
}

/// An error with its causes: clap shows none, and the rule that a name breaks is one.
fn mcp_server(text: &str) -> Result<McpServer, String> {
    text.parse()
        .map_err(|error: ServerError| chain(&error).to_string())
}

fn admin(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "use 127.0.0.1:PORT or [::1]:PORT")
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(seconds @ 0..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("use a number of seconds from 0 to 3600"),
    }
}
