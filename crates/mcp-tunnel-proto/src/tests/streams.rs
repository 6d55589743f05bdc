//! The life of a stream: halves, resets, stops, slots, late frames.

use bytes::Bytes;

use super::{
    frames::{bytes_of, id},
    pair::{End, Pair, http},
};
use crate::{
    Config, Event, Frame, OpenError, ReadError, ResetCode, RouteName, StreamId, StreamKind,
    Urgency, Violation, WriteError,
};

const CODE: ResetCode = ResetCode::CANCELLED;

/// A pair with one stream of the edge, accepted.
fn opened() -> (Pair, StreamId) {
    opened_with(Config::default())
}

fn opened_with(config: Config) -> (Pair, StreamId) {
    let mut pair = Pair::with(config.clone(), config);
    let id = pair.edge.open(b"ask");
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(id));
    (pair, id)
}

/// The frames that an end has to send now, without its pings.
fn sent(end: &mut End, now: std::time::Instant) -> Vec<Frame> {
    let mut bytes = bytes::BytesMut::from(&end.drain(now)[..]);
    let mut frames = Vec::new();
    while let Some(frame) = crate::decode(&mut bytes, u16::MAX).unwrap() {
        if !matches!(frame, Frame::Ping(_) | Frame::Pong(_)) {
            frames.push(frame);
        }
    }
    frames
}

/// OPEN-3, SCHED-4: payload and end travel in OPEN, and the end on the last payload.
#[test]
fn one_frame_carries_open_payload_and_end() {
    let mut pair = Pair::new();
    pair.run();
    let id = pair.edge.open(b"ask");
    pair.edge.finish(id);
    let frames = sent(&mut pair.edge, pair.now);
    let [
        Frame::Open {
            first, fin: true, ..
        },
    ] = &frames[..]
    else {
        panic!("{frames:?}");
    };
    assert_eq!(first, "ask");

    let id = pair.edge.open(b"");
    pair.edge.write(id, &[1; 20_000]).unwrap();
    pair.edge.finish(id);
    let frames = sent(&mut pair.edge, pair.now);
    assert!(
        matches!(
            &frames[..],
            [
                Frame::Open { fin: false, .. },
                Frame::Data { fin: true, .. }
            ]
        ),
        "{frames:?}"
    );

    let id = pair.edge.open(b"x");
    assert_eq!(sent(&mut pair.edge, pair.now).len(), 1);
    pair.edge.finish(id);
    let frames = sent(&mut pair.edge, pair.now);
    assert!(
        matches!(&frames[..], [Frame::Data { payload, fin: true, .. }] if payload.is_empty()),
        "{frames:?}"
    );
}

/// OPEN-1: each side has ids of its own.
#[test]
fn both_sides_open_at_once() {
    let mut pair = Pair::new();
    let (of_edge, of_gateway) = (pair.edge.open(b"e"), pair.gateway.open(b"g"));
    assert_eq!((of_edge, of_gateway), (id(2), id(1)));
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(of_edge));
    assert_eq!(pair.edge.accept(), Some(of_gateway));
    assert_eq!(pair.edge.open(b""), id(4));
}

/// DATA-2, STREAM-2: a half-closed stream still carries the other direction.
#[test]
fn half_close_leaves_the_other_direction() {
    let (mut pair, id) = opened();
    pair.edge.finish(id);
    pair.run();
    assert_eq!(pair.gateway.read_all(id).1, Ok(()));
    for n in 0..10_u8 {
        pair.gateway.write(id, &[n]).unwrap();
        pair.run();
    }
    pair.gateway.finish(id);
    pair.run();
    assert_eq!(pair.edge.read_all(id), ((0..10).collect(), Ok(())));
}

