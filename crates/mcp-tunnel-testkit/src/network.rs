//! Two hosts of a test's own and a cable between them: network namespaces, which the kernel takes back with their last
//! process.
//!
//! Which network a socket or a child process belongs to is decided by the thread that makes it, at that moment. So all of a
//! test runs in one thread, which goes from host to host.

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    thread,
};

/// A host: a network with a loopback interface.
#[derive(Debug)]
pub struct Host {
    network: File,
    /// Its first process, which does nothing.
    holder: Child,
}

/// Runs a test in a thread and a runtime of its own, so that it may go from host to host.
///
/// # Errors
/// Those of the test; and the runtime cannot be made.
///
/// # Panics
/// The test does.
pub fn alone<F>(test: impl FnOnce() -> F + Send) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let run = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(test())
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Host {
    /// Makes a host.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn new() -> Result<Self> {
        let script = "ip link set lo up && echo up && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let mut line = String::new();
        let said = holder.stdout.take().context("no output")?;
        let read = BufReader::new(said).read_line(&mut line);
        let network = File::open(format!("/proc/{}/ns/net", holder.id()));
        let host = Self {
            network: network.context("opening the namespace")?,
            holder,
        };
        read?;
        ensure!(line == "up\n", "no network namespace could be made");
        Ok(host)
    }

    /// Lays a cable to another host; each end has a name and an address with its prefix length.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn join(&self, end: (&str, &str), other: &Self, far: (&str, &str)) -> Result<()> {
        let pid = other.holder.id().to_string();
        self.ip(&format!(
            "link add name {} type veth peer name {} netns {pid}",
            end.0, far.0
        ))?;
        for (host, (name, address)) in [(self, end), (other, far)] {
            host.ip(&format!("address add {address} dev {name}"))?;
            host.ip(&format!("link set {name} up"))?;
        }
        Ok(())
    }

    /// Runs `ip` there; `arguments` are split at spaces.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let pid = self.holder.id().to_string();
        let done = Command::new("nsenter")
            .args(["--net", "--target", &pid, "ip"])
            .args(arguments.split(' '))
            .output()
            .context("starting nsenter")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "ip {arguments}: {said}");
        Ok(())
    }

    /// Takes the calling thread there: what it opens and starts from now on belongs to this host.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering a network namespace")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without it the namespace lasts as long as the programs in it, which end with their own handles.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
