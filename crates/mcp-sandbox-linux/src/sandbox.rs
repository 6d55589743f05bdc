//! One live sandbox, as the service sees it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mcp_sandbox_executor::{
    Command, Process, Program, Sandbox, SandboxError, SandboxId, SandboxInfo, SandboxSpec, Stdin,
};
use tokio::sync::{oneshot, watch};

use crate::cgroup::out_of_memory_kills;
use crate::link::Link;
use crate::message::{
    Born, EndReason, ExecEnd, ExecRequest, ExecStage, FromInit, FromLauncher, ProgramRequest,
    ToInit, ToLauncher,
};
use crate::pipes::Pipes;
use crate::process::{LinuxProcess, Streams};
use crate::service::{Shared, lock, millis};
use crate::transfer;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every handle to a sandbox shares.
#[derive(Debug)]
pub(crate) struct Live {
    id: u64,
    info: SandboxInfo,
    env: BTreeMap<String, String>,
    home_dir: String,
    /// There is a `/setup`.
    setup: bool,
    /// Trees are killed by the launcher.
    pub(crate) launcher_kills: bool,
    pub(crate) link: Link,
    /// Our end of the second connection: the place of egress by policy.
    _host: OwnedFd,
    out_of_memory: Option<OwnedFd>,
    commands: Mutex<HashMap<u64, Waiting>>,
    next_command: AtomicU64,
    ended: watch::Sender<Option<EndReason>>,
}

/// The process id and, if there is one, the terminal's controlling side; or where and why it did not start.
type Started = Result<(i32, Option<OwnedFd>), (ExecStage, i32)>;

/// Who waits for news of a command.
#[derive(Debug)]
struct Waiting {
    started: Option<oneshot::Sender<Started>>,
    exited: Option<oneshot::Sender<ExecEnd>>,
}

/// A handle.
#[derive(Debug)]
pub(crate) struct LinuxSandbox {
    live: Arc<Live>,
    shared: Arc<Shared>,
}

impl Live {
    pub(crate) fn new(
        id: u64,
        spec: SandboxSpec,
        sandbox_id: SandboxId,
        born: Born,
        link: Link,
        host: OwnedFd,
        out_of_memory: Option<OwnedFd>,
    ) -> Self {
        let mut info = SandboxInfo::new(sandbox_id, born.working_dir);
        info.temp_dir = born.temp_dir;
        info.labels = spec.labels;
        info.layers = born.layers;
        Self {
            id,
            info,
            env: spec.env,
            home_dir: born.home_dir,
            setup: false,
            launcher_kills: born.launcher_kills,
            link,
            _host: host,
            out_of_memory,
            commands: Mutex::default(),
            next_command: AtomicU64::new(1),
            ended: watch::Sender::new(None),
        }
    }

    /// Puts what the setup script has left first on the path.
    pub(crate) fn with_setup(mut self, setup: bool) -> Self {
        self.setup = setup;
        self
    }

    /// The sandbox's number at the launcher.
    pub(crate) fn number(&self) -> u64 {
        self.id
    }

    pub(crate) fn info(&self) -> &SandboxInfo {
        &self.info
    }

    /// Tells everybody that it is gone.
    pub(crate) fn end(&self, why: EndReason) {
        self.ended.send_replace(Some(why));
        lock(&self.commands).clear();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> EndReason {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.unwrap_or(EndReason::Died),
            Err(_) => EndReason::Died,
        }
    }