/// RESET-1: what was not sent is dropped, what was not read too.
#[test]
fn reset_overtakes_payload() {
    let (mut pair, id) = opened();
    pair.gateway.write(id, &[1; 50_000]).unwrap();
    pair.gateway.reset(id, ResetCode::INTERNAL);
    assert_eq!(pair.gateway.connection.buffered(), 0);
    pair.run();
    assert_eq!(
        pair.edge.read(id),
        Err(ReadError::Reset(ResetCode::INTERNAL))
    );
    assert_eq!(pair.edge.read(id), Err(ReadError::Closed), "said once");
}

/// RESET-2: a reset is answered by nothing.
#[test]
fn reset_is_not_answered_with_reset() {
    let (mut pair, id) = opened();
    pair.edge.reset(id, CODE);
    let bytes = pair.edge.drain(pair.now);
    pair.gateway.feed(pair.now, &bytes);
    assert_eq!(pair.gateway.read(id), Err(ReadError::Reset(CODE)));
    assert!(sent(&mut pair.gateway, pair.now).is_empty());
    // The other direction goes on.
    pair.gateway.write(id, b"still").unwrap();
    pair.gateway.finish(id);
    pair.run();
    assert_eq!(pair.edge.read_all(id), (b"still".to_vec(), Ok(())));
}

/// STOP-1: the protocol answers with a reset of the same code, once, whatever the application does.
#[test]
fn stop_is_answered_with_one_reset() {
    let (mut pair, id) = opened();
    pair.gateway.write(id, &[1; 50_000]).unwrap();
    pair.edge.stop(id, CODE);
    let bytes = pair.edge.drain(pair.now);
    pair.gateway.feed(pair.now, &bytes);
    assert!(pair.gateway.saw(&Event::Stopped { id, code: CODE }));
    assert_eq!(pair.gateway.write(id, b"x"), Err(WriteError::Stopped(CODE)));
    pair.gateway.reset(id, ResetCode::INTERNAL);
    assert_eq!(
        sent(&mut pair.gateway, pair.now),
        [Frame::Reset { id, code: CODE }]
    );
}

#[test]
fn finish_after_stop_says_so() {
    let (mut pair, id) = opened();
    pair.edge.stop(id, CODE);
    pair.run();
    let outcome = pair.gateway.connection.send_stream(id).unwrap().finish();
    assert_eq!(outcome, Err(WriteError::Stopped(CODE)));
    assert!(pair.gateway.connection.send_stream(id).is_none());
}

/// STOP-2: what was on its way is counted and dropped.
#[test]
fn payload_behind_a_stop_is_dropped() {
    let (mut pair, id) = opened();
    pair.edge.stop(id, CODE);
    pair.gateway.write(id, &[1; 30_000]).unwrap();
    pair.gateway.finish(id);
    pair.step();
    pair.run();
    assert!(pair.edge.connection.recv_stream(id).is_none());
    pair.edge.finish(id);
    pair.run();
    assert_eq!(pair.gateway.read_all(id).1, Ok(()));
    assert_eq!(pair.edge.connection.live_streams(), 0);
    assert_eq!(pair.gateway.connection.live_streams(), 0);
}

#[test]
fn stop_after_the_end_sends_nothing() {
    let (mut pair, id) = opened();
    pair.gateway.write(id, b"all").unwrap();
    pair.gateway.finish(id);
    pair.run();
    pair.edge.stop(id, CODE);
    assert!(sent(&mut pair.edge, pair.now).is_empty());
}

/// A stream given up before OPEN left leaves no trace and costs no slot; ids may have gaps (OPEN-2).
#[test]
fn stream_given_up_unsent_leaves_no_trace() {
    let mut pair = Pair::with(Config::default().set_max_streams(1), Config::default());
    pair.run();
    for _ in 0..5 {
        let id = pair.edge.open(b"never mind");
        pair.edge.reset(id, CODE);
        pair.edge.stop(id, CODE);
        assert!(pair.edge.saw(&Event::StreamClosed { id }));
    }
    assert!(sent(&mut pair.edge, pair.now).is_empty());
    let last = pair.edge.open(b"now");
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(last));
    assert_eq!(last, id(12));
    assert_eq!(pair.edge.connection.buffered(), 0);
}

