//! The setup script: run once, its result cached by its content.

use std::sync::Arc;
use std::time::Duration;

use mcp_sandbox_executor::{
    Command, CreateError, Exit, Limits, Network, Process as _, ProcessEvent, SandboxSpec,
};
use thiserror::Error;
use tracing::info;

use crate::message::{FromLauncher, SetupStep, SetupUse, ToLauncher};
use crate::plan::SETUP;
use crate::sandbox::LinuxSandbox;
use crate::service::Shared;

/// A setup script that takes longer has failed.
const TIME: Duration = Duration::from_secs(30 * 60);
/// How much of its output an error shows.
const TAIL: usize = 2000;

/// The setup script did not succeed.
#[derive(Debug, Error)]
#[error("the setup script ended with {exit:?}: {tail}")]
struct SetupFailed {
    exit: Option<Exit>,
    tail: String,
}

/// Makes sure that the result of the script is there.
pub(crate) async fn ensure(shared: &Arc<Shared>, script: &str) -> Result<(), CreateError> {
    if step(shared, SetupStep::Has).await? {
        return Ok(());
    }
    info!("running the setup script");
    let network = if shared.allows_host_network() {
        Network::Host
    } else {
        Network::None
    };
    let spec = SandboxSpec::new()
        .with_limits(Limits::default())
        .with_network(network)
        .with_env("HOME", SETUP)
        .with_env("SETUP", SETUP);
    let sandbox = shared.create(spec, SetupUse::Build).await?;
    let outcome = run(&sandbox, script).await;
    let destroyed = mcp_sandbox_executor::Sandbox::destroy(&sandbox).await;
    match (outcome, destroyed) {
        (Ok(()), Ok(())) if step(shared, SetupStep::Keep).await? => Ok(()),
        (Ok(()), _) => Err(CreateError::Backend("the setup could not be kept".into())),
        (Err(error), _) => {
            step(shared, SetupStep::Drop).await?;
            Err(CreateError::Backend(error))
        }
    }
}

async fn run(
    sandbox: &LinuxSandbox,
    script: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let command = Command::new(["sh", "-e", "-c", script])
        .with_working_dir(SETUP)
        .with_timeout(TIME);
    let mut process = sandbox.start(command).await?;
    let (mut tail, mut exit) = (Vec::new(), None);
    while let Some(event) = process.next_event().await? {
        match event {
            ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) => {
                tail.extend_from_slice(&bytes);
                tail.drain(..tail.len().saturating_sub(TAIL));
            }
            ProcessEvent::Exit(status) => exit = Some(status),
            _ => {}
        }
    }
    if exit.is_some_and(Exit::success) {
        return Ok(());
    }
    let tail = String::from_utf8_lossy(&tail).trim().to_owned();
    Err(SetupFailed { exit, tail }.into())
}

pub(crate) async fn step(shared: &Shared, step: SetupStep) -> Result<bool, CreateError> {
    match shared
        .ask(|request| ToLauncher::Setup { request, step })
        .await?
    {
        FromLauncher::SetupIs { done, .. } => Ok(done),
        _ => Err(CreateError::Backend("the launcher does not answer".into())),
    }
}
