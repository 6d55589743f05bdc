//! A gateway's uplink and an edge over a hostile network, with TLS, drivers and handles as they are, on the runtime's
//! paused clock. A run is determined by its seed, but for a byte or two of TLS' own random numbers.
//!
//! `MCP_SIM_SEED=n` plays one seed again, `MCP_SIM_SEEDS=n` that many of them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that fails may panic anywhere, and names its seed"
)]

mod net;
mod outage;
pub(super) mod outside;

use std::{
    collections::BTreeSet,
    env,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, OpenHeader, Refusal, RefusalCode, RouteName, StreamKind};
use rustls::sign::SingleCertAndKey;
use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::net::{Network, Socket};
use super::{Uplink, UplinkEvent};
use crate::{
    CloseReason, IncomingStream, Link, LinkConfig, ReadAhead, Target, UplinkConfig, accept,
    local_ca::LocalCa,
    tls::{Trust, client_config, server_config},
};

const SEEDS: u64 = 150;
const HOSTILE: Duration = Duration::from_secs(15);
const KEEP: Duration = Duration::from_secs(90);
/// By then, whatever happened, every call has ended.
const LONGEST: Duration = Duration::from_secs(600);

/// One authority for all runs, and its edge's side of TLS.
fn tls() -> &'static (LocalCa, TlsAcceptor) {
    static TLS: OnceLock<(LocalCa, TlsAcceptor)> = OnceLock::new();
    TLS.get_or_init(|| {
        let ca = LocalCa::generate("tunnel.localhost", SystemTime::now()).unwrap();
        let leaf = ca.issue(SystemTime::now()).unwrap();
        let resolver = SingleCertAndKey::from(leaf.certified_key().unwrap());
        let server = server_config(Arc::new(resolver)).unwrap();
        (ca, TlsAcceptor::from(server))
    })
}

fn link_config() -> LinkConfig {
    LinkConfig::default().set_keep(KEEP)
}

fn uplink() -> Uplink {
    let trust = Trust::PinnedCa(tls().0.pin());
    let config = UplinkConfig::new(client_config(trust).unwrap()).set_link(link_config());
    Uplink::new(Target::new("edge.tunnel.localhost", 443).unwrap(), config)
}

/// The one session's link at the edge, once there is one.
type Known = Arc<Mutex<Option<Link>>>;

/// Takes connections, and judges them in whatever order they get there.
async fn edge(mut arriving: mpsc::Receiver<Socket>, known: Known) {
    let mut greetings = JoinSet::new();
    while let Some(socket) = arriving.recv().await {
        greetings.spawn(greet(socket, Arc::clone(&known)));
        while greetings.try_join_next().is_some_and(|ended| ended.is_ok()) {}
    }
}

async fn greet(socket: Socket, known: Known) {
    let network = Network::current();
    let pause = async |network: &Network| {
        if network.is_calm() {
            return;
        }
        let most = if network.is_hostile() { 900 } else { 20 };
        let pause = network.rng().millis(most);
        sleep(pause).await;
    };
    pause(&network).await;
    let tls = tls().1.accept(ReadAhead::new(socket));
    let Ok(Ok(tls)) = timeout(Duration::from_secs(5), tls).await else {
        return;
    };
    let Ok(incoming) = accept(tls, &link_config()).await else {
        return;
    };
    pause(&network).await;
    let link = known.lock().unwrap().clone();
    match (incoming.claim(), link) {
        (Some(_), Some(link)) => {
            let resumed = incoming.resume(&link);
            tell(format_args!(
                "edge: a claim, {:?}",
                resumed.as_ref().map_err(|error| error.error)
            ));
            if let Err(unresumed) = resumed {
                let refusal = Refusal::new(RefusalCode::SESSION, "");
                unresumed.incoming.refuse(refusal).await;
            }
        }
        (None, None) => {
            let (link, driver) = incoming.admit().unwrap();
            *known.lock().unwrap() = Some(link);
            driver.run().await;
        }
        (claim, _) => panic!("a second session, or one from nowhere: {claim:?}"),
    }
}

