//! Random operations on two ends, against a model that knows only what a stream promises.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::pair::{End, Pair, http};
use crate::{
    CloseCode, Config, Event, OpenError, ReadError, ResetCode, Side, StreamId, WriteError,
};

const CODE: ResetCode = ResetCode::CANCELLED;

#[derive(Debug, Clone)]
enum Op {
    Open(Side, usize),
    Write(Side, usize, usize),
    Finish(Side, usize),
    Reset(Side, usize),
    Read(Side, usize, usize),
    Stop(Side, usize),
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
}

/// The same with broken links among them.
fn op_or_cut() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => op(),
        1 => (0_u64..30_000).prop_map(Op::Cut),
        1 => (0_usize..9000).prop_map(Op::CutTwice),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let side = prop_oneof![Just(Side::Gateway), Just(Side::Edge)];
    let which = 0_usize..12;
    prop_oneof![
        4 => (side.clone(), 0_usize..3000).prop_map(|(s, n)| Op::Open(s, n)),
        8 => (side.clone(), which.clone(), 1_usize..9000).prop_map(|(s, w, n)| Op::Write(s, w, n)),
        3 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Finish(s, w)),
        1 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Reset(s, w)),
        6 => (side.clone(), which.clone(), 1_usize..9000).prop_map(|(s, w, n)| Op::Read(s, w, n)),
        1 => (side.clone(), which).prop_map(|(s, w)| Op::Stop(s, w)),
        8 => side.clone().prop_map(Op::Send),
        10 => (side.clone(), 1_usize..5000).prop_map(|(s, n)| Op::Deliver(s, n)),
        1 => (1_u64..2000).prop_map(Op::Wait),
        1 => prop::option::weighted(0.1, side).prop_map(|s| s.map_or(Op::Wait(1), Op::GoAway)),
    ]
}

/// One direction of a stream: what was accepted from its writer, and how either end let go of it.
#[derive(Debug, Default)]
struct Direction {
    written: Vec<u8>,
    read: usize,
    finished: bool,
    reset: bool,
    stopped: bool,
    seen_end: bool,
}

/// All directions, by stream and writer.
#[derive(Default)]
struct Model {
    directions: BTreeMap<(StreamId, Side), Direction>,
    /// Streams that an end's application has opened or accepted.
    known: BTreeSet<(Side, StreamId)>,
    next: u8,
}

