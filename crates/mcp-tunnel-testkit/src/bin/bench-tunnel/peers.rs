//! Other tunnels to the same server, where they are installed: `ssh -R` and rathole over TLS.

use anyhow::{Context, Result, ensure};
use mcp_tunnel_testkit::{
    process::Process,
    tools::{self, free_port},
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

const SOON: Duration = Duration::from_secs(20);

/// A running tunnel of somebody else.
pub(crate) struct Peer {
    /// Where callers come in.
    pub(crate) entry: SocketAddr,
    /// The side that callers reach, and the side next to the server.
    pub(crate) processes: [Process; 2],
    _files: TempDir,
}

/// `ssh -R` to an sshd of our own, with keys of its own.
pub(crate) async fn ssh(server: SocketAddr) -> Result<Peer> {
    let files = tempfile::tempdir()?;
    let path = |name: &str| files.path().join(name);
    for key in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(path(key));
        let done = soon("ssh-keygen", keygen.output()).await?;
        ensure!(done.status.success(), "ssh-keygen ended with an error");
    }
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd").context("sshd needs /run/sshd when root")?;
    }
    let port = free_port()?;
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nAllowTcpForwarding yes\n",
        path("host").display(),
        path("user.pub").display(),
    );
    fs::write(path("sshd_config"), config)?;
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f"]).arg(path("sshd_config"));
    let sshd = Process::start("sshd", sshd)?;
    sshd.line(SOON, |line| line.contains("Server listening"))
        .await?;
    let mut ssh = Command::new("ssh");
    ssh.args(["-N", "-v", "-p", &port.to_string(), "-i"])
        .arg(path("user"))
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "ExitOnForwardFailure=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-R", &format!("127.0.0.1:0:{server}"), "127.0.0.1"]);
    let ssh = Process::start("ssh", ssh)?;
    let line = ssh
        .line(SOON, |line| line.starts_with("Allocated port "))
        .await?;
    let entry = line.split(' ').nth(2).context("no port")?.parse::<u16>()?;
    Ok(Peer {
        entry: SocketAddr::from(([127, 0, 0, 1], entry)),
        processes: [sshd, ssh],
        _files: files,
    })
}

/// rathole with its TLS transport and a certificate made for this run.
pub(crate) async fn rathole(server: SocketAddr) -> Result<Peer> {
    let files = tempfile::tempdir()?;
    certificate(files.path()).await?;
    let (control, entry) = (free_port()?, free_port()?);
    let folder = files.path().display();
    let server_config = format!(
        "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
         [server.transport]\ntype = \"tls\"\n[server.transport.tls]\n\
         pkcs12 = \"{folder}/id.pfx\"\npkcs12_password = \"bench\"\n\
         [server.services.mcp]\nbind_addr = \"127.0.0.1:{entry}\"\n"
    );
    let client_config = format!(
        "[client]\nremote_addr = \"localhost:{control}\"\ndefault_token = \"bench\"\n\
         [client.transport]\ntype = \"tls\"\n[client.transport.tls]\n\
         trusted_root = \"{folder}/ca.pem\"\nhostname = \"localhost\"\n\
         [client.services.mcp]\nlocal_addr = \"{server}\"\n"
    );
    let program = rathole_program().context("rathole is not installed")?;
    let start = |name: &str, flag: &str, config: &str| {
        let file = files.path().join(name);
        fs::write(&file, config)?;
        let mut command = Command::new(&program);
        command.arg(flag).arg(file).env("RUST_LOG", "info");
        Process::start("rathole", command)
    };
    let far = start("server.toml", "--server", &server_config)?;
    far.line(SOON, |line| line.contains("Listening at")).await?;
    let near = start("client.toml", "--client", &client_config)?;
    near.line(SOON, |line| line.contains("Control channel established"))
        .await?;
    Ok(Peer {
        entry: SocketAddr::from(([127, 0, 0, 1], entry)),
        processes: [far, near],
        _files: files,
    })
}

/// A CA, and a leaf for `localhost` in the form that rathole reads.
async fn certificate(folder: &Path) -> Result<()> {
    let commands = [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench-ca -keyout ca.key -out ca.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout leaf.key -out leaf.csr",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out leaf.pem",
        "pkcs12 -export -inkey leaf.key -in leaf.pem -certfile ca.pem -passout pass:bench -out id.pfx",
    ];
    private_file(&folder.join("san"))?.write_all(b"subjectAltName=DNS:localhost\n")?;
    for command in commands {
        let mut openssl = Command::new("openssl");
        let done = openssl
            .current_dir(folder)
            .args(command.split(' '))
            .stdin(Stdio::null())
            .output();
        let done = soon("openssl", done).await?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "openssl {command}: {said}");
    }
    Ok(())
}

/// What a tool that ends by itself came to.
async fn soon(name: &str, done: impl Future<Output = io::Result<Output>>) -> Result<Output> {
    let done = timeout(SOON, done).await;
    Ok(done.with_context(|| format!("{name} still runs after {SOON:?}"))??)
}

fn private_file(path: &Path) -> Result<fs::File> {
    let mut options = OpenOptions::new();
    Ok(options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?)
}

pub(crate) fn ssh_is_installed() -> bool {
    Path::new("/usr/sbin/sshd").exists() && on_path("ssh").is_some()
}

pub(crate) fn rathole_program() -> Option<PathBuf> {
    let installed = tools::root().join("peers/bin/rathole");
    if installed.exists() {
        Some(installed)
    } else {
        on_path("rathole")
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
