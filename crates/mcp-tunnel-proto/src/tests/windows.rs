//! Windows and what is retained grow with what a link carries, and give back what they took.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};

use super::{
    frames::bytes_of,
    pair::{End, Pair, http},
};
use crate::{Config, Frame, ResetCode, StreamId, Transmit, WriteError};

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;
static PAYLOAD: [u8; 1 << 20] = [7; 1 << 20];

/// One direction of a link: a rate, a delay, and a socket's buffer before it.
struct Lane {
    /// Bytes a millisecond.
    rate: u64,
    delay: Duration,
    /// When all that was given to it has left.
    free: Instant,
    on_way: VecDeque<(Instant, Bytes)>,
}

impl Lane {
    fn new(now: Instant, megabits: u64, round_trip: Duration) -> Self {
        Self {
            rate: megabits * 125,
            delay: round_trip / 2,
            free: now,
            on_way: VecDeque::new(),
        }
    }

    /// Takes what an end has to send, as long as its buffer has room. Says when to ask again, if it was full.
    fn take(&mut self, now: Instant, end: &mut End) -> Option<Instant> {
        let ahead = self.time(64 * 1024).max(MS);
        loop {
            if self.free > now + ahead {
                return Some(self.free - ahead);
            }
            let mut out = Transmit::new(16 * 1024);
            if !end.connection.poll_transmit(now, &mut out) {
                return None;
            }
            let bytes = out.copy_to_bytes(out.remaining());
            self.free = self.free.max(now) + self.time(bytes.len().try_into().unwrap());
            self.on_way.push_back((self.free + self.delay, bytes));
        }
    }

    fn time(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 1_000_000 / self.rate)
    }

    fn deliver(&mut self, now: Instant, end: &mut End) {
        while self.on_way.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.on_way.pop_front().unwrap();
            end.feed(now, &bytes);
        }
    }
}

/// A link, two sessions, and one budget of memory for each.
struct World {
    pair: Pair,
    up: Lane,
    down: Lane,
    budget: u64,
}

impl World {
    fn new(megabits: u64, round_trip: Duration, config: Config) -> Self {
        let pair = Pair::resumable(config.clone(), config);
        let now = pair.now;
        Self {
            pair,
            up: Lane::new(now, megabits, round_trip),
            down: Lane::new(now, megabits, round_trip),
            budget: 256 * MIB,
        }
    }

    /// Runs for `time`; `app` does what the applications do, whenever something has happened.
    fn run(&mut self, time: Duration, app: &mut dyn FnMut(&mut Pair)) {
        let end = self.pair.now + time;
        while self.pair.now < end {
            let now = self.pair.now;
            self.up.deliver(now, &mut self.pair.edge);
            self.down.deliver(now, &mut self.pair.gateway);
            self.pair.pass(Duration::ZERO);
            app(&mut self.pair);
            let full = [
                self.up.take(now, &mut self.pair.gateway),
                self.down.take(now, &mut self.pair.edge),
            ];
            for end in [&mut self.pair.gateway, &mut self.pair.edge] {
                // As a transport does it: in lumps.
                let wanted = end.connection.memory_wanted().next_multiple_of(MIB / 4);
                end.connection.allow_memory(wanted.min(self.budget));
                end.collect();
                assert_eq!(end.failed, None);
            }
            let arrivals = [self.up.on_way.front(), self.down.on_way.front()];
            let arrivals = arrivals.into_iter().flatten().map(|(at, _)| *at);
            let next = full.into_iter().flatten().chain(arrivals).min();
            let next = next.unwrap_or(end).min(self.pair.gateway_or_edge_timeout());
            self.pair.now = next.max(now + MS / 1000).min(end);
        }
    }
}

impl Pair {
    fn gateway_or_edge_timeout(&self) -> Instant {
        let timeouts = [&self.gateway, &self.edge].map(|end| end.connection.poll_timeout());
        timeouts.into_iter().flatten().min().unwrap()
    }
}

/// An answer that is written as fast as there is room, and read as fast as it comes.
struct Bulk {
    id: StreamId,
    read: u64,
}

impl Bulk {
    fn open(pair: &mut Pair) -> Self {
        let id = pair.edge.open(b"");
        Self { id, read: 0 }
    }

    fn write(&self, pair: &mut Pair) {
        let Some(mut send) = pair.gateway.connection.send_stream(self.id) else {
            return;
        };
        while send.write(&mut Bytes::from_static(&PAYLOAD)).is_ok() {}
    }

