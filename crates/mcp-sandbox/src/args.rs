//! The command line.

mod queue;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mcp_diagnostics::telemetry::{LogFormat, LogLevel};
use mcp_sandbox_executor::Mount;
use mcp_sandbox_linux::Tier;

pub(crate) use queue::{QueueArgs, RunArgs, ServeArgs, SocketArgs, WorkerArgs};

#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How much to log on standard error [default: info for worker and run, else warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// text or json
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Claim agent sessions from an environment's queue and run their tool calls in sandboxes
    Worker(Box<WorkerArgs>),
    /// Serve one item that was claimed elsewhere: the entrypoint of a container per session
    Run(Box<RunArgs>),
    /// List the sessions of the workers on this host
    Ps(SocketArgs),
    /// Print what a worker on this host did for a session, a line of JSON per call
    Logs {
        /// The session's id
        session: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// End a session at a worker on this host: its call is cancelled and answered, its files stay
    Stop {
        /// The session's id
        session: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Run one command in a fresh sandbox and exit with its status
    Exec(ExecArgs),
    /// Print every layer of isolation: in force or not, why, what that exposes, the cure
    #[command(alias = "doctor")]
    Check(Box<CheckArgs>),
    /// Serve one request of the file tools: runs inside a sandbox
    #[command(hide = true)]
    Files {
        /// Where the request is; it is removed [default: standard input]
        request: Option<PathBuf>,
    },
}

/// What a sandbox is made of.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Make a directory of the host visible (repeatable)
    #[arg(long, value_name = "HOST:INSIDE[:ro]", value_parser = mount)]
    pub(crate) mount: Vec<Mount>,
    /// Set an environment variable (repeatable); nothing is inherited
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Set environment variables from the lines NAME=VALUE of a file (repeatable); --env wins
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Memory, swap included [default: 2G]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Processors, such as 1.5 [default: all]
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub(crate) cpus: Option<u32>,
    /// Space for /tmp, the home and an ephemeral workspace together [default: 1G]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) disk: Option<u64>,
    /// Processes and threads [default: 1024]
    #[arg(long, value_name = "N")]
    pub(crate) processes: Option<u32>,
    /// Take the programs from this root file system instead of the host's: a folder, or an image in OCI layout,
    /// which is unpacked once and kept by its digest
    #[arg(long, value_name = "PATH")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Run this shell script once, before the first sandbox; what it leaves below /setup
    /// is kept by its content, read-only, with /setup/bin first on the path
    #[arg(long, value_name = "SCRIPT")]
    pub(crate) setup: Option<PathBuf>,
    /// Where workspaces, journals, setups and unpacked images are kept [default: /var/lib/mcp-sandbox as root, else below the home]
    #[arg(long, visible_alias = "workdir", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// none: own loopback only; host: the host's network, unfiltered
    #[arg(long, value_enum, default_value_t = NetworkArg::None)]
    pub(crate) network: NetworkArg,
    /// Fail where isolation is weaker than this tier
    #[arg(long, value_name = "T1|T2|T3")]
    pub(crate) require_tier: Option<Tier>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    /// Kill the command after this time, such as 30s, 5m (status 124)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkArg {
    None,
    Host,
}

fn mount(text: &str) -> Result<Mount, String> {
    let parts = text.split(':').collect::<Vec<_>>();
    let (source, target, access) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err("expected HOST:INSIDE or HOST:INSIDE:ro".to_owned()),
    };
    let source = std::path::absolute(source).map_err(|error| error.to_string())?;
    let source = source
        .to_str()
        .ok_or("the path is not UTF-8")?
        .trim_end_matches('/');
    Ok(if access {
        Mount::read_only(source, *target)
    } else {
        Mount::read_write(source, *target)
    })
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("expected a number with K, M, G or T".to_owned()),
    };
    let number = digits.parse::<u64>().map_err(|error| error.to_string())?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    if bytes < 1 << 20 {
        Err("at least 1M is needed".to_owned())
    } else {
        Ok(bytes)
    }
}

fn cpus(text: &str) -> Result<u32, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    if !(0.01..=1024.0).contains(&number) {
        return Err("expected 0.01 to 1024".to_owned());
    }
    format!("{:.0}", number * 1000.0)
        .parse()
        .map_err(|_| "not a number of processors".to_owned())
}

/// Reads `250ms`, `30s`, `5m`, `2h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.parse::<u64>().map_err(|error| error.to_string())?;
    let millis = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number with ms, s, m or h".to_owned()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_and_processors_are_read() {
        assert_eq!(bytes("64M"), Ok(64 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert!(bytes("12").is_err() && bytes("M").is_err() && bytes("1X").is_err());
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert!(duration("1d").is_err());
        assert_eq!(cpus("1.5"), Ok(1500));
        assert!(cpus("0").is_err() && cpus("NaN").is_err());
    }

    #[test]
    fn mounts_are_read() {
        assert_eq!(mount("/a:/b"), Ok(Mount::read_write("/a", "/b")));
        assert_eq!(mount("/a/:/b:ro"), Ok(Mount::read_only("/a", "/b")));
        assert!(mount("/a").is_err() && mount("/a:/b:xx").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
