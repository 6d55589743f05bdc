//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as ClapArgs, CommandFactory as _, Parser, Subcommand};
use mcp_diagnostics::telemetry::{LogFormat, LogLevel};
use mcp_tunnel_auth::{DomainName, HostName};
use mcp_tunnel_edge::{DevTarget, DevTargetError};

use crate::admin::AdminCommand;

/// The reference cloud of MCP tunnels: console, edge and their administration.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "mcp-cloud", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Folder of database, keys and certificates; made if it is not there
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// off, error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// text or json
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves console and edge; the same without a command
    Serve(ServeArgs),
    #[command(flatten)]
    Admin(AdminCommand),
}

/// Which running cloud is administered, where it is not the one of `--data`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteArgs {
    /// Administration: the REST API of another cloud
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// Administration: file with the API key for it
    #[arg(long, global = true, value_name = "FILE", requires = "base_url")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Administration: CA certificate to trust there
    #[arg(long, global = true, value_name = "FILE", requires = "base_url")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Administration: answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServeArgs {
    /// REST API: plain HTTP on loopback, HTTPS elsewhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Gateways dial in here
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7844")]
    pub(crate) edge_listen: SocketAddr,
    /// Callers come in here; may be the same as --edge-listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub(crate) ingress_listen: SocketAddr,
    /// Tunnels are names below this one
    #[arg(long, value_name = "NAME", default_value = "tunnel.localhost")]
    pub(crate) domain: DomainName,
    /// What gateways dial, where it is not --edge-listen
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) public_edge: Option<PublicAddress>,
    /// Own certificate chain (PEM), instead of the local CA's
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// New tunnels let every gateway in that holds the token; loopback only
    #[arg(long)]
    pub(crate) auto_approve: bool,
    /// Plain HTTP without caller keys for development, 127.0.0.1:PORT[=[TUNNEL_ID/]ROUTE]; repeats
    #[arg(long, value_name = "ADDRESS[=ROUTE]")]
    pub(crate) dev_ingress: Vec<DevIngress>,
    /// How long calls wait for a gateway whose connection is lost, in seconds; 0: they fail at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) link_keep: u32,
    /// Limit the requests of a workspace as the vendor does: 300 changes and 1200 reads a minute
    #[arg(long)]
    pub(crate) rate_limits: bool,
    /// How long a worker holds a session after each sign of life, in seconds: the work of one that died goes on that much
    /// later
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(5..=300))]
    pub(crate) lease: u32,
    /// How many days ended work items, and the names of deleted sessions, are kept
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    pub(crate) keep_ended: u32,
    /// File of the master key, instead of DIR/master.key; further lines are older keys
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key_file: Option<PathBuf>,
}

/// Host and port that others dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicAddress {
    pub(crate) host: HostName,
    pub(crate) port: u16,
}

impl std::str::FromStr for PublicAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "HOST:PORT is expected, such as edge.example.com:443".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            host: HostName::parse(host).map_err(|error| error.to_string())?,
            port: port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)?,
        })
    }
}

/// A development ingress: where it listens, and what it leads to.
#[derive(Debug, Clone)]
pub(crate) struct DevIngress {
    pub(crate) listen: SocketAddr,
    pub(crate) target: DevTarget,
}

impl std::str::FromStr for DevIngress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, target) = text.split_once('=').unwrap_or((text, ""));
        let listen: SocketAddr = listen
            .parse()
            .map_err(|_| "127.0.0.1:PORT[=[TUNNEL_ID/]ROUTE] is expected".to_owned())?;
        if !is_loopback(listen.ip()) {
            return Err("it asks for no key, so it listens on loopback only".to_owned());
        }
        Ok(Self {
            listen,
            target: match target {
                "" => DevTarget::default(),
                text => text
                    .parse()
                    .map_err(|error: DevTargetError| chain(&error))?,
            },
        })
    }
}

impl Args {
    /// What clap cannot say: arguments of serving have no place beside another command.
    pub(crate) fn check(&self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if self.command.is_none() {
            return Ok(());
        }
        let given = |id: &clap::Id| matches.value_source(id.as_str());
        let serving = <ServeArgs as ClapArgs>::augment_args(clap::Command::new(""));
        let stray = serving
            .get_arguments()
            .find(|argument| given(argument.get_id()) == Some(ValueSource::CommandLine));
        match stray {
            None => Ok(()),
            Some(argument) => Err(Self::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                format!(
                    "--{} goes behind `serve`, or stands without a command",
                    argument.get_long().unwrap_or_default()
                ),
            )),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
