//! Bash whose state lasts.
//!
//! One bash lives through all calls of a session, so that directory, variables, functions, options, background jobs and
//! open descriptors last as in a terminal. After each command it must show that it is fit for the next one ([`script`]), and
//! it says what its state is. When it is not fit, when it ends and when a command takes too long, another bash starts with
//! that state, and the result says so.
//!
//! ```text
//!   this side                                   the shell
//!   eval 'COMMAND' …; __mcp_end NONCE $?  ──►   runs it
//!                                   output ◄──  61 (stdout)
//!                  [[: @NONCE:s0:: syntax … ◄──  the status, by syntax alone
//!                                     state ◄──  63 (stderr): parsed here as data, never run as code
//!                   [[: @NONCE:r:: syntax … ◄──  ready
//! ```
//!
//! A command that silences the shell does not hang its call: from time to time somebody looks at the shell from outside, and
//! when it waits for a command without having said the status it is replaced.

mod echo;
pub(crate) mod fuzzing;
mod live;
mod marks;
mod quote;
mod script;
mod state;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use mcp_sandbox_executor::{Exit, KillReason, ProcessEvent, Sandbox, SandboxError, Signal};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until};

use crate::result::ToolResult;
use echo::{Echo, EchoState};
use live::{Live, StartError, nonce};
use marks::{Fit, Marks};
use script::Says;
use state::State;

/// Output is kept to its last bytes.
const OUTPUT_BYTES: usize = 100 * 1024;
/// Time of a call that names none.
const TIME: Duration = Duration::from_secs(120);
/// How long the end of a killed shell is awaited.
const KILL_TIME: Duration = Duration::from_secs(2);
/// When a call without a status is first looked at from outside; then at twice the time, and so on.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// At least this often.
const LAST_LOOK: Duration = Duration::from_secs(5);
/// Between two looks that must both find the shell waiting. A status that was on its way has come by then.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// How long a stream of output may go on after its command's end before it is the next call's: what was printed before the end
/// is in the pipe by then.
const DRAIN_TIME: Duration = Duration::from_millis(50);

/// A shell that is ready repeats its line within this time, and a second more for each so many bytes; later than that it has
/// not got it. (Where it can be looked at from outside, that is known earlier.)
const ECHO_TIME: Duration = Duration::from_secs(3);
const ECHO_BYTES: u64 = 100_000;

/// Why a call could not be made at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The sandbox refused or is gone.
    #[error("running bash in the sandbox")]
    Sandbox(#[from] SandboxError),
    /// A new bash ends or says nothing that makes sense.
    #[error("bash does not start in the sandbox")]
    Silent,
}

/// A shell of one sandbox. Calls wait for each other.
#[derive(Clone)]
pub struct Shell {
    sandbox: Arc<dyn Sandbox>,
    session: Arc<Mutex<Session>>,
}

/// What lasts from call to call.
struct Session {
    /// Of the last shell that ended; of a live one it is in what it said.
    state: State,
    live: Option<Live>,
    /// What the next result must say first.
    notice: Option<&'static str>,
}

/// A running call. Dropping it kills the command.
pub struct ShellCall {
    sandbox: Arc<dyn Sandbox>,
    session: OwnedMutexGuard<Session>,
    /// Taken out of the session until the call has ended well.
    live: Option<Live>,
    marks: Marks,
    /// None where the shell says how a command ended at the end of its output.
    echo: Option<Echo>,
    /// The shell has said how the command ended; what it printed before may still be on its way to here.
    verdict: Option<Verdict>,
    tail: Tail,
    limit: Duration,
    until: Instant,
    look: Look,
    /// When the shell must have repeated its line.
    heard_until: Option<Instant>,
    killed: Option<KillReason>,
    end: Option<End>,
}

/// When the shell is looked at from outside.
struct Look {
    at: Instant,
    pause: Duration,
    /// The last look found it waiting.
    waited: bool,
}

