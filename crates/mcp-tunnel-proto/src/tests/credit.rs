//! Credit is never overdrawn, never lost, and bounds memory.

use bytes::Bytes;

use super::{
    frames::{bytes_of, id},
    pair::{End, Pair, http},
};
use crate::{CloseCode, Config, Event, Frame, ReadError, ResetCode, StreamId, WriteError};

fn small() -> Config {
    Config::default()
        .set_max_frame(4096)
        .set_stream_window(40_000)
        .set_shared_window(0)
        .set_session_window(64 * 1024)
        .set_max_streams(8)
}

/// Session bytes and streams that the gateway can still send the edge are what they were at the start:
/// a fresh stream carries a whole window more than once, and all slots are free.
fn assert_nothing_leaked(pair: &mut Pair) {
    pair.run();
    assert_eq!(pair.gateway.connection.live_streams(), 0, "gateway");
    assert_eq!(pair.edge.connection.live_streams(), 0, "edge");
    assert_eq!(pair.gateway.connection.buffered(), 0);
    assert_eq!(pair.edge.connection.buffered(), 0);
    let ids: Vec<StreamId> = (0..8).map(|_| pair.edge.open(b"")).collect();
    assert!(
        pair.edge
            .connection
            .open(http(), &mut Bytes::new())
            .is_err()
    );
    pair.run();
    for id in ids {
        let mut received = 0;
        while received < 100_000 {
            let sent = match pair.gateway.write(id, &[1; 10_000]) {
                Ok(sent) => sent,
                Err(WriteError::Blocked) => 0,
                Err(error) => panic!("{error}"),
            };
            pair.run();
            let got = pair.edge.read_all(id).0.len();
            assert!(sent + got > 0, "credit is gone after {received} bytes");
            received += got;
        }
    }
}

/// A stream on which the gateway has sent a window's worth that the edge has not read.
fn unread(pair: &mut Pair) -> StreamId {
    let id = pair.edge.open(b"ask");
    pair.run();
    pair.gateway.accept().unwrap();
    assert_eq!(pair.gateway.write(id, &[1; 50_000]), Ok(40_000));
    pair.run();
    id
}

/// CREDIT-6: RESET by the sender drops what was not read.
#[test]
fn reset_leaks_no_credit() {
    let mut pair = Pair::with(small(), small());
    for _ in 0..20 {
        let id = unread(&mut pair);
        pair.gateway.reset(id, ResetCode::INTERNAL);
        pair.gateway.stop(id, ResetCode::INTERNAL);
        pair.run();
        assert_eq!(
            pair.edge.read(id),
            Err(ReadError::Reset(ResetCode::INTERNAL))
        );
        pair.edge.reset(id, ResetCode::INTERNAL);
        pair.run();
    }
    assert_nothing_leaked(&mut pair);
}

/// CREDIT-6: STOP by the receiver drops what it has and what still comes.
#[test]
fn stop_leaks_no_credit() {
    let mut pair = Pair::with(small(), small());
    for _ in 0..20 {
        let id = pair.edge.open(b"ask");
        pair.run();
        pair.gateway.accept().unwrap();
        pair.gateway.write(id, &[1; 20_000]).unwrap();
        pair.run();
        pair.gateway.write(id, &[1; 20_000]).unwrap();
        // STOP and payload cross.
        pair.edge.stop(id, ResetCode::CANCELLED);
        pair.edge.reset(id, ResetCode::CANCELLED);
        pair.run();
        pair.gateway.stop(id, ResetCode::CANCELLED);
        pair.gateway.reset(id, ResetCode::CANCELLED);
        pair.run();
    }
    assert_nothing_leaked(&mut pair);
}

/// Both handles let go with payload in every buffer, as a dropped stream handle does.
#[test]
fn drop_leaks_no_credit() {
    let mut pair = Pair::with(small(), small());
    for _ in 0..20 {
        let id = unread(&mut pair);
        let _ = pair.edge.write(id, &[1; 50_000]);
        for end in [&mut pair.gateway, &mut pair.edge] {
            end.reset(id, ResetCode::CANCELLED);
            end.stop(id, ResetCode::CANCELLED);
        }
        pair.run();
    }
    assert_nothing_leaked(&mut pair);
}

