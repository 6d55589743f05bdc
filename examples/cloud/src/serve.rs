//! Serving: data folder, certificates, console, sessions and edge, listeners, and an orderly end.

mod certificates;
mod console;
mod listen;
mod masters;
mod plan;
mod rest;
mod sessions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mcp_console::{ApiKeys, Console};
use mcp_tunnel_auth::AccessSnapshot;
use mcp_tunnel_edge::{Edge, EdgeConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::args::ServeArgs;
use crate::data::DataFolder;
use crate::failure::Failure;
use crate::out::say;
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
    let (store, console) = console::open(&data, args, &plan).await?;
    let keys = ApiKeys::new(Arc::clone(&store) as _);
    let (sessions, server) = sessions::open(&data, args, keys).await?;
    certificates.follow(console.snapshots());
    let edge = edge_of(args, &plan);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(certificates.clone().renew(stop.clone()));
    let mut vital = relate(&console, &edge, &stop);
    vital.spawn({
        let (server, stop) = (server.clone(), stop.clone());
        async move { server.run(stop).await }
    });
    // Whatever has no route is answered by the console.
    let router = console.router().merge(server.router().reset_fallback());
    listeners.serve(router, &edge, &certificates, &tasks, &stop)?;
    let serving = serde_json::to_string_pretty(&plan.serving()).map_err(Failure::internal)?;
    if let Err(failure) = data.write(Serving::FILE, &serving, 0o644) {
        // On a full disk tunnels had better work on; administration needs --base-url then.
        warn!(%failure, "administration by --data will not find this process");
    }
    say!("{}", plan.ready_line());
    let reason = tokio::select! {
        () = signals.next() => Ok(()),
        // None of them ends by itself: without it the rest only seems to work.
        Some(ended) = vital.join_next() => {
            Err(Failure::internal(anyhow::anyhow!("a part that everything needs ended: {ended:?}")))
        }
    };
    info!("stopping: what runs may finish");
    stop.cancel();
    tasks.close();
    let finished = async {
        while vital.join_next().await.is_some() {}
        tasks.wait().await;
    };
    tokio::select! {
        () = finished => {}
        // Asked a second time: now.
        () = signals.next() => {}
    }
    tokio::join!(store.close(), sessions.close());
    drop(std::fs::remove_file(data.file(Serving::FILE)));
    reason
}

fn edge_of(args: &ServeArgs, plan: &Plan) -> Edge {
    let keep = Duration::from_secs(args.link_keep.into());
    let mut config = EdgeConfig::new(args.domain.clone()).set_link_keep(keep);
    if let Some(name) = &plan.edge_name {
        config = config.set_edge_name(name.clone());
    }
    Edge::new(config)
}

/// Console and edge: snapshots one way, reports the other. While the edge drains, its
/// reports are still taken.
fn relate(console: &Console, edge: &Edge, stop: &CancellationToken) -> JoinSet<()> {
    let drained = CancellationToken::new();
    let mut vital = JoinSet::new();
    vital.spawn({
        let (console, stop) = (console.clone(), stop.clone());
        async move { console.run(stop).await }
    });
    vital.spawn({
        let (edge, stop, drained) = (edge.clone(), stop.clone(), drained.clone());
        async move {
            edge.run(stop).await;
            drained.cancel();
        }
    });
    vital.spawn(push(console.snapshots(), edge.clone(), drained.clone()));
    vital.spawn(report(edge.clone(), console.clone(), drained));
    vital
}

async fn push(
    mut snapshots: watch::Receiver<Arc<AccessSnapshot>>,
    edge: Edge,
    drained: CancellationToken,
) {
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

async fn report(edge: Edge, console: Console, drained: CancellationToken) {
    loop {
        let report = tokio::select! {
            biased;
            report = edge.next_report() => report,
            () = drained.cancelled() => return,
        };
        console.record(report).await;
    }
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