/// Said apart from the output.
#[derive(Debug)]
struct Verdict {
    fit: Fit,
    /// When output is no longer looked for.
    until: Instant,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The shell is ready for the next one.
    Ready,
    /// It is not.
    Broken,
    /// Another process has taken a part of what it was to read.
    Disturbed,
    Exited(Exit),
    Killed(KillReason),
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
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Shell {
    /// A shell that starts in the sandbox's working directory, at its first call.
    pub fn new(sandbox: Arc<dyn Sandbox>) -> Self {
        let session = Session {
            state: State::new(&sandbox.info().working_dir),
            live: None,
            notice: None,
        };
        Self {
            sandbox,
            session: Arc::new(Mutex::new(session)),
        }
    }

    /// Kills the shell with its background jobs and forgets everything.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn restart(&self) {
        let mut session = self.session.lock().await;
        session.live = None;
        session.notice = None;
        session.state = State::new(&self.sandbox.info().working_dir);
    }

    /// Starts a command, after the one before it has ended.
    ///
    /// # Errors
    /// Bash could not be started, or not be reached.
    ///
    /// # Cancel safety
    /// A dropped call leaves no command running; the shell may be lost with it, and its state not.
    pub async fn start(
        &self,
        command: &str,
        timeout: Option<Duration>,
    ) -> Result<ShellCall, ShellError> {
        let mut session = Arc::clone(&self.session).lock_owned().await;
        let live = match session.live.take() {
            Some(live) => live,
            None => self.begin(&mut session.state).await?,
        };
        let now = Instant::now();
        let limit = timeout.unwrap_or(TIME);
        let nonce = nonce();
        let line = script::call(command, &nonce, live.says);
        let mut call = ShellCall {
            sandbox: Arc::clone(&self.sandbox),
            marks: Marks::new(&nonce, &live.prefix),
            echo: (live.says == Says::Apart).then(|| Echo::new(&line, &nonce)),
            verdict: None,
            session,
            live: Some(live),
            tail: Tail::default(),
            limit,
            until: now.checked_add(limit).unwrap_or(now + TIME),
            look: Look::from(now),
            heard_until: None,
            killed: None,
            end: None,
        };
        call.type_in(line).await?;
        Ok(call)
    }

    async fn begin(&self, state: &mut State) -> Result<Live, ShellError> {
        let sandbox = self.sandbox.as_ref();
        let started = match Live::start(sandbox, state).await {
            // It may be the state that bash does not take.
            Err(StartError::Silent) => {
                let mut fresh = State::new(state.directory());
                let live = Live::start(sandbox, &mut fresh).await;
                *state = fresh;
                live
            }
            started => started,
        };
        started.map_err(|error| match error {
            StartError::Sandbox(error) => ShellError::Sandbox(error),
            StartError::Silent => ShellError::Silent,
        })
    }
}

/// What a future gives at once, without waiting for anything.
async fn is_there<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let once = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(given) => Poll::Ready(Some(given)),
        Poll::Pending => Poll::Ready(None),
    });
    // The runtime's own share of the time is no reason to think that nothing is there.
    tokio::task::unconstrained(once).await
}

impl End {
    fn of(fit: Fit) -> Self {
        match fit {
            Fit::Ready => Self::Ready,
            Fit::Broken => Self::Broken,
        }
    }
}

impl Look {
    fn from(now: Instant) -> Self {
        Self {
            at: now + FIRST_LOOK,
            pause: FIRST_LOOK,
            waited: false,
        }
    }
}

