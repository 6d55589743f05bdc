//! One running command, as the service sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mcp_sandbox_executor::{
    Exit, KillReason, Process, ProcessEvent, ProcessInput, SandboxError, Signal, Terminal,
};
use rustix::process::Pid;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::message::{EndReason, ExecEnd, ToInit, ToLauncher};
use crate::pipes::read_attested;
use crate::sandbox::Live;
use crate::service::Shared;
use crate::sys;

/// How long output is still awaited after a command has ended, while a child of
/// its own holds the pipe open.
const GRACE: Duration = Duration::from_millis(100);
/// How long the reason is awaited after the connection to init was lost.
const REASON: Duration = Duration::from_secs(1);
/// Output is read in pieces of at most this.
const CHUNK: usize = 64 * 1024;
/// So many pieces of output go before what came on the error stream: a pipe holds at most 1 MiB.
const BEFORE: u32 = 17;

/// Our ends of a command's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    input: Option<AsyncFd<OwnedFd>>,
    output: Option<AsyncFd<OwnedFd>>,
    error: Option<AsyncFd<OwnedFd>>,
    /// Both are the same terminal.
    terminal: bool,
    /// Whom the error stream brings.
    speaker: Speaker,
}

/// Whose words arrive on a command's error stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Anybody,
    /// The command itself, which has not yet said who it is: its first byte, before it became its program.
    Unknown,
    Only(Pid),
}

/// A running command.
#[derive(Debug)]
pub(crate) struct LinuxProcess {
    id: u64,
    live: Arc<Live>,
    shared: Arc<Shared>,
    pid: i32,
    exit: Option<oneshot::Receiver<ExecEnd>>,
    streams: Streams,
    deadline: Option<Pin<Box<Sleep>>>,
    grace: Option<Pin<Box<Sleep>>>,
    killed: Option<KillReason>,
    ended: Option<Exit>,
    finished: bool,
    kills_before: u64,
    room: Option<u64>,
    truncated: bool,
    /// What came on the error stream, until the output that was written before it is given; and how much of that may still be.
    held: Option<(Bytes, u32)>,
}

enum Step {
    Output(io::Result<Bytes>),
    Error(io::Result<(Bytes, Option<Pid>)>),
    Ended(Result<ExecEnd, oneshot::error::RecvError>),
    Deadline,
    Grace,
}

impl Streams {
    pub(crate) fn pipes(
        [input, output, error]: [Option<OwnedFd>; 3],
        shielded: bool,
    ) -> io::Result<Self> {
        let open = |fd: Option<OwnedFd>| fd.map(register).transpose();
        Ok(Self {
            input: open(input)?,
            output: open(output)?,
            error: open(error)?,
            terminal: false,
            speaker: if shielded {
                Speaker::Unknown
            } else {
                Speaker::Anybody
            },
        })
    }

    pub(crate) fn terminal(master: OwnedFd) -> io::Result<Self> {
        let input = register(master.try_clone()?)?;
        Ok(Self {
            input: Some(input),
            output: Some(register(master)?),
            error: None,
            terminal: true,
            speaker: Speaker::Anybody,
        })
    }

    fn none() -> Self {
        Self {
            input: None,
            output: None,
            error: None,
            terminal: false,
            speaker: Speaker::Anybody,
        }
    }

    /// Output that is there, whatever the runtime knows of it: the error stream may be found ready earlier than the output
    /// that was written before, and what is said on it (that a command has ended) must not overtake that.
    fn output_now(&self) -> Option<Bytes> {
        let mut chunk = vec![0; CHUNK];
        let count = rustix::io::read(self.output.as_ref()?.get_ref(), &mut chunk).ok()?;
        chunk.truncate(count);
        (count > 0).then(|| chunk.into())
    }

    /// What of these bytes is the command's own.
    fn heard(&mut self, bytes: Bytes, writer: Option<Pid>) -> Bytes {
        match (self.speaker, writer) {
            (Speaker::Anybody, _) => bytes,
            (Speaker::Only(pid), Some(writer)) if pid == writer => bytes,
            (Speaker::Unknown, Some(writer)) => {
                self.speaker = Speaker::Only(writer);
                bytes.slice(1..)
            }
            (Speaker::Only(_) | Speaker::Unknown, _) => Bytes::new(),
        }
    }
}

impl LinuxProcess {
    /// A command that has been asked for and not yet heard of.
    pub(crate) fn new(
        id: u64,
        live: Arc<Live>,
        shared: Arc<Shared>,
        exit: oneshot::Receiver<ExecEnd>,
    ) -> Self {
        Self {
            id,
            kills_before: live.out_of_memory_kills(),
            live,
            shared,
            pid: 0,
            exit: Some(exit),
            streams: Streams::none(),
            deadline: None,
            grace: None,
            killed: None,
            ended: None,
            finished: false,
            room: None,
            truncated: false,
            held: None,
        }
    }

