//! Arguments of the commands that have to do with a queue.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::SecretString;

use super::{SandboxArgs, bytes, duration};

/// Which queue, and as whom.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// The environment whose sessions are served
    #[arg(long, value_name = "ID", env = "ANTHROPIC_ENVIRONMENT_ID")]
    pub(crate) environment_id: Option<String>,
    /// The environment key; better in a file or in the environment, which other users cannot read
    #[arg(
        long,
        value_name = "KEY",
        env = "ANTHROPIC_ENVIRONMENT_KEY",
        hide_env_values = true,
        value_parser = secret
    )]
    pub(crate) environment_key: Option<SecretString>,
    /// A file that holds the environment key; it is taken before --environment-key
    #[arg(long, value_name = "FILE")]
    pub(crate) environment_key_file: Option<PathBuf>,
    /// Where the queue is
    #[arg(
        long,
        value_name = "URL",
        env = "ANTHROPIC_BASE_URL",
        default_value = "https://api.anthropic.com"
    )]
    pub(crate) base_url: String,
    /// Trust the authorities of this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// How sessions are served.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// What makes the sandboxes
    #[arg(long, value_enum, default_value_t = ExecutorArg::Linux)]
    pub(crate) executor: ExecutorArg,
    /// Give an item back after so long without anything to do; 0: never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(crate) max_idle: Duration,
    /// End a session's sandbox so long after its last item; its files stay
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30m")]
    pub(crate) sandbox_idle: Duration,
    /// Keep a session's files so long after their last use
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    pub(crate) session_keep: Duration,
    /// Keep at most so many bytes of files of sessions without a sandbox; the longest unused go first
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "50G")]
    pub(crate) session_keep_bytes: u64,
    /// Serve /healthz, /readyz and /metrics on this loopback address
    #[arg(long, value_name = "127.0.0.1:PORT")]
    pub(crate) admin: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// Name of this worker [default: host name and random digits]
    #[arg(long, value_name = "ID", env = "ANTHROPIC_WORKER_ID")]
    pub(crate) worker_id: Option<String>,
    /// Sessions served at once, each in a sandbox of its own
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) max_sessions: usize,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// The claimed item
    #[arg(long, value_name = "ID", env = "ANTHROPIC_WORK_ID")]
    pub(crate) work_id: String,
    /// The item's session
    #[arg(long, value_name = "ID", env = "ANTHROPIC_SESSION_ID")]
    pub(crate) session_id: String,
    /// The item's secret, as the poll answered it
    #[arg(
        long,
        value_name = "SECRET",
        env = "ANTHROPIC_WORK_SECRET",
        hide_env_values = true,
        value_parser = secret
    )]
    pub(crate) work_secret: Option<SecretString>,
    /// A file that holds the item's secret; it is taken before --work-secret
    #[arg(long, value_name = "FILE", env = "ANTHROPIC_WORK_SECRET_FILE")]
    pub(crate) work_secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// Which workers of this host are asked.
#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// The workers' --workdir [default: /var/lib/mcp-sandbox as root, else below the home]
    #[arg(long, visible_alias = "state-dir", value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorArg {
    /// Namespaces, Landlock, seccomp and control groups of this host
    Linux,
}

#[expect(clippy::unnecessary_wraps, reason = "what clap wants")]
fn secret(text: &str) -> Result<SecretString, String> {
    Ok(SecretString::from(text))
}