impl ShellCall {
    /// The next bytes of output, both streams in their order; `None` at the end.
    ///
    /// # Errors
    /// The connection to the shell is lost.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_output(&mut self) -> Result<Option<Bytes>, ShellError> {
        loop {
            let Some(live) = self.live.as_mut().filter(|_| self.end.is_none()) else {
                return Ok(None);
            };
            let early = std::mem::take(&mut live.early);
            let event = if !early.is_empty() {
                Some(ProcessEvent::Stdout(early.into()))
            } else if let Some(verdict) = &self.verdict {
                let there = is_there(live.process.next_event()).await;
                match there.filter(|_| Instant::now() < verdict.until) {
                    Some(event) => event?,
                    None => {
                        self.end = Some(End::of(verdict.fit));
                        continue;
                    }
                }
            } else {
                tokio::select! {
                    biased;
                    () = sleep_until(self.until) => {
                        self.on_deadline().await?;
                        continue;
                    }
                    () = sleep_until(self.heard_until.unwrap_or(self.until)), if self.heard_until.is_some() => {
                        self.end = Some(End::Disturbed);
                        continue;
                    }
                    () = sleep_until(self.look.at) => {
                        self.on_look().await;
                        continue;
                    }
                    event = live.process.next_event() => event?,
                }
            };
            let output = self.on_event(event)?;
            if !output.is_empty() {
                self.tail.push(&output);
                return Ok(Some(output.into()));
            }
        }
    }

    /// Kills the command and the shell with it; the output so far and an end still follow.
    ///
    /// # Errors
    /// The sandbox is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn kill(&mut self) -> Result<(), ShellError> {
        self.end_by(KillReason::Requested).await
    }

    /// What the command has printed so far, as its result would show it.
    pub fn output_so_far(&mut self) -> String {
        self.tail.text()
    }

    /// Waits for the end and answers as the bash tool does.
    ///
    /// # Errors
    /// The connection to the shell is lost.
    ///
    /// # Cancel safety
    /// Dropping it kills the command.
    pub async fn finish(mut self) -> Result<ToolResult, ShellError> {
        while self.next_output().await?.is_some() {}
        let end = self.end.unwrap_or(End::Broken);
        let status = self.marks.status().and_then(|status| status.parse().ok());
        let rest = std::mem::replace(&mut self.marks, Marks::new("", b"")).into_rest();
        let mut kept = true;
        if let Some(mut live) = self.live.take() {
            if end == End::Ready {
                if live.says == Says::OnOutput {
                    live.early = rest;
                }
                self.session.live = Some(live);
            } else {
                if live.says == Says::OnOutput {
                    self.tail.push(&rest);
                }
                kept = live.said.take_over(&mut self.session.state);
            }
        }
        let mut output = self.tail.text();
        if let Some(notice) = self.session.notice.take() {
            output = format!("[{notice}]\n{output}");
        }
        Ok(result(output, end, status, kept, self.limit))
    }

    async fn type_in(&mut self, line: String) -> Result<(), ShellError> {
        let time = ECHO_TIME + Duration::from_secs(line.len() as u64 / ECHO_BYTES);
        if let Some(live) = &mut self.live {
            live.said.clear_up();
            live.process.write_stdin(line.into()).await?;
        }
        let now = Instant::now();
        self.look = Look::from(now);
        self.heard_until = self.echo.is_some().then_some(now + time);
        Ok(())
    }

    fn on_event(&mut self, event: Option<ProcessEvent>) -> Result<Vec<u8>, ShellError> {
        let mut output = Vec::new();
        match event {
            Some(ProcessEvent::Stdout(bytes)) if self.echo.is_some() => output = bytes.to_vec(),
            Some(ProcessEvent::Stdout(bytes)) => {
                output = self.marks.feed(&bytes);
                self.end = self.marks.fit().map(End::of);
            }
            Some(ProcessEvent::Stderr(bytes)) => self.on_said(&bytes),
            Some(ProcessEvent::Exit(exit)) => {
                self.end = Some(self.killed.map_or(End::Exited(exit), End::Killed));
            }
            None => return Err(SandboxError::Lost.into()),
            Some(_) => {}
        }
        Ok(output)
    }

    fn on_said(&mut self, bytes: &[u8]) {
        let Some(live) = &mut self.live else { return };
        let Some(echo) = &mut self.echo else {
            return live.said.push(bytes);
        };
        let said = echo.feed(bytes);
        if echo.state() == EchoState::Heard {
            self.heard_until = None;
        }
        live.said.push(&said);
        self.marks.feed(&said);
        if echo.state() == EchoState::Another {
            self.end = Some(End::Disturbed);
        } else if let (Some(fit), None) = (self.marks.fit(), &self.verdict) {
            let until = Instant::now() + DRAIN_TIME;
            self.verdict = Some(Verdict { fit, until });
        }
    }

    async fn on_deadline(&mut self) -> Result<(), ShellError> {
        match self.killed {
            None => self.end_by(KillReason::Timeout).await,
            // It does not die in time: it is given up.
            Some(reason) => {
                self.end = Some(End::Killed(reason));
                Ok(())
            }
        }
    }

    async fn end_by(&mut self, reason: KillReason) -> Result<(), ShellError> {
        self.killed = Some(reason);
        self.until = Instant::now() + KILL_TIME;
        self.look.at = self.until + LAST_LOOK;
        if let Some(live) = &mut self.live {
            live.process.signal(Signal::Kill).await?;
        }
        Ok(())
    }

    async fn on_look(&mut self) {
        let Some(live) = &self.live else { return };
        let waits = live.waits(self.sandbox.as_ref()).await;
        if waits && self.look.waited {
            let swallowed = |echo: &Echo| echo.state() != EchoState::Heard;
            self.end = Some(if self.echo.as_ref().is_some_and(swallowed) {
                End::Disturbed
            } else {
                End::Broken
            });
        }
        self.look.waited = waits;
        self.look.pause = (self.look.pause * 2).min(LAST_LOOK);
        let pause = if waits { SECOND_LOOK } else { self.look.pause };
        self.look.at = Instant::now() + pause;
    }
}

