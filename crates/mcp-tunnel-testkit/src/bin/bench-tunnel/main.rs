//! Measures one MCP server direct, through our tunnel, and through other tunnels.
//!
//! All paths are up at the same time; rounds go over all of them in turn, so that a change of the
//! machine's mood meets everybody; the table shows medians.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

mod peers;
mod table;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mcp_tunnel_testkit::{
    load::{self, Late, LoadTarget},
    process::{self, Process, processor_time, resident_bytes, waiting_bytes},
    stack::{CloudOptions, SOON, Stack},
    wire::tls_config,
};
use peers::Peer;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use table::{Measure, Results, Rounds};

/// Bytes of the download.
const DOWNLOAD: usize = 200_000_000;

/// Measures the tunnel beside others.
#[derive(Parser)]
struct Args {
    /// One short round, fewer connections: to see that all of it works.
    #[arg(long)]
    quick: bool,
    /// Rounds over all paths.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one measurement lasts, seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only the paths whose name contains this, for instance `ingress`; may be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Connections at once; may be repeated. Default: 1, 16 and 64.
    #[arg(long, value_name = "COUNT")]
    connections: Vec<usize>,
    /// Write the results here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One way to the server.
struct Path {
    name: String,
    target: LoadTarget,
    /// Path of the download.
    download: String,
    /// The side that callers reach, and the side next to the server: process ids.
    sides: [Option<u32>; 2],
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut bench = Bench::start().await?;
    bench.keep(&args.only)?;
    let (rounds, time, usual) = if args.quick {
        (1, Duration::from_millis(500), vec![1, 16])
    } else {
        let time = Duration::from_secs_f64(args.seconds);
        (args.rounds, time, vec![1, 16, 64])
    };
    let connections = if args.connections.is_empty() {
        &usual
    } else {
        &args.connections
    };
    let mut measured = Rounds::default();
    for round in 0..rounds {
        for step in 0..bench.paths.len() {
            // Another one begins every round.
            let index = (step + round) % bench.paths.len();
            let path = &bench.paths[index];
            eprintln!("round {} of {rounds}: {}", round + 1, path.name);
            for count in connections {
                measured.add(index, *count, path.measure(*count, time).await?);
            }
            if !args.quick || path.name.contains("ingress") {
                measured.add_download(index, path.download().await?);
            }
        }
    }
    let results = bench.results(&measured)?;
    println!("{}", results.table());
    if let Some(file) = args.json {
        std::fs::write(&file, serde_json::to_string_pretty(&results)?)?;
    }
    Ok(())
}

/// Everything that runs while it is measured.
struct Bench {
    paths: Vec<Path>,
    left_out: Vec<String>,
    stack: Stack,
    _servers: Vec<Process>,
    _peers: Vec<Peer>,
}

impl Bench {
    async fn start() -> Result<Self> {
        let (nodelay, delayed) = (server(true).await?, server(false).await?);
        let options = [("", nodelay.1), (", server without NODELAY", delayed.1)];
        let mut cloud = CloudOptions::default();
        cloud.dev_ingresses = vec!["nodelay".to_owned(), "delayed".to_owned()];
        cloud.log_level = "warn".to_owned();
        let servers = [
            format!("nodelay={}", nodelay.1),
            format!("delayed={}", delayed.1),
        ];
        let servers: Vec<_> = servers.iter().map(String::as_str).collect();
        let stack = Stack::start(cloud, &servers).await?;
        let mut bench = Self {
            paths: Vec::new(),
            left_out: Vec::new(),
            stack,
            _servers: vec![nodelay.0, delayed.0],
            _peers: Vec::new(),
        };
        for (index, (suffix, address)) in options.into_iter().enumerate() {
            bench.add(
                format!("direct{suffix}"),
                LoadTarget::plain(address),
                [None, None],
            );
            bench.add_ours(index, suffix)?;
            bench.add_peers(address, suffix).await?;
        }
        Ok(bench)
    }

    /// Leaves out the paths that `only` does not name.
    fn keep(&mut self, only: &[String]) -> Result<()> {
        if only.is_empty() {
            return Ok(());
        }
        let is_named = |path: &Path| only.iter().any(|text| path.name.contains(text));
        let known: Vec<_> = self.paths.iter().map(|path| path.name.clone()).collect();
        self.paths.retain(is_named);
        ensure!(
            !self.paths.is_empty(),
            "--only: no path has such a name; there are: {}",
            known.join("; ")
        );
        Ok(())
    }

    fn add(&mut self, name: String, target: LoadTarget, sides: [Option<u32>; 2]) {
        self.paths.push(Path {
            name,
            target,
            download: format!("/blob/{DOWNLOAD}"),
            sides,
        });
    }

    fn add_ours(&mut self, index: usize, suffix: &str) -> Result<()> {
        let stack = &self.stack;
        let sides = [stack.cloud.process().pid(), stack.gateway.process().pid()];
        let addresses = stack.cloud.addresses().clone();
        let dev = *addresses.dev.get(index).context("no development ingress")?;
        let mut https = LoadTarget::plain(addresses.ingress);
        let route = if index == 0 { "nodelay" } else { "delayed" };
        let (header, value) = stack.caller_header();
        let prefix = format!("/t/{}/{route}", stack.tunnel.id);
        https.path = format!("{prefix}/mcp");
        https.headers = vec![format!("{header}: {value}")];
        https.tls = Some((
            tls_config(&stack.cloud.ca())?,
            addresses.ingress.ip().into(),
        ));
        self.add(
            format!("dev ingress{suffix}"),
            LoadTarget::plain(dev),
            sides,
        );
        self.add(format!("HTTPS ingress{suffix}"), https, sides);
        if let Some(path) = self.paths.last_mut() {
            path.download = format!("{prefix}/blob/{DOWNLOAD}");
        }
        Ok(())
    }

