//! Building the programs of the tour, and running each as a process that ends with it.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a program may take until it says that it is ready.
const READY: Duration = Duration::from_secs(20);

/// How long a program may take to end after it was asked to.
const END: Duration = Duration::from_secs(10);

/// Programs of the tour: package and binary.
const PROGRAMS: [(&str, &str); 4] = [
    ("mcp-cloud", "mcp-cloud"),
    ("mcp-tunnel-gateway", "mcp-tunnel-gateway"),
    ("mcp-sandbox", "mcp-sandbox"),
    ("mcp-tunnel-testkit", "mcp-fixture-server"),
];

/// The folder that holds the programs, built with the profile of this one.
pub(crate) fn build() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the folder of this program")?;
    let folder = own
        .parent()
        .context("finding the folder of this program")?
        .to_owned();
    let mut cargo = Blocking::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build").args([
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"),
    ]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    for (package, program) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program]);
    }
    let status = cargo
        .status()
        .context("starting cargo: is it on the PATH?")?;
    if !status.success() {
        bail!("cargo could not build the programs ({status}); its messages are above");
    }
    Ok(folder)
}

/// A program of the tour. It is killed when this value is dropped.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    log: watch::Receiver<Log>,
    /// The readers of its two outputs; they end with it.
    readers: JoinSet<()>,
}

/// What a program said, and whether it may still say more.
#[derive(Default)]
struct Log {
    lines: VecDeque<String>,
    closed: usize,
}

impl Program {
    /// Starts `name` from `folder` with its output captured.
    pub(crate) fn start(folder: &Path, name: &'static str, args: &[&str]) -> Result<Self> {
        let path = folder.join(name);
        let mut child = command(&path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", path.display()))?;
        let out = child
            .stdout
            .take()
            .context("standard output of a new process")?;
        let err = child
            .stderr
            .take()
            .context("standard error of a new process")?;
        let (sender, log) = watch::channel(Log::default());
        let mut readers = JoinSet::new();
        readers.spawn(keep(out, sender.clone()));
        readers.spawn(keep(err, sender));
        Ok(Self {
            name,
            child,
            log,
            readers,
        })
    }

    /// The first line of output for which `wanted` has an answer.
    ///
    /// # Errors
    /// When the program ends first or says nothing of the kind in time; the error quotes what it said.
    pub(crate) async fn wait_for<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let mut found = None;
        let seen = timeout(
            READY,
            self.log.wait_for(|log| {
                found = log.lines.iter().find_map(|line| wanted(line));
                found.is_some() || log.closed == OUTPUTS
            }),
        )
        .await
        .is_ok();
        match found {
            Some(found) => Ok(found),
            None if seen => bail!("{} ended; it said:\n{}", self.name, self.said()),
            None => bail!(
                "{} was not ready within {READY:?}; it said:\n{}",
                self.name,
                self.said()
            ),
        }
    }

    /// What the program has said lately.
    pub(crate) fn said(&self) -> String {
        Vec::from_iter(self.log.borrow().lines.iter().cloned()).join("\n")
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} has ended", self.name))
    }

    /// Asks the program to end and waits for it; kills it when it takes too long.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .context("sending SIGTERM")?;
        let Ok(status) = timeout(END, self.child.wait()).await else {
            self.child.kill().await?;
            bail!(
                "{} did not end within {END:?} of SIGTERM and was killed; it said:\n{}",
                self.name,
                self.said()
            );
        };
        let status = status?;
        while self.readers.join_next().await.is_some() {}
        if !status.success() {
            bail!(
                "{} ended with {status}; it said:\n{}",
                self.name,
                self.said()
            );
        }
        Ok(())
    }
}

/// Runs `name` from `folder` to its end.
pub(crate) async fn output(folder: &Path, name: &str, args: &[&str]) -> Result<Output> {
    let mut command = command(&folder.join(name));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(READY, command.output()).await;
    output
        .with_context(|| format!("{name} did not end within {READY:?}"))?
        .with_context(|| format!("starting {name}"))
}

/// A program that is told by its arguments alone what to talk to.
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("ANTHROPIC_")) {
        command.env_remove(name);
    }
    command
}

/// Keeps the last lines of one output, so that the program never waits for a reader.
async fn keep(output: impl AsyncRead + Unpin, log: watch::Sender<Log>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.send_modify(|log| {
            log.lines.push_back(line);
            if log.lines.len() > LINES {
                log.lines.pop_front();
            }
        });
    }
    log.send_modify(|log| log.closed += 1);
}

/// Outputs of a program: standard output and standard error.
const OUTPUTS: usize = 2;

/// How many of its last lines are kept.
const LINES: usize = 200;
