//! Multiplexers side by side, each over TLS 1.3: ours, yamux, tokio-yamux, h2, and TLS with nothing above it.
//!
//! `cargo xtask bench mux` (with the codec and the memory of what is idle), or `cargo bench -p benches --bench mux`.
//! Every peer does the same work through its own natural interface, over the same connections: see `benches::load` for
//! the loads and `benches::scene` for the places. Rounds of the peers alternate; a figure is the median of its rounds.

mod resume;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use benches::{
    clock::Clock,
    conduit::Mux,
    load::{Beside, Load, Span, beside_bulk, exactly, rate},
    options::Options,
    peers::{H2, Ours, Raw, TokioYamux, Yamux},
    pipe::Length,
    scene::{Place, Scene},
    table::{Table, Unit, finish, median},
};

/// What is done with each peer. Types cannot stand in a list, functions of them can.
struct Peer {
    name: &'static str,
    rate: fn(Place, Load, Span, Clock) -> Option<f64>,
    beside: fn(Place, Span) -> Option<Beside>,
    exactly: fn(Load, usize),
}

const fn peer<M: Mux>() -> Peer {
    Peer {
        name: M::NAME,
        rate: rate_of::<M>,
        beside: beside_of::<M>,
        exactly: exactly_of::<M>,
    }
}

const PEERS: [Peer; 5] = [
    peer::<Ours<false>>(),
    peer::<Yamux>(),
    peer::<TokioYamux>(),
    peer::<H2>(),
    peer::<Raw>(),
];
/// Ours where the session survives its connection: beside ours without, only.
const KEPT: Peer = peer::<Ours<true>>();
const NAMES: [&str; 5] = [
    PEERS[0].name,
    PEERS[1].name,
    PEERS[2].name,
    PEERS[3].name,
    PEERS[4].name,
];
/// All but the last, which has one stream only.
const RIVALS: usize = 4;

const LOADS: [(Load, &str, Unit); 8] = [
    (Load::Bulk(1), "bulk, 1 stream", Unit::BytesPerSecond),
    (Load::Bulk(64), "bulk, 64 streams", Unit::BytesPerSecond),
    (
        Load::Bulk(1024),
        "bulk, 1,024 streams",
        Unit::BytesPerSecond,
    ),
    (Load::Turns(1), "1 KiB ping-pong, 1 stream", Unit::PerSecond),
    (
        Load::Turns(64),
        "1 KiB ping-pong, 64 streams",
        Unit::PerSecond,
    ),
    (
        Load::Turns(1024),
        "1 KiB ping-pong, 1,024 streams",
        Unit::PerSecond,
    ),
    (
        Load::Calls(1),
        "open, call, close; 1 at once",
        Unit::PerSecond,
    ),
    (
        Load::Calls(64),
        "open, call, close; 64 at once",
        Unit::PerSecond,
    ),
];

const PLACES: [(Place, &str); 4] = [
    (Place::Memory, "in memory"),
    (Place::Loopback, "loopback TLS"),
    (Place::Link(Length::new(1000, 20)), "1 Gbit/s, RTT 20 ms"),
    (Place::Link(Length::new(1000, 60)), "1 Gbit/s, RTT 60 ms"),
];

/// Where small calls are made beside bulk: links that one stream of every peer fills.
const SATURATED: [(Place, &str); 5] = [
    (Place::Memory, "in memory"),
    (Place::Loopback, "loopback TLS"),
    (
        Place::OwnSockets,
        "loopback TLS, each with its own socket options",
    ),
    (Place::Link(Length::new(100, 20)), "100 Mbit/s, RTT 20 ms"),
    (Place::Link(Length::new(20, 60)), "20 Mbit/s, RTT 60 ms"),
];

fn main() -> std::io::Result<()> {
    let options = Options::of_process();
    if let Some((name, count)) = &options.once {
        once(name, *count);
        return Ok(());
    }
    let clock = Clock::of_environment();
    let mut tables = Vec::new();
    for (place, title) in PLACES {
        tables.push(loads(place, title, &options, clock));
    }
    tables.push(beside(&options));
    tables.push(resume::cost(&options));
    tables.push(resume::pause(&options));
    finish(&tables, options.json.as_deref())
}