    /// It runs.
    pub(crate) fn run(
        &mut self,
        pid: i32,
        streams: Streams,
        limit: Option<Duration>,
        output: Option<u64>,
    ) {
        self.pid = pid;
        self.streams = streams;
        self.deadline = limit
            .and_then(|limit| Instant::now().checked_add(limit))
            .map(|at| Box::pin(sleep_until(at)));
        self.room = output;
    }

    async fn step(&mut self) -> Step {
        let Streams {
            output,
            error,
            speaker,
            ..
        } = &self.streams;
        tokio::select! {
            biased;
            () = wait(&mut self.deadline), if self.killed.is_none() && self.ended.is_none() => Step::Deadline,
            ended = wait_exit(&mut self.exit) => Step::Ended(ended),
            read = read(output.as_ref()) => Step::Output(read),
            read = read_error(error.as_ref(), *speaker) => Step::Error(read),
            () = wait(&mut self.grace) => Step::Grace,
        }
    }

    fn on_ended(&mut self, ended: ExecEnd) {
        self.exit = None;
        self.ended = Some(match (ended, self.killed) {
            (ExecEnd::Code(code), None) => Exit::Code(u8::try_from(code).unwrap_or(255)),
            (ExecEnd::Signal(libc::SIGKILL), None)
                if self.live.out_of_memory_kills() > self.kills_before =>
            {
                Exit::Killed(KillReason::OutOfMemory)
            }
            (ExecEnd::Signal(signal), None) => Exit::Signal(signal),
            // It ended by itself in the same moment.
            (ExecEnd::Code(code), Some(KillReason::Requested)) => {
                Exit::Code(u8::try_from(code).unwrap_or(255))
            }
            (ExecEnd::Killed(reason), _) | (_, Some(reason)) => Exit::Killed(reason),
        });
        self.grace = Some(Box::pin(sleep_until(Instant::now() + GRACE)));
    }

    /// Where commands are killed one by one with their sandbox, the sandbox's own end
    /// follows at once.
    async fn learn_why(&mut self) {
        if !self.live.launcher_kills || self.ended != Some(Exit::Signal(libc::SIGKILL)) {
            return;
        }
        let ended = timeout(GRACE, self.live.ended()).await;
        if matches!(ended, Ok(EndReason::Asked | EndReason::Expired)) {
            self.ended = Some(Exit::Killed(KillReason::Destroyed));
        }
    }

    /// The connection to init ended before the command did.
    async fn on_lost(&mut self) -> Result<(), SandboxError> {
        self.exit = None;
        match timeout(REASON, self.live.ended()).await {
            Ok(EndReason::Asked | EndReason::Expired) => {
                self.ended = Some(Exit::Killed(KillReason::Destroyed));
                self.streams = Streams::none();
                Ok(())
            }
            _ => {
                self.finished = true;
                Err(SandboxError::Lost)
            }
        }
    }

    /// Passes on what still fits; says once that the rest is dropped.
    fn admit(&mut self, bytes: Bytes, event: fn(Bytes) -> ProcessEvent) -> Option<ProcessEvent> {
        let Some(room) = &mut self.room else {
            return Some(event(bytes));
        };
        if *room == 0 {
            let first = !self.truncated;
            self.truncated = true;
            return first.then_some(ProcessEvent::Truncated);
        }
        let take = usize::try_from(*room)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        *room -= take as u64;
        Some(event(bytes.slice(..take)))
    }

    fn kill_tree(&mut self, reason: KillReason) {
        self.killed = Some(reason);
        self.send_kill();
    }

    fn send_kill(&self) {
        if self.live.launcher_kills && self.pid == 0 {
            let kill = ToInit::Signal {
                id: self.id,
                signal: libc::SIGKILL,
            };
            let _ = self.live.link.send_now(&kill);
        } else if self.live.launcher_kills {
            let kill = ToLauncher::KillTree {
                id: self.live.number(),
                pid: self.pid,
            };
            let _ = self.shared.launcher.send_now(&kill);
        } else {
            let _ = self.live.link.send_now(&ToInit::KillTree { id: self.id });
        }
    }
}

