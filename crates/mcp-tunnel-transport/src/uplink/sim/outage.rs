//! How soon a byte crosses once the network is back, and what a gateway sends until then: in virtual time, to the
//! millisecond.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mcp_tunnel_proto::{OpenHeader, Refusal, RefusalCode, RouteName, StreamKind};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Known, edge, link_config,
    net::{Network, Weather},
    tell, tls, uplink,
};
use crate::{
    Link, ReadAhead, Stream, Uplink, UplinkEvent, accept, sleep::simulated, timer::now,
    uplink::knock::MAX_UNDER_WAY,
};

const SEEDS: u64 = 12;
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// The grain of the clock, over all round trips.
const WIRE: Duration = Duration::from_millis(6);
/// The default of `UplinkConfig::set_kept_pace`.
const PACE: Duration = Duration::from_millis(500);

/// A session with one stream, whose ends are at hand.
struct World {
    network: Network,
    edge: Link,
    near: Stream,
    far: Stream,
    _gateway: Link,
    _tasks: JoinSet<()>,
}

impl World {
    async fn start(seed: u64, round_trip: Duration) -> Self {
        Self::driven(seed, round_trip, None).await
    }

    /// Where `cut` is given, each wait for the uplink is given up after that, and begun again.
    async fn driven(seed: u64, round_trip: Duration, cut: Option<Duration>) -> Self {
        let (network, arriving) = Network::calm(seed, round_trip / 2);
        let known = Known::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(edge(arriving, Arc::clone(&known)));
        let (links, mut active) = mpsc::channel(1);
        tasks.spawn(drive(links, cut));
        let gateway = active.recv().await.unwrap();
        let edge = known.lock().unwrap().clone().unwrap();
        let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        let near = edge.open(header, Bytes::from_static(b"!")).await.unwrap();
        let mut far = gateway.accept().await.unwrap().stream;
        assert_eq!(far.read_chunk().await.unwrap().unwrap(), "!");
        // It lasts, and a ping tells the round trip.
        sleep(20 * SECOND).await;
        Self {
            network,
            edge,
            near,
            far,
            _gateway: gateway,
            _tasks: tasks,
        }
    }

    /// Ends the outage, and says how long after that a byte of each side arrives: at the edge, at the gateway. Both were
    /// written before.
    async fn first_bytes(&mut self) -> [Duration; 2] {
        let back = now();
        tell(format_args!("the network is back"));
        self.network.turns(Weather::Fair);
        let (at_edge, at_gateway) = tokio::join!(arrival(&mut self.near), arrival(&mut self.far));
        [at_edge - back, at_gateway - back]
    }

    async fn outage(&mut self, weather: Weather, away: Duration) -> [Duration; 2] {
        self.network.turns(weather);
        self.near
            .write_chunk(Bytes::from_static(b"d"))
            .await
            .unwrap();
        self.far
            .write_chunk(Bytes::from_static(b"u"))
            .await
            .unwrap();
        sleep(away).await;
        self.first_bytes().await
    }
}

async fn arrival(stream: &mut Stream) -> Instant {
    stream.read_chunk().await.unwrap().unwrap();
    now()
}

async fn drive(links: mpsc::Sender<Link>, cut: Option<Duration>) {
    let mut uplink = uplink();
    loop {
        let event = match cut {
            None => uplink.next().await,
            Some(after) => match timeout(after, uplink.next()).await {
                Ok(event) => event,
                Err(_elapsed) => continue,
            },
        };
        tell(format_args!("gateway: {event:?}"));
        match event {
            UplinkEvent::Dialled { .. } => uplink.present(Bytes::from_static(b"credential")),
            UplinkEvent::Active { link, .. } => links.try_send(link).expect("one session"),
            UplinkEvent::Refused { code, .. } => panic!("refused: {code}"),
            _ => {}
        }
    }
}

/// Plays a scene once for each seed, on a paused clock.
fn each_seed<T>(mut scene: impl AsyncFnMut(u64) -> T) -> Vec<T> {
    let play = |seed| {
        let _named = super::Seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(scene(seed))
    };
    (0..SEEDS).map(play).collect()
}

/// The first byte at either end, at the latest: what is waited for, and the round trips of TCP, TLS and HELLO; half a one
/// more to the edge, which has to say first how far it has received.
#[track_caller]
fn check(pauses: &[[Duration; 2]], waited: Duration, round_trip: Duration) {
    for [at_edge, at_gateway] in pauses {
        assert!(*at_gateway <= waited + 3 * round_trip + WIRE, "{pauses:?}");
        assert!(*at_edge <= waited + round_trip * 7 / 2 + WIRE, "{pauses:?}");
    }
}

#[test]
fn a_reset_costs_three_round_trips() {
    let round_trip = 60 * MS;
    let pauses = each_seed(async |seed| {
        let mut world = World::start(seed, round_trip).await;
        world.outage(Weather::Refuses, Duration::ZERO).await
    });
    check(&pauses, Duration::ZERO, round_trip);
}

#[test]
fn a_network_that_refused_for_two_seconds_is_met_within_the_pace() {
    for weather in [Weather::Refuses, Weather::Closes] {
        let round_trip = 60 * MS;
        let pauses = each_seed(async |seed| {
            let mut world = World::start(seed, round_trip).await;
            world.outage(weather, 2 * SECOND).await
        });
        // An attempt that just failed has taken up to two round trips.
        check(&pauses, PACE + 2 * round_trip, round_trip);
        let waited: Duration = pauses.iter().map(|[_, at_gateway]| *at_gateway).sum();
        let drawn = u32::try_from(SEEDS).unwrap();
        assert!(waited / drawn < PACE / 2 + 5 * round_trip, "{pauses:?}");
    }
}

