//! Random operations on two ends, against a reference that knows only what a stream promises.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    pair::{End, Pair, http, pattern},
    reference::Reference,
};
use crate::{
    CloseCode, Config, ConnectionError, Event, OpenError, Position, ResetCode, ResumeError, Side,
    StreamId, config::ACK_EVERY,
};

const CODE: ResetCode = ResetCode::CANCELLED;

#[derive(Debug, Clone)]
enum Op {
    Open(Side, usize),
    /// On one of the streams that an end knows.
    Stream(Side, usize, Act),
    /// Moves what an end has to send onto the wire.
    Send(Side),
    /// Delivers so many bytes to an end.
    Deliver(Side, usize),
    Wait(u64),
    GoAway(Side),
    /// The link breaks with all that is on it; so much later there is a new one.
    Cut(u64),
    /// The same, but the new link breaks too, after so many bytes each way.
    CutTwice(usize),
    /// One end learns that its link is gone; the other goes on with it.
    Lose(Side),
    /// The gateway makes a claim to its session, on a link of its own.
    Claim,
    /// A claim reaches the edge, the latest or one from so many before; it may have come before.
    Judge(usize),
    /// An answer of the edge reaches the gateway, in the same way.
    Answer(usize),
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Write(usize),
    Finish,
    Reset,
    Read(usize),
    Stop,
}

/// The same with broken links among them.
fn op_or_cut() -> impl Strategy<Value = Op> {
    let side = prop_oneof![Just(Side::Gateway), Just(Side::Edge)];
    let age = prop_oneof![3 => Just(0_usize), 1 => 0_usize..4];
    prop_oneof![
        40 => op(),
        1 => (0_u64..30_000).prop_map(Op::Cut),
        1 => (0_usize..9000).prop_map(Op::CutTwice),
        1 => side.prop_map(Op::Lose),
        2 => Just(Op::Claim),
        2 => age.clone().prop_map(Op::Judge),
        2 => age.prop_map(Op::Answer),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let side = prop_oneof![Just(Side::Gateway), Just(Side::Edge)];
    let which = 0_usize..12;
    prop_oneof![
        4 => (side.clone(), 0_usize..3000).prop_map(|(s, n)| Op::Open(s, n)),
        8 => (side.clone(), which.clone(), 1_usize..9000).prop_map(|(s, w, n)| Op::Stream(s, w, Act::Write(n))),
        3 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Stream(s, w, Act::Finish)),
        1 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Stream(s, w, Act::Reset)),
        6 => (side.clone(), which.clone(), 1_usize..9000).prop_map(|(s, w, n)| Op::Stream(s, w, Act::Read(n))),
        1 => (side.clone(), which).prop_map(|(s, w)| Op::Stream(s, w, Act::Stop)),
        8 => side.clone().prop_map(Op::Send),
        10 => (side.clone(), 1_usize..5000).prop_map(|(s, n)| Op::Deliver(s, n)),
        1 => (1_u64..2000).prop_map(Op::Wait),
        1 => prop::option::weighted(0.1, side).prop_map(|s| s.map_or(Op::Wait(1), Op::GoAway)),
    ]
}

/// What a side says in RESUME, and the link that it says it on.
#[derive(Debug, Clone, Copy)]
struct Said {
    epoch: u32,
    position: Position,
    link: usize,
}

/// What is on its way in one link, by sender.
type Wire = [VecDeque<u8>; 2];

struct World {
    pair: Pair,
    /// Every link there ever was.
    wires: Vec<Wire>,
    /// Which of them a side sends to and hears.
    at: [Option<usize>; 2],
    claims: Vec<Said>,
    answers: Vec<Said>,
    /// RESUME-2: the epoch of the last claim that the edge took.
    epoch: u32,
    departures: [u8; 2],
    /// Bytes that were put onto any wire, or read.
    moved: usize,
    /// Makes what is written differ.
    next: u8,
    reference: Reference,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Edge)
}

const SIDES: [Side; 2] = [Side::Gateway, Side::Edge];

