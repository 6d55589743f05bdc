//! The real programs together: a cloud, gateways, and the calls that administer them.

use crate::{
    process::{self, Process},
    rmcp_client::http_client,
    tools::Reserved,
};
use anyhow::{Context, Result, bail, ensure};
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long anything here may take to come about, on a machine with more to do.
pub const SOON: Duration = Duration::from_secs(60);
/// Within which a call is answered, or somebody is told, where the alternative is to wait for a deadline or for ever.
pub const AT_ONCE: Duration = Duration::from_secs(8);
/// Between two looks at something that only the REST API or /proc tells.
const LOOK: Duration = Duration::from_millis(25);

/// How a cloud is started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloudOptions {
    /// What each development ingress serves: `ROUTE`, `TUNNEL_ID/ROUTE`, or nothing for the default.
    pub dev_ingresses: Vec<String>,
    /// The address at which gateways reach it.
    pub edge_host: IpAddr,
    /// `--log-level`.
    pub log_level: String,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Where the data is kept; a fresh folder if absent.
    pub data: Option<PathBuf>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            dev_ingresses: vec![String::new()],
            edge_host: Ipv4Addr::LOCALHOST.into(),
            log_level: "info".to_owned(),
            arguments: Vec::new(),
            data: None,
        }
    }
}

/// A running `mcp-cloud`.
#[derive(Debug)]
pub struct Cloud {
    process: Process,
    options: CloudOptions,
    addresses: Addresses,
    data: PathBuf,
    _own: Option<TempDir>,
    _ports: Vec<Reserved>,
}

/// Where a cloud listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// REST API.
    pub api: SocketAddr,
    /// Gateways.
    pub edge: SocketAddr,
    /// Callers, HTTPS.
    pub ingress: SocketAddr,
    /// Development ingresses, in the order of the options.
    pub dev: Vec<SocketAddr>,
}

impl Cloud {
    /// Starts a cloud on free ports and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; the text holds what it wrote.
    pub async fn start(options: CloudOptions) -> Result<Self> {
        let own = match options.data {
            Some(_) => None,
            None => Some(tempfile::tempdir()?),
        };
        let data = options
            .data
            .clone()
            .or_else(|| Some(own.as_ref()?.path().join("data")));
        let data = data.context("no folder")?;
        // Kept while it is down: what starts again has to find its ports free.
        let mut ports = Vec::new();
        let mut port = |host: IpAddr| -> Result<SocketAddr> {
            let reserved = Reserved::on(host)?;
            let address = reserved.address();
            ports.push(reserved);
            Ok(address)
        };
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let wanted = Addresses {
            api: port(local)?,
            edge: port(options.edge_host)?,
            ingress: port(local)?,
            dev: options
                .dev_ingresses
                .iter()
                .map(|_| port(local))
                .collect::<Result<_>>()?,
        };
        let (process, addresses) = launch(&data, &options, &wanted).await?;
        Ok(Self {
            process,
            options,
            addresses,
            data,
            _own: own,
            _ports: ports,
        })
    }