/// GOAWAY with payload buffered: running streams go on to their end.
#[test]
fn goaway_keeps_buffered_payload() {
    let mut pair = Pair::with(small(), small());
    let id = unread(&mut pair);
    pair.gateway
        .connection
        .go_away(CloseCode::SHUTDOWN, None, "");
    pair.edge.finish(id);
    pair.run();
    pair.gateway.finish(id);
    let (bytes, end) = pair.edge.read_all(id);
    assert_eq!((bytes.len(), end), (40_000, Err(ReadError::Blocked)));
    pair.run();
    assert_eq!(pair.edge.read_all(id), (Vec::new(), Ok(())));
    assert_eq!(pair.gateway.read_all(id), (b"ask".to_vec(), Ok(())));
    assert!(pair.gateway.saw(&Event::Drained));
    assert_eq!(pair.gateway.connection.buffered(), 0);
}

/// CREDIT-3: payload for streams that a final GOAWAY refused is counted all the same.
#[test]
fn refused_streams_use_and_return_session_credit() {
    let mut pair = Pair::with(small(), small());
    pair.run();
    let connection = &mut pair.gateway.connection;
    connection.go_away(CloseCode::SHUTDOWN, None, "");
    connection.go_away(CloseCode::SHUTDOWN, None, "");
    let goaway = pair.gateway.drain(pair.now);
    let mut late = Vec::new();
    for n in 1..=8 {
        late.extend(bytes_of(&Frame::Open {
            id: id(2 * n),
            header: Box::new(http()),
            first: Bytes::from(vec![0; 4000]),
            fin: false,
        }));
        late.extend(bytes_of(&Frame::Data {
            id: id(2 * n),
            payload: Bytes::from(vec![0; 4000]),
            fin: true,
        }));
    }
    // GOAWAY-5
    pair.gateway.feed(pair.now, &late);
    assert_eq!(pair.gateway.failed, None);
    assert_eq!(pair.gateway.accept(), None);
    let answer = pair.gateway.drain(pair.now);
    assert!(
        answer.windows(8).any(|w| w == [0x07, 0, 8, 0, 0, 0, 0, 0]),
        "credit is returned"
    );
    assert!(!goaway.is_empty());
}

/// CREDIT-4: old news changes nothing.
#[test]
fn lower_limits_are_ignored() {
    let mut pair = Pair::with(small(), small());
    let id = unread(&mut pair);
    for frame in [
        Frame::SessionCredit(0),
        Frame::StreamsCredit(0),
        Frame::StreamCredit { id, limit: 0 },
    ] {
        pair.gateway.feed(pair.now, &bytes_of(&frame));
    }
    assert_eq!(pair.gateway.failed, None);
    assert_eq!(pair.edge.read_all(id).0.len(), 40_000);
    pair.run();
    assert_eq!(pair.gateway.write(id, &[0; 1000]), Ok(1000));
}

/// CREDIT-1: without session credit, control still goes: opens, ends, resets, stops.
#[test]
fn control_needs_no_credit() {
    // An edge that never returns session credit: its answers are not delivered.
    let mut pair = Pair::with(small(), small());
    let ids: Vec<StreamId> = (0..4).map(|_| pair.edge.open(b"")).collect();
    pair.run();
    let now = pair.now;
    for id in &ids {
        let _ = pair.gateway.write(*id, &[0; 40_000]);
    }
    let sent = pair.gateway.drain(now);
    assert!(
        (60_000..70_000).contains(&sent.len()),
        "{} bytes",
        sent.len()
    );
    assert!(pair.gateway.connection.buffered() > 80_000);
    pair.gateway.reset(ids[3], ResetCode::INTERNAL);
    pair.gateway.stop(ids[3], ResetCode::INTERNAL);
    let opened = pair.gateway.open(b"payload waits");
    let sent = pair.gateway.drain(now);
    assert_eq!(opened, id(1));
    let frames = frames_in(&sent);
    assert!(
        matches!(
            &frames[..],
            [Frame::Open { first, .. }, Frame::Stop { .. }, Frame::Reset { .. }] if first.is_empty()
        ),
        "{frames:?}"
    );
}

fn frames_in(bytes: &[u8]) -> Vec<Frame> {
    let mut input = bytes::BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = crate::decode(&mut input, u16::MAX).unwrap() {
        frames.push(frame);
    }
    frames
}

/// A thousand readers that never read: what is kept is bounded by the stream windows, and others are unharmed.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn a_thousand_slow_readers_harm_nobody() {
    let config = Config::default()
        .set_max_streams(1024)
        .set_max_opened_streams(1024);
    let window = usize::try_from(config.stream_window()).unwrap();
    let mut pair = Pair::with(config.clone(), config);
    let slow: Vec<StreamId> = (0..1000).map(|_| pair.edge.open(b"")).collect();
    pair.run();
    let mut kept = 0;
    for id in &slow {
        while let Ok(sent) = pair.gateway.write(*id, &[0; 16_384]) {
            kept += sent;
        }
        pair.run();
    }
    assert_eq!(kept, 1000 * window);
    let fast = pair.edge.open(b"");
    pair.run();
    let mut received = 0;
    while received < 4_000_000 {
        let sent = pair.gateway.write(fast, &[0; 100_000]).unwrap_or(0);
        pair.run();
        let got = pair.edge.read_all(fast).0.len();
        pair.run();
        assert!(sent + got > 0);
        received += got;
    }
}

