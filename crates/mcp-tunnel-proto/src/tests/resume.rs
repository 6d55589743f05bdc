//! A session that changes its link: every byte once, in order, within a bound.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    frames::bytes_of,
    pair::{End, Pair, http},
};
use crate::{
    CloseCode, Config, ConnectionError, Event, Frame, LastStream, OpenError, Position, ReadError,
    ResetCode, ResumeError, Violation, config::ACK_EVERY, decode,
};

fn pair() -> Pair {
    Pair::resumable(Config::default(), Config::default())
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// One call in both directions, larger than a frame, with an aborted stream beside it; what both ends saw.
fn scenario(pair: &mut Pair, mut carry: impl FnMut(&mut Pair)) {
    let call = pair.edge.open(b"ask");
    let aborted = pair.edge.open(b"never mind");
    pair.edge.finish(call);
    carry(pair);
    assert_eq!(pair.gateway.accept(), Some(call));
    assert_eq!(pair.gateway.accept(), Some(aborted));
    assert_eq!(pair.gateway.read_all(call), (b"ask".to_vec(), Ok(())));
    pair.gateway.write(call, &bytes(40_000)).unwrap();
    pair.gateway.finish(call);
    pair.edge.reset(aborted, ResetCode::CANCELLED);
    pair.edge.stop(aborted, ResetCode::CANCELLED);
    carry(pair);
    assert_eq!(pair.edge.read_all(call), (bytes(40_000), Ok(())));
    assert_eq!(
        pair.gateway.read(aborted),
        Err(ReadError::Reset(ResetCode::CANCELLED))
    );
    pair.gateway.reset(aborted, ResetCode::CANCELLED);
    carry(pair);
    for end in [&mut pair.gateway, &mut pair.edge] {
        assert_eq!(end.failed, None);
        assert!(end.saw(&Event::StreamClosed { id: call }));
        assert!(end.saw(&Event::StreamClosed { id: aborted }));
        assert!(!end.saw(&Event::StreamClosed { id: call }), "once");
        assert_eq!(end.connection.live_streams(), 0);
    }
}

/// Carries until rest, but the link breaks when `left` more bytes have arrived, once.
fn carry_with_cut(pair: &mut Pair, left: &mut Option<usize>) {
    // What only waits for an ACK in passing is settled by the next ping.
    for _ in 0..2 {
        loop {
            let now = pair.now;
            let to_edge = pair.gateway.drain(now);
            let to_gateway = pair.edge.drain(now);
            if to_edge.is_empty() && to_gateway.is_empty() {
                break;
            }
            for (end, wire) in [(&mut pair.edge, to_edge), (&mut pair.gateway, to_gateway)] {
                let arriving = left.map_or(wire.len(), |left| left.min(wire.len()));
                end.feed(now, &wire[..arriving]);
                if let Some(rest) = left {
                    *rest -= arriving;
                }
            }
            if *left == Some(0) {
                *left = None;
                pair.cut();
                pair.pass(Duration::from_secs(2));
                pair.resume();
            }
        }
        pair.pass(Duration::from_secs(5));
    }
}

/// RESUME-5, ACK-1: the link breaks at every byte of a session, in turn; nobody notices.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn a_cut_at_every_byte_is_invisible() {
    let mut total = 0;
    let mut probe = pair();
    scenario(&mut probe, |pair| {
        let mut count = Some(usize::MAX);
        carry_with_cut(pair, &mut count);
        total += usize::MAX - count.unwrap();
    });
    assert!(total > 40_000, "{total}");
    // Every byte of the small frames, and every 397th of the bulk.
    for at in (1..total).filter(|at| *at < 400 || *at > total - 600 || at % 397 == 0) {
        let mut pair = pair();
        let mut left = Some(at);
        scenario(&mut pair, |pair| carry_with_cut(pair, &mut left));
        assert_eq!(left, None, "cut at {at} of {total}");
    }
}

/// Links that break again while what was kept is still being sent again.
#[test]
fn a_cut_while_replaying_is_invisible() {
    let mut pair = pair();
    let stream = pair.edge.open(b"");
    pair.run();
    pair.gateway.write(stream, &bytes(60_000)).unwrap();
    pair.gateway.finish(stream);
    let _lost = pair.gateway.drain(pair.now);
    for step in 1..40 {
        pair.cut();
        pair.resume();
        let wire = pair.gateway.drain(pair.now);
        let arriving = wire.len().min(step * 1000);
        pair.edge.feed(pair.now, &wire[..arriving]);
    }
    pair.cut();
    pair.resume();
    pair.run();
    assert_eq!(pair.edge.read_all(stream), (bytes(60_000), Ok(())));
}

