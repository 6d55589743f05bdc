//! The toolset as a whole.

mod inside;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mcp_sandbox_executor::{
    Command, Exit, FileHelper, KillReason, Process, ProcessEvent, Sandbox, SandboxError, Stdin,
};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::OnceCell;

use crate::files::{Places, Request};
use crate::input::{BashInput, FileInput, Input, InputError};
use crate::result::ToolResult;
use crate::shell::{Shell, ShellCall, ShellError};

/// A file tool ends within this time or is given up.
const FILE_TIME: Duration = Duration::from_secs(60);
/// Largest answer of the file helper: 20 MiB of PDF in base64, and more.
const ANSWER_BYTES: u64 = 32 * 1024 * 1024;

/// Why a call got no answer at all. What the tool itself refuses is an answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The sandbox refused or is gone.
    #[error("using the sandbox")]
    Sandbox(#[from] SandboxError),
    /// Bash could not be run.
    #[error("running bash")]
    Shell(#[from] ShellError),
    /// The file helper said nothing that makes sense.
    #[error("the file helper inside the sandbox does not answer")]
    Helper,
    /// The backend needs an uploaded helper and there is none.
    #[error("this backend needs a static helper program to run file tools")]
    NoHelper,
}

/// The six tools over one sandbox. File tools may run at the same time; bash calls
/// wait for each other.
pub struct Toolset {
    sandbox: Arc<dyn Sandbox>,
    shell: Shell,
    places: Places,
    support: FileHelper,
    helper: Option<Bytes>,
    uploaded: OnceCell<String>,
    requests: AtomicU64,
}

impl std::fmt::Debug for Toolset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toolset")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Toolset {
    /// Tools confined to the sandbox's working directory. `support` is the
    /// executor's [`Capabilities::file_helper`](mcp_sandbox_executor::Capabilities).
    pub fn new(sandbox: Arc<dyn Sandbox>, support: FileHelper) -> Self {
        let places = Places::new(&sandbox.info().working_dir);
        let shell = Shell::new(Arc::clone(&sandbox));
        Self {
            sandbox,
            shell,
            places,
            support,
            helper: None,
            uploaded: OnceCell::new(),
            requests: AtomicU64::new(1),
        }
    }

    /// Lets the file tools reach further directories.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.places = places;
        self
    }

    /// A static program that serves `files` (ours is `mcp-sandbox`), uploaded once
    /// to backends that have no helper of their own.
    #[must_use]
    pub fn with_helper(mut self, program: Bytes) -> Self {
        self.helper = Some(program);
        self
    }

    /// The shell behind the bash tool, for callers that stream its output.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// Calls a tool. Wrong arguments and refusals are answers with `is_error`.
    ///
    /// # Errors
    /// There is no answer: the sandbox is gone or does not do its part.
    ///
    /// # Cancel safety
    /// A dropped call is killed; what it did until then stays.
    pub async fn call(&self, tool: &str, input: &Value) -> Result<ToolResult, CallError> {
        match Input::parse(tool, input) {
            Ok(Input::Bash(input)) => match self.bash(&input).await? {
                Bash::Done(result) => Ok(result),
                Bash::Running(call) => Ok(call.finish().await?),
            },
            Ok(Input::File(call)) => self.file(call).await,
            Err(error @ InputError::Arguments { .. }) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                Ok(ToolResult::error(format!(
                    "{error}: {}",
                    source.unwrap_or_default()
                )))
            }
            Err(error) => Ok(ToolResult::error(error.to_string())),
        }
    }

    async fn bash(&self, input: &BashInput) -> Result<Bash, CallError> {
        if input.restart.unwrap_or(false) {
            self.shell.restart().await;
            return Ok(Bash::Done(ToolResult::text("bash session restarted")));
        }
        let command = input.command.as_deref().unwrap_or("");
        if command.is_empty() {
            return Ok(Bash::Done(ToolResult::error("bash: command is required")));
        }
        if command.contains('\0') {
            return Ok(Bash::Done(ToolResult::error(
                "bash: command holds a NUL character",
            )));
        }
        let Ok(ms) = u64::try_from(input.timeout_ms.unwrap_or(0)) else {
            return Ok(Bash::Done(ToolResult::error(
                "bash: timeout_ms must not be negative",
            )));
        };
        let timeout = (ms > 0).then(|| Duration::from_millis(ms));
        match self.shell.start(command, timeout).await {
            Ok(call) => Ok(Bash::Running(Box::new(call))),
            Err(ShellError::Sandbox(SandboxError::Limit { what })) => Ok(Bash::Done(
                ToolResult::error(format!("bash: limit reached: {what}")),
            )),
            Err(error) => Err(error.into()),
        }
    }

    async fn file(&self, call: FileInput) -> Result<ToolResult, CallError> {
        let request = Request {
            places: self.places.clone(),
            call,
        };
        let mut line = serde_json::to_vec(&request).map_err(|_| CallError::Helper)?;
        line.push(b'\n');
        let line = Bytes::from(line);
        let mut process = match self.support {
            FileHelper::BuiltIn => self.ask(Command::file_helper(), line).await?,
            _ => {
                let program = self.uploaded.get_or_try_init(|| self.upload()).await?;
                let command = Command::new([program.as_str(), "files"]).with_stdin(Stdin::Piped);
                match self.ask(command, line.clone()).await {
                    Err(CallError::Sandbox(SandboxError::Unsupported { .. })) => {
                        self.ask_by_file(program, line).await?
                    }
                    asked => asked?,
                }
            }
        };
        let mut answer = BytesMut::new();
        while let Some(event) = process.next_event().await? {
            match event {
                ProcessEvent::Stdout(bytes) => answer.extend_from_slice(&bytes),
                // What it runs among may kill it.
                ProcessEvent::Exit(exit) if !exit.success() => {
                    return Ok(ToolResult::error(ended(exit)));
                }
                _ => {}
            }
        }
        serde_json::from_slice(&answer).map_err(|_| CallError::Helper)
    }

    async fn ask(&self, command: Command, line: Bytes) -> Result<Box<dyn Process>, CallError> {
        let mut process = self.sandbox.exec(bounded(command)).await?;
        process.write_stdin(line).await?;
        process.close_stdin().await?;
        Ok(process)
    }

    /// For backends that give a command no input.
    async fn ask_by_file(&self, program: &str, line: Bytes) -> Result<Box<dyn Process>, CallError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let folder = &self.sandbox.info().temp_dir;
        let path = format!("{folder}/.mcp-sandbox-request-{number}");
        self.sandbox.put(&path, line, false).await?;
        let command = Command::new([program, "files", &path]);
        Ok(self.sandbox.exec(bounded(command)).await?)
    }

    async fn upload(&self) -> Result<String, CallError> {
        let program = self.helper.clone().ok_or(CallError::NoHelper)?;
        let path = format!("{}/.mcp-sandbox-helper", self.sandbox.info().temp_dir);
        self.sandbox.put(&path, program, true).await?;
        Ok(path)
    }
}

fn bounded(command: Command) -> Command {
    command
        .with_timeout(FILE_TIME)
        .with_output_bytes(ANSWER_BYTES)
}

fn ended(exit: Exit) -> String {
    let how = match exit {
        Exit::Killed(KillReason::Timeout) => format!("timed out after {}s", FILE_TIME.as_secs()),
        Exit::Killed(KillReason::OutOfMemory) => "ran out of memory".to_owned(),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        exit => format!("ended with status {}", exit.shell_status()),
    };
    format!("the tool {how}")
}

/// A bash call that was answered at once, or runs.
enum Bash {
    Done(ToolResult),
    Running(Box<ShellCall>),
}