#[async_trait]
impl Process for LinuxProcess {
    async fn next_event(&mut self) -> Result<Option<ProcessEvent>, SandboxError> {
        while !self.finished {
            if let Some((words, left)) = self.held.take() {
                let before = if left > 0 {
                    self.streams.output_now()
                } else {
                    None
                };
                let event = match before {
                    Some(bytes) => {
                        self.held = Some((words, left - 1));
                        self.admit(bytes, ProcessEvent::Stdout)
                    }
                    None => self.admit(words, ProcessEvent::Stderr),
                };
                match event {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            if let Some(exit) = self.ended
                && self.streams.output.is_none()
                && self.streams.error.is_none()
            {
                self.finished = true;
                return Ok(Some(ProcessEvent::Exit(exit)));
            }
            match self.step().await {
                Step::Output(Ok(bytes)) if !bytes.is_empty() => {
                    if let Some(event) = self.admit(bytes, ProcessEvent::Stdout) {
                        return Ok(Some(event));
                    }
                }
                Step::Error(Ok((bytes, writer))) if !bytes.is_empty() => {
                    let bytes = self.streams.heard(bytes, writer);
                    if !bytes.is_empty() {
                        self.held = Some((bytes, BEFORE));
                    }
                }
                // A terminal whose other side is closed answers EIO.
                Step::Output(_) => self.streams.output = None,
                Step::Error(_) => self.streams.error = None,
                Step::Deadline => self.kill_tree(KillReason::Timeout),
                Step::Ended(Ok(ended)) => {
                    self.on_ended(ended);
                    self.learn_why().await;
                }
                Step::Ended(Err(_)) => self.on_lost().await?,
                Step::Grace => {
                    self.streams.output = None;
                    self.streams.error = None;
                }
            }
        }
        Ok(None)
    }

    async fn write_stdin(&mut self, bytes: Bytes) -> Result<(), SandboxError> {
        let unsupported = SandboxError::Unsupported {
            what: "write to a closed input",
        };
        let input = self.streams.input.as_ref().ok_or(unsupported)?;
        write_all(input, &bytes).await
    }

    fn take_stdin(&mut self) -> Option<Box<dyn ProcessInput>> {
        if self.streams.terminal {
            return None;
        }
        let input = self.streams.input.take()?;
        Some(Box::new(Input(input)))
    }

    async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        if self.streams.terminal {
            // End of file on a terminal is a character.
            return self.write_stdin(Bytes::from_static(b"\x04")).await;
        }
        self.streams.input = None;
        Ok(())
    }

    fn shielded(&self) -> bool {
        self.streams.speaker != Speaker::Anybody
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), SandboxError> {
        if signal == Signal::Kill {
            self.kill_tree(KillReason::Requested);
            return Ok(());
        }
        let signal = number(signal).ok_or(SandboxError::Unsupported {
            what: "send this signal",
        })?;
        let message = ToInit::Signal {
            id: self.id,
            signal,
        };
        self.live
            .link
            .send(&message, &[])
            .await
            .map_err(|_| SandboxError::Gone)
    }

    async fn resize(&mut self, terminal: Terminal) -> Result<(), SandboxError> {
        let size = Winsize {
            ws_row: terminal.rows,
            ws_col: terminal.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        match &self.streams.output {
            Some(master) if self.streams.terminal => tcsetwinsize(master, size)
                .map_err(|e| SandboxError::Backend(io::Error::from(e).into())),
            _ => Err(SandboxError::Unsupported {
                what: "resize a terminal that is not there",
            }),
        }
    }
}

impl Drop for LinuxProcess {
    fn drop(&mut self) {
        if self.exit.is_some() {
            self.send_kill();
        }
        self.live.forget(self.id);
    }
}

fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    sys::register(fd)
}

async fn wait(sleep: &mut Option<Pin<Box<Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

async fn wait_exit(
    exit: &mut Option<oneshot::Receiver<ExecEnd>>,
) -> Result<ExecEnd, oneshot::error::RecvError> {
    match exit {
        Some(exit) => exit.await,
        None => std::future::pending().await,
    }
}

/// Reads what is there; empty at the end. Cancel safe.
async fn read(fd: Option<&AsyncFd<OwnedFd>>) -> io::Result<Bytes> {
    let Some(fd) = fd else {
        return std::future::pending().await;
    };
    loop {
        let mut guard = fd.readable().await?;
        let mut chunk = vec![0; CHUNK];
        match guard.try_io(|fd| Ok(rustix::io::read(fd, &mut chunk)?)) {
            Ok(Ok(count)) => {
                chunk.truncate(count);
                return Ok(chunk.into());
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

async fn read_error(
    fd: Option<&AsyncFd<OwnedFd>>,
    speaker: Speaker,
) -> io::Result<(Bytes, Option<Pid>)> {
    match fd {
        Some(fd) if speaker != Speaker::Anybody => read_attested(fd, CHUNK).await,
        fd => Ok((read(fd).await?, None)),
    }
}

fn number(signal: Signal) -> Option<i32> {
    Some(match signal {
        Signal::Hangup => libc::SIGHUP,
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
        Signal::Quit => libc::SIGQUIT,
        Signal::User1 => libc::SIGUSR1,
        Signal::User2 => libc::SIGUSR2,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
        _ => return None,
    })
}

/// A command's input, taken out of its process.
struct Input(AsyncFd<OwnedFd>);

#[async_trait]
impl ProcessInput for Input {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SandboxError> {
        write_all(&self.0, &bytes).await
    }
}

async fn write_all(input: &AsyncFd<OwnedFd>, bytes: &[u8]) -> Result<(), SandboxError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut guard = input
            .writable()
            .await
            .map_err(|e| SandboxError::Backend(e.into()))?;
        match guard.try_io(|fd| Ok(rustix::io::write(fd, rest)?)) {
            Ok(Ok(written)) => rest = &rest[written..],
            // The command has closed its end: its own business.
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(());
            }
            Ok(Err(error)) => return Err(SandboxError::Backend(error.into())),
            Err(_would_block) => {}
        }
    }
    Ok(())
}
