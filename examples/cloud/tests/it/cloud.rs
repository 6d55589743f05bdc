//! A running `mcp-cloud` on free ports.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-cloud");

/// A data folder, in which clouds are started one after the other.
pub(crate) struct Folder {
    folder: TempDir,
}

/// A running cloud; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) ready: String,
    /// What came before the line `ready`.
    pub(crate) before: Vec<String>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts a cloud and waits until it serves.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        start_with(Command::new(PROGRAM), &self.path(), arguments)
    }

    /// Runs an administrative command to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        Command::new(PROGRAM)
            .arg("--data")
            .arg(self.path())
            .args(arguments)
            .output()
            .expect("the program runs")
    }

    /// The answer of an administrative command that succeeds.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.run(&all);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            errors(&output)
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Starts `command`, which is the program or runs it with the arguments that follow.
pub(crate) fn start_with(mut command: Command, data: &Path, arguments: &[&str]) -> Running {
    for listener in ["--listen", "--edge-listen", "--ingress-listen"] {
        if !arguments.contains(&listener) {
            command.args([listener, "127.0.0.1:0"]);
        }
    }
    let child = command
        .arg("--data")
        .arg(data)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program starts");
    Running::wait(child)
}

impl Running {
    fn wait(mut child: Child) -> Self {
        let stdout = child.stdout.take().expect("a pipe");
        let mut before = Vec::new();
        let mut ready = None;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        while ready.is_none() && lines.read_line(&mut line).expect("a line") > 0 {
            let text = std::mem::take(&mut line).trim_end().to_owned();
            if text.starts_with("ready ") {
                ready = Some(text);
            } else {
                before.push(text);
            }
        }
        child.stdout = Some(lines.into_inner());
        let ready = ready.unwrap_or_else(|| panic!("it ended before it was ready: {before:?}"));
        Self {
            child,
            ready,
            before,
        }
    }

    /// An address of the line `ready`.
    pub(crate) fn address(&self, name: &str) -> String {
        let mut words = self
            .ready
            .split(' ')
            .filter_map(|word| word.split_once('='));
        let found = words.find(|(word, _)| *word == name);
        found
            .unwrap_or_else(|| panic!("{name} in {}", self.ready))
            .1
            .to_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().expect("it ends")
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// What it wrote to its standard output after `ready`, once it has ended.
    pub(crate) fn rest(mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().expect("a pipe");
        self.signal(rustix::process::Signal::TERM);
        stdout.read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address that nobody has at this moment, with a port below those that kernels hand out by themselves: one of
/// theirs could become the near end of somebody's connection before the program binds it.
pub(crate) fn free_address() -> String {
    let first = std::process::id() * 7;
    let mut ports = (0..1_000).map(|step| 10_000 + (first + step) % 20_000);
    let free = ports.find(|port| std::net::TcpListener::bind(format!("127.0.0.1:{port}")).is_ok());
    format!("127.0.0.1:{}", free.expect("a free port"))
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
