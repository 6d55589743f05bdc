//! The steps of the tour, in order.

use crate::client::{self, Target};
use crate::process::{self, Program};
use crate::session;
use crate::steps::{Steps, milliseconds};
use anyhow::{Context, Result, bail};
use managed_agents_client::api::{ConnectionStatus, CreateCallerKey, Tunnel, TunnelConnection};
use managed_agents_client::{Client, ClientConfig};
use secrecy::{ExposeSecret as _, SecretString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The route that a single, unnamed MCP server gets.
const ROUTE: &str = "mcp";

/// How long a gateway may take from its start until the console shows it.
const ARRIVAL: Duration = Duration::from_secs(15);

/// How often the console is asked while something is awaited.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn run(data: Option<PathBuf>, serve: bool) -> Result<()> {
    let programs = process::build()?;
    let mut steps = Steps::new();
    let folder = match data {
        Some(folder) => Folder::Kept(folder),
        None => Folder::Temporary(tempfile::tempdir().context("making a temporary folder")?),
    };
    folder.let_pass()?;
    let mut tour = Tour::start(&mut steps, &programs, folder.path()).await?;
    let shown = tour.show(&mut steps, &programs).await;
    if serve && shown.is_ok() {
        tour.serve(&mut steps).await?;
    }
    let stopped = tour.stop(&mut steps).await;
    shown.and(stopped)
}

enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    /// A worker that is started as root gives that up, and must still get to its own folder in this one.
    fn let_pass(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
        let path = self.path();
        let made = || format!("making {}", path.display());
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(path)
            .with_context(made)?;
        if let Self::Temporary(_) = self {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o711)).with_context(made)?;
        }
        Ok(())
    }
}

/// Everything that runs.
struct Tour {
    folder: PathBuf,
    addresses: Addresses,
    client: Client,
    tunnel: Tunnel,
    cloud: Program,
    server: Program,
    gateway: Program,
    /// Where this machine can make sandboxes.
    worker: Option<Program>,
}

/// What the cloud says when it is ready.
struct Addresses {
    api: String,
    ingress: SocketAddr,
}

impl Tour {
    async fn start(steps: &mut Steps, programs: &Path, folder: &Path) -> Result<Self> {
        steps.step("Start a cloud: console, edge, and a database in a folder of its own");
        let data = folder.join("cloud");
        let (cloud, addresses) = start_cloud(programs, &data).await?;
        steps.good(&format!(
            "console {}, ingress https://{}",
            addresses.api, addresses.ingress
        ));

        steps.step("Create a tunnel through the REST API");
        let client = Client::new(ClientConfig::new(addresses.api.clone(), admin_key(&data)?))?;
        let tunnel = client.tunnels().create(Some("quickstart")).await?;
        let token = client.tunnels().reveal_token(&tunnel.id).await?;
        steps.good(&format!("{} serves *.{}", tunnel.id, tunnel.domain));

        steps.step("Start a private MCP server");
        let mut server = Program::start(programs, "mcp-fixture-server", &["--tools", "friendly"])?;
        let url = server
            .wait_for(|line| line.strip_prefix("listening on ").map(str::to_owned))
            .await?;
        steps.good(&format!("process {} answers at {url}", server.pid()?));

        steps.step("Start a gateway beside it; it dials out and listens nowhere");
        let token_file = folder.join("token");
        write_secret(&token_file, &token.tunnel_token)?;
        let state = folder.join("gateway");
        let args = [
            "--mcp-server",
            &url,
            "--token-file",
            text(&token_file)?,
            "--state-dir",
            text(&state)?,
        ];
        let gateway = Program::start(programs, "mcp-tunnel-gateway", &args)?;
        steps.good(&format!("process {}", gateway.pid()?));
        Ok(Self {
            folder: folder.to_owned(),
            addresses,
            client,
            tunnel,
            cloud,
            server,
            gateway,
            worker: None,
        })
    }

    async fn show(&mut self, steps: &mut Steps, programs: &Path) -> Result<()> {
        self.approve(steps).await?;
        let target = self.target(steps).await?;
        let http = client::http(&self.folder.join("cloud/ca.pem"), &target)?;
        call(steps, &http, &target).await?;
        hops(steps, &http, &target).await?;

        steps.step("Look for a listening socket in the gateway");
        let listeners = mcp_diagnostics::sockets::listeners_of(self.gateway.pid()?)?;
        if !listeners.is_empty() {
            bail!("the gateway listens on {listeners:?}");
        }
        steps.good("none: the kernel lists no listening socket for its process");

        let (folder, api) = (&self.folder, &self.addresses.api);
        self.worker = session::show(steps, programs, folder, &self.client, api).await?;
        Ok(())
    }

    async fn approve(&self, steps: &mut Steps) -> Result<()> {
        steps.step("The token alone gets nothing but an entry in a list");
        let pending = self.wait_until(ConnectionStatus::Pending).await?;
        let code = pending.approval_code.as_deref().unwrap_or("-");
        steps.good(&format!("{} is pending, its code is {code}", pending.id));
        steps.say(&format!("key {}", pending.gateway_key_fingerprint));

        steps.step("Approve the gateway's key");
        let connections = self.client.connections(&self.tunnel.id);
        connections
            .approve(&pending.id, Some(&pending.gateway_key_fingerprint))
            .await?;
        let active = self.wait_until(ConnectionStatus::Active).await?;
        steps.good(&format!(
            "{} is active and serves: {}",
            active.id,
            active.routes.join(", ")
        ));
        Ok(())
    }

