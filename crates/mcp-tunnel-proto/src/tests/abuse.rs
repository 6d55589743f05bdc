//! Floods of cheap frames meet a bound, honest bursts do not (ABUSE-1, ABUSE-2).

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    frames::{bytes_of, id},
    pair::{Pair, epoch, http},
};
use crate::{
    Admission, CloseCode, Config, Event, Frame, GatewayHandshake, Hello, ReadError, ResetCode,
    Side, Violation, connection::budget::Budget, kind,
};

/// Feeds `frame(n)` for growing n until the session ends; how many it took.
#[track_caller]
fn flood(expected: Violation, code: CloseCode, frame: impl Fn(u64) -> Vec<u8>) -> u64 {
    let mut pair = Pair::new();
    pair.run();
    for n in 1..100_000 {
        pair.gateway.feed(pair.now, &frame(n));
        if pair.gateway.failed.is_some() {
            assert_closed(&mut pair, expected, code);
            return n;
        }
    }
    panic!("a flood without end");
}

/// The session has ended for this, and the peer is told which budget is spent.
#[track_caller]
fn assert_closed(pair: &mut Pair, expected: Violation, code: CloseCode) {
    assert_eq!(pair.gateway.failed, Some(expected.into()));
    let text = expected.to_string();
    let close = bytes_of(&Frame::Close { code, text });
    assert!(pair.gateway.drain(pair.now).ends_with(&close));
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
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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
    assert_eq!(served, 4096);
    assert_closed(&mut pair, Violation::FloodResets, CloseCode::FLOOD_RESETS);
}

/// CVE-2025-8671: making this side send resets counts as well.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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
    assert_eq!(taken, 8193);
}

/// The same by way of the application, which refuses whatever comes: it costs as much again as the opens.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn refused_opens_meet_the_budget() {
    let mut pair = Pair::new();
    pair.run();
    let mut served = 0;
    for n in 1.. {
        let mut open = open(n);
        open[0] = kind::OPEN_FIN;
        pair.gateway.feed(pair.now, &open);
        if pair.gateway.failed.is_some() {
            break;
        }
        let stream = pair.gateway.accept().unwrap();
        let _ = pair.gateway.read_all(stream);
        pair.gateway.reset(stream, ResetCode::UNSUPPORTED);
        pair.gateway.events.clear();
        let _ = pair.gateway.drain(pair.now);
        served += 1;
    }
    assert_eq!(served, 65_536);
    assert_closed(&mut pair, Violation::FloodOpens, CloseCode::FLOOD_OPENS);
}

/// Refusals by the peer of what this side opened cost it nothing: they are as many as this side's own opens.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn refusals_of_own_streams_are_no_flood() {
    let mut pair = Pair::new();
    for n in 0..20_000 {
        let id = pair.edge.open(b"call of a server that is down");
        pair.edge.finish(id);
        pair.run();
        let accepted = pair.gateway.accept().unwrap();
        pair.gateway.reset(accepted, ResetCode::UNREACHABLE);
        pair.gateway.stop(accepted, ResetCode::UNREACHABLE);
        pair.run();
        let (_, end) = pair.edge.read_all(id);
        assert_eq!(end, Err(ReadError::Reset(ResetCode::UNREACHABLE)));
        assert_eq!(pair.edge.failed, None, "after {n}");
        pair.edge.events.clear();
        pair.gateway.events.clear();
    }
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

/// ADMISSION-1 bounds no number of approval codes; the budget does.
#[test]
fn admission_flood() {
    let now = epoch();
    let mut gateway = GatewayHandshake::new(now, Arc::default(), Bytes::new(), "test").unwrap();
    let hello = Hello::new(Side::Edge, &Config::default(), Bytes::new());
    let pending = Admission::Pending {
        approval_code: "CODE".to_owned(),
    };
    let pending = bytes_of(&Frame::Admission(Box::new(pending)));
    let hello = bytes_of(&Frame::Hello(Box::new(hello)));
    let mut input = BytesMut::from(&[hello, pending.repeat(65)].concat()[..]);
    for _ in 0..65 {
        assert!(gateway.handle_input(now, &mut input).unwrap().is_some());
    }
    let error = gateway.handle_input(now, &mut input).unwrap_err();
    assert_eq!(error, Violation::FloodAdmissions.into());
    let code = Violation::FloodAdmissions.close_code();
    assert_eq!(code, CloseCode::FLOOD_ADMISSIONS);
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
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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

/// Updates that move something are cheaper, and not free: a peer raises what nobody uses.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn flood_of_worthwhile_credit() {
    let mut pair = Pair::new();
    pair.run();
    let start = Config::default().session_window();
    let mut limits = (1..).map(|n| Frame::SessionCredit(start + 1024 * n));
    for _ in 0..256 {
        let frames = limits.by_ref().take(4096);
        let bytes: Vec<u8> = frames.flat_map(|frame| bytes_of(&frame)).collect();
        pair.gateway.feed(pair.now, &bytes);
        assert_eq!(pair.gateway.failed, None);
    }
    let more = bytes_of(&limits.next().unwrap());
    pair.gateway.feed(pair.now, &more);
    assert_closed(&mut pair, Violation::FloodCredits, CloseCode::FLOOD_CREDITS);
}

#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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
    assert_eq!(taken, 16_386);
}

