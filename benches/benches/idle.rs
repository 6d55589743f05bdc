//! What lies idle costs memory: a stream, a link, ten thousand tunnels on one edge.
//!
//! `cargo bench -p benches --bench idle`. Bytes that the allocator gave and has not got back, of one end.

use std::{
    alloc::System,
    env, fs,
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use benches::{
    conduit::{Conduit as _, Mux, zeros},
    options::Options,
    peers::{H2, Ours, Raw, TokioYamux, Yamux},
    scene::{Place, in_memory, runtime},
    table::{Table, Unit, finish, progress},
};
use mcp_tunnel_auth::{
    AccessSnapshot, Announcement, ConnectionId, DomainLabel, DomainName, GatewayAccess, GatewayKey,
    GatewayState, HostName, LinkCredential, MasterKey, RouteName, TokenAccess, TokenId,
    TunnelAccess, TunnelId, TunnelToken, WorkspaceId,
};
use mcp_tunnel_edge::{Edge, EdgeConfig, PeerInfo};
use mcp_tunnel_transport::{
    Answer, Exporter, Link, LinkConfig, Offer, ReadAhead,
    dial::TcpOptions,
    local_ca::LocalCa,
    tls::{self, Trust},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::{ClientConfig, ServerConfig, sign::SingleCertAndKey};
use stats_alloc::StatsAlloc;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

const STREAMS: usize = 1000;
const LINKS: usize = 64;
const TUNNELS: usize = 10_000;
/// Gateways that dial at a time.
const AT_ONCE: usize = 64;
const DOMAIN: &str = "tunnel.example";

/// Bytes that are allocated now.
fn live() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

fn main() -> Result<()> {
    let options = Options::of_process();
    if let [role, address, pin, count] = options.rest.as_slice()
        && role == "gateways"
    {
        return runtime().block_on(gateways(address.parse()?, pin, count.parse()?));
    }
    // Long enough for a ping and its answer to have come and gone, where a peer has them.
    let rest = Duration::from_millis(if options.quick { 1500 } else { 7000 });
    let names = [
        Ours::<false>::NAME,
        Yamux::NAME,
        TokioYamux::NAME,
        H2::NAME,
        Raw::NAME,
    ];
    let mut idle = Table::new("idle, bytes at each end", &names, 4);
    if options.wants("idle: stream") {
        let figures = vec![
            stream::<Ours<false>>(rest)?,
            stream::<Yamux>(rest)?,
            stream::<TokioYamux>(rest)?,
            stream::<H2>(rest)?,
        ];
        idle.push(
            "stream",
            Unit::Bytes,
            figures.into_iter().map(Some).collect(),
        );
    }
    if options.wants("idle: link") {
        let figures = vec![
            link::<Ours<false>>(rest),
            link::<Yamux>(rest),
            link::<TokioYamux>(rest),
            link::<H2>(rest),
            link::<Raw>(rest),
        ];
        let figures = figures.into_iter().map(Some).collect();
        idle.push("link, TLS included", Unit::Bytes, figures);
    }
    let mut edge = Table::new("one edge process", &["heap", "resident"], 0);
    if options.wants("idle: tunnels") {
        let count = if options.quick { 200 } else { TUNNELS };
        let (count, figures) = runtime().block_on(tunnels(count, rest))?;
        let name = format!("each of {count} idle tunnels, TLS included");
        edge.push(&name, Unit::Bytes, figures.map(Some).to_vec());
    }
    finish(&[idle, edge], options.json.as_deref())?;
    Ok(())
}

/// Bytes of a stream that has carried a little both ways, handles included.
fn stream<M: Mux>(rest: Duration) -> Result<f64> {
    runtime().block_on(async {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (near, far) = in_memory(Place::Still).await;
        let mut tasks = JoinSet::new();
        let server = Arc::clone(&taken);
        tasks.spawn(M::serve(far, move |conduit| {
            server
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(conduit);
        }));
        let client = M::connect(near, &mut tasks).await;
        // The first few pay for tables.
        let first = talk::<M>(&client, &taken, 8).await?;
        sleep(rest).await;
        let before = live();
        let streams = talk::<M>(&client, &taken, STREAMS).await?;
        sleep(rest).await;
        let used = live() - before;
        drop((first, streams));
        Ok(used / (2 * STREAMS) as f64)
    })
}

type Taken<M> = Arc<Mutex<Vec<<M as Mux>::Far>>>;

/// Opens `count` streams and sends a little both ways on each; both ends stay open.
async fn talk<M: Mux>(
    client: &M::Client,
    taken: &Taken<M>,
    count: usize,
) -> Result<(Vec<M::Near>, Vec<M::Far>)> {
    let (mut near_ends, mut far_ends) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let mut near = M::open(client, zeros(64), false).await?;
        let mut far = loop {
            let next = taken.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match next {
                Some(far) => break far,
                None => tokio::task::yield_now().await,
            }
        };
        ensure!(far.recv().await?.length == 64, "a request");
        far.send(zeros(64), false).await?;
        ensure!(near.recv().await?.length == 64, "an answer");
        near_ends.push(near);
        far_ends.push(far);
    }
    Ok((near_ends, far_ends))
}

/// Bytes of a link without streams, TLS included, one end of it.
fn link<M: Mux>(rest: Duration) -> f64 {
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        let mut clients = Vec::with_capacity(LINKS);
        // The first pays for what all share.
        clients.push(idle_link::<M>(&mut tasks).await);
        sleep(Duration::from_millis(100)).await;
        let before = live();
        for _ in 1..LINKS {
            clients.push(idle_link::<M>(&mut tasks).await);
        }
        sleep(rest).await;
        let used = live() - before;
        drop(clients);
        used / (2 * (LINKS - 1)) as f64
    })
}

