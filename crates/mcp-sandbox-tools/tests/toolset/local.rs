//! An executor that isolates nothing: real processes on this host, for tests of callers.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mcp_sandbox_executor::{
    Command, Exit, FileHelper, KillReason, Process, ProcessEvent, Program, Sandbox, SandboxError,
    SandboxId, SandboxInfo, Signal, Stdin,
};
use mcp_sandbox_tools::{ToolResult, Toolset};
use rustix::process::{Pid, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep_until};

/// A folder and the processes in it.
pub(crate) struct Local {
    info: SandboxInfo,
    env: Vec<(String, String)>,
    gives_input: bool,
    _folder: tempfile::TempDir,
}

impl Local {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_env([])
    }

    /// One that gives no command an input.
    pub(crate) fn without_input() -> Arc<Self> {
        let mut local = Arc::into_inner(Self::new()).unwrap();
        local.gives_input = false;
        Arc::new(local)
    }

    pub(crate) fn with_env<const N: usize>(env: [(&str, &str); N]) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for name in ["work", "tmp", "home"] {
            std::fs::create_dir(base.join(name)).unwrap();
        }
        let work = base.join("work").to_str().unwrap().to_owned();
        let mut info = SandboxInfo::new(SandboxId::parse("local").unwrap(), work);
        info.temp_dir = base.join("tmp").to_str().unwrap().to_owned();
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut all = vec![
            own(("PATH", "/usr/local/bin:/usr/bin:/bin")),
            own(("LANG", "C.UTF-8")),
            own(("TMPDIR", &info.temp_dir)),
            own(("HOME", base.join("home").to_str().unwrap())),
        ];
        all.extend(env.map(own));
        Arc::new(Self {
            info,
            env: all,
            gives_input: true,
            _folder: folder,
        })
    }

    pub(crate) fn work(&self) -> &Path {
        Path::new(&self.info.working_dir)
    }
}

/// A toolset over a folder.
pub(crate) struct Agent {
    pub(crate) tools: Toolset,
    pub(crate) local: Arc<Local>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self::over(Local::new())
    }

    pub(crate) fn over(local: Arc<Local>) -> Self {
        let sandbox: Arc<dyn Sandbox> = Arc::<Local>::clone(&local);
        let tools = Toolset::new(sandbox, FileHelper::BuiltIn);
        Self { tools, local }
    }

    pub(crate) async fn call(&self, tool: &str, input: Value) -> ToolResult {
        self.tools.call(tool, &input).await.unwrap()
    }

    pub(crate) async fn bash(&self, command: &str) -> ToolResult {
        let input = json!({"command": command, "timeout_ms": 20_000});
        self.call("bash", input).await
    }

    /// Text of a call that succeeds.
    #[track_caller]
    pub(crate) fn good(result: &ToolResult) -> String {
        assert!(!result.is_error, "{result:?}");
        result.as_text()
    }

    /// Text of a call that fails.
    #[track_caller]
    pub(crate) fn bad(result: &ToolResult) -> String {
        assert!(result.is_error, "{result:?}");
        result.as_text()
    }
}

#[async_trait]
impl Sandbox for Local {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command) -> Result<Box<dyn Process>, SandboxError> {
        let Program::Argv(argv) = &command.program else {
            return Ok(Box::new(Helper::default()));
        };
        let mut process = tokio::process::Command::new(&argv[0]);
        let directory = command.working_dir.as_deref();
        process
            .args(&argv[1..])
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(&command.env)
            .current_dir(directory.unwrap_or(&self.info.working_dir))
            .process_group(0)
            .stdin(match command.stdin {
                Stdin::Piped if self.gives_input => Stdio::piped(),
                _ => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if directory.is_some_and(|path| !Path::new(path).is_dir()) {
            return Err(SandboxError::WorkingDirectory);
        }
        let mut child = process
            .spawn()
            .map_err(|error| SandboxError::Backend(error.into()))?;
        Ok(Box::new(LocalProcess {
            group: child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())),
            input: child.stdin.take(),
            output: child.stdout.take(),
            error: child.stderr.take(),
            until: command.timeout.map(|limit| Instant::now() + limit),
            child,
            killed: None,
            exit: None,
            done: false,
        }))
    }

    async fn put(&self, path: &str, content: Bytes, executable: bool) -> Result<(), SandboxError> {
        use std::os::unix::fs::PermissionsExt as _;
        let write = || {
            std::fs::write(path, &content)?;
            let mode = if executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        };
        write().map_err(|error| SandboxError::File(error.into()))
    }

    async fn get(&self, path: &str, _: u64) -> Result<Bytes, SandboxError> {
        let content = std::fs::read(path).map_err(|error| SandboxError::File(error.into()))?;
        Ok(content.into())
    }

    async fn keep_alive(&self, _: Duration) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        Ok(())
    }
}