#[test]
fn stream_reset_unsent_still_opens() {
    let mut pair = Pair::new();
    let id = pair.edge.open(b"never mind");
    pair.edge.reset(id, CODE);
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(id));
    assert_eq!(pair.gateway.read(id), Err(ReadError::Reset(CODE)));
    pair.gateway.write(id, b"answer").unwrap();
    pair.gateway.finish(id);
    pair.run();
    assert_eq!(pair.edge.read_all(id), (b"answer".to_vec(), Ok(())));
}

/// STREAM-3: open, reset and stop in a loop gain no concurrency while the application works.
#[test]
fn slot_is_kept_until_the_application_lets_go() {
    let mut pair = Pair::with(Config::default().set_max_streams(4), Config::default());
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = pair.edge.open(b"work");
        pair.run();
        pair.edge.reset(id, CODE);
        pair.edge.stop(id, CODE);
        pair.run();
        ids.push(pair.gateway.accept().unwrap());
    }
    assert_eq!(pair.edge.connection.live_streams(), 0);
    let mut first = Bytes::new();
    assert_eq!(
        pair.edge.connection.open(http(), &mut first),
        Err(OpenError::NoSlot)
    );
    // Half of a stream is not enough.
    assert_eq!(pair.gateway.read(ids[0]), Err(ReadError::Reset(CODE)));
    pair.run();
    assert_eq!(
        pair.edge.connection.open(http(), &mut first),
        Err(OpenError::NoSlot)
    );
    pair.gateway.reset(ids[0], CODE);
    pair.run();
    assert!(pair.edge.saw(&Event::StreamsAvailable));
    assert!(pair.edge.connection.open(http(), &mut first).is_ok());
}

#[test]
fn own_streams_are_bounded_whatever_the_peer_allows() {
    let config = Config::default().set_max_opened_streams(2);
    let mut pair = Pair::with(Config::default(), config);
    let (first, _) = (pair.edge.open(b""), pair.edge.open(b""));
    let refused = pair.edge.connection.open(http(), &mut Bytes::new());
    assert_eq!(refused, Err(OpenError::NoSlot));
    pair.edge.reset(first, CODE);
    pair.edge.stop(first, CODE);
    assert!(pair.edge.saw(&Event::StreamsAvailable));
    pair.edge.open(b"");
}

#[test]
fn heads_are_bounded() {
    let mut pair = Pair::new();
    let mut header = http();
    header.metadata = Bytes::from(vec![0; 2048]);
    let outcome = pair.edge.connection.open(header, &mut Bytes::new());
    assert_eq!(outcome, Err(OpenError::HeadTooLong));
}

/// OPEN-7: an unknown kind is for the application to refuse.
#[test]
fn unknown_kind_reaches_the_application() {
    let mut pair = Pair::new();
    let mut header = http();
    header.kind = StreamKind::Unknown(200);
    header.urgency = Urgency::Background;
    header.route = RouteName::parse("files").unwrap();
    let id = pair
        .edge
        .connection
        .open(header.clone(), &mut Bytes::new())
        .unwrap();
    pair.run();
    assert!(pair.gateway.saw(&Event::Opened { id, header }));
}