/// ACK-2: an ACK may come while what it acknowledges has only just been sent again.
#[test]
fn an_ack_while_replaying_is_taken() {
    let mut pair = pair();
    let stream = pair.edge.open(b"");
    pair.run();
    pair.gateway.write(stream, &bytes(60_000)).unwrap();
    pair.gateway.finish(stream);
    let _lost = pair.gateway.drain(pair.now);
    pair.cut();
    pair.resume();
    let mut rounds = 0;
    loop {
        // One frame at a time.
        let mut out = crate::Transmit::new(1);
        if !pair.gateway.connection.poll_transmit(pair.now, &mut out) {
            break;
        }
        let frame = out.copy_to_bytes(out.remaining());
        pair.edge.feed(pair.now, &frame);
        pair.edge.feed(pair.now, &bytes_of(&Frame::Ping(rounds)));
        let ack = pair.edge.drain(pair.now);
        pair.gateway.feed(pair.now, &ack);
        assert_eq!((&pair.gateway.failed, &pair.edge.failed), (&None, &None));
        rounds += 1;
    }
    assert!(rounds >= 4, "{rounds}");
    pair.run();
    assert_eq!(pair.edge.read_all(stream), (bytes(60_000), Ok(())));
    assert_eq!(pair.gateway.connection.retained(), 0);
}

/// RESUME-5: credits that were lost with the link are said again.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn lost_credits_are_said_again() {
    let config = Config::default()
        .set_stream_window(10_000)
        .set_shared_window(0)
        .set_session_window(64 * 1024)
        .set_max_streams(1);
    let mut pair = Pair::resumable(config.clone(), config);
    let stream = pair.edge.open(b"");
    pair.run();
    let mut received = Vec::new();
    let all = bytes(200_000);
    while received.len() < all.len() {
        let sent = received.len();
        let _ = pair.gateway.write(stream, &all[sent..]);
        let wire = pair.gateway.drain(pair.now);
        pair.edge.feed(pair.now, &wire);
        received.extend(pair.edge.read_all(stream).0);
        assert!(received.len() > sent, "credit was lost at {sent}");
        let _lost = pair.edge.drain(pair.now);
        pair.cut();
        pair.resume();
        // The credits of the new link arrive, and nothing else has to.
        let credits = pair.edge.drain(pair.now);
        pair.gateway.feed(pair.now, &credits);
    }
    assert_eq!(received, all);
    // So is the number of streams.
    for end in [&mut pair.gateway, &mut pair.edge] {
        end.reset(stream, ResetCode::CANCELLED);
        end.stop(stream, ResetCode::CANCELLED);
    }
    for _ in 0..4 {
        let _lost = (pair.gateway.drain(pair.now), pair.edge.drain(pair.now));
        pair.cut();
        pair.resume();
    }
    pair.run();
    pair.pass(Duration::from_secs(5));
    pair.run();
    pair.edge.open(b"again");
}

/// ACK-1, ACK-3: what is kept stays within the session's credit and a little, however long a link lasts.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn what_is_kept_is_bounded() {
    let config = Config::default().set_session_window(256 * 1024);
    let mut pair = Pair::resumable(config.clone(), config);
    let stream = pair.edge.open(b"");
    pair.run();
    let mut most = 0;
    for round in 0..300 {
        let _ = pair.gateway.write(stream, &[0; 64 * 1024]);
        let wire = pair.gateway.drain(pair.now);
        most = most.max(pair.gateway.connection.retained());
        pair.edge.feed(pair.now, &wire);
        let _ = pair.edge.read_all(stream);
        if round % 3 == 0 {
            let answer = pair.edge.drain(pair.now);
            pair.gateway.feed(pair.now, &answer);
        }
    }
    assert!(most > 128 * 1024, "{most}");
    assert!(most <= 256 * 1024 + 100, "{most}");
    pair.run();
    pair.pass(Duration::from_secs(5));
    pair.run();
    assert_eq!(
        pair.gateway.connection.retained(),
        0,
        "a ping brings the last ACK"
    );
    assert_eq!(pair.edge.connection.retained(), 0);
}