struct LocalProcess {
    group: Option<Pid>,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    error: Option<ChildStderr>,
    until: Option<Instant>,
    killed: Option<KillReason>,
    exit: Option<(Exit, Instant)>,
    done: bool,
}

impl LocalProcess {
    fn kill(&mut self, reason: KillReason) {
        self.killed = Some(reason);
        self.until = None;
        if let Some(group) = self.group {
            let _ = kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill(KillReason::Requested);
        }
    }
}

#[async_trait]
impl Process for LocalProcess {
    async fn next_event(&mut self) -> Result<Option<ProcessEvent>, SandboxError> {
        let (mut out, mut err) = (vec![0; 65536], vec![0; 65536]);
        while !self.done {
            if let Some((exit, _)) = self.exit
                && self.output.is_none()
                && self.error.is_none()
            {
                self.done = true;
                return Ok(Some(ProcessEvent::Exit(exit)));
            }
            let grace = self.exit.map(|(_, at)| at + Duration::from_millis(100));
            tokio::select! {
                biased;
                status = self.child.wait(), if self.exit.is_none() => {
                    let status = status.map_err(|error| SandboxError::Backend(error.into()))?;
                    let exit = match (status.code(), self.killed) {
                        (_, Some(reason)) => Exit::Killed(reason),
                        (Some(code), None) => Exit::Code(u8::try_from(code).unwrap()),
                        (None, None) => Exit::Signal(status.signal().unwrap()),
                    };
                    self.exit = Some((exit, Instant::now()));
                }
                () = wait(self.until) => self.kill(KillReason::Timeout),
                read = read(self.output.as_mut(), &mut out) => match read {
                    0 => self.output = None,
                    count => return Ok(Some(ProcessEvent::Stdout(Bytes::copy_from_slice(&out[..count])))),
                },
                read = read(self.error.as_mut(), &mut err) => match read {
                    0 => self.error = None,
                    count => return Ok(Some(ProcessEvent::Stderr(Bytes::copy_from_slice(&err[..count])))),
                },
                () = wait(grace) => {
                    self.output = None;
                    self.error = None;
                }
            }
        }
        Ok(None)
    }

    async fn write_stdin(&mut self, bytes: Bytes) -> Result<(), SandboxError> {
        let input = self
            .input
            .as_mut()
            .ok_or(SandboxError::Unsupported { what: "input" })?;
        match input.write_all(&bytes).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(SandboxError::Backend(error.into()))
            }
            _ => Ok(()),
        }
    }

    async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        self.input = None;
        Ok(())
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), SandboxError> {
        assert_eq!(signal, Signal::Kill, "nothing else is needed here");
        self.kill(KillReason::Requested);
        Ok(())
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn read(from: Option<&mut (impl tokio::io::AsyncRead + Unpin)>, into: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(into).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// The file helper, without a process of its own.
#[derive(Default)]
struct Helper {
    input: Vec<u8>,
    events: Vec<ProcessEvent>,
}

#[async_trait]
impl Process for Helper {
    async fn next_event(&mut self) -> Result<Option<ProcessEvent>, SandboxError> {
        Ok(self.events.pop())
    }

    async fn write_stdin(&mut self, bytes: Bytes) -> Result<(), SandboxError> {
        self.input.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        let mut output = Vec::new();
        let line = std::str::from_utf8(&self.input).unwrap();
        mcp_sandbox_tools::files::serve(line, &mut output).unwrap();
        self.events = vec![
            ProcessEvent::Exit(Exit::Code(0)),
            ProcessEvent::Stdout(output.into()),
        ];
        Ok(())
    }

    async fn signal(&mut self, _: Signal) -> Result<(), SandboxError> {
        Ok(())
    }
}