    fn read(&mut self, pair: &mut Pair) {
        let Some(mut recv) = pair.edge.connection.recv_stream(self.id) else {
            return;
        };
        while let Ok(Some(piece)) = recv.read(usize::MAX) {
            self.read += u64::try_from(piece.len()).unwrap();
        }
    }
}

/// A bulk stream that had twelve round trips and 100 ms to grow.
fn grown(megabits: u64, round_trip: Duration, config: Config) -> (World, Bulk) {
    let mut world = World::new(megabits, round_trip, config);
    let mut bulk = Bulk::open(&mut world.pair);
    world.run(100 * MS + round_trip * 12, &mut |pair| {
        bulk.write(pair);
        bulk.read(pair);
    });
    (world, bulk)
}

/// Thousandths of what a link carries that a bulk stream gets.
fn share(megabits: u64, round_trip: Duration) -> u64 {
    let (mut world, mut bulk) = grown(megabits, round_trip, Config::default());
    let before = bulk.read;
    world.run(400 * MS, &mut |pair| {
        bulk.write(pair);
        bulk.read(pair);
    });
    (bulk.read - before) * 1000 / (400 * megabits * 125)
}

/// Within twelve round trips and 100 ms of its first byte a bulk stream gets nine tenths of the link.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn a_bulk_stream_fills_the_link() {
    for round_trip in [0, 20, 60] {
        for megabits in [10, 100, 1000, 2000] {
            let share = share(megabits, round_trip * MS);
            assert!(
                share >= 900,
                "{share} of 1000 at {megabits} Mbit/s, {round_trip} ms"
            );
        }
    }
}

/// What has grown goes back: of a stream that slows down, as its promise is used up; of one that ends, at once.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn windows_shrink_when_they_are_not_needed() {
    let (mut world, mut bulk) = grown(1000, 20 * MS, Config::default());
    let receiver = &world.pair.edge.connection;
    assert!(receiver.memory() >= 4 * MIB, "{}", receiver.memory());
    let sender = &world.pair.gateway.connection;
    assert!(sender.memory() >= MIB, "{}", sender.memory());
    // The stream trickles: 64 KiB each 20 ms, where it had 2.5 MB.
    let mut room = 0;
    for _ in 0..1000 {
        world.run(20 * MS, &mut |pair| bulk.read(pair));
        let mut send = world.pair.gateway.connection.send_stream(bulk.id).unwrap();
        let mut piece = Bytes::from_static(&PAYLOAD[..65536]);
        assert_ne!(send.write(&mut piece), Err(WriteError::Blocked));
        room = send.capacity();
        if world.pair.edge.connection.memory() <= MIB / 2 {
            break;
        }
    }
    let receiver = &world.pair.edge.connection;
    assert!(receiver.memory() <= MIB / 2, "{}", receiver.memory());
    assert!(room < 1 << 20, "{room}");
    // The sender's bound falls while the link is idle.
    world.run(Duration::from_secs(60), &mut |pair| bulk.read(pair));
    assert_eq!(world.pair.gateway.connection.memory(), 0);
    // After the pause it grows again.
    let before = bulk.read;
    world.run(400 * MS, &mut |pair| {
        bulk.write(pair);
        bulk.read(pair);
    });
    assert!(bulk.read - before > 20 * MIB, "{}", bulk.read - before);
    assert!(world.pair.edge.connection.memory() > MIB);
    world.pair.edge.stop(bulk.id, ResetCode::CANCELLED);
    assert_eq!(world.pair.edge.connection.memory(), 0);
}

/// Without any memory beyond the least everything goes on, in both directions at once.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn nothing_stands_still_without_memory() {
    let config = Config::default()
        .set_retained(1)
        .set_session_window(1)
        .set_send_buffer(1)
        .set_session_send_buffer(1);
    let mut world = World::new(100, 20 * MS, config);
    world.budget = 0;
    let ids: Vec<StreamId> = (0..40).map(|_| world.pair.edge.open(b"")).collect();
    let mut read = [0_usize; 2];
    world.run(Duration::from_secs(5), &mut |pair| {
        for (end, read) in [&mut pair.gateway, &mut pair.edge]
            .into_iter()
            .zip(&mut read)
        {
            for id in &ids {
                *read += end.read_all(*id).0.len();
                if let Some(mut send) = end.connection.send_stream(*id) {
                    let _ = send.write(&mut Bytes::from_static(&PAYLOAD[..20_000]));
                }
            }
            assert_eq!(end.connection.memory(), 0);
            // RESUME: the bound, beside heads and ends.
            assert!(end.connection.retained() <= 128 * 1024 + 40 * 12);
        }
    });
    // 64 KiB a round trip, and one for the acknowledgement.
    for read in read {
        assert!(read > 4 << 20, "{read} bytes in 5 s");
    }
}