/// ACK-3: an ACK of its own comes for 256 KiB only. Otherwise it goes with whatever leaves, ahead of it (ACK-1).
#[test]
fn acknowledgements_travel_with_what_leaves() {
    let mut pair = pair();
    let stream = pair.edge.open(b"");
    pair.run();
    let (mut alone, mut in_passing) = (0, 0);
    let mut told = 0;
    for _ in 0..1000 {
        pair.gateway.write(stream, &[0; 10_000]).unwrap();
        let wire = pair.gateway.drain(pair.now);
        pair.edge.feed(pair.now, &wire);
        let _ = pair.edge.read_all(stream);
        let position = pair.edge.connection.position().unwrap().as_u64();
        let answer = pair.edge.drain(pair.now);
        let mut frames = BytesMut::from(&answer[..]);
        match decode(&mut frames, u16::MAX).unwrap() {
            None => assert!(position - told < ACK_EVERY, "{position} - {told}"),
            Some(first) => {
                assert_eq!(first, Frame::Ack(position));
                told = position;
                if frames.is_empty() {
                    alone += 1;
                } else {
                    in_passing += 1;
                }
            }
        }
        pair.gateway.feed(pair.now, &answer);
    }
    assert!(alone > 10 && in_passing > 4, "{alone}, {in_passing}");
    assert!(alone + in_passing < 1000 / 20, "{alone} + {in_passing}");
}

/// What a frame has little of is kept as a copy, so that a small slice does not keep the application's memory; what is sent
/// again is the same.
#[test]
fn small_payloads_are_kept_as_copies() {
    let mut pair = pair();
    let stream = pair.edge.open(b"");
    pair.run();
    let whole = Bytes::from(bytes(40_000));
    let mut said = Vec::new();
    let parts = [
        (0, 300),
        (30_000, 1),
        (30_001, 1023),
        (35_000, 1024),
        (300, 20_000),
    ];
    for (from, length) in parts {
        let mut piece = whole.slice(from..from + length);
        said.extend_from_slice(&piece);
        let mut send = pair.gateway.connection.send_stream(stream).unwrap();
        assert_eq!(send.write(&mut piece), Ok(length));
        drop(piece);
        let _lost = pair.gateway.drain(pair.now);
        assert_eq!(whole.is_unique(), length < 1024, "{length} bytes");
    }
    pair.cut();
    pair.resume();
    pair.run();
    assert_eq!(pair.edge.read_all(stream).0, said);
}

/// Keeping is free of copies: the very slices are sent again.
#[test]
fn kept_payload_is_not_copied() {
    let mut pair = pair();
    let stream = pair.edge.open(b"");
    pair.run();
    let payload = Bytes::from(vec![1; 10_000]);
    let mut send = pair.gateway.connection.send_stream(stream).unwrap();
    send.write(&mut payload.clone()).unwrap();
    let _lost = pair.gateway.drain(pair.now);
    pair.cut();
    pair.resume();
    let mut out = crate::Transmit::new(1 << 20);
    pair.gateway.connection.poll_transmit(pair.now, &mut out);
    let mut slices = [std::io::IoSlice::new(&[]); 16];
    let filled = out.chunks_vectored(&mut slices);
    assert!(
        slices[..filled]
            .iter()
            .any(|slice| slice.as_ptr() == payload.as_ptr())
    );
}

/// ACK-3: a slot comes back only when nothing of its stream is kept, and at once when slots are short.
#[test]
fn slots_wait_for_acknowledgement_and_are_not_stuck() {
    let config = Config::default().set_max_streams(2);
    let mut pair = Pair::resumable(config.clone(), config);
    for round in 0..50 {
        let ids = [pair.edge.open(b"ask"), pair.edge.open(b"ask")];
        let refused = pair.edge.connection.open(http(), &mut Bytes::new());
        assert_eq!(refused, Err(OpenError::NoSlot));
        for id in ids {
            pair.edge.finish(id);
        }
        pair.run();
        for id in ids {
            pair.gateway.accept().unwrap();
            let _ = pair.gateway.read_all(id);
            pair.gateway.finish(id);
        }
        let wire = pair.gateway.drain(pair.now);
        assert_eq!(
            pair.gateway.connection.live_streams(),
            2,
            "round {round}: not acknowledged"
        );
        pair.edge.feed(pair.now, &wire);
        for id in ids {
            let _ = pair.edge.read_all(id);
        }
        pair.run();
        assert_eq!(pair.gateway.connection.live_streams(), 0);
        assert!(
            pair.edge.saw(&Event::StreamsAvailable),
            "round {round}: stuck"
        );
    }
}