/// How long a load runs, and how often.
fn span(place: Place, quick: bool) -> (Span, usize) {
    let of = |warm_up, counted| Span {
        warm_up: Duration::from_millis(warm_up),
        counted: Duration::from_millis(counted),
    };
    match (place, quick) {
        // Windows grow with round trips; what counts is how wide they become.
        (Place::Link(_), false) => (of(1000, 1500), 1),
        (Place::Link(_), true) => (of(300, 200), 1),
        (_, false) => (of(200, 500), 3),
        (_, true) => (of(50, 50), 1),
    }
}

fn loads(place: Place, title: &str, options: &Options, clock: Clock) -> Table {
    let mut table = Table::new(title, &NAMES, RIVALS);
    let (span, rounds) = span(place, options.quick);
    for (load, name, unit) in LOADS {
        if !options.wants(&format!("{title}: {name}")) {
            continue;
        }
        let mut figures = vec![Vec::new(); PEERS.len()];
        for _ in 0..rounds {
            for (peer, figures) in PEERS.iter().zip(&mut figures) {
                let fits =
                    peer.name != NAMES[RIVALS] || matches!(load, Load::Bulk(1) | Load::Turns(1));
                if fits {
                    figures.extend((peer.rate)(place, load, span, clock));
                }
            }
        }
        table.push(name, unit, figures.into_iter().map(median).collect());
    }
    table
}

/// One small call after another while a bulk stream takes what it can get.
fn beside(options: &Options) -> Table {
    let rivals = NAMES.get(..RIVALS).unwrap_or_default();
    let mut table = Table::new("small calls beside bulk: p50/p99, bulk", rivals, RIVALS);
    for (place, title) in SATURATED {
        if !options.wants(&format!("beside bulk: {title}")) {
            continue;
        }
        let counted = if options.quick { 200 } else { 3000 };
        let span = Span {
            warm_up: span(place, options.quick).0.warm_up,
            counted: Duration::from_millis(counted),
        };
        let outcomes = PEERS
            .iter()
            .take(RIVALS)
            .map(|peer| (peer.beside)(place, span));
        let outcomes: Vec<_> = outcomes.collect();
        // A peer whose bulk has stopped has nothing to be fair about.
        let most = outcomes.iter().flatten().map(|beside| beside.bulk);
        let half = most.fold(0.0, f64::max) / 2.0;
        let figures = outcomes.iter().map(|beside| {
            let beside = beside.as_ref().filter(|beside| beside.bulk >= half)?;
            Some(beside.p99.as_secs_f64())
        });
        let texts = outcomes.iter().map(|beside| match beside {
            Some(Beside { median, p99, bulk }) => format!(
                "{:.2}/{:.2} ms, {:.1} MB/s",
                median.as_secs_f64() * 1e3,
                p99.as_secs_f64() * 1e3,
                bulk / 1e6
            ),
            None => String::new(),
        });
        table.push_shown(title, Unit::Seconds, figures.collect(), texts.collect());
    }
    table
}

fn rate_of<M: Mux>(place: Place, load: Load, span: Span, clock: Clock) -> Option<f64> {
    guarded(|| {
        let scene = Scene::<M>::set(place);
        scene.run(rate::<M>(&scene.client, &scene.threads, load, span, clock))
    })
}

fn beside_of<M: Mux>(place: Place, span: Span) -> Option<Beside> {
    guarded(|| {
        let scene = Scene::<M>::set(place);
        scene.run(beside_bulk::<M>(&scene.client, span))
    })
}

fn exactly_of<M: Mux>(load: Load, count: usize) {
    let scene = Scene::<M>::set(Place::Memory);
    scene.run(exactly::<M>(&scene.client, load, count));
}

/// A peer that fails leaves its place in the table empty.
fn guarded<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok().flatten()
}

/// `LOAD:PEER`, exactly so often and nothing else; a number behind the load says how many at once.
fn once(name: &str, count: usize) {
    let (load, name) = name.split_once(':').unwrap_or((name, PEERS[0].name));
    let digits = load.find(|letter: char| letter.is_ascii_digit());
    let (load, at_once) = load.split_at(digits.unwrap_or(load.len()));
    let at_once = at_once.parse().unwrap_or(1);
    let load = match load {
        "bulk" => Load::Bulk(at_once),
        "turns" => Load::Turns(at_once),
        _ => Load::Calls(at_once),
    };
    let mut peers = PEERS.iter().chain([&KEPT]);
    if let Some(peer) = peers.find(|peer| peer.name == name) {
        (peer.exactly)(load, count);
    }
}