impl Drop for ShellCall {
    fn drop(&mut self) {
        // Not finished: the shell goes, what it said before stays.
        if let Some(live) = self.live.take() {
            live.said.take_over(&mut self.session.state);
            self.session.notice = Some(INTERRUPTED);
        }
    }
}

const INTERRUPTED: &str = "the command before this one was interrupted: bash was restarted and goes on with the directory, \
    variables and functions from before that command; its background jobs are gone";
/// What happens to the state when a command is killed.
const KEPT: &str = "goes on with the directory, variables and functions from before this command; its background jobs are gone";
const LOST: &str = "starts anew: the directory, variables, functions and background jobs are gone";

fn result(
    mut output: String,
    end: End,
    status: Option<u8>,
    kept: bool,
    limit: Duration,
) -> ToolResult {
    let goes_on = if kept { KEPT } else { LOST };
    let note = match end {
        End::Ready => None,
        End::Broken => Some(format!(
            "[the command left bash unfit for another one: bash was restarted and {goes_on}]"
        )),
        End::Disturbed => Some(format!(
            "[a process left by an earlier command took a part of what bash was to read: the command has not run, or not as \
             it was; bash was restarted and {goes_on}]"
        )),
        End::Exited(Exit::Code(code)) if kept => Some(format!(
            "[bash exited with status {code} and was restarted: it goes on with its directory, variables and \
             functions, without jobs and open descriptors]"
        )),
        End::Exited(exit) => Some(format!(
            "[bash ended ({}) and was restarted: it {goes_on}]",
            how(exit)
        )),
        End::Killed(KillReason::Timeout) => Some(format!(
            "bash: bash command timed out after {:?}s; it was killed and bash was restarted: it {goes_on}",
            limit.as_secs_f64()
        )),
        End::Killed(_) => Some(format!(
            "bash: the command was stopped and bash was restarted: it {goes_on}"
        )),
    };
    let status = match end {
        End::Ready | End::Broken => status,
        End::Exited(exit) => Some(exit.shell_status()),
        End::Disturbed | End::Killed(_) => None,
    };
    match (note, status) {
        (Some(note), _) => {
            if !output.is_empty() {
                output.push('\n');
            }
            output.push_str(&note);
        }
        (None, Some(0)) if output.is_empty() => output.push_str("(no output)"),
        (None, Some(status)) if output.is_empty() => {
            output = format!("(no output; exit status {status})");
        }
        (None, _) => {}
    }
    let mut result = if status == Some(0) {
        ToolResult::text(output)
    } else {
        ToolResult::error(output)
    };
    result.exit = status;
    result
}

fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Killed(KillReason::OutOfMemory) => "out of memory".to_owned(),
        _ => "killed".to_owned(),
    }
}

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