#[test]
fn a_network_that_swallowed_everything_is_met_within_the_pace() {
    for (away, round_trip) in [(30, 60), (45, 60), (45, 400)] {
        let round_trip = round_trip * MS;
        let pauses = each_seed(async |seed| {
            let mut world = World::start(seed, round_trip).await;
            let pauses = world.outage(Weather::Swallows, away * SECOND).await;
            assert!(world.network.most_dialling() <= MAX_UNDER_WAY);
            pauses
        });
        check(&pauses, PACE.max(4 * round_trip), round_trip);
    }
}

#[test]
fn an_edge_that_is_away_for_a_minute_hears_four_attempts_a_second_at_most() {
    for weather in [Weather::Refuses, Weather::Closes, Weather::Swallows] {
        each_seed(async |seed| {
            let world = World::start(seed, 60 * MS).await;
            let before = world.network.dialled();
            world.network.turns(weather);
            sleep(60 * SECOND).await;
            let dialled = world.network.dialled() - before;
            assert!((80..=242).contains(&dialled), "{weather:?}: {dialled}");
            assert!(world.network.most_dialling() <= MAX_UNDER_WAY);
        });
    }
}

/// Four attempts a pace apart are younger than such a path takes: the oldest is left alone.
#[test]
fn a_path_that_has_become_slow_is_found_all_the_same() {
    each_seed(async |seed| {
        let mut world = World::start(seed, 60 * MS).await;
        world.network.takes(1500 * MS);
        let [_, at_gateway] = world.outage(Weather::Refuses, Duration::ZERO).await;
        assert!(at_gateway < 30 * SECOND, "{at_gateway:?}");
    });
}

/// As where the network that is left knows the other family of addresses only.
#[test]
fn an_edge_that_is_reached_at_another_address_is_found_there() {
    let round_trip = 60 * MS;
    let pauses = each_seed(async |seed| {
        let mut world = World::start(seed, round_trip).await;
        world.network.edge_moves(([192, 0, 2, 1], 1).into());
        world.outage(Weather::Swallows, 30 * SECOND).await
    });
    check(&pauses, 2 * SECOND + 2 * PACE, round_trip);
}

#[test]
fn a_dropped_next_loses_no_attempt() {
    let round_trip = 60 * MS;
    let cut = 7 * MS;
    let pauses = each_seed(async |seed| {
        let mut world = World::driven(seed, round_trip, Some(cut)).await;
        let pauses = world.outage(Weather::Swallows, 30 * SECOND).await;
        assert!(world.edge.is_open());
        pauses
    });
    check(&pauses, PACE, round_trip);
}

/// An uplink without a session that will not dial for ten seconds at least.
async fn backed_off(network: &Network) -> Uplink {
    let mut uplink = uplink();
    network.turns(Weather::Refuses);
    loop {
        match uplink.next().await {
            UplinkEvent::Waiting { delay } if delay > 10 * SECOND => return uplink,
            _ => {}
        }
    }
}

/// Says that nothing happens for some time, and then lets something happen: how soon it dials.
async fn dials_after(uplink: &mut Uplink, happens: impl FnOnce()) -> Duration {
    assert!(timeout(3 * SECOND, uplink.next()).await.is_err());
    happens();
    let start = now();
    let event = uplink.next().await;
    assert!(matches!(event, UplinkEvent::Dialling { .. }), "{event:?}");
    now() - start
}

const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

#[test]
fn a_machine_that_wakes_or_moves_dials_at_once() {
    each_seed(async |seed| {
        let (network, _arriving) = Network::calm(seed, Duration::ZERO);
        let mut uplink = backed_off(&network).await;
        let slept = dials_after(&mut uplink, || simulated::sleep(3600 * SECOND)).await;
        let mut uplink = backed_off(&network).await;
        let moved = dials_after(&mut uplink, || network.moves(Some(ELSEWHERE))).await;
        // That there is no way is no reason to dial; that there is one again is.
        let mut uplink = backed_off(&network).await;
        network.moves(None);
        let back = dials_after(&mut uplink, || network.moves(Some(ELSEWHERE))).await;
        assert!(slept.max(moved).max(back) <= SECOND);
    });
}

#[test]
fn an_edge_that_asked_for_peace_has_it_though_the_machine_moves() {
    each_seed(async |seed| {
        let (network, mut arriving) = Network::calm(seed, Duration::ZERO);
        let asked = 60 * SECOND;
        let refuse = async {
            let tls = tls()
                .1
                .accept(ReadAhead::new(arriving.recv().await.unwrap()));
            let incoming = accept(tls.await.unwrap(), &link_config()).await.unwrap();
            let refusal = Refusal::new(RefusalCode::OVERLOADED, "").retry_after(asked);
            incoming.refuse(refusal).await;
        };
        let mut uplink = uplink();
        let run = async {
            loop {
                match uplink.next().await {
                    UplinkEvent::Dialled { .. } => uplink.present(Bytes::new()),
                    UplinkEvent::Waiting { .. } => return now(),
                    _ => {}
                }
            }
        };
        let ((), refused) = tokio::join!(refuse, run);
        let _moved = dials_after(&mut uplink, || network.moves(Some(ELSEWHERE))).await;
        assert!(now() - refused >= asked);
    });
}