/// Sends back what comes on each stream; every call comes once.
async fn echo(link: Link) -> BTreeSet<u64> {
    let (mut served, mut calls) = (BTreeSet::new(), JoinSet::new());
    while let Some(incoming) = link.accept().await {
        let number = incoming
            .header
            .deadline
            .map_or(0, |number| number.as_secs());
        assert!(served.insert(number), "call {number} came twice");
        calls.spawn(answer(incoming));
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
    served
}

async fn answer(incoming: IncomingStream) {
    let mut stream = incoming.stream;
    while let Ok(Some(chunk)) = stream.read_chunk().await {
        if stream.write_chunk(chunk).await.is_err() {
            return;
        }
    }
    let _ = stream.finish();
}

/// One call, whole or given up half-way; whether it was whole.
async fn call(link: Link, number: u64) -> bool {
    let network = Network::current();
    let (begins, length, given_up, slow) = {
        let mut rng = network.rng();
        let length = if rng.chance(50) {
            rng.bytes(3000)
        } else {
            rng.bytes(120_000)
        };
        let given_up = rng.chance(25).then(|| rng.millis(4000));
        (rng.millis(14_000), length, given_up, rng.chance(20))
    };
    sleep(begins).await;
    let whole = round_trip(&link, number, length, slow);
    match given_up {
        Some(after) => timeout(after, whole).await.is_ok(),
        None => {
            whole.await;
            true
        }
    }
}

async fn round_trip(link: &Link, number: u64, length: usize, slow: bool) {
    let sent: Vec<u8> = (0..length)
        .map(|n| (n / 7).to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ number.to_le_bytes()[0])
        .collect();
    let mut header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
    header.deadline = Some(Duration::from_secs(number));
    let (mut send, mut recv) = loop {
        // A link that is away for long lets nobody in once its slots are used; the call has not begun then.
        match link.open(header.clone(), Bytes::new()).await {
            Ok(stream) => break stream.split(),
            Err(error) => assert!(error.is_replay_safe(), "{error}"),
        }
    };
    let write = async {
        for chunk in sent.chunks(7000) {
            send.write_chunk(Bytes::copy_from_slice(chunk))
                .await
                .unwrap();
        }
        send.finish().unwrap();
    };
    let read = async {
        let mut received = Vec::new();
        if slow {
            while let Some(chunk) = recv.read_chunk().await.unwrap() {
                received.extend_from_slice(&chunk);
                sleep(Duration::from_millis(50)).await;
            }
        } else {
            recv.read_to_end(&mut received).await.unwrap();
        }
        received
    };
    let ((), received) = tokio::join!(write, read);
    assert!(
        received == sent,
        "call {number}: other bytes than were sent"
    );
}

/// Drives the uplink until it has stopped; it drains once `done`.
async fn gateway(done: mpsc::Receiver<()>, links: mpsc::Sender<Link>) {
    let (mut uplink, mut done) = (uplink(), Some(done));
    loop {
        let finished = async {
            match &mut done {
                Some(done) => done.recv().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            _ = finished => None,
            event = uplink.next() => Some(event),
        };
        tell(format_args!("gateway: {event:?}"));
        match event {
            None => {
                done = None;
                uplink.drain();
            }
            Some(UplinkEvent::Dialled { .. }) => uplink.present(Bytes::from_static(b"credential")),
            Some(UplinkEvent::Active { link, .. }) => {
                links.try_send(link).expect("one session");
            }
            Some(UplinkEvent::Refused { code, .. }) => panic!("refused: {code}"),
            Some(UplinkEvent::Stopped) => return,
            Some(_) => {}
        }
    }
}

/// One run: calls over whatever the network does, and nothing left behind. Says how often was dialled.
async fn play(seed: u64) -> u32 {
    let (network, arriving) = Network::start(seed, HOSTILE);
    let known = Known::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(edge(arriving, Arc::clone(&known)));
    let (done, is_done) = mpsc::channel(1);
    let (links, mut active) = mpsc::channel(1);
    let uplink = tasks.spawn(gateway(is_done, links));
    let gateway = active.recv().await.expect("a link");
    let mut served = JoinSet::new();
    served.spawn(echo(gateway.clone()));
    let link = known.lock().unwrap().clone().expect("the same link");
    let count = 3 + network.rng().below(6);
    let mut calls = JoinSet::new();
    for number in 1..=count {
        calls.spawn(call(link.clone(), number));
    }
    let mut whole = 0;
    while let Some(ended) = calls.join_next().await {
        whole += u64::from(ended.unwrap());
    }
    // The last words may wait for a connection.
    for _ in 0..100 {
        if link.live_streams() + gateway.live_streams() == 0 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(
        [link.live_streams(), gateway.live_streams()],
        [0, 0],
        "streams left"
    );
    sleep(Duration::from_secs(30)).await;
    // ACK-3: what is not worth an ACK of its own.
    assert!(link.retained() < 256 * 1024 && gateway.retained() < 256 * 1024);
    done.send(()).await.unwrap();
    // The farewell is lost where the last connection breaks under it: nothing else was left then.
    let reason = link.closed().await;
    let said = matches!(&reason, CloseReason::Peer { code, .. } if *code == CloseCode::SHUTDOWN);
    assert!(
        said || matches!(reason, CloseReason::Expired { .. }),
        "{reason}"
    );
    let served = served.join_next().await.unwrap().unwrap();
    assert!(
        served.len() as u64 >= whole,
        "a call was answered by nobody"
    );
    while let Some(ended) = tasks.join_next_with_id().await {
        if ended.unwrap().0 == uplink.id() {
            break;
        }
    }
    network.dialled()
}

/// What happens when, where one seed is played again.
fn tell(what: std::fmt::Arguments<'_>) {
    if let Some(seed) = number("MCP_SIM_SEED") {
        let at = Network::current().elapsed();
        eprintln!("seed {seed}, {at:?}: {what}");
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Names its seed if the run that it stands for panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} fails; play it again with MCP_SIM_SEED={seed}");
        }
    }
}

#[test]
fn an_uplink_over_a_hostile_network_loses_no_call() {
    let seeds = match number("MCP_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MCP_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut dialled = 0;
    for seed in seeds.clone() {
        let _named = Seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let played = runtime.block_on(async { timeout(LONGEST, play(seed)).await });
        dialled += u64::from(played.expect("every call ends in time"));
    }
    let played = seeds.end - seeds.start;
    assert!(
        played < SEEDS || dialled > 2 * played,
        "{dialled} connections only"
    );
}
