//! Running as a gateway, and what the program exits with.

use std::net::SocketAddr;

use anyhow::{Error, Result, anyhow};
use mcp_diagnostics::admin::{Admin, Metrics};
use mcp_diagnostics::report::Line;
use mcp_diagnostics::telemetry;
use mcp_tunnel_connector::check::exposed_servers;
use mcp_tunnel_connector::{Connector, ConnectorConfig, Event};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::args::{Args, Command};
use crate::voice::{Voice, print};
use crate::{check, config};

/// Exit code of wrong usage or configuration.
pub(crate) const EXIT_USAGE: u8 = 2;
const EXIT_INTERNAL: u8 = 5;

/// Why the program ends, and with which code.
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) error: Error,
}

/// Does what the command line says; the answer is the exit code.
pub(crate) fn start(args: &Args) -> Result<u8, Failure> {
    if let Some(Command::Version) = args.command {
        print(concat!("mcp-tunnel-gateway ", env!("CARGO_PKG_VERSION")));
        return Ok(0);
    }
    telemetry::init(args.log_level, args.log_format).map_err(internal)?;
    // One thread: measured faster than several for a program that only moves bytes.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(internal)?;
    match args.command {
        Some(Command::Check { json }) => check::report(args, &runtime, json),
        _ => serve(args, &runtime),
    }
}

fn serve(args: &Args, runtime: &Runtime) -> Result<u8, Failure> {
    let servers = config::servers(args).map_err(usage)?;
    let token = config::token(args).map_err(usage)?;
    let config = config::connector(args, token, servers).map_err(usage)?;
    let say = Voice {
        format: args.log_format,
    };
    introduce(&config, &say);
    // Before the connector, which asks for its counters when it is made.
    let metrics = args
        .admin
        .map(|_| Metrics::install())
        .transpose()
        .map_err(internal)?;
    let connector = Connector::new(config).map_err(|error| usage(error.into()))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some((address, metrics)) = args.admin.zip(metrics) {
            let admin = admin(address, &say).await?;
            tasks.spawn(admin.run(connector.readiness(), metrics, stop.clone()));
        }
        let code = drive(connector, args.exit_on_failure, &say).await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        code
    })
}

/// Who this gateway is and what it exposes, with a warning for what others reach anyway.
fn introduce(config: &ConnectorConfig, say: &Voice) {
    say.line(format_args!(
        "gateway {} of tunnel {}",
        env!("CARGO_PKG_VERSION"),
        config.tunnel()
    ));
    say.line(format_args!("key {}", config.fingerprint()));
    for (route, server) in config.servers().iter() {
        say.line(format_args!("route {route} -> {}", server.target()));
    }
    for Line {
        hop, text, cure, ..
    } in exposed_servers(config.servers())
    {
        warn!("{hop} {text}; {}", cure.unwrap_or_default());
    }
}

async fn admin(address: SocketAddr, say: &Voice) -> Result<Admin, Failure> {
    let admin = Admin::bind(address)
        .await
        .map_err(|error| usage(error.into()))?;
    let address = admin.local_addr().map_err(internal)?;
    say.line(format_args!(
        "admin http://{address}/healthz /readyz /metrics"
    ));
    Ok(admin)
}

/// Says each change of state until the connector has stopped, or there is no point in going on.
async fn drive(
    mut connector: Connector,
    exit_on_failure: bool,
    say: &Voice,
) -> Result<u8, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    let mut signals = 0;
    let mut leaving = None;
    loop {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => {
                signals += 1;
                if signals > 1 {
                    return Err(Failure { code: EXIT_INTERNAL, error: anyhow!("stopped at once: running calls were cut off") });
                }
                say.line("draining: no new calls, the running ones finish");
                connector.drain();
            }
            event = connector.next_event() => {
                if let Event::Stopped = event {
                    say.line(&event);
                    return leaving.map_or(Ok(0), Err);
                }
                match event.exit_code(exit_on_failure) {
                    // The first reason is the one to tell; calls that still run may finish.
                    Some(code) if leaving.is_none() => {
                        leaving = Some(Failure { code, error: anyhow!("{event}") });
                        connector.drain();
                    }
                    _ => say.line(&event),
                }
            }
        }
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// The configuration is at fault.
pub(crate) fn usage(error: Error) -> Failure {
    Failure {
        code: EXIT_USAGE,
        error,
    }
}

fn internal(error: impl Into<Error>) -> Failure {
    Failure {
        code: EXIT_INTERNAL,
        error: error.into(),
    }
}
