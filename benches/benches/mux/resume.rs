//! What it costs that a session survives its connection, and how long it stands still when that is cut.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use benches::{
    clock::Clock,
    conduit::Mux,
    load::{Load, Span, rate},
    options::Options,
    peers::Ours,
    scene::{HOST, Place, Scene, runtime, tls},
    table::{Table, Unit, median},
};
use bytes::Bytes;
use mcp_tunnel_proto::{OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::{
    CloseReason, Incoming, Link, LinkConfig, Stream, Target, Uplink, UplinkConfig, UplinkEvent,
    accept,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_rustls::TlsAcceptor;

const KEEP: Duration = Duration::from_secs(60);

/// Processor time per unit of work with resumption, beside that without.
pub(super) fn cost(options: &Options) -> Table {
    let mut table = Table::new("processor time, loopback TLS", &["resumable beside not"], 0);
    let (rounds, millis) = if options.quick { (1, 50) } else { (7, 300) };
    let span = Span {
        warm_up: Duration::from_millis(millis / 3),
        counted: Duration::from_millis(millis),
    };
    let loads = [
        (Load::Bulk(1), "bulk, 1 stream"),
        (Load::Bulk(64), "bulk, 64 streams"),
        (Load::Turns(64), "1 KiB ping-pong, 64 streams"),
        (Load::Calls(64), "open, call, close; 64 at once"),
    ];
    for (load, name) in loads {
        if !options.wants(&format!("resumption: {name}")) {
            continue;
        }
        let ratios = (0..rounds).filter_map(|_| {
            let without = of::<Ours<false>>(load, span)?;
            Some(without / of::<Ours<true>>(load, span)?)
        });
        table.push(name, Unit::Share, vec![median(ratios.collect())]);
    }
    table
}

fn of<M: Mux>(load: Load, span: Span) -> Option<f64> {
    let scene = Scene::<M>::set(Place::Loopback);
    scene.run(rate::<M>(
        &scene.client,
        &scene.threads,
        load,
        span,
        Clock::Cpu,
    ))
}

/// From the return of the network to the first byte that crosses it, each way.
pub(super) fn pause(options: &Options) -> Table {
    let columns = ["to the edge", "to the gateway"];
    let mut table = Table::new("network back to first byte", &columns, 0);
    let rounds = if options.quick { 1 } else { 9 };
    let outages = [
        (0, 0, Outage::Refuses),
        (60, 0, Outage::Refuses),
        (60, 2000, Outage::Refuses),
        (60, 2000, Outage::Closes),
    ];
    for (rtt, away, outage) in outages {
        let name = match (away, outage) {
            (0, _) => format!("connection reset, RTT {rtt} ms"),
            (_, Outage::Refuses) => format!("refused for {away} ms, RTT {rtt} ms"),
            (_, Outage::Closes) => format!("closed for {away} ms, RTT {rtt} ms"),
        };
        if !options.wants(&format!("network: {name}")) || options.quick && away > 0 {
            continue;
        }
        let (rtt, away) = (Duration::from_millis(rtt), Duration::from_millis(away));
        let pauses = runtime().block_on(async {
            let mut world = World::start(rtt).await;
            let mut pauses = Vec::new();
            for _ in 0..rounds {
                pauses.push(world.cut(away, outage).await);
            }
            pauses
        });
        let median_of = |at: fn(&(Duration, Duration)) -> Duration| {
            median(pauses.iter().map(|pause| at(pause).as_secs_f64()).collect())
        };
        let figures = vec![median_of(|pause| pause.0), median_of(|pause| pause.1)];
        table.push(&name, Unit::Seconds, figures);
    }
    table
}

/// An edge, a relay in front of it, and a gateway's uplink through the relay; one stream.
struct World {
    relay: Relay,
    uplink: Uplink,
    hellos: mpsc::Receiver<Incoming<TcpStream>>,
    edge: Link,
    near: Stream,
    far: Stream,
    _tasks: JoinSet<()>,
    _drivers: JoinSet<CloseReason>,
    _gateway: Link,
}

impl World {
    async fn start(rtt: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let relay = Relay::start(listener.local_addr().expect("an address"), rtt / 2).await;
        let (mut tasks, mut drivers) = (JoinSet::new(), JoinSet::new());
        let (tell, mut hellos) = mpsc::channel(4);
        tasks.spawn(greet(listener, tell));
        let target = Target::new(HOST, 443).expect("a target");
        let target = target.dialled_at(relay.address.to_string().parse().expect("an address"));
        let link = LinkConfig::default().set_keep(KEEP);
        let config = UplinkConfig::new(Arc::clone(&tls().client)).set_link(link);
        let mut uplink = Uplink::new(target, config);
        let (edge, gateway) = loop {
            tokio::select! {
                Some(incoming) = hellos.recv() => {
                    let (link, driver) = incoming.admit().expect("a link");
                    drivers.spawn(driver.run());
                    let gateway = loop {
                        if let UplinkEvent::Active { link, .. } = uplink.next().await {
                            break link;
                        }
                    };
                    break (link, gateway);
                }
                event = uplink.next() => present(&mut uplink, &event),
            }
        };
        let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        let (near, far) = tokio::join!(
            edge.open(header, Bytes::from_static(b"!")),
            gateway.accept()
        );
        let (near, mut far) = (near.expect("a stream"), far.expect("a stream").stream);
        far.read_chunk().await.expect("a byte");
        Self {
            relay,
            uplink,
            hellos,
            edge,
            near,
            far,
            _tasks: tasks,
            _drivers: drivers,
            _gateway: gateway,
        }
    }

    /// Cuts the connection and writes a byte each way; says how long after the return each arrives.
    async fn cut(&mut self, away: Duration, outage: Outage) -> (Duration, Duration) {
        // A connection that has lasted is replaced at once.
        let settled = sleep(Duration::from_millis(1100));
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => break,
                event = self.uplink.next() => present(&mut self.uplink, &event),
            }
        }
        self.relay.state.send_modify(|state| {
            state.generation += 1;
            state.down = (!away.is_zero()).then_some(outage);
        });
        self.far
            .write_chunk(Bytes::from_static(b"u"))
            .await
            .expect("room");
        self.near
            .write_chunk(Bytes::from_static(b"d"))
            .await
            .expect("room");
        let back = sleep(away);
        tokio::pin!(back);
        let mut returned = None;
        let (mut up, mut down) = (None, None);
        loop {
            if let (Some(up), Some(down)) = (up, down) {
                return (up, down);
            }
            let since = || returned.map(|at: Instant| at.elapsed()).unwrap_or_default();
            tokio::select! {
                () = &mut back, if returned.is_none() => {
                    returned = Some(Instant::now());
                    self.relay.state.send_modify(|state| state.down = None);
                }
                byte = self.near.read_chunk(), if up.is_none() => {
                    byte.expect("a byte");
                    up = Some(since());
                }
                byte = self.far.read_chunk(), if down.is_none() => {
                    byte.expect("a byte");
                    down = Some(since());
                }
                Some(incoming) = self.hellos.recv() => {
                    incoming.resume(&self.edge).expect("the claim holds");
                }
                event = self.uplink.next() => present(&mut self.uplink, &event),
            }
        }
    }
}

