//! The network: links that are slow, late, cut or swallow everything, and that arrive in any order.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::Side;

/// Numbers that a seed determines (splitmix64).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.draw() % (most - least + 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }
}

/// What becomes of a link, in bytes that one of its directions has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// Nothing more arrives; each end hears of it, or only one.
    CutAt(usize),
    /// Nothing more arrives, and nobody hears of it.
    SwallowAt(usize),
}

/// One direction of a link.
struct Pipe {
    fate: Fate,
    carried: usize,
    /// In the socket's buffer or on the way, what was swallowed included.
    held: usize,
    flying: VecDeque<(Instant, Vec<u8>)>,
    last: Instant,
}

/// One attempt at a connection.
struct Link {
    pipes: [Pipe; 2],
    delay: Duration,
    jitter: u64,
    /// Bytes a millisecond.
    rate: usize,
    /// When its connection request reaches the edge.
    announced: Option<Instant>,
    /// When an end hears that it is dead.
    dead: [Option<Instant>; 2],
}

/// What one end of a link holds in its socket at most.
const SOCKET: usize = 8 * 1024;

/// A link's number.
pub(super) type Id = usize;

pub(super) struct Net {
    links: Vec<Link>,
    hostile_until: Instant,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Edge)
}

impl Net {
    pub(super) const fn new(hostile_until: Instant) -> Self {
        Self {
            links: Vec::new(),
            hostile_until,
        }
    }

    /// A new link, which the edge hears of later, or never.
    pub(super) fn dial(&mut self, now: Instant, rng: &mut Rng) -> Id {
        let hostile = now < self.hostile_until;
        // The first carries a session into being; before that there is nothing to lose.
        let first = self.links.is_empty();
        let delay = match rng.below(4) {
            0 => 1,
            1 | 2 => rng.between(1, 60),
            _ if hostile && !first => rng.between(60, 800),
            _ => rng.between(60, 150),
        };
        let mut fates = [Fate::Good; 2];
        if hostile && rng.chance(85) {
            let at = if rng.chance(40) {
                rng.below(300)
            } else {
                rng.below(30_000)
            };
            let at = if first { at + 400 } else { at };
            let fate = if rng.chance(70) {
                Fate::CutAt(at)
            } else {
                Fate::SwallowAt(at)
            };
            fates[rng.below(2)] = fate;
        }
        let lost = hostile && !first && rng.chance(10);
        self.links.push(Link {
            pipes: fates.map(|fate| Pipe {
                fate,
                carried: 0,
                held: 0,
                flying: VecDeque::new(),
                last: now,
            }),
            delay: Duration::from_millis(delay),
            jitter: if rng.chance(50) { delay / 2 } else { 0 },
            rate: if rng.chance(20) {
                20 + rng.below(60)
            } else {
                100_000
            },
            announced: (!lost).then(|| now + Duration::from_millis(delay)),
            dead: [None; 2],
        });
        self.links.len() - 1
    }

    /// Links that reach the edge now.
    pub(super) fn announced(&mut self, now: Instant) -> Vec<Id> {
        let links = self.links.iter_mut().enumerate();
        links
            .filter_map(|(id, link)| {
                let due = link.announced.is_some_and(|at| at <= now);
                due.then(|| link.announced = None).map(|()| id)
            })
            .collect()
    }

    /// How many bytes the socket takes now.
    pub(super) fn room(&self, id: Id, from: Side) -> usize {
        SOCKET.saturating_sub(self.links[id].pipes[index(from)].held)
    }

    /// Puts bytes onto a link; they arrive in pieces.
    pub(super) fn send(&mut self, now: Instant, id: Id, from: Side, bytes: &[u8], rng: &mut Rng) {
        let link = &mut self.links[id];
        let pipe = &mut link.pipes[index(from)];
        pipe.held += bytes.len();
        let before = pipe.carried;
        pipe.carried += bytes.len();
        let (passes, cut) = match pipe.fate {
            Fate::Good => (bytes.len(), false),
            Fate::CutAt(at) | Fate::SwallowAt(at) => {
                let passes = at.saturating_sub(before).min(bytes.len());
                let cut = passes < bytes.len() && matches!(pipe.fate, Fate::CutAt(_));
                (passes, cut)
            }
        };
        let mut rest = &bytes[..passes];
        while !rest.is_empty() {
            let most = rest.len().min(16_384);
            let length = if rng.chance(50) {
                most
            } else {
                1 + rng.below(most)
            };
            let (piece, after) = rest.split_at(length);
            let late = Duration::from_millis(rng.between(0, link.jitter));
            let slow = Duration::from_micros(u64::try_from(length * 1000 / link.rate).unwrap());
            pipe.last = pipe.last.max(now + link.delay + late) + slow;
            pipe.flying.push_back((pipe.last, piece.to_vec()));
            rest = after;
        }
        if cut && link.dead == [None; 2] {
            let least = if id == 0 { 1000 } else { 0 };
            link.dead = [(); 2].map(|()| {
                let after = Duration::from_millis(rng.between(least, 3000));
                rng.chance(80).then_some(now + after)
            });
        }
    }

    /// The bytes that have arrived at an end.
    pub(super) fn arrived(&mut self, now: Instant, id: Id, at: Side) -> Vec<Vec<u8>> {
        let pipe = &mut self.links[id].pipes[index(at.peer())];
        let mut arrived = Vec::new();
        while pipe.flying.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, piece)) = pipe.flying.pop_front() {
                pipe.held -= piece.len();
                arrived.push(piece);
            }
        }
        arrived
    }

    /// Whether an end has heard that the link is dead.
    pub(super) fn is_dead(&self, now: Instant, id: Id, at: Side) -> bool {
        self.links[id].dead[index(at)].is_some_and(|at| at <= now)
    }

    /// An end closes its socket: the other hears of it behind all that was said, if the link still carries anything.
    pub(super) fn close(&mut self, now: Instant, id: Id, from: Side) {
        let link = &mut self.links[id];
        let pipe = &link.pipes[index(from)];
        let ended = match pipe.fate {
            Fate::Good => false,
            Fate::CutAt(at) | Fate::SwallowAt(at) => pipe.carried > at,
        };
        if !ended {
            let arrives = pipe.last.max(now + link.delay);
            link.dead[index(from.peer())].get_or_insert(arrives);
        }
    }

    pub(super) fn next_time(&self, now: Instant) -> Option<Instant> {
        let times = self.links.iter().flat_map(|link| {
            let flying = link.pipes.iter();
            let flying = flying.filter_map(|pipe| pipe.flying.front().map(|(at, _)| *at));
            flying
                .chain(link.announced)
                .chain(link.dead.into_iter().flatten())
        });
        times.filter(|at| *at > now).min()
    }
}
