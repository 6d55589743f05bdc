//! Bash whose state lasts, one process a call.
//!
//! A call is a new `bash` that first takes over the state that the call before it
//! left (directory, variables, functions, options, file mode mask), then runs the
//! command, then says what its own state is, on a channel of its own. The state is
//! parsed and written anew on this side, so that it is data and never code; the
//! status is that of the process. An overridden builtin, a trap or a closed
//! descriptor can spoil the state that the call hands on, and nothing else.

mod loader;
mod quote;
mod state;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_sandbox_executor::{
    Command, Exit, KillReason, Process, ProcessEvent, Sandbox, SandboxError, Signal,
};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::result::ToolResult;
use state::State;

/// Output is kept to its last bytes.
const OUTPUT_BYTES: usize = 100 * 1024;
/// What a call may hand on; more is dropped, and the state before it stays.
const STATE_BYTES: usize = 1024 * 1024;
/// Time of a call that names none.
const TIME: Duration = Duration::from_secs(120);

/// Why a call could not be made at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The sandbox refused or is gone.
    #[error("running bash in the sandbox")]
    Sandbox(#[from] SandboxError),
}

/// A shell of one sandbox. Calls wait for each other.
#[derive(Clone)]
pub struct Shell {
    sandbox: Arc<dyn Sandbox>,
    state: Arc<Mutex<State>>,
}

/// A running call. Dropping it kills the command and keeps the state before it.
pub struct ShellCall {
    process: Box<dyn Process>,
    state: OwnedMutexGuard<State>,
    said: Vec<u8>,
    tail: Tail,
    limit: Duration,
    exit: Option<Exit>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell")
            .field("sandbox", &self.sandbox.info().id)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ShellCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShellCall")
            .field("exit", &self.exit)
            .finish_non_exhaustive()
    }
}

impl Shell {
    /// A shell that starts in the sandbox's working directory.
    pub fn new(sandbox: Arc<dyn Sandbox>) -> Self {
        let state = State::new(&sandbox.info().working_dir);
        Self {
            sandbox,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Forgets directory, variables, functions and options. Background processes go on.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn restart(&self) {
        *self.state.lock().await = State::new(&self.sandbox.info().working_dir);
    }

    /// Starts a command, after the one before it has ended.
    ///
    /// # Errors
    /// The sandbox could not start bash.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing running.
    pub async fn start(
        &self,
        command: &str,
        timeout: Option<Duration>,
    ) -> Result<ShellCall, ShellError> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let limit = timeout.unwrap_or(TIME);
        let process = match self.exec(&state, command, limit).await {
            // The directory of the call before is gone: as a shell does, say so and go on.
            Err(SandboxError::WorkingDirectory) => {
                state.enter(&self.sandbox.info().working_dir);
                self.exec(&state, command, limit).await?
            }
            process => process?,
        };
        let said = Vec::new();
        Ok(ShellCall {
            process,
            state,
            said,
            tail: Tail::default(),
            limit,
            exit: None,
        })
    }

    async fn exec(
        &self,
        state: &State,
        command: &str,
        limit: Duration,
    ) -> Result<Box<dyn Process>, SandboxError> {
        let loaded = loader::load(state, command);
        let mut bash = Command::new(loaded.argv)
            .with_working_dir(state.directory())
            .with_timeout(limit);
        bash.env.extend(loaded.env);
        self.sandbox.exec(bash).await
    }
}

impl ShellCall {
    /// The next bytes of output, both streams in their order; `None` at the end.
    ///
    /// # Errors
    /// The connection to the command is lost.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_output(&mut self) -> Result<Option<Bytes>, ShellError> {
        while let Some(event) = self.process.next_event().await? {
            match event {
                ProcessEvent::Stdout(bytes) => {
                    self.tail.push(&bytes);
                    return Ok(Some(bytes));
                }
                ProcessEvent::Stderr(bytes) if self.said.len() <= STATE_BYTES => {
                    self.said.extend_from_slice(&bytes);
                }
                ProcessEvent::Exit(exit) => self.exit = Some(exit),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Kills the command; the output so far and an exit still follow.
    ///
    /// # Errors
    /// The sandbox is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn kill(&mut self) -> Result<(), ShellError> {
        Ok(self.process.signal(Signal::Kill).await?)
    }

    /// Waits for the end and answers as the bash tool does.
    ///
    /// # Errors
    /// The connection to the command is lost.
    ///
    /// # Cancel safety
    /// Dropping it kills the command.
    pub async fn finish(mut self) -> Result<ToolResult, ShellError> {
        while self.next_output().await?.is_some() {}
        let exit = self.exit.ok_or(SandboxError::Lost)?;
        let handed_on = self.said.len() <= STATE_BYTES && self.state.take_over(&self.said);
        let mut output = self.tail.text();
        let mut note = |text: &str| {
            if !output.is_empty() {
                output.push('\n');
            }
            output.push_str(text);
        };
        match exit {
            Exit::Code(code) if code != 0 && !handed_on => {
                note(&format!("[exit status {code}; {KEPT}]"));
            }
            Exit::Code(0) if !handed_on => note(&format!("[{KEPT}]")),
            Exit::Code(code) => {
                if output.is_empty() {
                    let status = if code == 0 {
                        String::new()
                    } else {
                        format!("; exit status {code}")
                    };
                    output = format!("(no output{status})");
                }
            }
            Exit::Signal(signal) => {
                note(&format!("[the shell was ended by signal {signal}; {KEPT}]"))
            }
            Exit::Killed(KillReason::Timeout) => note(&format!(
                "bash: bash command timed out after {:?}s; it was killed and {KEPT}",
                self.limit.as_secs_f64()
            )),
            Exit::Killed(KillReason::OutOfMemory) => {
                note(&format!(
                    "bash: out of memory; the command was killed and {KEPT}"
                ));
            }
            Exit::Killed(_) => note("bash: the command was stopped"),
            _ => note("bash: the command ended"),
        }
        let result = if exit.success() {
            ToolResult::text
        } else {
            ToolResult::error
        };
        Ok(result(output))
    }
}

/// What happens to the state when a call hands none on.
const KEPT: &str = "the shell goes on with the directory and variables from before this command";

/// The last bytes of an output.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Shortened rarely, so that each byte is moved once on average.
        if self.bytes.len() > 2 * OUTPUT_BYTES {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        if self.bytes.len() > OUTPUT_BYTES {
            self.bytes.drain(..self.bytes.len() - OUTPUT_BYTES);
            self.cut = true;
        }
    }

    /// As text: escapes stripped, line ends at the end trimmed, what is no UTF-8 marked.
    fn text(&mut self) -> String {
        self.shorten();
        let text = quote::without_escapes(&String::from_utf8_lossy(&self.bytes));
        let text = text.trim_end_matches('\n');
        if self.cut {
            format!("[output truncated]\n{text}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_is_kept() {
        let mut tail = Tail::default();
        for i in 0..100_000 {
            tail.push(format!("{i}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.starts_with("[output truncated]\n"));
        assert!(text.ends_with("99998\n99999"));
        assert!(text.len() <= OUTPUT_BYTES + 30);
    }

    #[test]
    fn escapes_are_stripped_and_bad_bytes_marked() {
        let mut tail = Tail::default();
        tail.push(b"\x1b[31mred\x1b[0m \xff ok\n\n");
        assert_eq!(tail.text(), "red \u{fffd} ok");
    }
}