fn present(uplink: &mut Uplink, event: &UplinkEvent) {
    if matches!(event, UplinkEvent::Dialled { .. }) {
        uplink.present(Bytes::from_static(b"credential"));
    }
}

/// Takes connections in, each in a task of its own.
async fn greet(listener: TcpListener, tell: mpsc::Sender<Incoming<TcpStream>>) {
    let mut greetings = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let tell = tell.clone();
        greetings.spawn(async move {
            let _ = socket.set_nodelay(true);
            let acceptor = TlsAcceptor::from(Arc::clone(&tls().server));
            let Ok(tls) = acceptor.accept(socket).await else {
                return;
            };
            if let Ok(incoming) = accept(tls, &LinkConfig::default().set_keep(KEEP)).await {
                let _ = tell.send(incoming).await;
            }
        });
        while greetings.try_join_next().is_some() {}
    }
}

/// What a relay carries.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Connections of earlier generations are dropped.
    generation: u64,
    /// What becomes of connections that come now.
    down: Option<Outage>,
}

/// How a network is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// Nobody listens.
    Refuses,
    /// Connections come about, and are closed before a word.
    Closes,
}

/// Delays what it carries, and drops its connections when it is told to.
struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (state, mut watched) = watch::channel(State::default());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut listener, mut connections) = (Some(listener), JoinSet::new());
            loop {
                let refuses = watched.borrow_and_update().down == Some(Outage::Refuses);
                if refuses {
                    listener = None;
                } else if listener.is_none() {
                    listener = TcpListener::bind(address).await.ok();
                }
                let accepted = async {
                    match &listener {
                        Some(listener) => listener.accept().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = watched.changed() => if changed.is_err() { return },
                    Ok((near, _)) = accepted => {
                        connections.spawn(carry(near, target, delay, watched.clone()));
                    }
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            state,
            _task: task,
        }
    }
}

async fn carry(
    near: TcpStream,
    target: SocketAddr,
    delay: Duration,
    mut state: watch::Receiver<State>,
) {
    let State { generation, down } = *state.borrow();
    if down.is_some() {
        return;
    }
    // A new connection costs a round trip before its first byte.
    sleep(2 * delay).await;
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::select! {
        _ = state.wait_for(|state| state.generation != generation) => {}
        ((), ()) = async {
            tokio::join!(one_way(from_near, to_far, delay), one_way(from_far, to_near, delay))
        } => {}
    }
}

async fn one_way(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let (send, mut receive) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            let piece = buffer.get(..count).unwrap_or_default().to_vec();
            let due = tokio::time::Instant::now() + delay;
            if count == 0 || send.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = receive.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
