//! What a case is, and what it has at hand.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mcp_sandbox_executor::{
    Capabilities, Command, CreateError, Executor, Exit, ProcessEvent, Sandbox, SandboxError,
    SandboxSpec,
};
use thiserror::Error;
use tokio::time::timeout;

use crate::host::HostView;
use crate::outcome::{CaseOutcome, Verdict};

/// Ends a case early.
#[derive(Debug, Error)]
pub(crate) enum Stop {
    /// It does not hold.
    #[error("{0}")]
    Failed(String),
    #[error("creating a sandbox")]
    Create(#[from] CreateError),
    #[error("using a sandbox")]
    Sandbox(#[from] SandboxError),
    #[error("skipped: {0}")]
    Skip(String),
    #[error("not observable")]
    NotObservable,
}

/// What a case answers: nothing, or a remark.
pub(crate) type Result<T = Option<String>> = std::result::Result<T, Stop>;
type Running<'a> = Pin<Box<dyn Future<Output = Result> + Send + 'a>>;

/// One case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) escape: bool,
    pub(crate) body: for<'a> fn(&'a Context<'a>) -> Running<'a>,
}

/// What a case has at hand.
pub(crate) struct Context<'a> {
    pub(crate) executor: &'a dyn Executor,
    host: Option<&'a dyn HostView>,
    pub(crate) capabilities: Capabilities,
}

/// A finished command.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) stdout: Bytes,
    pub(crate) stderr: Bytes,
    pub(crate) exit: Exit,
    pub(crate) truncated: bool,
    pub(crate) took: Duration,
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::case::Stop::Failed(format!($($text)+)));
        }
    };
}
pub(crate) use ensure;

/// Lists cases: id, title, function.
macro_rules! cases {
    ($escape:expr; $($id:literal $title:literal $body:path;)+) => {
        &[$($crate::case::Case {
            id: $id,
            title: $title,
            escape: $escape,
            body: |context| Box::pin($body(context)),
        }),+]
    };
}
pub(crate) use cases;

impl Case {
    pub(crate) async fn run(self, context: &Context<'_>, limit: Duration) -> CaseOutcome {
        let started = Instant::now();
        let verdict = match timeout(limit, (self.body)(context)).await {
            Ok(Ok(note)) => Verdict::Passed(note),
            Ok(Err(Stop::Skip(why))) => Verdict::Skipped(why),
            // What a backend says that it does not do is not a fault; how much, the caller judges.
            Ok(Err(Stop::Create(CreateError::Unsupported { what }))) => {
                Verdict::Skipped(format!("no {what}"))
            }
            Ok(Err(Stop::Sandbox(SandboxError::Unsupported { what }))) => {
                Verdict::Skipped(format!("the backend cannot {what}"))
            }
            Ok(Err(Stop::NotObservable)) => Verdict::NotObservable,
            Ok(Err(error)) => Verdict::Failed(chain(&error)),
            Err(_) => Verdict::Failed(format!("still running after {limit:?}")),
        };
        CaseOutcome {
            id: self.id,
            title: self.title,
            verdict,
            took: started.elapsed(),
        }
    }
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        executor: &'a dyn Executor,
        host: Option<&'a dyn HostView>,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            executor,
            host,
            capabilities,
        }
    }

    /// The host's side, or the case is not observable.
    pub(crate) fn host(&self) -> Result<&'a dyn HostView> {
        self.host.ok_or(Stop::NotObservable)
    }

    pub(crate) fn try_host(&self) -> Option<&'a dyn HostView> {
        self.host
    }

    /// Skips the case unless the backend can do something.
    pub(crate) fn need(&self, can: bool, what: &str) -> Result<()> {
        if can {
            Ok(())
        } else {
            Err(Stop::Skip(crate::lacks(what, &self.capabilities)))
        }
    }

    /// Skips the case unless commands can be watched while they run.
    pub(crate) fn need_streaming(&self) -> Result<()> {
        self.need(self.capabilities.streaming, "running commands to watch")
    }

    /// Skips the case where commands have no `/proc` of their own.
    pub(crate) async fn need_proc(&self, sandbox: &dyn Sandbox) -> Result<()> {
        let there = sh(sandbox, "cat /proc/self/status > /dev/null")
            .await?
            .exit
            .success();
        self.need(there, "/proc inside")
    }

    pub(crate) async fn sandbox(&self) -> Result<Box<dyn Sandbox>> {
        self.sandbox_of(crate::spec()).await
    }

    pub(crate) async fn sandbox_of(&self, spec: SandboxSpec) -> Result<Box<dyn Sandbox>> {
        Ok(self.executor.create(spec).await?)
    }
}

/// Runs a command to its end.
pub(crate) async fn run(sandbox: &dyn Sandbox, command: Command) -> Result<Finished> {
    let started = Instant::now();
    let mut process = sandbox.exec(command).await?;
    let (mut stdout, mut stderr, mut truncated) = (BytesMut::new(), BytesMut::new(), false);
    while let Some(event) = process.next_event().await? {
        match event {
            ProcessEvent::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ProcessEvent::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            ProcessEvent::Truncated => truncated = true,
            ProcessEvent::Exit(exit) => {
                let took = started.elapsed();
                let after = process.next_event().await?;
                ensure!(after.is_none(), "an event after the exit: {after:?}");
                let (stdout, stderr) = (stdout.freeze(), stderr.freeze());
                return Ok(Finished {
                    stdout,
                    stderr,
                    exit,
                    truncated,
                    took,
                });
            }
            other => return Err(Stop::Failed(format!("unknown event {other:?}"))),
        }
    }
    Err(Stop::Failed("the command ended without an exit".to_owned()))
}

/// Runs a shell script.
pub(crate) async fn sh(sandbox: &dyn Sandbox, script: &str) -> Result<Finished> {
    run(sandbox, Command::new(["sh", "-c", script])).await
}

impl Finished {
    /// Standard output as text without the last line end.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// The sandbox is still usable: what every attempt must leave behind.
pub(crate) async fn still_usable(sandbox: &dyn Sandbox) -> Result<()> {
    let finished = sh(sandbox, "echo alive").await?;
    ensure!(
        finished.text() == "alive",
        "the sandbox is not usable afterwards: {finished:?}"
    );
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
