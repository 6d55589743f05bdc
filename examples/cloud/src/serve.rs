//! Serving: data folder, certificates, console and edge, listeners, and an orderly end.

mod certificates;
mod listen;
mod plan;
mod rest;

use std::path::Path;
use std::sync::Arc;

use managed_agents_api::serve::Permissions;
use mcp_console::store::{SqliteConfig, SqliteStore};
use mcp_console::{ApiKeys, Config, Console};
use mcp_tunnel_auth::{ApiKey, MasterKey, WorkspaceId};
use mcp_tunnel_edge::{Edge, EdgeConfig};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::args::ServeArgs;
use crate::data::{DataFolder, Origin, read_secret};
use crate::failure::Failure;
use crate::serving::Serving;

use certificates::Certificates;
use listen::Listeners;
use plan::Plan;

/// Serves until a signal; exits when what runs has ended.
pub(crate) async fn run(data: Option<&Path>, args: &ServeArgs) -> Result<(), Failure> {
    plan::check(args)?;
    let path = data.ok_or_else(|| {
        Failure::wrong("--data is missing", "name a folder: mcp-cloud --data DIR")
    })?;
    let data = DataFolder::open(path)?;
    // Before anybody is told that it is ready: a signal ends it in good order from now on.
    let mut signals = Signals::new()?;
    listen::raise_file_limit();
    let listeners = Listeners::bind(args).await?;
    let certificates = Certificates::prepare(&data, args)?;
    let plan = Plan::new(args, &listeners, &certificates)?;
    let (store, console) = open_console(&data, args, &plan).await?;
    let edge = edge_of(args, &plan);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(certificates.clone().renew(stop.clone()));
    relate(&console, &edge, &tasks, &stop);
    listeners.serve(&console, &edge, &certificates, &tasks, &stop)?;
    let serving = plan.serving();
    let text = serde_json::to_string_pretty(&serving).map_err(Failure::internal)?;
    data.write(Serving::FILE, &text, 0o644)?;
    println!("{}", plan.ready_line());
    signals.next().await;
    info!("stopping: what runs may finish");
    stop.cancel();
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        // Asked a second time: now.
        () = signals.next() => {}
    }
    store.close().await;
    drop(std::fs::remove_file(data.file(Serving::FILE)));
    Ok(())
}

fn edge_of(args: &ServeArgs, plan: &Plan) -> Edge {
    let mut config = EdgeConfig::new(args.domain.clone());
    if let Some(name) = &plan.edge_name {
        config = config.set_edge_name(name.clone());
    }
    Edge::new(config)
}

/// Console and edge: snapshots one way, reports the other. While the edge drains, its
/// reports are still taken.
fn relate(console: &Console, edge: &Edge, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn({
        let (console, stop) = (console.clone(), stop.clone());
        async move { console.run(stop).await }
    });
    let drained = CancellationToken::new();
    tasks.spawn({
        let (edge, stop, drained) = (edge.clone(), stop.clone(), drained.clone());
        async move {
            edge.run(stop).await;
            drained.cancel();
        }
    });
    tasks.spawn({
        let (edge, mut snapshots, drained) = (edge.clone(), console.snapshots(), drained.clone());
        async move {
            loop {
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                if let Err(error) = edge.apply(snapshot) {
                    debug!(%error, "a snapshot was not applied");
                }
                tokio::select! {
                    () = drained.cancelled() => return,
                    Ok(()) = snapshots.changed() => {}
                    else => return,
                }
            }
        }
    });
    tasks.spawn({
        let (console, edge) = (console.clone(), edge.clone());
        async move {
            loop {
                let report = tokio::select! {
                    biased;
                    report = edge.next_report() => report,
                    () = drained.cancelled() => return,
                };
                console.record(report).await;
            }
        }
    });
}

async fn open_console(
    data: &DataFolder,
    args: &ServeArgs,
    plan: &Plan,
) -> Result<(Arc<SqliteStore>, Console), Failure> {
    let mut config = console_config(data, args, plan)?;
    if args.auto_approve {
        config = config.with_approval(mcp_tunnel_auth::Approval::Auto);
    }
    let file = data.file("console.db");
    let unusable = |error| {
        Failure::usage(
            anyhow::Error::new(error).context(format!("opening {}", file.display())),
            "is the disk full, or the file from a newer version?",
        )
    };
    let store = SqliteStore::open(&SqliteConfig::new(&file))
        .await
        .map_err(unusable)?;
    let store = Arc::new(store);
    adopt_admin_key(data, Arc::clone(&store)).await?;
    let console = Console::new(Arc::clone(&store) as _, config)
        .await
        .map_err(Failure::internal)?;
    Ok((store, console))
}

fn console_config(data: &DataFolder, args: &ServeArgs, plan: &Plan) -> Result<Config, Failure> {
    let (text, origin) = match &args.master_key_file {
        Some(path) => (read_secret(path)?, Origin::Found),
        None => data.secret("master.key", || {
            let bytes: [u8; 32] = random();
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            SecretString::from(digits)
        })?,
    };
    if origin == Origin::Made {
        let file = data.file("master.key");
        println!(
            "made {}: tunnel tokens are derived from it; keep a copy",
            file.display()
        );
    }
    let mut keys = text
        .expose_secret()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            MasterKey::parse(line)
                .map_err(|error| Failure::usage(error, "one key a line, the newest first"))
        });
    let master = keys.next().unwrap_or_else(|| {
        Err(Failure::wrong(
            "the master key file is empty",
            "put the key back from your copy",
        ))
    })?;
    let mut config = Config::new(master, args.domain.clone(), plan.public_edge.clone());
    for older in keys {
        config = config.with_older_master(older?);
    }
    if let Some(pin) = plan.ca_pin {
        config = config.with_ca_pin(pin);
    }
    if let Some(name) = &plan.edge_name {
        config = config.with_edge_name(name.clone());
    }
    Ok(config)
}

/// The key's file is written before its row: killed in between, the next start writes the
/// row.
async fn adopt_admin_key(data: &DataFolder, store: Arc<SqliteStore>) -> Result<(), Failure> {
    let (text, origin) = data.secret("admin.key", || ApiKey::from_entropy(random()).encode())?;
    let key = ApiKey::parse(text.expose_secret().trim()).map_err(|error| {
        Failure::usage(error, "remove admin.key: the next start makes another one")
    })?;
    let workspace = WorkspaceId::parse("default").map_err(Failure::internal)?;
    let record = ApiKeys::new(store)
        .adopt(&key, &workspace, "admin", Permissions::all())
        .await
        .map_err(Failure::internal)?;
    if record.revoked_at.is_some() {
        return Err(Failure::wrong(
            "the key in admin.key was revoked",
            "remove admin.key: the next start makes another one",
        ));
    }
    if origin == Origin::Made {
        let file = data.file("admin.key");
        println!(
            "made {}: the API key that may do everything",
            file.display()
        );
    }
    Ok(())
}

/// What asks the program to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(Failure::internal)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::internal)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}
