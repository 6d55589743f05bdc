//! A bash that runs.

use std::time::Duration;

use bytes::Bytes;
use mcp_sandbox_executor::{Command, Process, ProcessEvent, Sandbox, SandboxError, Stdin};
use tokio::time::{Instant, timeout, timeout_at};

use super::marks::{Fit, Marks};
use super::script::{ARGV, Identity, SAID, Says, hello, set_up};
use super::state::State;

/// A shell answers its first lines within this time.
const START_TIME: Duration = Duration::from_secs(10);
/// How long the first state is awaited after the shell is ready; it comes on another stream.
const STATE_TIME: Duration = Duration::from_millis(50);
/// What a shell may say about itself; a larger state is not kept.
pub(super) const STATE_BYTES: usize = 1024 * 1024;
/// A look at the shell from outside takes at most this long.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// A running shell that waits for a command, or runs one.
pub(super) struct Live {
    pub(super) process: Box<dyn Process>,
    pub(super) said: Said,
    /// What the shell prints before a mark.
    pub(super) prefix: Vec<u8>,
    /// Printed between two calls.
    pub(super) early: Vec<u8>,
    pub(super) says: Says,
    identity: Identity,
}

/// Why a shell did not start.
pub(super) enum StartError {
    Sandbox(SandboxError),
    /// It ended, or did not answer.
    Silent,
}

impl From<SandboxError> for StartError {
    fn from(error: SandboxError) -> Self {
        Self::Sandbox(error)
    }
}

impl Live {
    /// Starts a shell with a state.
    pub(super) async fn start(
        sandbox: &dyn Sandbox,
        state: &mut State,
    ) -> Result<Self, StartError> {
        let mut command = Command::new(ARGV)
            .with_stdin(Stdin::Piped)
            .with_shielded_streams()
            .with_working_dir(state.directory());
        command.env.extend(state.env());
        let process = match sandbox.exec(command.clone()).await {
            // The directory is gone: as a shell does, go on elsewhere.
            Err(SandboxError::WorkingDirectory) => {
                state.enter(&sandbox.info().working_dir);
                command.working_dir = Some(state.directory().to_owned());
                sandbox.exec(command).await?
            }
            process => process?,
        };
        let says = if process.shielded() {
            Says::Apart
        } else {
            Says::OnOutput
        };
        let mut live = Self {
            says,
            process,
            said: Said::default(),
            prefix: Vec::new(),
            early: Vec::new(),
            identity: Identity {
                pid: 0,
                input: None,
                output: None,
            },
        };
        let ready = timeout(START_TIME, live.set_up(sandbox, state)).await;
        ready.unwrap_or(Err(StartError::Silent))?;
        Ok(live)
    }

    async fn set_up(&mut self, sandbox: &dyn Sandbox, state: &mut State) -> Result<(), StartError> {
        let first = nonce();
        let (_, status) = self.ask(&hello(&first, self.says), &first).await?;
        self.identity = Identity::parse(&status).ok_or(StartError::Silent)?;
        if self.identity.input.is_none() {
            let seen = Seen::of(self.identity.pid, sandbox).await;
            self.identity.input = seen.map(|seen| seen.input);
        }
        let second = nonce();
        let (before, _) = self
            .ask(&set_up(&self.identity, state, &second, self.says), &second)
            .await?;
        self.prefix = before;
        self.said.clear_up();
        let until = Instant::now() + STATE_TIME;
        while !self.said.take_over(state) {
            match timeout_at(until, self.process.next_event()).await {
                Ok(Ok(Some(ProcessEvent::Stderr(bytes)))) => self.said.push(&bytes),
                Ok(Ok(Some(ProcessEvent::Stdout(bytes)))) => self.early.extend_from_slice(&bytes),
                Ok(event) => drop(event?.ok_or(StartError::Silent)?),
                // Both streams are one here: without a state.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Types lines and waits for their marks; returns what was printed before them, and the status.
    async fn ask(&mut self, lines: &str, nonce: &str) -> Result<(Vec<u8>, String), StartError> {
        let mut marks = Marks::new(nonce, b"");
        let mut before = Vec::new();
        self.process
            .write_stdin(Bytes::from(lines.to_owned()))
            .await?;
        while marks.fit().is_none() {
            match self.process.next_event().await? {
                Some(ProcessEvent::Stdout(bytes)) if self.says == Says::OnOutput => {
                    before.extend(marks.feed(&bytes));
                }
                Some(ProcessEvent::Stdout(bytes)) => self.early.extend_from_slice(&bytes),
                Some(ProcessEvent::Stderr(bytes)) => {
                    self.said.push(&bytes);
                    if self.says == Says::Apart {
                        marks.feed(&bytes);
                    }
                }
                Some(ProcessEvent::Exit(_)) | None => return Err(StartError::Silent),
                Some(_) => {}
            }
        }
        match (marks.fit(), marks.status()) {
            (Some(Fit::Ready), Some(status)) => Ok((before, status.to_owned())),
            _ => Err(StartError::Silent),
        }
    }

    /// Whether the shell is seen, from outside, asleep with its commands' pipe as its input: a command has another input, so
    /// that the shell runs none, and it is not about to. One that is stopped goes on as little.
    ///
    /// It does not borrow the shell while it looks: a process handle may be sent to other threads and not be shared by them.
    pub(super) fn waits<'a>(
        &self,
        sandbox: &'a dyn Sandbox,
    ) -> impl Future<Output = bool> + use<'a> {
        let (pid, input) = (self.identity.pid, self.identity.input);
        async move {
            let seen = Seen::of(pid, sandbox).await;
            seen.is_some_and(|seen| seen.stopped || seen.asleep && Some(seen.input) == input)
        }
    }
}

/// Prints what a process has as its input, and its state.
const LOOK: &str = "readlink /proc/$1/fd/0 && read -r stat < /proc/$1/stat && echo \"$stat\"";

/// A shell from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The inode of its input.
    input: u64,
    asleep: bool,
    stopped: bool,
}

