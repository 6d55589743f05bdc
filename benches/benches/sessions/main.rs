//! Sessions of agents: our worker beside the official ones, and the console on SQLite. Medians of one run.
//!
//! Every acknowledged write is on the disk (`synchronous = FULL`); files are below the
//! folder that `BENCH_FOLDER` names, else below the temporary one. `--quick` is a short round without the official
//! workers, `--json FILE` writes the figures there as well.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

mod console;
mod report;
mod start;
mod workers;

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http::request::Parts;
use managed_agents_api::serve::{ApiError, Authenticate, Permissions, Principal};
use managed_agents_server::store::{SqliteConfig, SqliteStore};
use managed_agents_server::{Config, Server};
use mcp_tunnel_auth::MasterKey;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use report::Report;

fn main() -> Result<()> {
    let (mut quick, mut json) = (false, None);
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--quick") => quick = true,
            Some("--json") => json = Some(arguments.next().context("--json FILE")?),
            // Cargo's own.
            Some("--bench") => {}
            _ => anyhow::bail!("--quick and --json FILE are known, not {argument:?}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load {}", load.trim());
    let mut report = Report::default();
    runtime.block_on(measure(&mut report, quick))?;
    match json {
        Some(file) => report.write(Path::new(&file)),
        None => Ok(()),
    }
}

async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let folder = Folder::new()?;
    start::measure(report, &folder.0, quick).await?;
    let (server, running) = open(&folder.0.join("console.db")).await?;
    console::measure(report, server.router(), quick).await?;
    running.end().await;
    Ok(())
}

/// A folder for everything, removed in the end. Workers that give up root may pass.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let folder = env::var_os("BENCH_FOLDER").map_or_else(env::temp_dir, PathBuf::from);
        let folder = folder.join(format!("bench-sessions-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o711))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("{} is left: {error}", self.0.display());
        }
    }
}

/// What a server does beside answering.
struct Running {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    async fn end(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await;
        self.tasks.shutdown().await;
    }
}

/// A server of sessions over a file.
async fn open(file: &Path) -> Result<(Server, Running)> {
    let store = Arc::new(SqliteStore::open(&SqliteConfig::new(file)).await?);
    let (sessions, library) = (Arc::clone(&store), store);
    let config = Config::new(MasterKey::from_bytes([7; 32]));
    let server = Server::new(sessions, library, config, Arc::new(Anybody));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (driven, stopped) = (server.clone(), stop.clone());
    tasks.spawn(async move { driven.run(stopped).await });
    Ok((server, Running { tasks, stop }))
}

struct Anybody;

#[async_trait::async_trait]
impl Authenticate for Anybody {
    async fn authenticate(&self, _: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        Ok(Principal::new("bench", "wrkspc_bench", Permissions::all()))
    }
}
