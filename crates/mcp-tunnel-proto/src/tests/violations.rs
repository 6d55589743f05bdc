//! Every violation and the code that closes the session for it.

use bytes::Bytes;

use super::{
    frames::{bytes_of, id},
    pair::{Pair, http},
};
use crate::{
    CloseCode, Config, ConnectionError, Event, Frame, GoAway, LastStream, ResetCode, StreamId,
    Violation,
};

fn open(raw: u64, first: usize) -> Vec<u8> {
    let first = Bytes::from(vec![0; first]);
    bytes_of(&Frame::Open {
        id: id(raw),
        header: Box::new(http()),
        first,
        fin: false,
    })
}

fn data(raw: u64, length: usize, fin: bool) -> Vec<u8> {
    let payload = Bytes::from(vec![0; length]);
    bytes_of(&Frame::Data {
        id: id(raw),
        payload,
        fin,
    })
}

fn reset(raw: u64) -> Vec<u8> {
    bytes_of(&Frame::Reset {
        id: id(raw),
        code: ResetCode::CANCELLED,
    })
}

fn goaway(last: LastStream) -> Vec<u8> {
    bytes_of(&Frame::GoAway(Box::new(GoAway::new(
        last,
        CloseCode::NO_ERROR,
    ))))
}

/// Feeds a fresh gateway and expects the violation, its CLOSE (CLOSE-3), and deafness afterwards.
#[track_caller]
fn check(parts: &[&[u8]], expected: Violation, code: CloseCode) {
    let config = Config::default()
        .set_stream_window(10_000)
        .set_session_window(64 * 1024)
        .set_max_streams(20);
    let mut pair = Pair::with(config, Config::default());
    pair.run();
    pair.gateway.feed(pair.now, &parts.concat());
    let error = ConnectionError::PeerMisbehaved(expected);
    assert_eq!(pair.gateway.failed, Some(error.clone()));
    assert!(pair.gateway.saw(&Event::Closed(error.clone())));
    assert_eq!(expected.close_code(), code);
    let close = Frame::Close {
        code,
        text: expected.to_string(),
    };
    let sent = pair.gateway.drain(pair.now);
    assert_eq!(sent, bytes_of(&close));
    pair.edge.feed(pair.now, &sent);
    assert!(matches!(
        &pair.edge.failed,
        Some(ConnectionError::ClosedByPeer { code: told, .. }) if *told == code
    ));
    assert!(
        pair.edge.drain(pair.now).is_empty(),
        "a close is not answered"
    );
    pair.gateway.failed = None;
    pair.gateway.feed(pair.now, &open(2, 0));
    assert_eq!(pair.gateway.failed, Some(error), "nothing more is read");
    pair.gateway
        .connection
        .handle_timeout(pair.now + Config::default().silence());
    assert!(pair.gateway.drain(pair.now).is_empty());
}

/// FRAME-2, FRAME-3
#[test]
fn frames_too_long_or_malformed() {
    check(
        &[&[0x42, 0x40, 0x01, 0, 0, 0, 0, 2]],
        Violation::FrameSize,
        CloseCode::FRAME_SIZE,
    );
    check(
        &[&[0x44, 0, 3, 0, 0, 0, 0, 2, 0, 0, 0]],
        Violation::FrameFormat,
        CloseCode::FRAME_FORMAT,
    );
    check(
        &[&[0x42, 0, 0, 0, 0, 0, 0, 2]],
        Violation::EmptyData,
        CloseCode::FRAME_FORMAT,
    );
}

/// FRAME-5, FRAME-6
#[test]
fn frames_unknown_or_out_of_place() {
    for kind in [0x00, 0x0b, 0x3f, 0x47, 0x7f] {
        check(
            &[&[kind, 0, 0, 0, 0, 0, 0, 0]],
            Violation::UnknownFrame,
            CloseCode::UNKNOWN_FRAME,
        );
    }
    check(
        &[&bytes_of(&Frame::Ack(0))],
        Violation::UnexpectedFrame,
        CloseCode::UNEXPECTED_FRAME,
    );
    let hello = bytes_of(&super::frames::samples()[1].1);
    check(
        &[&hello],
        Violation::UnexpectedFrame,
        CloseCode::UNEXPECTED_FRAME,
    );
}