/// STREAM-5: stops and credits that cross the end of their stream are ignored, however late.
#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn crossing_frames_are_ignored() {
    let (mut pair, first) = opened();
    let exchange = |pair: &mut Pair, id: StreamId| {
        pair.edge.finish(id);
        pair.run();
        let _ = pair.gateway.read_all(id);
        pair.gateway.finish(id);
        pair.run();
        let _ = pair.edge.read_all(id);
    };
    exchange(&mut pair, first);
    for _ in 0..600 {
        let id = pair.edge.open(b"");
        pair.run();
        exchange(&mut pair, id);
    }
    for frame in [
        Frame::Stop {
            id: first,
            code: CODE,
        },
        Frame::StreamCredit {
            id: first,
            limit: 1 << 40,
        },
    ] {
        pair.gateway.feed(pair.now, &bytes_of(&frame));
        assert_eq!(pair.gateway.failed, None);
    }
    // STREAM-4: DATA and RESET are ignored for a while only.
    let recent = id(2 * 600);
    for frame in [
        Frame::Reset {
            id: recent,
            code: CODE,
        },
        Frame::Data {
            id: recent,
            payload: Bytes::from_static(b"late"),
            fin: false,
        },
    ] {
        pair.gateway.feed(pair.now, &bytes_of(&frame));
        assert_eq!(pair.gateway.failed, None);
    }
    let frame = Frame::Reset {
        id: first,
        code: CODE,
    };
    pair.gateway.feed(pair.now, &bytes_of(&frame));
    assert_eq!(pair.gateway.failed, Some(Violation::StreamForgotten.into()));
}

/// STREAM-6: a lost or closed session is never a clean end.
#[test]
fn closed_session_is_no_clean_end() {
    let (mut pair, id) = opened();
    pair.gateway.write(id, b"half").unwrap();
    pair.run();
    pair.gateway
        .connection
        .close(crate::CloseCode::SHUTDOWN, "");
    pair.run();
    assert_eq!(
        pair.edge.read_all(id),
        (b"half".to_vec(), Err(ReadError::Closed))
    );
    assert_eq!(pair.edge.write(id, b"x"), Err(WriteError::Closed));
    assert_eq!(
        pair.edge.connection.open(http(), &mut Bytes::new()),
        Err(OpenError::Closed)
    );
    assert!(pair.edge.connection.poll_timeout().is_none());
}

#[test]
fn small_writes_leave_in_one_frame() {
    let (mut pair, id) = opened();
    for n in 0..100_u8 {
        let slice = [n; 10];
        let mut send = pair.gateway.connection.send_stream(id).unwrap();
        assert_eq!(send.write_slice(&slice), Ok(10));
    }
    let frames = sent(&mut pair.gateway, pair.now);
    assert!(matches!(&frames[..], [Frame::Data { payload, .. }] if payload.len() == 1000));
}

#[test]
fn reading_into_a_buffer_copies_across_pieces() {
    let (mut pair, id) = opened();
    pair.gateway.write(id, &[1; 3000]).unwrap();
    pair.run();
    pair.gateway.write(id, &[2; 10]).unwrap();
    pair.gateway.write(id, &[3; 2000]).unwrap();
    pair.gateway.finish(id);
    pair.run();
    let mut buffer = [0; 700];
    let mut got = Vec::new();
    loop {
        let mut recv = pair.edge.connection.recv_stream(id).unwrap();
        assert_eq!(recv.read_into(&mut []), Ok(0));
        match recv.read_into(&mut buffer) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(error) => panic!("{error}"),
        }
    }
    let expected = [vec![1; 3000], vec![2; 10], vec![3; 2000]].concat();
    assert_eq!(got, expected);
    assert!(pair.edge.connection.recv_stream(id).is_none());
}

#[test]
fn writable_comes_after_a_cut_write_and_once() {
    let (mut pair, id) = opened_with(
        Config::default()
            .set_stream_window(20_000)
            .set_shared_window(0),
    );
    assert_eq!(pair.gateway.write(id, &[0; 30_000]), Ok(20_000));
    assert_eq!(pair.gateway.write(id, &[0; 1]), Err(WriteError::Blocked));
    pair.run();
    assert!(!pair.gateway.saw(&Event::Writable { id }), "no credit yet");
    assert!(pair.edge.saw(&Event::Readable { id }));
    assert_eq!(pair.edge.read_all(id).0.len(), 20_000);
    pair.run();
    assert!(pair.gateway.saw(&Event::Writable { id }));
    assert!(!pair.gateway.saw(&Event::Writable { id }));
    assert_eq!(pair.gateway.write(id, &[0; 30_000]), Ok(20_000));
}
