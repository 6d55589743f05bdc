//! An executor of one's own, judged by the public suite.
//!
//! It runs commands in a folder of the host: it isolates nothing, says so, and shows
//! all that a provider whose `exec` answers once has to write.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{fs, process::Stdio, time::Duration};

use mcp_sandbox_executor::{
    Capabilities, Command, Completed, CreateError, Executor, Exit, Isolation, KillReason, Process,
    Sandbox, SandboxError, SandboxId, SandboxInfo, SandboxSpec,
};
use tempfile::{TempDir, tempdir, tempfile};
use tokio::{process, sync::watch, time::timeout};

struct Host;
struct Folder(SandboxInfo, SandboxSpec, watch::Sender<Option<TempDir>>);

#[async_trait::async_trait]
impl Executor for Host {
    fn capabilities(&self) -> Capabilities {
        Capabilities::minimal("host", Isolation::Nothing)
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn Sandbox>, CreateError> {
        self.capabilities().admits(&spec)?;
        let dir = tempdir()?;
        let info = SandboxInfo::new(SandboxId::unique(), dir.path().to_string_lossy());
        Ok(Box::new(Folder(info, spec, watch::Sender::new(Some(dir)))))
    }
}

#[async_trait::async_trait]
impl Sandbox for Folder {
    fn info(&self) -> &SandboxInfo {
        &self.0
    }

    async fn exec(&self, command: Command) -> Result<Box<dyn Process>, SandboxError> {
        self.2.borrow().as_ref().ok_or(SandboxError::Gone)?;
        let dir = command.working_dir.as_ref().unwrap_or(&self.0.working_dir);
        fs::read_dir(dir).map_err(|_| SandboxError::WorkingDirectory)?;
        let (name, arguments) = command.argv()?;
        let (out, err) = (tempfile()?, tempfile()?);
        let mut child = process::Command::new(name);
        child
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        child.envs(&self.1.env).envs(&command.env).current_dir(dir);
        child.stdin(Stdio::null()).kill_on_drop(true);
        child.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let mut child = child.spawn().map_err(SandboxError::not_started)?;
        let limit = command.timeout.unwrap_or(Duration::MAX);
        let exit = match timeout(limit, child.wait()).await {
            Ok(status) => Exit::from(status?),
            Err(_) => Exit::Killed(KillReason::Timeout),
        };
        let limit = command.output_bytes;
        Ok(Box::new(Completed::of_files(out, err, exit, limit)?))
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.2.send_replace(None);
        Ok(())
    }
}

/// Runs the functional cases.
#[tokio::main]
pub(crate) async fn main() {
    let suite = mcp_sandbox_conformance::Suite::new(&Host);
    let outcome = suite.functional_only().run().await;
    print!("{outcome}");
    assert!(outcome.passed());
}