/// A reader that keeps up gets a wide window, from a pool that is given back.
#[test]
fn wide_windows_come_from_a_bounded_pool() {
    let edge = Config::default()
        .set_stream_window(10_000)
        .set_wide_stream_window(100_000)
        .set_shared_window(180_000);
    let mut pair = Pair::with(Config::default(), edge);
    let window = |pair: &mut Pair| {
        let id = pair.edge.open(b"");
        pair.run();
        assert_eq!(pair.gateway.write(id, &[0; 10_000]), Ok(10_000));
        pair.run();
        pair.edge.read_all(id).0.len();
        pair.run();
        let room = pair.gateway.connection.send_stream(id).unwrap().capacity();
        (id, room)
    };
    let (first, room) = window(&mut pair);
    assert_eq!(room, 100_000);
    assert_eq!(window(&mut pair).1, 55_000, "half of what is left");
    for _ in 0..20 {
        assert!(window(&mut pair).1 >= 10_000, "the pool is used up");
    }
    let taken = pair.edge.connection.memory();
    assert!(taken <= 180_000, "{taken}");
    for end in [&mut pair.gateway, &mut pair.edge] {
        end.reset(first, ResetCode::CANCELLED);
        end.stop(first, ResetCode::CANCELLED);
    }
    pair.run();
    assert!(window(&mut pair).1 >= 55_000, "and comes back");
}

/// A peer without slots gets each one back at once, however many long-lived streams hold the others.
#[test]
fn last_slot_comes_back_at_once() {
    let mut pair = Pair::with(Config::default().set_max_streams(64), Config::default());
    let ids: Vec<StreamId> = (0..64).map(|_| pair.edge.open(b"")).collect();
    pair.run();
    for id in ids.iter().take(5) {
        for end in [&mut pair.gateway, &mut pair.edge] {
            end.reset(*id, ResetCode::CANCELLED);
            end.stop(*id, ResetCode::CANCELLED);
        }
        let mut first = Bytes::new();
        assert!(pair.edge.connection.open(http(), &mut first).is_err());
        pair.run();
        assert!(pair.edge.saw(&Event::StreamsAvailable));
        pair.edge.open(b"");
        pair.run();
    }
}

/// A full window that is read in small pieces gives no small grants.
#[test]
fn small_reads_give_no_small_grants() {
    let mut pair = Pair::with(small(), small());
    let id = unread(&mut pair);
    let mut grants = Vec::new();
    for _ in 0..400 {
        let mut recv = pair.edge.connection.recv_stream(id).unwrap();
        assert_eq!(recv.read_into(&mut [0; 100]), Ok(100));
        for frame in frames_in(&pair.edge.drain(pair.now)) {
            if let Frame::StreamCredit { limit, .. } = frame {
                grants.push(limit);
            }
        }
    }
    assert_eq!(grants, [60_000, 80_000]);
}

/// What a stalled link holds: the session's buffer, and one quantum a stream beyond it.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn buffers_for_a_stalled_link_are_bounded() {
    let config = Config::default()
        .set_send_buffer(64 * 1024)
        .set_session_send_buffer(256 * 1024);
    let mut pair = Pair::with(config, Config::default());
    let ids: Vec<StreamId> = (0..100).map(|_| pair.edge.open(b"")).collect();
    pair.run();
    let fill = |end: &mut End| {
        for id in &ids {
            while end.write(*id, &[0; 5000]).is_ok() {}
        }
        end.connection.buffered()
    };
    let most = 256 * 1024 + 100 * 16 * 1024;
    let held = fill(&mut pair.gateway);
    assert!((256 * 1024..=most).contains(&held), "{held} bytes");
    assert_eq!(fill(&mut pair.gateway), held, "not a byte more");
    drain_all(&mut pair, &ids);
    assert_eq!(pair.gateway.connection.buffered(), 0);
    for id in &ids {
        assert!(pair.gateway.saw(&Event::Writable { id: *id }));
    }
}

fn drain_all(pair: &mut Pair, ids: &[StreamId]) {
    pair.run();
    for id in ids {
        let _ = pair.edge.read_all(*id);
    }
    pair.run();
}