    /// Starts it again, after its end, on the same ports and data.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start_again(&mut self) -> Result<()> {
        let (process, addresses) = launch(&self.data, &self.options, &self.addresses).await?;
        ensure!(
            addresses == self.addresses,
            "it came back elsewhere: {addresses:?}"
        );
        self.process = process;
        Ok(())
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.exit(within).await
    }

    /// Waits until it ended by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.exit(within).await
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The MCP endpoint of a development ingress, by the name that the conformance suite insists on.
    #[must_use]
    pub fn dev_url(&self, index: usize) -> String {
        let port = self.addresses.dev.get(index).map_or(0, SocketAddr::port);
        format!("http://localhost:{port}/mcp")
    }

    /// The MCP endpoint of a route over HTTPS, path form.
    #[must_use]
    pub fn path_url(&self, tunnel: &Tunnel, route: &str) -> String {
        format!("{}/t/{}/{route}/mcp", self.ingress_origin(), tunnel.id)
    }

    /// Scheme, host and port of the HTTPS ingress.
    #[must_use]
    pub fn ingress_origin(&self) -> String {
        format!("https://{}", self.addresses.ingress)
    }

    /// The MCP endpoint of a route over HTTPS, `ROUTE--TUNNEL.DOMAIN`.
    #[must_use]
    pub fn host_url(&self, tunnel: &Tunnel, route: &str, path: &str) -> String {
        let port = self.addresses.ingress.port();
        format!("https://{route}--{}:{port}{path}", tunnel.domain)
    }

    /// The certificate of its local authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The administrator's API key.
    ///
    /// # Errors
    /// The file is missing.
    pub fn admin_key(&self) -> Result<String> {
        let key = fs::read_to_string(self.data.join("admin.key")).context("reading admin.key")?;
        Ok(key.trim().to_owned())
    }

    /// Calls the REST API as the administrator.
    ///
    /// # Errors
    /// It cannot be reached, or answers anything but 2xx.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let url = format!("http://{}{path}", self.addresses.api);
        let mut request = http_client(None, None, &url)?
            .request(method, &url)
            .timeout(SOON)
            .header("x-api-key", self.admin_key()?)
            .header("anthropic-version", "2023-06-01")
            .header("anthropic-beta", "mcp-tunnels-2026-06-22");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }

    /// Administers it from the command line, as people do; what that printed.
    ///
    /// # Errors
    /// The command fails; the text holds what it wrote.
    pub async fn administer(&self, arguments: &[&str]) -> Result<String> {
        let mut command = process::command("mcp-cloud")?;
        command.arg("--data").arg(&self.data).args(arguments);
        let mut administration = Process::start("administration", command)?;
        let status = administration.exit(SOON).await?;
        let text = administration.log().text();
        ensure!(status.success(), "{arguments:?}: {status}\n{text}");
        Ok(text)
    }

    /// Creates a tunnel and reveals its token.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn create_tunnel(&self, name: &str) -> Result<Tunnel> {
        let body = json!({ "display_name": name });
        let tunnel = self.api(Method::POST, "/v1/tunnels", Some(body)).await?;
        let id = text(&tunnel, "id")?;
        let path = format!("/v1/tunnels/{id}/reveal_token");
        let token = self.api(Method::POST, &path, None).await?;
        Ok(Tunnel {
            domain: text(&tunnel, "domain")?,
            token: text(&token, "tunnel_token")?,
            id,
        })
    }

    /// Creates a caller key for everything in the workspace.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn create_caller_key(&self) -> Result<String> {
        let body = json!({ "name": "test" });
        let key = self
            .api(Method::POST, "/v1/caller_keys", Some(body))
            .await?;
        text(&key, "key")
    }

    /// The gateways of a tunnel.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn connections(&self, tunnel: &Tunnel) -> Result<Vec<Value>> {
        let path = format!("/v1/tunnels/{}/connections", tunnel.id);
        let page = self.api(Method::GET, &path, None).await?;
        Ok(page["data"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until the tunnel's gateways look as `wanted`.
    ///
    /// # Errors
    /// The time is over.
    pub async fn wait_connections(
        &self,
        tunnel: &Tunnel,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let deadline = Instant::now() + SOON;
        loop {
            let connections = self.connections(tunnel).await?;
            if wanted(&connections) {
                return Ok(connections);
            }
            if Instant::now() > deadline {
                bail!("after {SOON:?} the connections are still {connections:?}");
            }
            sleep(LOOK).await;
        }
    }

    /// Approves the tunnel's pending gateway as soon as there is one, and waits until it is active.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn approve(&self, tunnel: &Tunnel) -> Result<()> {
        let pending = |all: &[Value]| all.iter().any(|one| one["status"] == "pending");
        let all = self.wait_connections(tunnel, pending).await?;
        let one = all
            .iter()
            .find(|one| one["status"] == "pending")
            .context("none is pending")?;
        let path = format!(
            "/v1/tunnels/{}/connections/{}/approve",
            tunnel.id,
            text(one, "id")?
        );
        let body = json!({ "gateway_key_fingerprint": one["gateway_key_fingerprint"] });
        self.api(Method::POST, &path, Some(body)).await?;
        self.wait_active(tunnel).await
    }

    /// Waits until it has found a link without its connection. A call that comes before that is begun on the link, and kept
    /// with it for a minute.
    ///
    /// # Errors
    /// It does not notice.
    pub async fn wait_lost(&self) -> Result<()> {
        let lost = |line: &str| line.contains("kept for its gateway");
        self.process.line(SOON, lost).await.map(drop)
    }

    /// Waits until a gateway of the tunnel is active with a live link.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn wait_active(&self, tunnel: &Tunnel) -> Result<()> {
        let active = |one: &Value| {
            one["status"] == "active" && one["live_links"].as_u64().is_none_or(|links| links > 0)
        };
        self.wait_connections(tunnel, |all| all.iter().any(active))
            .await?;
        Ok(())
    }
}

/// A tunnel and its token.
#[derive(Clone)]
#[non_exhaustive]
pub struct Tunnel {
    /// `tnl_…`.
    pub id: String,
    /// The name that its hosts end in.
    pub domain: String,
    /// The token's current value.
    pub token: String,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A running `mcp-tunnel-gateway`.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    state: TempDir,
    arguments: Vec<String>,
}