impl Seen {
    async fn of(pid: u32, sandbox: &dyn Sandbox) -> Option<Self> {
        let pid = pid.to_string();
        let command = Command::new(["/bin/sh", "-c", LOOK, "sh", pid.as_str()]);
        let mut process = sandbox.exec(command.with_timeout(LOOK_TIME)).await.ok()?;
        let mut text = Vec::new();
        let read = async {
            while let Some(event) = process.next_event().await.ok()? {
                if let ProcessEvent::Stdout(bytes) = event {
                    text.extend_from_slice(&bytes);
                }
            }
            Some(())
        };
        timeout(LOOK_TIME, read).await.ok()??;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Option<Self> {
        // `pipe:[INODE]` or `socket:[INODE]`, then `PID (NAME) STATE …`.
        let (link, stat) = text.split_once('\n')?;
        let (_, inode) = link.strip_suffix(']')?.split_once(":[")?;
        let (_, state) = stat.rsplit_once(')')?;
        Some(Self {
            input: inode.parse().ok()?,
            asleep: state.trim_start().starts_with('S'),
            stopped: state.trim_start().starts_with('T'),
        })
    }
}

/// What a shell has said about itself, at most two states of it.
#[derive(Debug, Default)]
pub(super) struct Said {
    bytes: Vec<u8>,
}

impl Said {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 3 * STATE_BYTES {
            self.clear_up();
        }
        // One that is too large; its end is kept until the next one starts.
        if self.bytes.len() > 2 * STATE_BYTES {
            self.bytes.drain(..self.bytes.len() - SAID.len());
        }
    }

    /// Forgets all states but the last one.
    pub(super) fn clear_up(&mut self) {
        if let Some(at) = self.starts().last() {
            self.bytes.drain(..at);
        }
    }

    /// Gives the last complete state to `state`; false when there is none.
    pub(super) fn take_over(&self, state: &mut State) -> bool {
        let starts: Vec<_> = self.starts().collect();
        let mut end = self.bytes.len();
        for start in starts.into_iter().rev() {
            let said = &self.bytes[start + SAID.len()..end];
            // What the shell says after it, a mark or a message, has no such byte.
            let length = said.iter().rposition(|byte| *byte == 0);
            let said = &said[..length.map_or(0, |at| at + 1)];
            if said.len() <= STATE_BYTES && state.take_over(said) {
                return true;
            }
            end = start;
        }
        false
    }

    fn starts(&self) -> impl Iterator<Item = usize> {
        let windows = self.bytes.windows(SAID.len()).enumerate();
        windows
            .filter(|(_, window)| *window == SAID)
            .map(|(at, _)| at)
    }
}

/// A name for one call that nobody can know before.
pub(super) fn nonce() -> String {
    let mut bytes = [0; 12];
    // Without entropy nothing else works either; the shell would be found out of step.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(directory: &str) -> Vec<u8> {
        let text = format!("declare -- A=\"1\"\n\0\0\0braceexpand\0extglob\00022\0{directory}\0");
        [SAID, text.as_bytes()].concat()
    }

    fn directory(said: &Said) -> Option<String> {
        let mut state = State::new("/none");
        said.take_over(&mut state)
            .then(|| state.directory().to_owned())
    }

    #[test]
    fn the_last_complete_state_counts() {
        let mut said = Said::default();
        assert_eq!(directory(&said), None);
        said.push(&dump("/a"));
        assert_eq!(directory(&said).as_deref(), Some("/a"));
        said.push(&dump("/b"));
        assert_eq!(directory(&said).as_deref(), Some("/b"));
        said.push(&dump("/c")[..30]);
        assert_eq!(directory(&said).as_deref(), Some("/b"));
        said.clear_up();
        assert_eq!(directory(&said), None);
    }

    #[test]
    fn states_are_bounded() {
        let mut said = Said::default();
        said.push(&dump("/a"));
        for _ in 0..1000 {
            said.push(&[b'x'; 16 * 1024]);
            assert!(said.bytes.len() <= 3 * STATE_BYTES + 16 * 1024);
        }
        said.push(&dump("/b"));
        assert_eq!(directory(&said).as_deref(), Some("/b"));
    }

    #[test]
    fn a_look_tells_input_and_state() {
        let seen = |text| Seen::parse(text).map(|seen| (seen.input, seen.asleep, seen.stopped));
        assert_eq!(seen("pipe:[12]\n7 (ba) sh) S 1\n"), Some((12, true, false)));
        assert_eq!(
            seen("socket:[12]\n7 (bash) R 1\n"),
            Some((12, false, false))
        );
        assert_eq!(seen("socket:[12]\n7 (bash) T 1\n"), Some((12, false, true)));
        assert_eq!(seen("/dev/null\n7 (bash) S 1\n"), None);
        assert_eq!(seen(""), None);
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 24);
    }
}
