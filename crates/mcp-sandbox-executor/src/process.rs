use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// One command to run inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Added to the sandbox's environment; wins over it.
    pub env: BTreeMap<String, String>,
    /// Absolute path inside; none: the sandbox's working directory.
    pub working_dir: Option<String>,
    /// Where standard input comes from.
    pub stdin: Stdin,
    /// A terminal instead of pipes.
    pub terminal: Option<Terminal>,
    /// Wall time after which the command and its process group are killed.
    pub timeout: Option<Duration>,
    /// Bytes of output after which the rest is dropped and said to be.
    pub output_bytes: Option<u64>,
    /// Streams that no other process inside can tamper with, where the backend has
    /// them: see [`Process::shielded`].
    pub shielded: bool,
}

impl Command {
    /// Runs `argv[0]` with the rest as arguments, input closed, no limits.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::of(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// Runs the file helper with its request on standard input.
    pub fn file_helper() -> Self {
        Self {
            stdin: Stdin::Piped,
            ..Self::of(Program::FileHelper)
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn with_working_dir(mut self, path: impl Into<String>) -> Self {
        self.working_dir = Some(path.into());
        self
    }

    /// Sets where standard input comes from.
    #[must_use]
    pub fn with_stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Asks for a terminal.
    #[must_use]
    pub fn with_terminal(mut self, terminal: Terminal) -> Self {
        self.terminal = Some(terminal);
        self
    }

    /// Sets the wall time limit.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the output limit in bytes.
    #[must_use]
    pub fn with_output_bytes(mut self, bytes: u64) -> Self {
        self.output_bytes = Some(bytes);
        self
    }

    /// Asks for shielded streams ([`Process::shielded`] tells whether it got them).
    #[must_use]
    pub fn with_shielded_streams(mut self) -> Self {
        self.shielded = true;
        self
    }

    /// The program's name and its arguments, for a backend that takes nothing else.
    ///
    /// # Errors
    /// It is the file helper, or there is no name.
    pub fn argv(&self) -> Result<(&str, &[String]), SandboxError> {
        match &self.program {
            Program::Argv(argv) => match argv.as_slice() {
                [name, arguments @ ..] => Ok((name, arguments)),
                [] => Err(SandboxError::Invalid {
                    what: "command line",
                }),
            },
            Program::FileHelper => Err(SandboxError::Unsupported {
                what: "run the file helper",
            }),
        }
    }

    fn of(program: Program) -> Self {
        Self {
            program,
            env: BTreeMap::new(),
            working_dir: None,
            stdin: Stdin::Closed,
            terminal: None,
            timeout: None,
            output_bytes: None,
            shielded: false,
        }
    }
}

/// What a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Program {
    /// A program found along the sandbox's `PATH`, with its arguments.
    Argv(Vec<String>),
    /// The file helper, where [`Capabilities::file_helper`](crate::Capabilities)
    /// says that it is built in.
    FileHelper,
}

/// Where standard input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// End of file at once: an agent's command must not wait for a human.
    Closed,
    /// Written by [`Process::write_stdin`].
    Piped,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a size has two sides")]
pub struct Terminal {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// A running command. Dropping it kills the command's process group.
#[async_trait]
pub trait Process: Send {
    /// The next thing that happened; `None` after [`ProcessEvent::Exit`].
    ///
    /// The exit is the last event. It comes when the command itself has ended,
    /// even while a background child still holds its output open.
    ///
    /// # Errors
    /// [`SandboxError::Lost`] when the fate of the command cannot be known: an
    /// exit status is never made up.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost when the future is dropped.
    async fn next_event(&mut self) -> Result<Option<ProcessEvent>, SandboxError>;

    /// Writes all of `bytes` to the command's input.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] when the input is closed; a command that has
    /// closed its end is not an error.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `bytes` may have been written.
    async fn write_stdin(&mut self, bytes: Bytes) -> Result<(), SandboxError> {
        drop(bytes);
        Err(SandboxError::Unsupported {
            what: "write to a command's input",
        })
    }

    /// Takes the command's input out of this handle, so that one task can write while another reads events: a command that
    /// answers while it is still being written to would otherwise wait for ever. `None` where the backend cannot, or has no
    /// open pipe to it.
    fn take_stdin(&mut self) -> Option<Box<dyn ProcessInput>> {
        None
    }

    /// Ends the command's input.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] where input is not supported.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Whether the streams are shielded from every other process inside, of whatever user: nobody else can open them or take
    /// their place, standard error brings only what the command's own process has written (children and whoever inherited it
    /// are not heard), and standard output can be added to and not be read. Output that was written before something on
    /// standard error is also given before it.
    fn shielded(&self) -> bool {
        false
    }

    /// Signals the command's process group.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] where only killing is possible.
    ///
    /// # Cancel safety
    /// Cancel safe: the signal was sent or not.
    async fn signal(&mut self, signal: Signal) -> Result<(), SandboxError>;

    /// Changes the terminal's size.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] without a terminal.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn resize(&mut self, terminal: Terminal) -> Result<(), SandboxError> {
        let _ = terminal;
        Err(SandboxError::Unsupported {
            what: "resize a terminal",
        })
    }
}

/// What happened to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessEvent {
    /// Bytes of standard output, or of the terminal, as they came.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The output limit is reached; what follows is read and dropped.
    Truncated,
    /// The command has ended.
    Exit(Exit),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Exit {
    /// It exited by itself, 0 to 255.
    Code(u8),
    /// A signal ended it, not sent by this side.
    Signal(i32),
    /// This side or a limit ended it.
    Killed(KillReason),
}

#[cfg(unix)]
impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match status.code() {
            Some(code) => Self::Code(u8::try_from(code).unwrap_or(u8::MAX)),
            None => Self::Signal(status.signal().unwrap_or_default()),
        }
    }
}

impl Exit {
    /// Whether the command says that it succeeded.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The status as a shell shows it: signals are 128 + n, a time-out is 124.
    pub fn shell_status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(signal).map_or(255, |n| n.saturating_add(128)),
            Self::Killed(KillReason::Timeout) => 124,
            Self::Killed(_) => 137,
        }
    }
}

/// Why this side ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KillReason {
    /// Its wall time was over.
    Timeout,
    /// The sandbox's memory was exhausted.
    OutOfMemory,
    /// The caller asked for it.
    Requested,
    /// The sandbox was destroyed under it.
    Destroyed,
}

/// A signal that callers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Signal {
    /// SIGHUP
    Hangup,
    /// SIGINT
    Interrupt,
    /// SIGTERM
    Terminate,
    /// SIGKILL; the exit is then `Killed(Requested)`.
    Kill,
    /// SIGQUIT
    Quit,
    /// SIGUSR1
    User1,
    /// SIGUSR2
    User2,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Continue,
}

/// A command's input, apart from its other streams. Dropping it is the end of the input.
#[async_trait]
pub trait ProcessInput: Send {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`SandboxError::Backend`]; a command that has closed its end is not an error.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `bytes` may have been written.
    async fn write(&mut self, bytes: Bytes) -> Result<(), SandboxError>;
}