async fn idle_link<M: Mux>(tasks: &mut JoinSet<()>) -> M::Client {
    let (near, far) = in_memory(Place::Still).await;
    tasks.spawn(M::serve(far, drop));
    M::connect(near, tasks).await
}

/// Heap and resident bytes of one edge per tunnel, with a gateway at each tunnel; as many as the limit on files allows.
async fn tunnels(count: usize, rest: Duration) -> Result<(usize, [f64; 2])> {
    let count = count.min(raise_file_limit().saturating_sub(256));
    let ca = LocalCa::generate(DOMAIN, SystemTime::now())?;
    let key = SingleCertAndKey::from(ca.issue(SystemTime::now())?.certified_key()?);
    let edge = Edge::new(EdgeConfig::new(DomainName::parse(DOMAIN)?));
    let tunnels = (0..count).map(|number| Tunnel::of(number)?.access());
    let tunnels = tunnels.collect::<Result<Vec<_>>>()?;
    edge.apply(Arc::new(AccessSnapshot::new(1, 0, tunnels, Vec::new())?))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(serve(edge, listener, tls::server_config(Arc::new(key))?));
    let (heap, resident) = (live(), resident()?);
    let pin: String = ca.pin().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut child = Command::new(env::current_exe()?)
        .args(["gateways", &address.to_string(), &pin, &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("its output")?);
    let ready = tokio::task::spawn_blocking(move || -> io::Result<bool> {
        for line in output.lines() {
            let line = line?;
            if line == "ready" {
                return Ok(true);
            }
            progress(&line);
        }
        Ok(false)
    });
    let ready = ready.await??;
    ensure!(ready, "the gateways failed");
    sleep(rest).await;
    let figures = [live() - heap, self::resident()? - resident];
    child.kill()?;
    child.wait()?;
    Ok((count, figures.map(|bytes| bytes / count as f64)))
}

async fn serve(edge: Edge, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let mut links = JoinSet::new();
    while let Ok((socket, peer)) = listener.accept().await {
        let (edge, acceptor) = (edge.clone(), acceptor.clone());
        links.spawn(async move {
            let _ = TcpOptions::default().apply(&socket);
            if let Ok(tls) = acceptor.accept(ReadAhead::new(socket)).await {
                let _ = edge.accept_link(tls, PeerInfo::tls(peer)).await;
            }
        });
        while links.try_join_next().is_some() {}
    }
}

/// A process of its own: one gateway for each tunnel, until it is killed.
#[expect(clippy::print_stdout, reason = "how it tells the edge's process")]
async fn gateways(edge: SocketAddr, pin: &str, count: usize) -> Result<()> {
    raise_file_limit();
    let mut pinned = [0; 32];
    for (byte, digits) in pinned.iter_mut().zip(pin.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    let config = tls::client_config(Trust::PinnedCa(pinned))?;
    let (mut links, mut drivers, mut dialling) = (Vec::new(), JoinSet::new(), JoinSet::new());
    for number in 0..count {
        dialling.spawn(gateway(edge, Arc::clone(&config), number));
        while dialling.len() >= AT_ONCE
            && let Some(dialled) = dialling.join_next().await
        {
            hold(dialled??, &mut links, &mut drivers);
        }
        if number % 1000 == 999 {
            println!("{} gateways", number + 1);
        }
    }
    while let Some(dialled) = dialling.join_next().await {
        hold(dialled??, &mut links, &mut drivers);
    }
    println!("ready");
    while let Some(ended) = drivers.join_next().await {
        progress(&format!("a link ended: {ended:?}"));
    }
    Ok(())
}

type Answered = Answer<ReadAhead<TcpStream>>;

fn hold(
    answer: Answered,
    links: &mut Vec<Link>,
    drivers: &mut JoinSet<mcp_tunnel_transport::CloseReason>,
) {
    match answer {
        Answer::Active { link, driver } => {
            links.push(link);
            drivers.spawn(driver.run());
        }
        other => progress(&format!("not admitted: {other:?}")),
    }
}

async fn gateway(edge: SocketAddr, config: Arc<ClientConfig>, number: usize) -> Result<Answered> {
    let socket = TcpStream::connect(edge).await?;
    TcpOptions::default().apply(&socket)?;
    let name = format!("edge.{DOMAIN}").try_into()?;
    let tls = TlsConnector::from(config)
        .connect(name, ReadAhead::new(socket))
        .await?;
    let exporter = Exporter::of(tls.get_ref().1)?;
    let credential = Tunnel::of(number)?.credential(&exporter)?;
    let link = LinkConfig::default().set_keep(Duration::from_secs(60));
    let offer = Offer::new(tls, credential.encode().into(), &link)?;
    Ok(offer.answer().await?)
}

/// One of the tunnels, as both processes know it by its number.
struct Tunnel {
    master: MasterKey,
    entropy: [u8; 10],
    gateway: GatewayKey,
    label: DomainLabel,
}

impl Tunnel {
    fn of(number: usize) -> Result<Self> {
        let digits = format!("{number:010}");
        let mut key = [7; 32];
        for (byte, digit) in key.iter_mut().zip(digits.as_bytes()) {
            *byte = *digit;
        }
        Ok(Self {
            master: MasterKey::from_bytes([9; 32]),
            entropy: digits.as_bytes().try_into()?,
            gateway: GatewayKey::from_bytes(key),
            label: DomainLabel::parse(&format!("tunnel-{number}"))?,
        })
    }

    fn id(&self) -> TunnelId {
        TunnelId::new(1, &self.entropy)
    }

    fn token(&self) -> TokenId {
        TokenId::new(1, &self.entropy)
    }

    fn access(&self) -> Result<TunnelAccess> {
        let workspace = WorkspaceId::parse("default")?;
        let mut access = TunnelAccess::new(self.id(), workspace, self.label.clone());
        let key = self.master.token_public_key(&self.token());
        access.tokens.push(TokenAccess::new(self.token(), key));
        access.gateways.push(GatewayAccess::new(
            self.gateway.public_key().fingerprint(),
            ConnectionId::new(1, &self.entropy),
            GatewayState::Approved,
        ));
        Ok(access)
    }

    fn credential(&self, exporter: &Exporter) -> Result<LinkCredential> {
        let token = TunnelToken::new(
            self.id(),
            self.label.clone(),
            DomainName::parse(DOMAIN)?,
            self.token(),
            self.master.token_seed(&self.token()),
            (HostName::parse("127.0.0.1")?, 7844),
        );
        let routes = vec![RouteName::parse("mcp")?];
        let announcement = Announcement::new("0.1.0", "bench", routes)?;
        let exporter = exporter.as_bytes();
        Ok(LinkCredential::sign(
            &token,
            &self.gateway,
            exporter,
            announcement,
        ))
    }
}

/// As many files as the system lets this process have.
fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    most.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    })
}

/// Resident bytes of this process.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("VmRSS")?.parse::<f64>()? * 1024.0)
}