/// FRAME-4, OPEN-1, OPEN-2
#[test]
fn ids_of_the_wrong_kind() {
    let zero = [0x45, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let ping = [0x05, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    check(&[&zero], Violation::StreamId, CloseCode::STREAM_ID);
    check(&[&ping], Violation::StreamId, CloseCode::STREAM_ID);
    let goaway = [&[0x46, 0, 16, 0, 0, 0, 0, 1][..], &[0; 16]].concat();
    check(&[&goaway], Violation::StreamId, CloseCode::STREAM_ID);
    check(
        &[&open(1, 0)],
        Violation::StreamParity,
        CloseCode::STREAM_ID,
    );
    check(
        &[&open(4, 0), &open(4, 0)],
        Violation::StreamReused,
        CloseCode::STREAM_ID,
    );
    check(
        &[&open(4, 0), &open(2, 0)],
        Violation::StreamReused,
        CloseCode::STREAM_ID,
    );
}

/// STREAM-1: also for streams of the receiver that it has not opened, or only queued.
#[test]
fn frames_for_streams_that_never_were() {
    let stop = bytes_of(&Frame::Stop {
        id: id(6),
        code: ResetCode::CANCELLED,
    });
    let credit = bytes_of(&Frame::StreamCredit {
        id: id(3),
        limit: 1,
    });
    for bytes in [
        data(2, 1, false),
        data(1, 1, true),
        reset(2),
        stop,
        credit,
        reset(1),
    ] {
        check(
            &[&bytes],
            Violation::StreamUnopened,
            CloseCode::STREAM_STATE,
        );
    }
    let mut pair = Pair::new();
    let queued = pair.gateway.open(b"not sent yet");
    pair.gateway.feed(pair.now, &reset(queued.as_u64()));
    assert_eq!(pair.gateway.failed, Some(Violation::StreamUnopened.into()));
}

/// DATA-3: nothing after the end, whichever it was.
#[test]
fn frames_after_the_end_of_their_direction() {
    for end in [data(2, 1, true), data(2, 0, true), reset(2)] {
        for more in [data(2, 1, false), data(2, 0, true), reset(2)] {
            check(
                &[&open(2, 0), &end, &more],
                Violation::StreamEnded,
                CloseCode::STREAM_STATE,
            );
        }
    }
}

/// STREAM-4
#[test]
fn frames_for_streams_long_gone() {
    // A skipped id counts as closed, and was never recent.
    check(
        &[&open(8, 0), &data(2, 1, false)],
        Violation::StreamForgotten,
        CloseCode::STREAM_STATE,
    );
}

/// OPEN-4
#[test]
fn more_streams_than_granted() {
    let opens: Vec<u8> = (1..=21).flat_map(|n| open(2 * n, 0)).collect();
    check(&[&opens], Violation::StreamLimit, CloseCode::STREAM_LIMIT);
}

/// CREDIT-2, CREDIT-3
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn payload_beyond_credit() {
    check(
        &[&open(2, 10_001)],
        Violation::StreamCredit,
        CloseCode::STREAM_CREDIT,
    );
    check(
        &[&open(2, 5000), &data(2, 5001, false)],
        Violation::StreamCredit,
        CloseCode::STREAM_CREDIT,
    );
    let seven: Vec<u8> = (1..=7).flat_map(|n| open(2 * n, 10_000)).collect();
    check(
        &[&seven],
        Violation::SessionCredit,
        CloseCode::SESSION_CREDIT,
    );
    // CREDIT-3 counts headers: 7,281 frames of one byte are a session window of 64 KiB.
    let mut pair = Pair::with(
        Config::default().set_session_window(64 * 1024),
        Config::default(),
    );
    pair.gateway.feed(pair.now, &open(2, 0));
    let tiny = data(2, 1, false).repeat(7281);
    pair.gateway.feed(pair.now, &tiny);
    assert_eq!(pair.gateway.failed, None);
    pair.gateway.feed(pair.now, &data(2, 1, false));
    assert_eq!(pair.gateway.failed, Some(Violation::SessionCredit.into()));
}

/// CREDIT-5
#[test]
fn limits_out_of_range() {
    for frame in [
        Frame::SessionCredit(1 << 62),
        Frame::StreamsCredit(u64::MAX),
        Frame::StreamCredit {
            id: id(2),
            limit: 1 << 63,
        },
    ] {
        check(
            &[&open(2, 0), &bytes_of(&frame)],
            Violation::Range,
            CloseCode::RANGE,
        );
    }
    let most = Frame::SessionCredit((1 << 62) - 1);
    let mut pair = Pair::new();
    pair.gateway.feed(pair.now, &bytes_of(&most));
    assert_eq!(pair.gateway.failed, None);
}

/// GOAWAY-3
#[test]
fn goaway_said_too_often() {
    let any = goaway(LastStream::Any);
    let none = goaway(LastStream::Nothing);
    let some = goaway(LastStream::UpTo(id(1)));
    for parts in [[&any, &any], [&none, &any], [&none, &none], [&some, &none]] {
        check(
            &[parts[0], parts[1]],
            Violation::GoAwayRepeated,
            CloseCode::GOAWAY,
        );
    }
    let beyond = goaway(LastStream::UpTo(StreamId::MAX))
        .into_iter()
        .enumerate();
    let beyond: Vec<u8> = beyond.map(|(at, b)| if at == 8 { 1 } else { b }).collect();
    check(&[&beyond], Violation::Range, CloseCode::RANGE);
}

/// HELLO-4, HELLO-5: those of the handshake have their codes too.
#[test]
fn codes_of_the_handshake() {
    assert_eq!(Violation::Version.close_code(), CloseCode::VERSION);
    assert_eq!(Violation::Side.close_code(), CloseCode::SIDE);
    assert_eq!(Violation::HelloSize.close_code(), CloseCode::FRAME_SIZE);
    assert_eq!(format!("{:?}", CloseCode::SIDE), "CloseCode(same side)");
    assert_eq!(CloseCode::from_u32(0x99).to_string(), "0x99");
    assert_eq!(ResetCode::application(1).as_u32(), 0x8000_0001);
}
