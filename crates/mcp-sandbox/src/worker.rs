//! `worker` and `run`: the worker engine over the Linux executor.

use std::sync::Arc;

use anyhow::Context as _;
use mcp_diagnostics::admin::{Admin, Metrics};
use mcp_sandbox_linux::{LinuxExecutor, StartError, Tier, drop_privileges, prepare_folder};
use mcp_sandbox_worker::{ClaimedItem, RunError, Worker, WorkerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{QueueArgs, RunArgs, SandboxArgs, ServeArgs, WorkerArgs};
use crate::compose;

const EXIT_USAGE: u8 = 2;
const EXIT_REFUSED: u8 = 3;
const EXIT_NO_SANDBOX: u8 = 4;
const EXIT_INTERNAL: u8 = 5;

/// Works until a signal; the result is the exit code.
pub(crate) async fn worker(args: WorkerArgs) -> u8 {
    finish(try_worker(args).await)
}

/// Serves one claimed item; the result is the exit code.
pub(crate) async fn run(args: RunArgs) -> u8 {
    finish(try_run(args).await)
}

async fn try_worker(args: WorkerArgs) -> anyhow::Result<()> {
    compose::require_key(&args.queue)?;
    let (mut config, parts) = prepare(&args.queue, &args.serve, args.sandbox).await?;
    if let Some(id) = args.worker_id.filter(|id| !id.is_empty()) {
        config = config.with_worker_id(id)?;
    }
    config = config.with_max_sessions(args.max_sessions)?;
    let worker = Worker::new(config, parts.executor)?;
    let mut beside = JoinSet::new();
    serve_admin(&args.serve, &worker, &parts.stop, &mut beside).await?;
    beside.spawn(stop_on_signal(parts.stop.clone()));
    let ended = worker.run(parts.stop.clone()).await;
    beside.shutdown().await;
    Ok(ended?)
}

async fn try_run(args: RunArgs) -> anyhow::Result<()> {
    let secret = compose::secret(
        args.work_secret.as_ref(),
        args.work_secret_file.as_deref(),
        ("--work-secret", "ANTHROPIC_WORK_SECRET"),
    )?;
    let (config, parts) = prepare(&args.queue, &args.serve, args.sandbox).await?;
    let worker = Worker::new(config, parts.executor)?;
    let mut item = ClaimedItem::new(args.work_id, args.session_id);
    if let Some(secret) = secret {
        item = item.with_secret(secret);
    }
    let mut beside = JoinSet::new();
    serve_admin(&args.serve, &worker, &parts.stop, &mut beside).await?;
    beside.spawn(stop_on_signal(parts.stop.clone()));
    let ended = worker.run_item(item, parts.stop.clone()).await;
    beside.shutdown().await;
    Ok(ended?)
}

/// What both need.
struct Parts {
    executor: Arc<LinuxExecutor>,
    stop: CancellationToken,
}

/// Starts the executor, gives up root, and only then looks at the network.
async fn prepare(
    queue: &QueueArgs,
    serve: &ServeArgs,
    mut sandbox: SandboxArgs,
) -> anyhow::Result<(WorkerConfig, Parts)> {
    let state = compose::state_dir(sandbox.state_dir.as_deref())?;
    let folder = compose::worker_folder(&state);
    if sandbox.mount.is_empty() {
        sandbox.mount = compose::container_mounts();
    }
    let config = compose::queue(queue, &folder)?;
    let config =
        config.context("which environment? give --environment-id or ANTHROPIC_ENVIRONMENT_ID")?;
    let linux = compose::config(&sandbox)?.with_state_dir(&state)?;
    prepare_folder(&linux, &folder).with_context(|| {
        let folder = folder.display();
        format!("preparing {folder} (--workdir names a folder that this user may write to)")
    })?;
    let executor = LinuxExecutor::start(linux.clone()).await?;
    // From here on only the launcher is root.
    drop_privileges(&linux).context("giving up root")?;
    say_tier(&executor);
    let idle = Some(serve.max_idle).filter(|idle| !idle.is_zero());
    let config = config
        .with_sandboxes(compose::spec(&sandbox)?)?
        .with_max_idle(idle)
        .with_sandbox_idle(serve.sandbox_idle)
        .with_session_keep(serve.session_keep)
        .with_keep_bytes(serve.session_keep_bytes);
    let parts = Parts {
        executor: Arc::new(executor),
        stop: CancellationToken::new(),
    };
    Ok((config, parts))
}

fn say_tier(executor: &LinuxExecutor) {
    let report = executor.report();
    if report.tier == Tier::T1 {
        tracing::info!(tier = %report.tier, "isolation");
    } else {
        let why = report.fell.join("; ");
        tracing::warn!(tier = %report.tier, why, "isolation is weaker than it could be: see `mcp-sandbox check`");
    }
}

async fn serve_admin(
    serve: &ServeArgs,
    worker: &Worker,
    stop: &CancellationToken,
    beside: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    if let Some(address) = serve.admin {
        let metrics = Metrics::install()?;
        let admin = Admin::bind(address).await?;
        tracing::info!(address = %admin.local_addr()?, "admin");
        beside.spawn(admin.run(worker.readiness(), metrics, stop.clone()));
    }
    Ok(())
}

/// The first signal asks for an end in good order, the second ends at once.
async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    next().await;
    tracing::info!("stopping: calls are cancelled and answered, items given back");
    stop.cancel();
    next().await;
    // What runs in sandboxes ends with their launcher, which ends with this process.
    #[expect(clippy::exit, reason = "the operator insists")]
    std::process::exit(i32::from(EXIT_INTERNAL));
}

fn finish(done: anyhow::Result<()>) -> u8 {
    let Err(error) = done else {
        return 0;
    };
    eprintln!("mcp-sandbox: {error:#}");
    if let Some(refused) = error.downcast_ref::<RunError>() {
        return match refused {
            RunError::Refused(_) => {
                eprintln!(
                    "mcp-sandbox: check the environment's id and key with `mcp-sandbox check`"
                );
                EXIT_REFUSED
            }
            _ => EXIT_INTERNAL,
        };
    }
    match error.downcast_ref::<StartError>() {
        Some(_) => EXIT_NO_SANDBOX,
        None => EXIT_USAGE,
    }
}