/// A thousand readers that keep up at first, so that their windows grow, and then read no more: what they hold stays
/// within the formula of [`Config`], and a stream that comes later goes on as before.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn a_thousand_slow_readers_hold_what_is_stated() {
    let config = Config::default()
        .set_max_streams(1024)
        .set_max_opened_streams(1024)
        .set_shared_window(4 * MIB)
        .set_max_retained(MIB);
    let mut world = World::new(2000, 2 * MS, config.clone());
    let mut bulks: Vec<Bulk> = (0..1000).map(|_| Bulk::open(&mut world.pair)).collect();
    for _ in 0..400 {
        world.run(5 * MS, &mut |_| {});
        for bulk in &mut bulks {
            bulk.write(&mut world.pair);
            if bulk.read < 100_000 {
                bulk.read(&mut world.pair);
            }
        }
    }
    assert!(bulks.iter().all(|bulk| bulk.read >= 100_000));
    let receiver = &mut world.pair.edge.connection;
    let unread: usize = bulks
        .iter()
        .map(|bulk| receiver.recv_stream(bulk.id).unwrap().buffered())
        .sum();
    let stated = 1000 * config.stream_window() + config.shared_window();
    let unread = u64::try_from(unread).unwrap();
    assert!(unread <= stated, "{unread} bytes of {stated}");
    assert!(unread > stated / 2, "they do hold much: {unread}");
    assert!(receiver.memory() <= config.shared_window());
    let sender = &world.pair.gateway.connection;
    assert!(sender.memory() <= MIB - config.retained());
    let mut other = Bulk::open(&mut world.pair);
    world.run(500 * MS, &mut |pair| {
        other.write(pair);
        other.read(pair);
    });
    // A first window a round trip at least.
    assert!(other.read > 10 * MIB, "{} bytes", other.read);
}

/// A peer that gives any credit and acknowledges nothing makes this side keep no more than it always may.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn an_ungrateful_peer_is_sent_little() {
    let mut pair = Pair::resumable(Config::default(), Config::default());
    let id = pair.edge.open(b"");
    pair.run();
    let now = pair.now;
    for limit in [1 << 40, 1 << 41] {
        pair.gateway
            .feed(now, &bytes_of(&Frame::SessionCredit(limit)));
        pair.gateway
            .feed(now, &bytes_of(&Frame::StreamCredit { id, limit }));
    }
    for _ in 0..1000 {
        let _ = pair.gateway.write(id, &PAYLOAD);
        let _ = pair.gateway.drain(now);
    }
    let config = Config::default();
    let kept = pair.gateway.connection.retained();
    assert!(kept <= config.retained(), "{kept}");
    assert!(kept > config.retained() - 20_000, "{kept}");
    assert_eq!(pair.gateway.connection.memory(), 0);
    // New streams still open, and control still goes.
    assert!(
        pair.gateway
            .connection
            .open(http(), &mut Bytes::new())
            .is_ok()
    );
    assert!(!pair.gateway.drain(now).is_empty());
}

/// A window that was refused memory is renewed as it is, and grows as soon as there is some.
#[test]
fn a_window_that_was_refused_memory_gets_it_later() {
    let mut pair = Pair::new();
    pair.edge.connection.allow_memory(0);
    let id = pair.edge.open(b"");
    pair.run();
    let room = |pair: &mut Pair| {
        let send = pair.gateway.connection.send_stream(id);
        send.unwrap().capacity()
    };
    let first = room(&mut pair);
    assert_eq!(pair.gateway.write(id, &PAYLOAD), Ok(first));
    pair.run();
    assert_eq!(pair.edge.read_all(id).0.len(), first);
    pair.run();
    assert_eq!(room(&mut pair), first);
    let connection = &mut pair.edge.connection;
    assert_eq!(connection.memory(), 0);
    let wanted = connection.memory_wanted();
    connection.allow_memory(wanted);
    pair.run();
    assert_eq!(room(&mut pair), Config::default().send_buffer());
    assert_eq!(pair.edge.connection.memory(), wanted);
}
