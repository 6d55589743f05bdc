//! Real programs as child processes: found or built, watched, killed when dropped.

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    io::Read as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

/// The most that is kept of one process's output, bytes. At TRACE a busy minute makes a few MiB;
/// what comes after the limit is dropped and [`Log::is_complete`] says so.
const LOG_LIMIT: usize = 128 << 20;

/// The unit of processor time in /proc: the kernel's interface fixes it on every usual machine.
const USER_HZ: u64 = 100;

/// How long a build of the programs may take, from nothing and optimised.
const BUILD_DEADLINE: Duration = Duration::from_secs(40 * 60);
/// A build that takes longer than this is told of.
const BUILD_TOLD: Duration = Duration::from_secs(10);
/// Between two looks at a build.
const BUILD_LOOK: Duration = Duration::from_millis(20);

/// The programs that the tests run, with their packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("mcp-cloud", "mcp-cloud"),
    ("mcp-tunnel-gateway", "mcp-tunnel-gateway"),
    ("mcp-sandbox", "mcp-sandbox"),
    ("mcp-fixture-server", "mcp-tunnel-testkit"),
];

/// The path of one of this workspace's programs, built first (once) in the profile of this test.
///
/// `MCP_TESTKIT_BIN_DIR` names a folder of finished programs instead.
///
/// # Errors
/// The build fails.
pub fn binary(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let folder = built.as_ref().map_err(|error| anyhow!("{error}"))?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} was not built", path.display());
    Ok(path)
}

/// Builds all programs in one go, so that features are unified once.
fn build() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("MCP_TESTKIT_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let own = env::current_exe().context("finding this program")?;
    let profile = own
        .ancestors()
        .find(|folder| folder.join("deps").is_dir())
        .context("this program is not inside a target folder")?
        .to_owned();
    let mut cargo =
        std::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--locked"]);
    // What cargo tells a test of its package is not for another cargo: ring's build script would
    // run again, and with it everything above.
    let of_this_test = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if of_this_test.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    for (program, package) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program]);
    }
    let (status, said) = finished(cargo).context("building the programs")?;
    ensure!(
        status.success(),
        "building the programs ended with {status}\n{said}"
    );
    Ok(profile)
}

/// How a build ended, and what it wrote. One that takes long says so: it may wait for another one to end, without a word.
#[expect(clippy::print_stderr, reason = "who waits wants to know for what")]
fn finished(mut build: std::process::Command) -> Result<(ExitStatus, String)> {
    let mut child = build
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stderr.map(|mut stderr| stderr.read_to_end(&mut text));
        drop(read);
        String::from_utf8_lossy(&text).into_owned()
    });
    let (began, mut told) = (Instant::now(), false);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > BUILD_DEADLINE {
            child.kill()?;
            bail!("no end after {BUILD_DEADLINE:?}");
        }
        if !told && began.elapsed() > BUILD_TOLD {
            eprintln!(
                "building the programs first, or waiting for another build of this workspace"
            );
            told = true;
        }
        std::thread::sleep(BUILD_LOOK);
    };
    let said = reader.join().map_err(|_| anyhow!("reading its output"))?;
    Ok((status, said))
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
    readers: JoinSet<()>,
}

/// Everything that a process wrote, line by line.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Lines>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    bytes: usize,
    dropped: bool,
    ended: bool,
}

impl Process {
    /// Starts a program with both outputs captured.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let (log, mut readers) = (Arc::<Log>::default(), JoinSet::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let kept = Arc::clone(&log);
        readers.spawn(async move {
            tokio::join!(kept.read(out), kept.read(err));
            kept.lock().ended = true;
            kept.changed.notify_waiters();
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            readers,
        })
    }

    /// The first line, past or to come, that `wanted` accepts.
    ///
    /// # Errors
    /// The time is over, or the process ended without it.
    pub async fn line(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let found = timeout(within, self.log.find(wanted)).await;
        match found {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!(
                "{} ended without the line; it wrote:\n{}",
                self.name,
                self.log.tail()
            ),
            Err(_) => bail!(
                "{} is silent on that for {within:?}; it wrote:\n{}",
                self.name,
                self.log.tail()
            ),
        }
    }

    /// Waits until it ended by itself or by a signal, and nobody that it left behind writes any more.
    ///
    /// # Errors
    /// It still runs, or its outputs are still open, when the time is over.
    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = async {
            let status = self.child.wait().await;
            while self.readers.join_next().await.is_some() {}
            status
        };
        timeout(within, ended)
            .await
            .with_context(|| {
                format!(
                    "{} still runs after {within:?}; it wrote:\n{}",
                    self.name,
                    self.log.tail()
                )
            })?
            .context("waiting for a child")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.with_context(|| format!("{} already ended", self.name))?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("killing {}", self.name))
    }

    /// Its process id, unless it was waited for.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }
}