impl Gateway {
    /// Starts a gateway with a key of its own; `arguments` name its servers and more.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(token: &str, arguments: &[&str]) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(state.path().join("token"))?;
        file.write_all(token.as_bytes())?;
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        Ok(Self {
            process: Self::launch(state.path(), &arguments)?,
            state,
            arguments,
        })
    }

    /// Starts it again, after its end, with the same key.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Self::launch(self.state.path(), &self.arguments)?;
        Ok(())
    }

    /// Runs `mcp-tunnel-gateway check` with its token, key and arguments, as people do beside a gateway that runs; what
    /// that printed.
    ///
    /// # Errors
    /// The check fails; the text holds what it wrote.
    pub async fn check(&self) -> Result<String> {
        let mut arguments = vec!["check".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        let mut check = Self::launch(self.state.path(), &arguments)?;
        let status = check.exit(SOON).await?;
        let text = check.log().text();
        ensure!(status.success(), "{status}\n{text}");
        Ok(text)
    }

    fn launch(state: &Path, arguments: &[String]) -> Result<Process> {
        let mut command = process::command("mcp-tunnel-gateway")?;
        command
            .args(arguments)
            .arg("--token-file")
            .arg(state.join("token"))
            .arg("--state-dir")
            .arg(state.join("state"));
        Process::start("gateway", command)
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.exit(within).await
    }

    /// Waits until it ended by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.exit(within).await
    }

    /// Waits until this process of it has served calls. The console takes one that was killed for active as long as its
    /// calls are kept.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn wait_active(&self) -> Result<()> {
        let active = |line: &str| line.contains("active: the edge");
        self.process.line(SOON, active).await.map(drop)
    }
}

/// A cloud, one tunnel, one approved gateway, one caller key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stack {
    /// The cloud.
    pub cloud: Cloud,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// Its gateway.
    pub gateway: Gateway,
    /// A caller key for the whole workspace.
    pub caller_key: String,
}

impl Stack {
    /// Starts everything in front of `servers` (`NAME=HOST:PORT`, or an address alone) and waits
    /// until calls pass.
    ///
    /// # Errors
    /// Any part does not come up.
    pub async fn start(options: CloudOptions, servers: &[&str]) -> Result<Self> {
        let level = options.log_level.clone();
        let cloud = Cloud::start(options).await?;
        let tunnel = cloud.create_tunnel("test").await?;
        let mut arguments = vec!["--log-level", &level];
        for server in servers {
            arguments.extend(["--mcp-server", server]);
        }
        let gateway = Gateway::start(&tunnel.token, &arguments)?;
        cloud
            .approve(&tunnel)
            .await
            .with_context(|| format!("the gateway wrote:\n{}", gateway.process().log().text()))?;
        let caller_key = cloud.create_caller_key().await?;
        Ok(Self {
            cloud,
            tunnel,
            gateway,
            caller_key,
        })
    }

    /// The header that lets a caller in.
    #[must_use]
    pub fn caller_header(&self) -> (String, String) {
        let value = format!("Bearer {}", self.caller_key);
        ("Mcp-Tunnel-Authorization".to_owned(), value)
    }
}

async fn launch(
    data: &Path,
    options: &CloudOptions,
    wanted: &Addresses,
) -> Result<(Process, Addresses)> {
    let mut command = process::command("mcp-cloud")?;
    command
        .arg("--log-level")
        .arg(&options.log_level)
        .arg("--data")
        .arg(data)
        .args(["--listen", &wanted.api.to_string()])
        .args(["--edge-listen", &wanted.edge.to_string()])
        .args(["--ingress-listen", &wanted.ingress.to_string()])
        .args(&options.arguments);
    for (address, route) in wanted.dev.iter().zip(&options.dev_ingresses) {
        let route = if route.is_empty() {
            String::new()
        } else {
            format!("={route}")
        };
        command.args(["--dev-ingress", &format!("{address}{route}")]);
    }
    let process = Process::start("cloud", command)?;
    let line = process.line(SOON, |line| line.starts_with("ready")).await?;
    let addresses = Addresses::parse(&line)?;
    Ok((process, addresses))
}

impl Addresses {
    /// Reads the line `ready api=http://… edge=… ingress=https://… dev=http://…`.
    fn parse(line: &str) -> Result<Self> {
        let all: Vec<_> = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, value)| Some((name, address(value)?)))
            .collect();
        let one = |wanted: &str| {
            let found = all.iter().find(|(name, _)| *name == wanted);
            found
                .map(|(_, address)| *address)
                .with_context(|| format!("no {wanted} in: {line}"))
        };
        Ok(Self {
            api: one("api")?,
            edge: one("edge")?,
            ingress: one("ingress")?,
            dev: all
                .iter()
                .filter(|(name, _)| name.starts_with("dev"))
                .map(|one| one.1)
                .collect(),
        })
    }
}

fn address(value: &str) -> Option<SocketAddr> {
    let value = value.split("://").last()?;
    value.split('/').next()?.parse().ok()
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value[field].as_str();
    Ok(text
        .with_context(|| format!("no {field} in {value}"))?
        .to_owned())
}
