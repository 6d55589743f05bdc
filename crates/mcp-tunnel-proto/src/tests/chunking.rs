//! However the input is cut, the same happens.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    frames::{bytes_of, id},
    pair::{End, Pair, http},
};
use crate::{
    CloseCode, ConnectionError, Event, Frame, GoAway, LastStream, ReadError, ResetCode, StreamId,
};

/// Frames of a peer that mostly keeps the rules.
fn peer_frame() -> impl Strategy<Value = Frame> {
    let stream = (1_u64..8).prop_map(|n| id(2 * n));
    let payload = prop::collection::vec(any::<u8>(), 1..3000).prop_map(Bytes::from);
    let code = Just(ResetCode::CANCELLED);
    prop_oneof![
        4 => (stream.clone(), payload.clone(), any::<bool>()).prop_map(|(id, first, fin)| Frame::Open {
            id, header: Box::new(http()), first, fin,
        }),
        8 => (stream.clone(), payload, prop::bool::weighted(0.1))
            .prop_map(|(id, payload, fin)| Frame::Data { id, payload, fin }),
        1 => (stream.clone(), code).prop_map(|(id, code)| Frame::Reset { id, code }),
        1 => (stream.clone(), code).prop_map(|(id, code)| Frame::Stop { id, code }),
        2 => (stream, 0_u64..1 << 40).prop_map(|(id, limit)| Frame::StreamCredit { id, limit }),
        1 => (0_u64..1 << 40).prop_map(Frame::SessionCredit),
        1 => any::<u64>().prop_map(Frame::Ping),
        1 => Just(Frame::GoAway(Box::new(GoAway::new(LastStream::Any, CloseCode::NO_ERROR)))),
    ]
}

/// What an application sees in the end, whatever the order of its wake-ups.
#[derive(Debug, PartialEq)]
struct Seen {
    streams: BTreeMap<StreamId, (Vec<u8>, Result<(), ReadError>)>,
    failed: Option<ConnectionError>,
    sent: Vec<u8>,
}

fn seen(end: &mut End, now: std::time::Instant) -> Seen {
    end.collect();
    let opened: Vec<StreamId> = std::iter::from_fn(|| end.accept()).collect();
    let sent = end.drain(now);
    Seen {
        streams: opened
            .into_iter()
            .map(|id| (id, end.read_all(id)))
            .collect(),
        failed: end.failed.clone(),
        sent,
    }
}

/// Feeds `bytes` in the given pieces, without looking in between.
fn feed(bytes: &[u8], pieces: &[usize]) -> (Pair, Vec<Event>) {
    let mut pair = Pair::new();
    pair.run();
    pair.gateway.events.clear();
    let end = &mut pair.gateway;
    let mut rest = bytes;
    let mut sizes = pieces.iter().copied().cycle();
    while !rest.is_empty() && end.failed.is_none() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        rest = after;
        end.input.extend_from_slice(piece);
        end.failed = end.connection.handle_input(pair.now, &mut end.input).err();
    }
    end.collect();
    let events = end.events.iter().cloned().collect();
    (pair, events)
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "minutes under an interpreter")]
    fn any_chunking_gives_the_same_events(
        frames in prop::collection::vec(peer_frame(), 1..40),
        pieces in prop::collection::vec(1_usize..2000, 1..20),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        let (mut whole, expected) = feed(&bytes, &[]);
        let expected_seen = seen(&mut whole.gateway, whole.now);
        for sizes in [&pieces[..], &[1], &[7, 8, 9]] {
            let (mut cut, events) = feed(&bytes, sizes);
            prop_assert_eq!(&events, &expected);
            prop_assert_eq!(&seen(&mut cut.gateway, cut.now), &expected_seen);
        }
    }

    /// Events fetched after every piece: more wake-ups, but the same streams, bytes and end.
    #[test]
    #[cfg_attr(miri, ignore = "minutes under an interpreter")]
    fn any_chunking_with_polls_between_gives_the_same_streams(
        frames in prop::collection::vec(peer_frame(), 1..40),
        pieces in prop::collection::vec(1_usize..2000, 1..20),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        let (mut whole, _) = feed(&bytes, &[]);
        let expected = seen(&mut whole.gateway, whole.now);
        let mut pair = Pair::new();
        pair.run();
        pair.gateway.events.clear();
        let mut rest = &bytes[..];
        for size in pieces.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            rest = after;
            pair.gateway.feed(pair.now, piece);
            if rest.is_empty() || pair.gateway.failed.is_some() {
                break;
            }
        }
        prop_assert_eq!(seen(&mut pair.gateway, pair.now), expected);
    }

    /// Bytes of no meaning: no panic, and the session ends at most once.
    #[test]
    #[cfg_attr(miri, ignore = "minutes under an interpreter")]
    fn noise_in_any_chunking_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        pieces in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let (_, events) = feed(&bytes, &pieces);
        let ends = events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
        prop_assert!(ends <= 1);
    }
}
