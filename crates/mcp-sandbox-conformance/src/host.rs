//! What the host sees of an attempt.

use std::fs;
use std::io::{self, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Judges effects from outside of a sandbox.
///
/// Each method that returns an `Option` may say `None`: not to be seen here.
pub trait HostView: Send + Sync {
    /// A file of the host that no sandbox may read, and what it holds.
    fn secret(&self) -> Option<(String, String)>;

    /// A directory of the host that no sandbox may write, and whether it is empty.
    fn forbidden_dir(&self) -> Option<(String, bool)>;

    /// A port on the host's loopback, TCP (v4 and v6) and UDP.
    fn port(&self) -> Option<u16>;

    /// A name of an abstract unix socket and a path of another one.
    fn sockets(&self) -> Option<(String, String)>;

    /// How often one of those listeners was reached.
    fn reached(&self) -> u64;

    /// A process of the host, and whether it lives.
    fn victim(&self) -> Option<(u32, bool)>;

    /// Names of environment variables of the host that no sandbox may see.
    fn secret_variables(&self) -> Vec<String>;

    /// What a file of the host holds now.
    fn read(&self, path: &str) -> Option<Vec<u8>>;

    /// Whether a process with this word in its command line lives on the host.
    fn runs(&self, word: &str) -> Option<bool>;

    /// What the executor's sandboxes hold on the host at this moment: processes,
    /// mounts, control groups, files, one line each.
    fn holdings(&self) -> Option<Vec<String>>;

    /// Runs a harmless attempt on the host itself, as a control.
    fn control(&self, argv: &[&str]) -> Option<ControlOutput>;
}

/// What a control printed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControlOutput {
    /// Standard output.
    pub stdout: String,
}

/// The view of the machine that this process runs on.
#[derive(Debug)]
pub struct LocalHost {
    dir: PathBuf,
    secret: String,
    port: u16,
    name: String,
    reached: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    listeners: Vec<JoinHandle<()>>,
    victim: Child,
    holdings: Option<fn() -> Vec<String>>,
}

impl LocalHost {
    /// Makes the canaries: files in a new directory below the system's temporary
    /// one, listeners on loopback, one process.
    ///
    /// # Errors
    /// One of them could not be made.
    pub fn start() -> io::Result<Self> {
        let word = format!("{:x}", std::process::id().wrapping_mul(2_654_435_761));
        let dir = std::env::temp_dir().join(format!("conformance-{word}"));
        fs::create_dir_all(dir.join("forbidden"))?;
        let secret = format!("canary-{word}");
        fs::write(dir.join("secret"), &secret)?;
        let (reached, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let v4 = TcpListener::bind("127.0.0.1:0")?;
        let port = v4.local_addr()?.port();
        let name = format!("conformance-{word}");
        let socket = dir.join("socket");
        let _ = fs::remove_file(&socket);
        let mut host = Self {
            victim: Command::new("sleep")
                .arg("3600")
                .stdin(Stdio::null())
                .spawn()?,
            listeners: Vec::new(),
            secret,
            port,
            name,
            reached,
            stop,
            holdings: None,
            dir,
        };
        let named = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&host.name)?)?;
        let pathname = UnixListener::bind(socket)?;
        host.listen(v4.set_nonblocking(true), move || v4.accept().map(drop));
        if let Ok(v6) = TcpListener::bind(("::1", port)) {
            host.listen(v6.set_nonblocking(true), move || v6.accept().map(drop));
        }
        let udp = UdpSocket::bind(("127.0.0.1", port))?;
        host.listen(udp.set_nonblocking(true), move || {
            udp.recv(&mut [0; 16]).map(drop)
        });
        host.listen(named.set_nonblocking(true), move || {
            named.accept().map(drop)
        });
        host.listen(pathname.set_nonblocking(true), move || {
            pathname.accept().map(drop)
        });
        Ok(host)
    }

    /// Says what the executor's sandboxes hold on this machine.
    #[must_use]
    pub fn with_holdings(mut self, holdings: fn() -> Vec<String>) -> Self {
        self.holdings = Some(holdings);
        self
    }

    fn listen(
        &mut self,
        ready: io::Result<()>,
        accept: impl Fn() -> io::Result<()> + Send + 'static,
    ) {
        if ready.is_err() {
            return;
        }
        let (reached, stop) = (Arc::clone(&self.reached), Arc::clone(&self.stop));
        self.listeners.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match accept() {
                    Ok(()) => drop(reached.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        }));
    }
}

impl HostView for LocalHost {
    fn secret(&self) -> Option<(String, String)> {
        Some((text(&self.dir.join("secret")), self.secret.clone()))
    }

    fn forbidden_dir(&self) -> Option<(String, bool)> {
        let dir = self.dir.join("forbidden");
        let empty = fs::read_dir(&dir).ok()?.next().is_none();
        Some((text(&dir), empty))
    }

    fn port(&self) -> Option<u16> {
        Some(self.port)
    }

    fn sockets(&self) -> Option<(String, String)> {
        Some((self.name.clone(), text(&self.dir.join("socket"))))
    }

    fn reached(&self) -> u64 {
        // Listeners look every two milliseconds.
        thread::sleep(Duration::from_millis(10));
        self.reached.load(Ordering::Relaxed)
    }

    fn victim(&self) -> Option<(u32, bool)> {
        let pid = self.victim.id();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let lives = state.is_some_and(|stat| !stat.contains(") Z"));
        Some((pid, lives))
    }

    fn secret_variables(&self) -> Vec<String> {
        let plain = [
            "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR",
            "TZ", "USER", "_", "OLDPWD", "HOSTNAME",
        ];
        let names = std::env::vars().map(|(name, _)| name);
        names
            .filter(|name| !plain.contains(&name.as_str()))
            .collect()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        fs::File::open(path)
            .ok()?
            .take(1 << 20)
            .read_to_end(&mut content)
            .ok()?;
        Some(content)
    }

    fn runs(&self, word: &str) -> Option<bool> {
        let lives = |pid: &Path| {
            let line = fs::read(pid.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(word)
        };
        Some(
            fs::read_dir("/proc")
                .ok()?
                .flatten()
                .any(|entry| lives(&entry.path())),
        )
    }

    fn holdings(&self) -> Option<Vec<String>> {
        self.holdings.map(|holdings| holdings())
    }

    fn control(&self, argv: &[&str]) -> Option<ControlOutput> {
        let (program, arguments) = argv.split_first()?;
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        Some(ControlOutput {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    }
}

impl Drop for LocalHost {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