/// CVE-2019-9511: payload that dribbles in. What ends a stream is not counted, since OPEN was.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn small_frame_flood() {
    let mut pair = Pair::new();
    pair.run();
    let data = |length: usize, fin| {
        bytes_of(&Frame::Data {
            id: id(2),
            payload: Bytes::from(vec![0; length]),
            fin,
        })
    };
    pair.gateway.feed(pair.now, &open(1));
    for batch in 0..512 {
        pair.gateway.feed(pair.now, &data(1, false).repeat(512));
        assert_eq!(pair.gateway.failed, None, "in batch {batch}");
        let _ = pair.gateway.read_all(id(2));
        let _ = pair.gateway.drain(pair.now);
    }
    let other = [open(2), open(3)].concat();
    pair.gateway.feed(pair.now, &other);
    pair.gateway.feed(pair.now, &data(64, false));
    pair.gateway.feed(pair.now, &data(1, true));
    assert_eq!(pair.gateway.failed, None);
    let again = bytes_of(&Frame::Data {
        id: id(4),
        payload: Bytes::from_static(b"x"),
        fin: false,
    });
    pair.gateway.feed(pair.now, &again);
    assert_closed(&mut pair, Violation::FloodSmall, CloseCode::FLOOD_SMALL);
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
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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

/// The least interval between pings that can be set, on both sides.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn fast_pings_are_no_flood() {
    let config = Config::default().set_ping_interval(Duration::from_millis(10));
    let mut pair = Pair::with(config.clone(), config);
    for _ in 0..2000 {
        pair.pass(Duration::from_millis(10));
        pair.run();
        assert_eq!((&pair.gateway.failed, &pair.edge.failed), (&None, &None));
    }
}

/// Budgets come back with time.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
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

/// A side whose callers cancel faster than its peer puts up with makes them wait, and is never blamed.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn cancels_are_paced() {
    let mut pair = Pair::new();
    let start = pair.now;
    for _ in 0..12 {
        let ids: Vec<_> = (0..800).map(|_| pair.edge.open(b"work")).collect();
        pair.run();
        for id in &ids {
            pair.edge.stop(*id, ResetCode::CANCELLED);
            pair.edge.reset(*id, ResetCode::CANCELLED);
        }
        let mut waited = 0;
        while pair.edge.connection.live_streams() > 0 {
            assert!(waited < 1000, "stuck");
            waited += 1;
            let until = pair.edge.connection.poll_timeout().unwrap();
            pair.pass(
                until
                    .saturating_duration_since(pair.now)
                    .min(Duration::from_millis(10)),
            );
            pair.run();
            while let Some(event) = pair.gateway.events.pop_front() {
                if let Event::Stopped { id, code } = event {
                    let _ = pair.gateway.read_all(id);
                    pair.gateway.reset(id, code);
                }
            }
            pair.run();
        }
        pair.edge.events.clear();
        assert_eq!((&pair.gateway.failed, &pair.edge.failed), (&None, &None));
    }
    // 9,600 streams, RESET and STOP each: what the first burst left over went out at 5,000 a second.
    let took = pair.now - start;
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(took <= Duration::from_secs(5), "{took:?}");
}

/// What budgets are for at 40,000 calls a second on one link for a minute, one in ten cancelled, and answers that come
/// token by token on 1,024 streams beside them.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn heavy_use_spends_no_budget() {
    let start = epoch();
    let mut budget = Budget::new();
    for milli in 0..60_000_u64 {
        let now = start + Duration::from_millis(milli);
        for call in 0..40_u64 {
            budget.on_open(now).unwrap();
            // The end of a chunked body, in a frame of its own before the end of the stream.
            budget.on_data(now, 5).unwrap();
            if call % 10 == 0 {
                budget.on_reset(now).unwrap();
                budget.on_reset(now).unwrap();
                budget.on_closed(now).unwrap();
            }
        }
        // 1,024 streams, 50 tokens a second each.
        for _ in 0..51 {
            budget.on_data(now, 40).unwrap();
        }
        // 1 GB/s in windows of 64 KiB, and slots by the eighth of 1,024.
        for _ in 0..32 {
            budget.on_credit(now, 32_768).unwrap();
        }
        if milli % 100 == 0 {
            budget.on_ping(now).unwrap();
            budget.on_ping(now).unwrap();
        }
    }
}

/// The same through two whole sessions, a second of it.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn forty_thousand_calls_a_second_trip_nothing() {
    let mut pair = Pair::new();
    for round in 0..100 {
        pair.now += Duration::from_millis(10);
        let calls: Vec<_> = (0..400)
            .map(|_| {
                let call = pair
                    .edge
                    .open(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}");
                pair.edge.finish(call);
                call
            })
            .collect();
        pair.step();
        for (at, call) in calls.iter().enumerate() {
            let _ = pair.gateway.read_all(*call);
            pair.gateway.write(*call, b"{}").unwrap();
            if at % 10 == 0 {
                pair.edge.stop(*call, ResetCode::CANCELLED);
            }
        }
        pair.run();
        for (at, call) in calls.iter().enumerate() {
            if at % 10 == 0 {
                pair.gateway.reset(*call, ResetCode::CANCELLED);
            } else {
                pair.gateway.finish(*call);
            }
        }
        pair.run();
        for call in calls {
            let _ = pair.edge.read_all(call);
        }
        pair.run();
        for end in [&mut pair.gateway, &mut pair.edge] {
            assert_eq!(end.failed, None, "in round {round}");
            assert_eq!(end.connection.live_streams(), 0);
            end.events.clear();
        }
    }
}