/// The application goes on while there is no link.
#[test]
fn streams_live_without_a_link() {
    let mut pair = pair();
    let stream = pair.edge.open(b"one");
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(stream));
    pair.cut();
    assert!(!pair.edge.connection.is_attached());
    pair.edge.write(stream, b" two").unwrap();
    let second = pair.edge.open(b"second");
    assert!(!pair.edge.connection.wants_transmit());
    assert!(pair.edge.drain(pair.now).is_empty());
    assert_eq!(
        pair.gateway.read_all(stream),
        (b"one".to_vec(), Err(ReadError::Blocked))
    );
    pair.pass(Duration::from_secs(59));
    pair.resume();
    pair.run();
    assert_eq!(pair.gateway.read_all(stream).0, b" two");
    assert_eq!(pair.gateway.accept(), Some(second));
}

/// RESUME-8: nobody comes back.
#[test]
fn a_session_without_a_link_expires() {
    let mut pair = pair();
    pair.run();
    pair.cut();
    let deadline = pair.edge.connection.poll_timeout().unwrap();
    assert_eq!(deadline, pair.now + Duration::from_secs(60));
    pair.pass(Duration::from_millis(59_999));
    assert!(!pair.edge.connection.is_closed());
    pair.pass(Duration::from_millis(1));
    assert!(pair.edge.saw(&Event::Closed(ConnectionError::Expired)));
    assert!(
        pair.edge.drain(pair.now).is_empty(),
        "there is nobody to tell"
    );
    let position = Position::new(0);
    assert_eq!(
        pair.edge.connection.attach(pair.now, position),
        Err(ResumeError::Closed)
    );
    assert_eq!(
        pair.edge.connection.detach(pair.now),
        Err(ResumeError::Closed)
    );
}

/// Silence takes the link away, not the session.
#[test]
fn silence_detaches_a_resumable_session() {
    let mut pair = pair();
    pair.run();
    pair.pass(Duration::from_secs(15));
    for end in [&mut pair.gateway, &mut pair.edge] {
        assert!(end.saw(&Event::Detached));
        assert!(!end.connection.is_closed());
        end.feed(pair.now, &bytes_of(&Frame::Ping(1)));
        assert!(end.input.is_empty(), "a dead link says nothing any more");
    }
    pair.resume();
    pair.run();
}

/// RESUME-4, ACK-2: positions that cannot be end the session with their own code.
#[test]
fn impossible_positions_are_refused() {
    let opened = || {
        let mut pair = pair();
        let stream = pair.edge.open(b"ask");
        pair.run();
        pair.edge.write(stream, &[0; 3000]).unwrap();
        let wire = pair.edge.drain(pair.now);
        let sent = pair.edge.connection.retained();
        (pair, wire, sent)
    };
    let (_, _, sent) = opened();
    assert_eq!(
        sent,
        8 + 3000,
        "the OPEN is acknowledged with the first answer"
    );
    for wrong in [0, 1, 20, sent, 1 << 40] {
        let (mut pair, ..) = opened();
        pair.cut();
        let outcome = pair.edge.connection.attach(pair.now, Position::new(wrong));
        assert_eq!(outcome, Err(ResumeError::Position), "{wrong}");
        let error = ConnectionError::PeerMisbehaved(Violation::Position);
        assert!(pair.edge.saw(&Event::Closed(error)));
    }
    let (mut pair, ..) = opened();
    pair.edge.feed(pair.now, &bytes_of(&Frame::Ack(0)));
    assert_eq!(pair.edge.failed, None, "old news");
    pair.edge.feed(pair.now, &bytes_of(&Frame::Ack(1 << 30)));
    assert_eq!(pair.edge.failed, Some(Violation::Position.into()));
    assert_eq!(Violation::Position.close_code(), CloseCode::POSITION);
    let (mut pair, ..) = opened();
    let position = pair.gateway.connection.position().unwrap();
    let attached = pair.edge.connection.attach(pair.now, position);
    assert_eq!(attached, Err(ResumeError::Attached));
}