struct World {
    pair: Pair,
    wire: [VecDeque<u8>; 2],
    model: Model,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Edge)
}

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
            wire: Default::default(),
            model: Model::default(),
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Gateway => &mut self.pair.gateway,
            Side::Edge => &mut self.pair.edge,
        }
    }

    fn direction(&mut self, id: StreamId, writer: Side) -> &mut Direction {
        self.model.directions.entry((id, writer)).or_default()
    }

    /// The streams that this end's application knows, oldest first.
    fn known(&self, side: Side, which: usize) -> Option<StreamId> {
        let known: Vec<StreamId> = self.all_known(side);
        let recent = known.len().saturating_sub(12);
        known.get(recent + which).copied()
    }

    fn all_known(&self, side: Side) -> Vec<StreamId> {
        let known = self.model.known.iter();
        known
            .filter(|(s, _)| *s == side)
            .map(|(_, id)| *id)
            .collect()
    }

    fn payload(&mut self, length: usize) -> Bytes {
        self.model.next = self.model.next.wrapping_add(1);
        let start = self.model.next;
        (0..length)
            .map(|at| {
                u8::try_from(at % 251)
                    .unwrap()
                    .wrapping_mul(31)
                    .wrapping_add(start)
            })
            .collect::<Vec<_>>()
            .into()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Open(side, length) => self.open(side, length),
            Op::Write(side, which, length) => {
                if let Some(id) = self.known(side, which) {
                    self.write(side, id, length);
                }
            }
            Op::Finish(side, which) => {
                if let Some(id) = self.known(side, which) {
                    self.finish(side, id);
                }
            }
            Op::Reset(side, which) => {
                if let Some(id) = self.known(side, which) {
                    self.reset(side, id);
                }
            }
            Op::Read(side, which, length) => {
                if let Some(id) = self.known(side, which) {
                    self.read(side, id, length);
                }
            }
            Op::Stop(side, which) => {
                if let Some(id) = self.known(side, which) {
                    self.stop(side, id);
                }
            }
            Op::Send(side) => self.send(side),
            Op::Deliver(side, length) => self.deliver(side, length),
            Op::Wait(millis) => self.pair.pass(Duration::from_millis(millis)),
            Op::GoAway(side) => {
                self.end(side)
                    .connection
                    .go_away(CloseCode::SHUTDOWN, None, "");
            }
            Op::Cut(millis) => self.cut(millis),
            Op::CutTwice(bytes) => {
                self.cut(10);
                for side in [Side::Gateway, Side::Edge] {
                    self.send(side);
                    self.deliver(side.peer(), bytes);
                }
                self.cut(10);
            }
        }
        self.check();
    }

    fn cut(&mut self, millis: u64) {
        self.wire = Default::default();
        self.pair.cut();
        self.pair.pass(Duration::from_millis(millis));
        self.pair.resume();
    }

    fn open(&mut self, side: Side, length: usize) {
        let mut first = self.payload(length);
        let all = first.clone();
        match self.end(side).connection.open(http(), &mut first) {
            Ok(id) => {
                let taken = all.slice(..all.len() - first.len());
                self.direction(id, side).written.extend_from_slice(&taken);
                self.model.known.insert((side, id));
            }
            Err(OpenError::NoSlot | OpenError::GoingAway) => assert_eq!(first, all),
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, side: Side, id: StreamId, length: usize) {
        let payload = self.payload(length);
        let outcome = self.end(side).write(id, &payload);
        let direction = self.direction(id, side);
        match outcome {
            Ok(taken) => {
                assert!(taken > 0 && !direction.finished && !direction.reset);
                direction.written.extend_from_slice(&payload[..taken]);
            }
            Err(WriteError::Blocked) => {}
            Err(WriteError::Stopped(_)) => direction.reset = true,
            Err(WriteError::Closed) => assert!(direction.finished || direction.reset),
        }
    }

    fn finish(&mut self, side: Side, id: StreamId) {
        let Some(send) = self.end(side).connection.send_stream(id) else {
            return;
        };
        let outcome = send.finish();
        let direction = self.direction(id, side);
        match outcome {
            Ok(()) => direction.finished = true,
            Err(_) => direction.reset = true,
        }
    }

    fn reset(&mut self, side: Side, id: StreamId) {
        if let Some(send) = self.end(side).connection.send_stream(id) {
            send.reset(CODE);
            self.direction(id, side).reset = true;
        }
    }

    fn stop(&mut self, side: Side, id: StreamId) {
        if let Some(recv) = self.end(side).connection.recv_stream(id) {
            recv.stop(CODE);
            self.direction(id, side.peer()).stopped = true;
        }
    }

    fn read(&mut self, side: Side, id: StreamId, length: usize) {
        let Some(mut recv) = self.end(side).connection.recv_stream(id) else {
            return;
        };
        let outcome = recv.read(length);
        let direction = self.direction(id, side.peer());
        match outcome {
            Ok(Some(piece)) => {
                assert!(piece.len() <= length && !piece.is_empty());
                let expected = &direction.written[direction.read..direction.read + piece.len()];
                assert_eq!(piece, expected, "bytes of {id} out of order");
                direction.read += piece.len();
            }
            Ok(None) => {
                assert!(direction.finished, "an end that nobody wrote on {id}");
                assert_eq!(
                    direction.read,
                    direction.written.len(),
                    "payload lost on {id}"
                );
                direction.seen_end = true;
            }
            Err(ReadError::Blocked) => {}
            Err(ReadError::Reset(_)) => direction.seen_end = true,
            Err(ReadError::Closed) => panic!("closed"),
        }
    }

    fn send(&mut self, side: Side) {
        let now = self.pair.now;
        let bytes = self.end(side).drain(now);
        self.wire[index(side)].extend(bytes);
    }

    fn deliver(&mut self, side: Side, length: usize) {
        let now = self.pair.now;
        let wire = &mut self.wire[index(side.peer())];
        let bytes: Vec<u8> = wire.drain(..length.min(wire.len())).collect();
        let end = self.end(side);
        end.feed(now, &bytes);
        assert_eq!(end.failed, None);
        let accepted: Vec<StreamId> = std::iter::from_fn(|| end.accept()).collect();
        self.model
            .known
            .extend(accepted.into_iter().map(|id| (side, id)));
    }

    /// What holds after every step.
    fn check(&mut self) {
        for end in [&mut self.pair.gateway, &mut self.pair.edge] {
            assert_eq!(end.failed, None);
            end.collect();
            assert!(end.events.len() < 200, "events pile up");
            end.events
                .retain(|event| matches!(event, Event::Opened { .. }));
            assert!(end.connection.buffered() <= 20_000 + 8 * 16 * 1024);
            assert!(end.connection.live_streams() <= 1024 + 4);
            // A session window, what is not worth an ACK yet, and heads and ends of few streams.
            assert!(end.connection.retained() <= 128 * 1024 + 2000);
        }
    }

    /// Carries everything and reads everything until both ends rest; then every byte has arrived.
    fn settle(&mut self) {
        for _ in 0..200 {
            for side in [Side::Gateway, Side::Edge] {
                self.send(side);
                self.deliver(side, usize::MAX);
                for id in self.all_known(side) {
                    self.read(side, id, usize::MAX);
                }
                self.check();
            }
        }
        assert!(self.wire.iter().all(VecDeque::is_empty));
        let keys: Vec<(StreamId, Side)> = self.model.directions.keys().copied().collect();
        for (id, writer) in keys {
            let known = &self.model.known;
            let both = known.contains(&(writer, id)) && known.contains(&(writer.peer(), id));
            let direction = &self.model.directions[&(id, writer)];
            if both && !direction.reset && !direction.stopped {
                assert_eq!(direction.read, direction.written.len(), "{id} is stuck");
                assert_eq!(
                    direction.seen_end, direction.finished,
                    "the end of {id} is stuck"
                );
            }
        }
    }

    /// Lets go of everything: nothing is left on either side.
    fn finish_all(&mut self) {
        for side in [Side::Gateway, Side::Edge] {
            for id in self.all_known(side) {
                self.reset(side, id);
                self.stop(side, id);
            }
        }
        self.settle();
        for end in [&self.pair.gateway, &self.pair.edge] {
            assert_eq!(end.connection.live_streams(), 0, "a stream leaked");
            assert_eq!(end.connection.buffered(), 0, "buffer leaked");
        }
    }

    /// All four slots of each side are free again.
    fn all_slots_are_free(&mut self, going: bool) {
        for side in [Side::Gateway, Side::Edge] {
            for _ in 0..4 {
                let opened = self.end(side).connection.open(http(), &mut Bytes::new());
                assert_eq!(opened.is_ok(), !going, "{opened:?}");
            }
        }
    }
}

fn play(mut world: World, ops: &[Op]) {
    for op in ops {
        world.apply(op);
    }
    let going = ops.iter().any(|op| matches!(op, Op::GoAway(_)));
    world.settle();
    world.finish_all();
    world.all_slots_are_free(going);
}

proptest! {
    #[test]
    fn random_operations_keep_every_promise(ops in prop::collection::vec(op(), 1..250)) {
        play(World::new(false), &ops);
    }

    /// RESUME-5: broken links change nothing of what a stream promises.
    #[test]
    fn random_operations_and_cuts_keep_every_promise(
        ops in prop::collection::vec(op_or_cut(), 1..250),
    ) {
        play(World::new(true), &ops);
    }
}