impl Log {
    async fn read(&self, output: Option<impl AsyncRead + Unpin>) {
        let Some(output) = output else { return };
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while let Ok(1..) = output.read_until(b'\n', &mut line).await {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            self.lock().push(text);
            self.changed.notify_waiters();
        }
    }

    async fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut seen = 0;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let lines = self.lock();
                let fresh = lines.all.iter().skip(seen);
                if let Some(line) = fresh.into_iter().find(|line| wanted(line)) {
                    return Some(line.clone());
                }
                seen = lines.all.len();
                if lines.ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Everything, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().all.join("\n")
    }

    /// Whether nothing was dropped for size.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.lock().dropped
    }

    fn tail(&self) -> String {
        let lines = self.lock();
        let from = lines.all.len().saturating_sub(60);
        lines
            .all
            .iter()
            .skip(from)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn push(&mut self, line: String) {
        if self.bytes.saturating_add(line.len()) > LOG_LIMIT {
            self.dropped = true;
            return;
        }
        self.bytes += line.len();
        self.all.push(line);
    }
}

/// A command for one of this workspace's programs.
///
/// # Errors
/// The build fails.
pub fn command(name: &str) -> Result<Command> {
    Ok(Command::new(binary(name)?))
}

/// Resident memory of a process, bytes.
///
/// # Errors
/// The process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.context("no VmRSS")?.parse()?;
    Ok(kib * 1024)
}

/// Processor time that a process used so far (user and system).
///
/// # Errors
/// The process is gone.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // The name, field 2, is in brackets and may hold blanks; utime and stime are fields 14 and 15.
    let after_name = stat.rsplit_once(')').context("no name")?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks().context("no utime")?, ticks().context("no stime")?);
    Ok(Duration::from_millis((user + system) * 1000 / USER_HZ))
}

/// The listening sockets (TCP and UNIX) that a process holds, as lines of /proc.
///
/// # Errors
/// The process is gone.
pub fn listening_sockets(pid: u32) -> Result<Vec<String>> {
    let (process, inodes) = (Path::new("/proc").join(pid.to_string()), sockets(pid)?);
    let mut listening = Vec::new();
    for (table, state_column, listen, inode_column) in [
        ("net/tcp", 3, "0A", 9),
        ("net/tcp6", 3, "0A", 9),
        ("net/unix", 3, "00010000", 6),
    ] {
        let text = std::fs::read_to_string(process.join(table)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            let is = |column: usize, value: &str| columns.get(column).is_some_and(|c| *c == value);
            let owned = inodes.iter().any(|inode| is(inode_column, inode));
            if owned && is(state_column, listen) {
                listening.push(format!("{table}: {line}"));
            }
        }
    }
    Ok(listening)
}

/// The TCP connections of a process in which bytes wait, as `LOCAL REMOTE SENT:UNREAD`, all as /proc has them: bytes that
/// the peer has not taken, and bytes that the process has not read. Where something stands still, they tell where.
///
/// # Errors
/// The process is gone.
pub fn waiting_bytes(pid: u32) -> Result<Vec<String>> {
    let (process, inodes) = (Path::new("/proc").join(pid.to_string()), sockets(pid)?);
    let mut waiting = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = std::fs::read_to_string(process.join(table)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            let (Some(ends), Some(queues), Some(inode)) =
                (columns.get(1..3), columns.get(4), columns.get(9))
            else {
                continue;
            };
            let idle = queues.bytes().all(|byte| matches!(byte, b'0' | b':'));
            if !idle && inodes.iter().any(|own| own == inode) {
                waiting.push(format!("{} {queues}", ends.join(" ")));
            }
        }
    }
    Ok(waiting)
}

/// The sockets that a process holds, by inode.
fn sockets(pid: u32) -> Result<Vec<String>> {
    let mut inodes = Vec::new();
    for descriptor in std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))? {
        let Ok(target) = std::fs::read_link(descriptor?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    Ok(inodes)
}