impl World {
    fn new(resumable: bool) -> Self {
        let config = Config::default()
            .set_max_frame(4096)
            .set_stream_window(5000)
            .set_wide_stream_window(9000)
            .set_shared_window(8000)
            .set_session_window(64 * 1024)
            .set_max_streams(4)
            .set_send_buffer(16 * 1024)
            .set_session_send_buffer(20_000);
        Self {
            pair: if resumable {
                Pair::resumable(config.clone(), config)
            } else {
                Pair::with(config.clone(), config)
            },
            wires: vec![Wire::default()],
            at: [Some(0); 2],
            claims: Vec::new(),
            answers: Vec::new(),
            epoch: 0,
            departures: [0; 2],
            moved: 0,
            next: 0,
            reference: Reference::default(),
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Gateway => &mut self.pair.gateway,
            Side::Edge => &mut self.pair.edge,
        }
    }

    /// One of the streams that this end's application has known the shortest.
    fn known(&self, side: Side, which: usize) -> Option<StreamId> {
        let known = self.reference.streams(side);
        let recent = known.len().saturating_sub(12);
        known.get(recent + which).copied()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Open(side, length) => self.open(side, length),
            Op::Send(side) => self.send(side),
            Op::Deliver(side, length) => self.deliver(side, length),
            Op::Wait(millis) => self.pair.pass(Duration::from_millis(millis)),
            Op::GoAway(side) => self.go_away(side),
            Op::Cut(millis) => self.cut(millis),
            Op::CutTwice(bytes) => {
                self.cut(10);
                for side in SIDES {
                    self.send(side);
                    self.deliver(side.peer(), bytes);
                }
                self.cut(10);
            }
            Op::Lose(side) => self.lose(side),
            Op::Claim => self.claim(),
            Op::Judge(age) => self.judge(age),
            Op::Answer(age) => self.answer(age),
            Op::Stream(side, which, act) => {
                if let Some(id) = self.known(side, which) {
                    self.act(side, id, act);
                }
            }
        }
        self.check();
    }

    fn act(&mut self, side: Side, id: StreamId, act: Act) {
        match act {
            Act::Write(length) => self.write(side, id, length),
            Act::Finish => self.finish(side, id),
            Act::Reset => self.reset(side, id),
            Act::Read(length) => self.read(side, id, length),
            Act::Stop => self.stop(side, id),
        }
    }

    fn cut(&mut self, millis: u64) {
        for side in SIDES {
            self.lose(side);
        }
        self.pair.pass(Duration::from_millis(millis));
        self.reconnect();
    }

    /// A claim that is taken at once, and its answer too.
    fn reconnect(&mut self) {
        if self.reference.ended {
            return;
        }
        self.lose(Side::Gateway);
        self.claim();
        self.judge(0);
        self.answer(0);
        assert_eq!(self.at[0], self.at[1]);
    }

    fn lose(&mut self, side: Side) {
        let now = self.pair.now;
        match self.end(side).connection.detach(now) {
            Ok(()) => {
                self.at[index(side)] = None;
                self.end(side).input.clear();
            }
            Err(error) => assert!(self.reference.ended, "{error}"),
        }
    }

    fn claim(&mut self) {
        if self.at[0].is_some() {
            return;
        }
        let position = self.pair.gateway.connection.position().unwrap();
        let epoch = u32::try_from(self.claims.len()).unwrap() + 1;
        let link = self.wires.len();
        self.wires.push(Wire::default());
        self.claims.push(Said {
            epoch,
            position,
            link,
        });
    }

    fn judge(&mut self, age: usize) {
        let Some(claim) = self.claims.iter().rev().nth(age).copied() else {
            return;
        };
        if claim.epoch <= self.epoch || self.reference.ended {
            return;
        }
        self.epoch = claim.epoch;
        self.lose(Side::Edge);
        let now = self.pair.now;
        let edge = &mut self.pair.edge.connection;
        let position = edge.position().unwrap();
        edge.attach(now, claim.position).unwrap();
        // Again, it has a link, and nothing changes.
        assert_eq!(edge.attach(now, position), Err(ResumeError::Attached));
        self.at[1] = Some(claim.link);
        self.answers.push(Said { position, ..claim });
    }

    fn answer(&mut self, age: usize) {
        let Some(answer) = self.answers.iter().rev().nth(age).copied() else {
            return;
        };
        let latest = self.claims.last().map(|claim| claim.epoch);
        if self.at[0].is_some() || latest != Some(answer.epoch) || self.reference.ended {
            return;
        }
        let now = self.pair.now;
        let gateway = &mut self.pair.gateway.connection;
        gateway.attach(now, answer.position).unwrap();
        self.at[0] = Some(answer.link);
        // An answer is worth something once, on its own link.
        self.answers.clear();
    }

    fn go_away(&mut self, side: Side) {
        self.departures[index(side)] += 1;
        // The second time it does not wait for the peer.
        self.reference.may_refuse |= self.departures[index(side)] > 1;
        let connection = &mut self.end(side).connection;
        connection.go_away(CloseCode::SHUTDOWN, None, "");
    }

    fn payload(&mut self, length: usize) -> Bytes {
        self.next = self.next.wrapping_add(1);
        pattern(self.next, length)
    }

    fn open(&mut self, side: Side, length: usize) {
        let mut first = self.payload(length);
        let all = first.clone();
        match self.end(side).connection.open(http(), &mut first) {
            Ok(id) => {
                let taken = &all[..all.len() - first.len()];
                self.reference.opened(side, id, taken);
            }
            Err(OpenError::NoSlot | OpenError::GoingAway) => assert_eq!(first, all),
            Err(error) => assert!(self.reference.ended, "{error}"),
        }
    }

    fn write(&mut self, side: Side, id: StreamId, length: usize) {
        let payload = self.payload(length);
        let outcome = self.end(side).write(id, &payload);
        self.reference.wrote(side, id, &payload, outcome);
    }

    fn finish(&mut self, side: Side, id: StreamId) {
        if let Some(send) = self.end(side).connection.send_stream(id) {
            let outcome = send.finish();
            self.reference.finished(side, id, outcome);
        }
    }

    fn reset(&mut self, side: Side, id: StreamId) {
        if let Some(send) = self.end(side).connection.send_stream(id) {
            send.reset(CODE);
            self.reference.reset(side, id);
        }
    }

    fn stop(&mut self, side: Side, id: StreamId) {
        if let Some(recv) = self.end(side).connection.recv_stream(id) {
            recv.stop(CODE);
            self.reference.stopped(side, id);
        }
    }

    fn read(&mut self, side: Side, id: StreamId, length: usize) {
        if let Some(mut recv) = self.end(side).connection.recv_stream(id) {
            let outcome = recv.read(length);
            if let Ok(Some(piece)) = &outcome {
                assert!(piece.len() <= length && !piece.is_empty());
                self.moved += piece.len();
            }
            self.reference.read(side, id, outcome);
        }
    }

    fn send(&mut self, side: Side) {
        let now = self.pair.now;
        let bytes = self.end(side).drain(now);
        self.moved += bytes.len();
        match self.at[index(side)] {
            Some(link) => self.wires[link][index(side)].extend(bytes),
            None => assert!(bytes.is_empty(), "sends without a link"),
        }
    }

    fn deliver(&mut self, side: Side, length: usize) {
        let Some(link) = self.at[index(side)] else {
            return;
        };
        let now = self.pair.now;
        let wire = &mut self.wires[link][index(side.peer())];
        let bytes: Vec<u8> = wire.drain(..length.min(wire.len())).collect();
        let end = self.end(side);
        end.feed(now, &bytes);
        assert_eq!(end.failed, None);
        let accepted: Vec<StreamId> = std::iter::from_fn(|| end.accept()).collect();
        for id in accepted {
            self.reference.accepted(side, id);
        }
    }

    /// What holds after every step.
    fn check(&mut self) {
        for side in SIDES {
            let end = self.end(side);
            assert_eq!(end.failed, None);
            end.collect();
            assert!(end.events.len() < 200, "events pile up");
            let ended = end.events.iter().find_map(|event| {
                if let Event::Closed(error) = event {
                    return Some(error.clone());
                }
                None
            });
            end.events
                .retain(|event| matches!(event, Event::Opened { .. }));
            assert!(end.connection.buffered() <= 20_000 + 8 * 16 * 1024);
            assert!(end.connection.live_streams() <= 1024 + 4);
            // A session window, what is not worth an ACK yet, and heads and ends of few streams.
            assert!(end.connection.retained() <= 64 * 1024 + ACK_EVERY + 2000);
            if !end.connection.is_attached() {
                // It may have noticed by itself.
                end.input.clear();
                self.at[index(side)] = None;
            }
            if let Some(error) = ended {
                let over = [ConnectionError::Expired, ConnectionError::Silent];
                assert!(over.contains(&error), "{error}");
                self.reference.ended = true;
            }
        }
    }

    /// Carries everything and reads everything until both ends rest; then every byte has arrived.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..500 {
            let before = self.moved;
            // What is paced goes on after a moment.
            self.pair.pass(Duration::from_millis(10));
            for side in SIDES {
                self.send(side);
                self.deliver(side, usize::MAX);
                for id in self.reference.streams(side) {
                    self.read(side, id, usize::MAX);
                }
                self.check();
            }
            quiet = if self.moved == before { quiet + 1 } else { 0 };
            if quiet == 2 {
                break;
            }
        }
        for link in self.at.into_iter().flatten() {
            assert!(self.wires[link].iter().all(VecDeque::is_empty));
        }
        self.reference.all_has_arrived();
    }

    /// Lets go of everything: nothing is left on either side.
    fn finish_all(&mut self) {
        for side in SIDES {
            for id in self.reference.streams(side) {
                self.reset(side, id);
                self.stop(side, id);
            }
        }
        self.settle();
        for end in [&self.pair.gateway, &self.pair.edge] {
            assert_eq!(end.connection.leaks(), Vec::<&str>::new());
        }
    }

    /// All four slots of each side are free again, and carry more than any credit that was there at the start.
    fn everything_is_free(&mut self, going: bool) {
        let mut opened = Vec::new();
        for side in SIDES {
            for _ in 0..4 {
                let id = self.end(side).connection.open(http(), &mut Bytes::new());
                assert_eq!(id.is_ok(), !going, "{id:?}");
                opened.extend(id.map(|id| (side, id)));
            }
        }
        for &(side, id) in &opened {
            self.reference.opened(side, id, &[]);
        }
        for _ in 0..2 {
            for &(side, id) in &opened {
                for _ in 0..4 {
                    self.write(side, id, 5000);
                    self.send(side);
                    self.deliver(side.peer(), usize::MAX);
                    self.read(side.peer(), id, usize::MAX);
                    self.send(side.peer());
                    self.deliver(side, usize::MAX);
                }
            }
        }
        for (side, id) in opened {
            let before = self.reference.written(id, side);
            assert!(
                before >= 2 * 4 * 4000,
                "credit leaked: {before} bytes in all"
            );
        }
    }
}

fn play(mut world: World, ops: &[Op]) {
    for op in ops {
        world.apply(op);
        if world.reference.ended {
            // Nobody came back in time. What is left to read is read, and none of it looks whole that is not.
            for side in SIDES {
                for id in world.reference.streams(side) {
                    world.read(side, id, usize::MAX);
                }
            }
            return;
        }
    }
    if world.at[0] != world.at[1] || world.at[0].is_none() {
        world.reconnect();
    }
    let going = ops.iter().any(|op| matches!(op, Op::GoAway(_)));
    world.settle();
    world.finish_all();
    world.everything_is_free(going);
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "minutes under an interpreter")]
    fn random_operations_keep_every_promise(ops in prop::collection::vec(op(), 1..250)) {
        play(World::new(false), &ops);
    }

    /// RESUME-5: broken links change nothing of what a stream promises, and neither do claims that come twice, late, or
    /// while the old link still lives (RESUME-2, RESUME-7).
    #[test]
    #[cfg_attr(miri, ignore = "minutes under an interpreter")]
    fn random_operations_and_cuts_keep_every_promise(
        ops in prop::collection::vec(op_or_cut(), 1..250),
    ) {
        play(World::new(true), &ops);
    }
}
