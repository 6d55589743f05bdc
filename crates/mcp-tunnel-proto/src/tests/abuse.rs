//! Floods of cheap frames meet a bound, honest bursts do not (ABUSE-1, ABUSE-2).

use std::time::Duration;

use bytes::Bytes;

use super::{
    frames::{bytes_of, id},
    pair::{Pair, http},
};
use crate::{CloseCode, Config, Frame, ResetCode, Violation};

/// Feeds `frame(n)` for growing n until the session ends; how many it took.
#[track_caller]
fn flood(expected: Violation, code: CloseCode, frame: impl Fn(u64) -> Vec<u8>) -> u64 {
    let mut pair = Pair::new();
    pair.run();
    for n in 1..100_000 {
        pair.gateway.feed(pair.now, &frame(n));
        if let Some(error) = &pair.gateway.failed {
            assert_eq!(*error, expected.into(), "after {n}");
            let sent = pair.gateway.drain(pair.now);
            let close = Frame::Close {
                code,
                text: expected.to_string(),
            };
            assert!(sent.ends_with(&bytes_of(&close)));
            return n;
        }
    }
    panic!("a flood without end");
}

fn open(n: u64) -> Vec<u8> {
    bytes_of(&Frame::Open {
        id: id(2 * n),
        header: Box::new(http()),
        first: Bytes::new(),
        fin: false,
    })
}

/// CVE-2023-44487: open and reset in a loop. The slots run out long before the budget does.
#[test]
fn rapid_reset_meets_the_slots() {
    let code = ResetCode::CANCELLED;
    let taken = flood(Violation::StreamLimit, CloseCode::STREAM_LIMIT, |n| {
        [
            open(n),
            bytes_of(&Frame::Reset {
                id: id(2 * n),
                code,
            }),
            bytes_of(&Frame::Stop {
                id: id(2 * n),
                code,
            }),
        ]
        .concat()
    });
    assert_eq!(taken, 1025);
}

/// The same against an application that lets go at once: then the budget for resets holds.
#[test]
fn rapid_reset_meets_the_budget() {
    let mut pair = Pair::new();
    pair.run();
    let code = ResetCode::CANCELLED;
    let mut served = 0;
    for n in 1.. {
        pair.gateway.feed(pair.now, &open(n));
        pair.gateway.feed(
            pair.now,
            &bytes_of(&Frame::Reset {
                id: id(2 * n),
                code,
            }),
        );
        pair.gateway.feed(
            pair.now,
            &bytes_of(&Frame::Stop {
                id: id(2 * n),
                code,
            }),
        );
        if pair.gateway.failed.is_some() {
            break;
        }
        let stream = pair.gateway.accept().unwrap();
        let _ = pair.gateway.read_all(stream);
        pair.gateway.reset(stream, code);
        pair.gateway.events.clear();
        let _ = pair.gateway.drain(pair.now);
        served += 1;
    }
    assert_eq!(pair.gateway.failed, Some(Violation::FloodResets.into()));
    assert_eq!(served, 2048);
}

/// CVE-2025-8671: making this side send resets counts as well.
#[test]
fn provoked_resets_meet_the_budget() {
    let code = ResetCode::CANCELLED;
    let taken = flood(Violation::FloodResets, CloseCode::FLOOD_RESETS, |n| {
        let stop = bytes_of(&Frame::Stop { id: id(2), code });
        if n == 1 {
            [open(1), stop].concat()
        } else {
            stop
        }
    });
    assert_eq!(taken, 4097);
}

/// CVE-2019-9512: and none of them is answered more than once a write.
#[test]
fn ping_flood() {
    let taken = flood(Violation::FloodPings, CloseCode::FLOOD_PINGS, |n| {
        bytes_of(&Frame::Ping(n))
    });
    assert!(taken <= 257);
    flood(Violation::FloodPings, CloseCode::FLOOD_PINGS, |n| {
        bytes_of(&Frame::Pong(n + 1000))
    });
}

#[test]
fn unknown_frame_flood() {
    let frame = |_| vec![0xbf, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        flood(Violation::FloodUnknown, CloseCode::FLOOD_UNKNOWN, frame),
        257
    );
}

/// CVE-2019-9515 in its shape: updates that move nothing.
#[test]
fn credit_flood() {
    let start = Config::default().session_window();
    for frame in [
        |n: u64, start: u64| Frame::SessionCredit(start + n),
        |_, _| Frame::StreamsCredit(0),
    ] {
        let taken = flood(Violation::FloodCredits, CloseCode::FLOOD_CREDITS, |n| {
            bytes_of(&frame(n, start))
        });
        assert_eq!(taken, 4097);
    }
}

#[test]
fn frames_for_closed_streams_flood() {
    let taken = flood(
        Violation::FloodClosed,
        CloseCode::FLOOD_CLOSED,
        |n| match n {
            1 => open(2),
            _ => bytes_of(&Frame::StreamCredit {
                id: id(2),
                limit: n,
            }),
        },
    );
    assert_eq!(taken, 8194);
}

/// CVE-2019-9518 cannot be written: an empty frame that ends nothing is no frame.
#[test]
fn empty_frames_are_no_frames() {
    let empty = |_| vec![0x42, 0, 0, 0, 0, 0, 0, 2];
    let taken = flood(Violation::EmptyData, CloseCode::FRAME_FORMAT, empty);
    assert_eq!(taken, 1);
}

/// CVE-2024-32984: a peer that never reads makes nothing grow here.
#[test]
fn answers_to_a_peer_that_never_reads_are_bounded() {
    let mut pair = Pair::new();
    for n in 1..=1000 {
        pair.gateway.feed(pair.now, &open(n));
        let stop = Frame::Stop {
            id: id(2 * n),
            code: ResetCode::CANCELLED,
        };
        pair.gateway.feed(pair.now, &bytes_of(&stop));
    }
    for n in 0..200 {
        pair.gateway.feed(pair.now, &bytes_of(&Frame::Ping(n)));
    }
    assert_eq!(pair.gateway.failed, None);
    // One RESET a stream, one PONG, one PING.
    assert_eq!(pair.gateway.drain(pair.now).len(), 1000 * 12 + 16 + 16);
}

/// Budgets come back with time.
#[test]
fn budgets_refill() {
    let mut pair = Pair::new();
    pair.run();
    for n in 0..2000 {
        pair.now += Duration::from_millis(25);
        pair.gateway.feed(pair.now, &bytes_of(&Frame::Ping(n)));
        let _ = pair.gateway.drain(pair.now);
        assert_eq!(pair.gateway.failed, None, "ping {n}");
    }
}

/// An honest storm: every running call of a full session is cancelled at once, twice over.
#[test]
fn honest_bursts_pass() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        let ids: Vec<_> = (0..1024).map(|_| pair.edge.open(b"work")).collect();
        pair.run();
        for id in &ids {
            pair.edge.reset(*id, ResetCode::CANCELLED);
            pair.edge.stop(*id, ResetCode::CANCELLED);
        }
        pair.run();
        for id in ids {
            let _ = pair.gateway.read_all(id);
            pair.gateway.reset(id, ResetCode::CANCELLED);
        }
        pair.run();
    }
    assert_eq!(pair.gateway.failed, None);
    assert_eq!(pair.edge.failed, None);
}