#[test]
fn sessions_without_the_feature_end_with_their_link() {
    let mut pair = Pair::new();
    let edge: &mut End = &mut pair.edge;
    assert_eq!(edge.connection.position(), None);
    assert_eq!(
        edge.connection.detach(pair.now),
        Err(ResumeError::NotResumable)
    );
    let outcome = edge.connection.attach(pair.now, Position::new(0));
    assert_eq!(outcome, Err(ResumeError::NotResumable));
    assert_eq!(edge.connection.retained(), 0);
}

/// Session frames of unknown types count towards positions, or both ends would drift apart.
#[test]
fn ignored_session_frames_count() {
    let mut pair = pair();
    pair.run();
    let before = pair.edge.connection.position().unwrap().as_u64();
    pair.edge.feed(pair.now, &[0xc5, 0, 2, 0, 0, 0, 0, 0, 1, 2]);
    pair.edge.feed(pair.now, &[0x85, 0, 2, 0, 0, 0, 0, 0, 1, 2]);
    let after = pair.edge.connection.position().unwrap().as_u64();
    assert_eq!(after - before, 10);
}

/// GOAWAY is kept like any other session frame, and its ping is sent again.
#[test]
fn going_away_survives_a_cut() {
    for lost in 0..4 {
        let mut pair = pair();
        pair.run();
        pair.gateway
            .connection
            .go_away(CloseCode::SHUTDOWN, None, "");
        for _ in 0..lost {
            pair.step();
        }
        let _lost = (pair.gateway.drain(pair.now), pair.edge.drain(pair.now));
        pair.cut();
        pair.resume();
        pair.run();
        let said = |last| Event::GoAway {
            last,
            code: CloseCode::SHUTDOWN,
            drain: None,
            text: String::new(),
        };
        assert!(pair.edge.saw(&said(LastStream::Any)), "{lost}");
        assert!(pair.edge.saw(&said(LastStream::Nothing)), "{lost}");
        assert!(pair.gateway.saw(&Event::Drained) && pair.edge.saw(&Event::Drained));
        assert_eq!(pair.edge.failed, None);
    }
}

/// The last stream's slot is given back at once, so that draining does not wait for the next ping.
#[test]
fn draining_does_not_wait_for_a_ping() {
    let mut pair = pair();
    let stream = pair.edge.open(b"ask");
    pair.edge.finish(stream);
    pair.run();
    pair.gateway.accept().unwrap();
    let _ = pair.gateway.read_all(stream);
    pair.gateway
        .connection
        .go_away(CloseCode::SHUTDOWN, None, "");
    pair.run();
    pair.gateway.finish(stream);
    pair.run();
    assert_eq!(pair.edge.read_all(stream).1, Ok(()));
    pair.run();
    assert!(pair.edge.saw(&Event::Drained));
    assert!(pair.gateway.saw(&Event::Drained));
}

/// A link that breaks every moment, under many streams whose credits are said again each time, is no flood.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn credits_said_again_are_no_flood() {
    let mut pair = pair();
    for _ in 0..1000 {
        pair.edge.open(b"");
        pair.gateway.open(b"");
    }
    pair.run();
    for _ in 0..20 {
        pair.cut();
        pair.resume();
        pair.run();
        assert_eq!((&pair.gateway.failed, &pair.edge.failed), (&None, &None));
    }
}

/// The time without a link is counted once, however often it is said that there is none.
#[test]
fn detaching_again_buys_no_time() {
    let mut pair = pair();
    pair.run();
    pair.cut();
    pair.pass(Duration::from_secs(59));
    pair.cut();
    pair.pass(Duration::from_secs(1));
    assert!(pair.edge.saw(&Event::Closed(ConnectionError::Expired)));
}

/// The honest rate of acknowledgements, one a call, is no flood.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn one_ack_a_call_is_no_flood() {
    let mut pair = pair();
    for _ in 0..4200 {
        let stream = pair.edge.open(b"ask");
        pair.edge.finish(stream);
        pair.run();
        pair.gateway.accept().unwrap();
        let _ = pair.gateway.read_all(stream);
        pair.gateway.write(stream, b"answer").unwrap();
        pair.gateway.finish(stream);
        pair.run();
        assert_eq!(pair.edge.read_all(stream), (b"answer".to_vec(), Ok(())));
        for end in [&mut pair.gateway, &mut pair.edge] {
            assert_eq!(end.failed, None);
            end.events.clear();
        }
    }
}