    async fn target(&self, steps: &mut Steps) -> Result<Target> {
        steps.step("Make a key for an agent");
        let wanted = CreateCallerKey {
            name: "quickstart".to_owned(),
            ..CreateCallerKey::default()
        };
        let key = self.client.caller_keys().create(&wanted).await?;
        steps.good(&format!(
            "{}; its value is shown once, and kept nowhere",
            key.caller_key.id
        ));
        let host = format!("{ROUTE}--{}", self.tunnel.domain);
        let ingress = self.addresses.ingress;
        Ok(Target {
            url: format!("https://{host}:{}/mcp", ingress.port()),
            host,
            ingress,
            caller_key: key.key,
        })
    }

    async fn wait_until(&self, status: ConnectionStatus) -> Result<TunnelConnection> {
        let began = Instant::now();
        while began.elapsed() < ARRIVAL {
            let connections = self.client.connections(&self.tunnel.id).list().await?;
            if let Some(found) = connections
                .into_iter()
                .find(|connection| connection.status == status)
            {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!(
            "the gateway is not {status} after {ARRIVAL:?}; it said:\n{}",
            self.gateway.said()
        )
    }

    async fn serve(&self, steps: &mut Steps) -> Result<()> {
        steps.step(
            "Everything stays up; try these in another terminal, and end it here with Ctrl-C",
        );
        let data = self.folder.join("cloud");
        let cloud = format!(
            "cargo run --release -p mcp-cloud -- --data {}",
            data.display()
        );
        steps.command(&format!("{cloud} connection list {}", self.tunnel.id));
        steps.command(&format!("{cloud} caller-key create laptop"));
        steps.command(&format!("{cloud} probe {}", self.tunnel.id));
        if self.worker.is_some() {
            steps.command(&format!("{cloud} session run 'id' 'ls /'"));
        }
        steps.say(&format!(
            "REST API   {}   key in {}",
            self.addresses.api,
            data.join("admin.key").display()
        ));
        steps.say(&format!(
            "MCP URL    https://{}/t/{}/{ROUTE}/mcp   authority in {}",
            self.addresses.ingress,
            self.tunnel.id,
            data.join("ca.pem").display()
        ));
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
    }

    async fn stop(self, steps: &mut Steps) -> Result<()> {
        steps.step("Stop: refuse new calls, finish running ones, end");
        let programs = [self.gateway, self.cloud, self.server];
        // The cloud after whoever gives something back to it.
        for program in self.worker.into_iter().chain(programs) {
            program.stop().await?;
        }
        steps.good("all processes ended");
        Ok(())
    }
}

async fn start_cloud(programs: &Path, data: &Path) -> Result<(Program, Addresses)> {
    let any = "127.0.0.1:0";
    let listen = [
        "--listen",
        any,
        "--edge-listen",
        any,
        "--ingress-listen",
        any,
    ];
    let args = [&["serve", "--data", text(data)?], listen.as_slice()].concat();
    let mut cloud = Program::start(programs, "mcp-cloud", &args)?;
    let addresses = cloud.wait_for(Addresses::read).await?;
    Ok((cloud, addresses))
}

impl Addresses {
    /// Reads `ready api=http://… edge=… ingress=…`.
    fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("ready ")?;
        let value = |name: &str| {
            rest.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let ingress = value("ingress")?
            .trim_start_matches("https://")
            .parse()
            .ok()?;
        Some(Self {
            api: value("api")?.to_owned(),
            ingress,
        })
    }
}

async fn call(steps: &mut Steps, http: &reqwest::Client, target: &Target) -> Result<()> {
    steps.step("Be an agent: connect, list the tools, call one");
    steps.say(&target.url);
    let seen = client::call(http.clone(), target).await?;
    steps.good(&format!(
        "MCP {} in {}",
        seen.protocol,
        milliseconds(seen.connect)
    ));
    steps.good(&format!(
        "tools: {} in {}",
        seen.tools.join(", "),
        milliseconds(seen.list)
    ));
    steps.good(&format!(
        "add(19, 23) answered {} in {}",
        seen.answer,
        milliseconds(seen.call)
    ));
    Ok(())
}

async fn hops(steps: &mut Steps, http: &reqwest::Client, target: &Target) -> Result<()> {
    steps.step("Ask how long each hop takes");
    for (hop, time) in client::probe(http, target).await? {
        steps.say(&format!("{hop:<12} {time:>8.2} ms"));
    }
    Ok(())
}

fn admin_key(data: &Path) -> Result<SecretString> {
    let path = data.join("admin.key");
    let key =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(SecretString::from(key.trim()))
}

pub(crate) fn write_secret(path: &Path, secret: &SecretString) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.expose_secret().as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| {
        format!(
            "{} is not UTF-8: choose another folder with --data",
            path.display()
        )
    })
}