    /// How many processes the kernel has killed here for lack of memory.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let Some(file) = &self.out_of_memory else {
            return 0;
        };
        let mut text = [0; 1024];
        let read = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
        out_of_memory_kills(&String::from_utf8_lossy(&text[..read]))
    }

    /// Forgets a command whose handle is gone.
    pub(crate) fn forget(&self, id: u64) {
        lock(&self.commands).remove(&id);
    }

    /// The command's environment: ours, then the sandbox's, then its own.
    fn env_of(&self, command: &Command) -> Vec<(String, String)> {
        let path = if self.setup {
            format!("/setup/bin:{PATH}")
        } else {
            PATH.to_owned()
        };
        let mut env = BTreeMap::from([
            ("HOME".to_owned(), self.home_dir.clone()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("LOGNAME".to_owned(), "agent".to_owned()),
            ("PATH".to_owned(), path),
            ("TMPDIR".to_owned(), self.info.temp_dir.clone()),
            ("USER".to_owned(), "agent".to_owned()),
        ]);
        env.extend(self.env.clone());
        env.extend(command.env.clone());
        env.into_iter().collect()
    }
}

impl LinuxSandbox {
    pub(crate) fn new(live: Arc<Live>, shared: Arc<Shared>) -> Self {
        Self { live, shared }
    }

    async fn freeze(&self, frozen: bool) -> Result<(), SandboxError> {
        let id = self.live.id;
        match self
            .shared
            .ask_about(id, ToLauncher::Freeze { id, frozen })
            .await
        {
            Ok(FromLauncher::Frozen { done: true, .. }) => Ok(()),
            Ok(_) => Err(SandboxError::Unsupported { what: "suspend" }),
            Err(error) => Err(SandboxError::Backend(error.into())),
        }
    }

    /// Starts a command and returns the concrete handle.
    pub(crate) async fn start(&self, command: Command) -> Result<LinuxProcess, SandboxError> {
        check(&command)?;
        let live = &self.live;
        let id = live.next_command.fetch_add(1, Ordering::Relaxed);
        let input = command.stdin == Stdin::Piped && command.terminal.is_none();
        let request = ExecRequest {
            id,
            env: live.env_of(&command),
            working_dir: command
                .working_dir
                .as_deref()
                .unwrap_or(&live.info.working_dir)
                .into(),
            input,
            shielded: command.shielded && command.terminal.is_none(),
            terminal: command.terminal.map(|size| (size.rows, size.columns)),
            program: match command.program {
                Program::Argv(argv) => ProgramRequest::Argv(argv),
                Program::FileHelper => ProgramRequest::FileHelper,
                _ => {
                    return Err(SandboxError::Unsupported {
                        what: "run this kind of program",
                    });
                }
            },
        };
        let shielded = request.shielded;
        let pipes = Pipes::open(&request, self.shared.outlets.as_ref());
        let pipes = pipes.map_err(|e| SandboxError::Backend(e.into()))?;
        let (started, answer) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        let waiting = Waiting {
            started: Some(started),
            exited: Some(exited),
        };
        lock(&live.commands).insert(id, waiting);
        // From here on dropping this future drops the guard, which kills the command.
        let mut process = LinuxProcess::new(id, Arc::clone(live), Arc::clone(&self.shared), exit);
        let theirs = pipes.theirs.iter().map(|fd| fd.as_fd()).collect::<Vec<_>>();
        let sent = live
            .link
            .send(&ToInit::Exec(Box::new(request)), &theirs)
            .await;
        sent.map_err(|_| SandboxError::Gone)?;
        drop(theirs);
        match answer.await {
            Ok(Ok((pid, terminal))) => {
                let streams = match terminal {
                    Some(master) => Streams::terminal(master),
                    None => Streams::pipes(pipes.ours, shielded),
                };
                let streams = streams.map_err(|e| SandboxError::Backend(e.into()))?;
                process.run(pid, streams, command.timeout, command.output_bytes);
                Ok(process)
            }
            Ok(Err((stage, errno))) => Err(not_started(stage, errno)),
            Err(_) => Err(SandboxError::Gone),
        }
    }
}

#[async_trait]
impl Sandbox for LinuxSandbox {
    fn info(&self) -> &SandboxInfo {
        &self.live.info
    }

    async fn exec(&self, command: Command) -> Result<Box<dyn Process>, SandboxError> {
        Ok(Box::new(self.start(command).await?))
    }

    async fn put(&self, path: &str, content: Bytes, executable: bool) -> Result<(), SandboxError> {
        transfer::put(self, path, content, executable).await
    }

