//! The program under test.

use std::env;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::platform::{ENVIRONMENT, KEY, Platform};

/// A running `mcp-sandbox worker`; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: tokio::task::JoinHandle<()>,
    so_far: Arc<Mutex<Vec<u8>>>,
}

impl Program {
    /// A worker of the platform with its files in `workdir`.
    pub(crate) fn worker(platform: &Platform, workdir: &Path, options: &[&str]) -> Self {
        let mut command = command(platform, workdir);
        command.arg("worker").args(options);
        Self::spawn(command, workdir)
    }

    pub(crate) fn spawn(mut command: Command, workdir: &Path) -> Self {
        command.arg("--workdir").arg(workdir);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let so_far = Arc::<Mutex<Vec<u8>>>::default();
        let written = Arc::clone(&so_far);
        #[expect(clippy::disallowed_methods, reason = "ends with the program")]
        let log = tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
                written.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        Self { child, log, so_far }
    }

    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.child.id().unwrap()).unwrap()
    }

    /// Waits for a line of its log with this message, and gives one of the line's fields.
    pub(crate) async fn said(&self, message: &str, field: &str) -> String {
        let look = || {
            let log = self.so_far.lock().unwrap();
            let lines = log.split(|byte| *byte == b'\n');
            let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
            let line = lines.find(|line| line["message"] == message)?;
            Some(line[field].as_str().unwrap().to_owned())
        };
        let found = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        found.await.expect("the worker says so")
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; the exit code and what it logged.
    pub(crate) async fn terminate(self) -> (Option<i32>, String) {
        let id = rustix::process::Pid::from_raw(self.id()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.end().await
    }

    /// Waits for its end; the exit code and what it logged.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait());
        let status = ended.await.expect("the worker ends").unwrap();
        self.log.await.unwrap();
        let log = String::from_utf8_lossy(&self.so_far.lock().unwrap()).into_owned();
        if env::var_os("WORKER_LOG").is_some() {
            eprintln!("{log}");
        }
        (status.code(), log)
    }
}

/// The program with the environment of a worker, and a canary that must stay outside.
pub(crate) fn command(platform: &Platform, _workdir: &Path) -> Command {
    let mut command = bare();
    command
        .env("ANTHROPIC_ENVIRONMENT_ID", ENVIRONMENT)
        .env("ANTHROPIC_ENVIRONMENT_KEY", KEY)
        .env("ANTHROPIC_BASE_URL", platform.url());
    command
}

pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sandbox"));
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("ANTHROPIC_")) {
        command.env_remove(name);
    }
    command.args(["--log-level", "debug", "--log-format", "json"]);
    command
}

/// Runs a command to its end.
pub(crate) async fn output(mut command: Command) -> Output {
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    output.await.unwrap().unwrap()
}

/// Says loudly why a test did not run; where everything is required that is a failure.
pub(crate) async fn possible(test: &str) -> bool {
    let mut command = bare();
    command.args(["exec", "--", "true"]).stdin(Stdio::null());
    let output = output(command).await;
    if output.status.success() {
        return true;
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        env::var_os("CI_REQUIRE_ALL").is_none(),
        "{test}: no sandbox here: {why}"
    );
    eprintln!("SKIPPED {test}: no sandbox can be made here: {why}");
    false
}

/// A folder for a worker that gives up root: others may pass.
pub(crate) fn workdir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    folder
}