    async fn add_peers(&mut self, server: SocketAddr, suffix: &str) -> Result<()> {
        if peers::ssh_is_installed() {
            self.add_peer("ssh -R", suffix, peers::ssh(server).await?);
        } else {
            self.left_out
                .push("ssh -R: no sshd (`cargo xtask setup --benches`)".to_owned());
        }
        if peers::rathole_program().is_some() {
            self.add_peer("rathole+TLS", suffix, peers::rathole(server).await?);
        } else {
            let how = "cargo install rathole --root target/tools/peers";
            self.left_out
                .push(format!("rathole+TLS: not installed (`{how}`)"));
        }
        Ok(())
    }

    fn add_peer(&mut self, name: &str, suffix: &str, peer: Peer) {
        let sides = [peer.processes[0].pid(), peer.processes[1].pid()];
        self.add(
            format!("{name}{suffix}"),
            LoadTarget::plain(peer.entry),
            sides,
        );
        self._peers.push(peer);
    }

    fn results(&self, rounds: &Rounds) -> Result<Results> {
        let names: Vec<_> = self.paths.iter().map(|path| path.name.clone()).collect();
        let (calls, downloads) = rounds.medians(&names);
        let mut results = Results {
            calls,
            download_gb_per_second: downloads,
            left_out: self.left_out.clone(),
            ..Results::default()
        };
        results
            .left_out
            .push("cloudflared, frp, chisel, ngrok: not run".to_owned());
        for path in self.paths.iter().filter(|path| !path.name.contains(',')) {
            for (side, pid) in ["edge side", "gateway side"].iter().zip(path.sides) {
                if let Some(pid) = pid {
                    let bytes = whole_tree(pid)
                        .into_iter()
                        .filter_map(|pid| resident_bytes(pid).ok());
                    let name = format!("{}, {side}", path.name);
                    results
                        .resident_mib
                        .push((name, mib(bytes.max().unwrap_or(0))));
                }
            }
        }
        let program = process::binary("mcp-tunnel-gateway")?;
        results.gateway_on_disk_mib = mib(std::fs::metadata(program)?.len());
        Ok(results)
    }
}

impl Path {
    async fn measure(&self, connections: usize, time: Duration) -> Result<Measure> {
        let before = self.sides.map(processor_time_of_tree);
        let sample = load::calls(&self.target, connections, time, self.told()).await;
        let sample = sample
            .with_context(|| format!("measuring {}, {connections} connections", self.name))?;
        let after = self.sides.map(processor_time_of_tree);
        let thousands = sample.rate() * sample.elapsed.as_secs_f64() / 1000.0;
        let spent = |side: usize| (after[side] - before[side]).as_secs_f64() * 1000.0 / thousands;
        let ms = |quantile| sample.latency(quantile).as_secs_f64() * 1000.0;
        Ok(Measure {
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            calls_per_second: sample.rate(),
            edge_ms: spent(0),
            gateway_ms: spent(1),
        })
    }

    /// Says on stderr that an answer does not come, and in which connections of this program and of both sides bytes wait:
    /// if a measurement stands still, that is where.
    fn told(&self) -> impl Fn(Late) + Clone + Send + Sync + 'static {
        let (name, sides) = (self.name.clone(), self.sides);
        move |late| {
            eprintln!(
                "{name}: connection {} has waited {:.0} s for the answer to its call {}",
                late.connection,
                late.waited.as_secs_f64(),
                late.answered
            );
            let here = Some(std::process::id());
            for (side, pid) in ["here", "edge side", "gateway side"]
                .into_iter()
                .zip([here, sides[0], sides[1]])
            {
                let waiting = pid.and_then(|pid| waiting_bytes(pid).ok());
                eprintln!("  {side}: {}", waiting.unwrap_or_default().join(", "));
            }
        }
    }

    /// GB/s.
    async fn download(&self) -> Result<f64> {
        let took = load::download(&self.target, &self.download, DOWNLOAD, self.told()).await;
        let took = took.with_context(|| format!("downloading through {}", self.name))?;
        Ok(0.2 / took.as_secs_f64())
    }
}

async fn server(nodelay: bool) -> Result<(Process, SocketAddr)> {
    let mut command = process::command("mcp-fixture-server")?;
    command.args(["--nodelay", &nodelay.to_string()]);
    let server = Process::start("MCP server", command)?;
    let line = server
        .line(SOON, |line| line.starts_with("listening on"))
        .await?;
    let address = line
        .trim_start_matches("listening on http://")
        .trim_end_matches("/mcp");
    Ok((server, address.parse()?))
}

/// Processor time of a process and everything it started: sshd forks for every session.
fn processor_time_of_tree(pid: Option<u32>) -> Duration {
    let tree = pid.into_iter().flat_map(whole_tree);
    tree.filter_map(|pid| processor_time(pid).ok()).sum()
}

fn whole_tree(pid: u32) -> Vec<u32> {
    let mut tree = vec![pid];
    let mut next = 0;
    while let Some(parent) = tree.get(next) {
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        tree.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    tree
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