    async fn get(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        transfer::get(self, path, limit).await
    }

    async fn put_archive(&self, path: &str, tar: Bytes) -> Result<(), SandboxError> {
        transfer::put_archive(self, path, tar).await
    }

    async fn get_archive(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        transfer::get_archive(self, path, limit).await
    }

    async fn keep_alive(&self, ttl: Duration) -> Result<(), SandboxError> {
        if self.live.ended.borrow().is_some() {
            return Err(SandboxError::Gone);
        }
        let keep = ToLauncher::KeepAlive {
            id: self.live.id,
            ttl_ms: millis(ttl),
        };
        self.shared
            .launcher
            .send(&keep, &[])
            .await
            .map_err(|e| SandboxError::Backend(e.into()))
    }

    async fn suspend(&self) -> Result<(), SandboxError> {
        self.freeze(true).await
    }

    async fn resume(&self) -> Result<(), SandboxError> {
        self.freeze(false).await
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        if self.live.ended.borrow().is_some() {
            return Ok(());
        }
        let destroy = ToLauncher::Destroy { id: self.live.id };
        let asked = self.shared.launcher.send(&destroy, &[]).await;
        asked.map_err(|error| SandboxError::Backend(error.into()))?;
        self.live.ended().await;
        Ok(())
    }
}

/// Hands an init's messages to whoever waits for them.
pub(crate) async fn dispatch(live: Arc<Live>) {
    while let Ok(Some(received)) = live.link.receive::<FromInit>().await {
        let mut commands = lock(&live.commands);
        match received.message {
            FromInit::Started { id, pid } => {
                let started = commands
                    .get_mut(&id)
                    .and_then(|waiting| waiting.started.take());
                let terminal = received.fds.into_iter().next();
                started.map(|started| started.send(Ok((pid, terminal))));
            }
            FromInit::Failed { id, stage, errno } => {
                let started = commands.remove(&id).and_then(|waiting| waiting.started);
                started.map(|started| started.send(Err((stage, errno))));
            }
            FromInit::Exited { id, ended } => {
                let exited = commands.remove(&id).and_then(|waiting| waiting.exited);
                exited.map(|exited| exited.send(ended));
            }
        }
    }
    lock(&live.commands).clear();
}

fn check(command: &Command) -> Result<(), SandboxError> {
    let text = |s: &str| !s.contains('\0');
    let argv = match &command.program {
        Program::Argv(argv) => {
            argv.first().is_some_and(|s| !s.is_empty()) && argv.iter().all(|s| text(s))
        }
        _ => true,
    };
    if !argv {
        return Err(SandboxError::Invalid {
            what: "command line",
        });
    }
    let name = |s: &str| !s.is_empty() && text(s) && !s.contains('=');
    if !command.env.iter().all(|(n, v)| name(n) && text(v)) {
        return Err(SandboxError::Invalid {
            what: "environment",
        });
    }
    match &command.working_dir {
        Some(path) if !path.starts_with('/') || !text(path) => Err(SandboxError::Invalid {
            what: "working directory",
        }),
        _ => Ok(()),
    }
}

fn not_started(stage: ExecStage, errno: i32) -> SandboxError {
    match (stage, errno) {
        (ExecStage::WorkingDir, _) => SandboxError::WorkingDirectory,
        (ExecStage::Program, libc::ENOENT | libc::ENOTDIR) => SandboxError::ProgramNotFound,
        (ExecStage::Program, libc::EACCES | libc::ENOEXEC) => SandboxError::ProgramNotExecutable,
        (ExecStage::Program, libc::E2BIG) => SandboxError::Limit {
            what: "length of the command line",
        },
        (_, libc::EAGAIN) => SandboxError::Limit { what: "processes" },
        (_, libc::ENOMEM) => SandboxError::Limit { what: "memory" },
        _ => SandboxError::Backend(io::Error::from_raw_os_error(errno).into()),
    }
}
