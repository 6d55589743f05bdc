//! Cancels that wait for their turn lose nothing: no slot, no credit, no RESET, whatever happens meanwhile (ABUSE-1).

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::pair::{Pair, http};
use crate::{Config, Event, OpenError, Side, StreamId};

const CODE: crate::ResetCode = crate::ResetCode::CANCELLED;

#[derive(Debug, Clone, Copy)]
enum Op {
    Open(Side),
    Reset(Side, usize),
    Stop(Side, usize),
    Write(Side, usize),
    Carry,
    Wait(u64),
    Cut,
}

fn op() -> impl Strategy<Value = Op> {
    let side = prop_oneof![Just(Side::Gateway), Just(Side::Edge)];
    let which = 0_usize..10;
    prop_oneof![
        4 => side.clone().prop_map(Op::Open),
        4 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Reset(s, w)),
        4 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Stop(s, w)),
        2 => (side, which).prop_map(|(s, w)| Op::Write(s, w)),
        3 => Just(Op::Carry),
        1 => (1_u64..30).prop_map(Op::Wait),
        1 => Just(Op::Cut),
    ]
}

struct World {
    pair: Pair,
    known: [Vec<StreamId>; 2],
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Edge)
}

impl World {
    fn new() -> Self {
        let config = Config::default()
            .set_max_streams(8)
            .set_max_opened_streams(8)
            .set_stream_window(4096);
        let mut pair = Pair::resumable(config.clone(), config);
        pair.gateway.connection.pace_cancels(2, 100);
        pair.edge.connection.pace_cancels(2, 100);
        Self {
            pair,
            known: Default::default(),
        }
    }

    fn apply(&mut self, op: Op) {
        let side = match op {
            Op::Open(side) | Op::Reset(side, _) | Op::Stop(side, _) | Op::Write(side, _) => side,
            Op::Carry | Op::Wait(_) | Op::Cut => Side::Edge,
        };
        let at = index(side);
        let end = match side {
            Side::Gateway => &mut self.pair.gateway,
            Side::Edge => &mut self.pair.edge,
        };
        let known = |which: usize| self.known[at].iter().rev().nth(which).copied();
        match op {
            Op::Open(_) => match end.connection.open(http(), &mut Bytes::from_static(b"x")) {
                Ok(id) => self.known[at].push(id),
                Err(error) => assert_eq!(error, OpenError::NoSlot),
            },
            Op::Reset(_, which) => {
                if let Some(send) = known(which).and_then(|id| end.connection.send_stream(id)) {
                    send.reset(CODE);
                }
            }
            Op::Stop(_, which) => {
                if let Some(recv) = known(which).and_then(|id| end.connection.recv_stream(id)) {
                    recv.stop(CODE);
                }
            }
            Op::Write(_, which) => {
                if let Some(id) = known(which) {
                    let _ = end.write(id, &[0; 3000]);
                }
            }
            Op::Carry => self.pair.run(),
            Op::Wait(millis) => self.pair.pass(Duration::from_millis(millis)),
            Op::Cut => {
                self.pair.cut();
                self.pair.resume();
            }
        }
        self.look();
    }

    /// Learns of new streams; nobody is ever blamed.
    fn look(&mut self) {
        let ends = [&mut self.pair.gateway, &mut self.pair.edge];
        for (end, known) in ends.into_iter().zip(&mut self.known) {
            end.collect();
            assert_eq!(end.failed, None);
            for event in end.events.drain(..) {
                if let Event::Opened { id, .. } = event {
                    known.push(id);
                }
            }
        }
    }

    /// Both ends let go of everything, and time passes as the sessions ask for it.
    fn end(&mut self) {
        for _ in 0..400 {
            self.pair.run();
            self.look();
            let ends = [&mut self.pair.gateway, &mut self.pair.edge];
            for (end, known) in ends.into_iter().zip(&self.known) {
                for id in known {
                    if let Some(send) = end.connection.send_stream(*id) {
                        send.reset(CODE);
                    }
                    if let Some(recv) = end.connection.recv_stream(*id) {
                        recv.stop(CODE);
                    }
                }
            }
            self.pair.run();
            let (gateway, edge) = (&self.pair.gateway.connection, &self.pair.edge.connection);
            if gateway.live_streams() + edge.live_streams() == 0 {
                return;
            }
            let next = gateway.poll_timeout().min(edge.poll_timeout()).unwrap();
            let time = next.saturating_duration_since(self.pair.now);
            self.pair.pass(time.max(Duration::from_millis(1)));
        }
        panic!("a stream is stuck");
    }
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "minutes under an interpreter")]
    fn paced_cancels_lose_nothing(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.end();
        for side in [Side::Gateway, Side::Edge] {
            for _ in 0..8 {
                world.apply(Op::Open(side));
            }
        }
        prop_assert_eq!(world.pair.gateway.connection.live_streams(), 8);
        prop_assert_eq!(world.pair.edge.connection.live_streams(), 8);
    }
}
