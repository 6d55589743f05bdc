//! Faults that other multiplexers had, one test each, here or where it belongs.
//!
//! | fault | test |
//! |---|---|
//! | CVE-2023-44487 rapid reset | `abuse::rapid_reset_meets_the_slots`, `abuse::rapid_reset_meets_the_budget` |
//! | CVE-2025-8671 made to reset | `abuse::provoked_resets_meet_the_budget`, `abuse::refused_opens_meet_the_budget` |
//! | heads without end (CONTINUATION), CVE-2019-9516 | `streams::heads_are_bounded` |
//! | CVE-2019-9518 empty frames | `abuse::empty_frames_are_no_frames` |
//! | CVE-2019-9511 dribble | `abuse::small_frame_flood` |
//! | CVE-2019-9517 buffering for a peer that does not read | `credit::buffers_for_a_stalled_link_are_bounded` |
//! | CVE-2019-9512, 9515 pings, settings | `abuse::ping_flood`, `abuse::credit_flood`, `abuse::admission_flood` |
//! | CVE-2019-9514, CVE-2024-32984 answers pile up | `abuse::answers_to_a_peer_that_never_reads_are_bounded` |
//! | CVE-2023-26964 resets before accept | `resets_before_accept_do_not_pile_up` |
//! | CVE-2026-31814 limit overflow | `limits_at_their_maximum_overflow_nothing` |
//! | CVE-2026-32314 first payload beyond the window | `first_payload_beyond_the_window_makes_no_stream` |
//! | a stuck stream ends the session (hashicorp/yamux) | `a_stream_that_nobody_answers_harms_nobody` |
//! | credit waits behind data (go-yamux #136) | `credit_does_not_wait_behind_payload` |
//! | no back-pressure for streams, stream or session (libp2p #377) | `violations::more_streams_than_granted`, `violations::payload_beyond_credit` |
//!
//! And of what h2 0.4 mended, where this protocol has the like of it:
//!
//! | in | fault | test |
//! |---|---|---|
//! | 0.4.1 | session credit starves streams | `fairness::little_session_credit_starves_nobody` |
//! | 0.4.2 | limits that were not said | `frames::malformed_frames_match_their_vectors` (HELLO-3) |
//! | 0.4.2, 15 | resets of own origin without a bound | `abuse::provoked_resets_meet_the_budget` |
//! | 0.4.3 | limits used before they hold | `handshake` (ADMISSION-5) |
//! | 0.4.3, 11 | a connection without TLS' farewell | `streams::closed_session_is_no_clean_end`, transport: `a_lost_link_is_an_error_and_what_had_arrived_is_not_lost` |
//! | 0.4.4 | heads without end | `streams::heads_are_bounded` |
//! | 0.4.5 | shutdown hangs | `draining_ends_in_either_order` |
//! | 0.4.6 | wrong code for what was not processed | `goaway::refused_streams_are_safe_to_replay` |
//! | 0.4.7 | reset is not told | `goaway::refused_streams_are_safe_to_replay` |
//! | 0.4.8 | credit of an ended direction | `credit_for_an_ended_direction_moves_nothing` |
//! | 0.4.8 | a connection that ends is written to, or spins | transport: `an_end_that_fails_or_never_comes_keeps_nobody` |
//! | 0.4.10 | an error looks like the end | `streams::closed_session_is_no_clean_end`, `a_reset_is_never_the_end` |
//! | 0.4.12 | closed streams without a bound | `closed_streams_are_remembered_within_a_bound` |
//! | 0.4.13, 14 | session credit leaks | `credit::reset_leaks_no_credit` and its neighbours |
//! | 0.4.14 | GOAWAY ends the peer's streams | `goaway_leaves_the_streams_of_its_sender` |
//! | 0.4.14 | a writer that waits hears of no reset | `a_writer_that_waits_hears_of_a_stop` |
//! | 0.4.14, 15 | frames before OPEN | `streams::stream_reset_unsent_still_opens`, `violations::frames_for_streams_that_never_were` |
//! | 0.4.15 | room of nothing | `writable_means_room` |
//! | 0.4.15 | payload behind a reset | `streams::reset_overtakes_payload` |
//! | 0.4.16 | payload before the end is lost | `payload_before_the_end_outlives_a_stop` |
//! | 0.4.16 | credit waits for a reader that is gone | `credit::drop_leaks_no_credit` |
//! | 0.4.16 | the end alone wakes nobody | `an_end_without_payload_wakes_the_reader` |
//! | 0.4.16 | a missed wake-up | transport: `no_wake_up_is_lost_between_threads` |
//! | 0.4.16 | a write that takes nothing spins | transport: `nothing_hangs_or_looks_whole_whatever_fails_at_whichever_byte` |
//! | 0.4.16, 17 | small frames, those that end a stream excepted | `abuse::small_frame_flood` |
//! | 0.4.18, 19, 20 | the budget of small frames is too small for wide windows | `abuse::heavy_use_spends_no_budget` |
//! | 0.4.20 | refused streams count as resets | `abuse::refused_opens_meet_the_budget`, `abuse::refusals_of_own_streams_are_no_flood` |
//! | 0.4.20 | GOAWAY with a stream | `violations::ids_of_the_wrong_kind` |
//! | 0.4.20 | a race at the end | `draining_ends_in_either_order`, transport: `futures_dropped_while_they_wait_lose_nothing` |

use std::time::Duration;

use bytes::Bytes;

use super::{
    frames::{bytes_of, id},
    pair::{Pair, http},
};
use crate::{CloseCode, Config, Event, Frame, GoAway, LastStream, ReadError, ResetCode, Violation};

const CODE: ResetCode = ResetCode::CANCELLED;

fn open(raw: u64, first: &[u8], fin: bool) -> Vec<u8> {
    bytes_of(&Frame::Open {
        id: id(raw),
        header: Box::new(http()),
        first: Bytes::copy_from_slice(first),
        fin,
    })
}

fn data(raw: u64, payload: &[u8], fin: bool) -> Vec<u8> {
    bytes_of(&Frame::Data {
        id: id(raw),
        payload: Bytes::copy_from_slice(payload),
        fin,
    })
}

fn reset(raw: u64) -> Vec<u8> {
    let id = id(raw);
    bytes_of(&Frame::Reset { id, code: CODE })
}

fn stop(raw: u64) -> Vec<u8> {
    let id = id(raw);
    bytes_of(&Frame::Stop { id, code: CODE })
}

fn goaway(last: LastStream) -> Vec<u8> {
    let goaway = GoAway::new(last, CloseCode::NO_ERROR);
    bytes_of(&Frame::GoAway(Box::new(goaway)))
}

/// ABUSE-2: three events a slot, and then no slot.
#[test]
fn resets_before_accept_do_not_pile_up() {
    let mut pair = Pair::with(Config::default().set_max_streams(10), Config::default());
    pair.run();
    pair.gateway.events.clear();
    for n in 1..=10 {
        let storm = [open(2 * n, b"x", false), reset(2 * n), stop(2 * n)].concat();
        pair.gateway.feed(pair.now, &storm);
        let _ = pair.gateway.drain(pair.now);
    }
    assert_eq!(pair.gateway.failed, None);
    assert_eq!(pair.gateway.events.len(), 30);
    assert_eq!(pair.gateway.connection.live_streams(), 10);
    pair.gateway.feed(pair.now, &open(22, b"", false));
    assert_eq!(pair.gateway.failed, Some(Violation::StreamLimit.into()));
}

/// CREDIT-5
#[test]
fn limits_at_their_maximum_overflow_nothing() {
    let most = (1 << 62) - 1;
    let mut pair = Pair::new();
    let own = pair.gateway.open(b"hello");
    pair.run();
    let limits = [
        Frame::SessionCredit(most),
        Frame::StreamsCredit(most),
        Frame::StreamCredit {
            id: own,
            limit: most,
        },
    ];
    for frame in limits.iter().chain(&limits) {
        pair.gateway.feed(pair.now, &bytes_of(frame));
    }
    assert_eq!(pair.gateway.failed, None);
    let written = pair.gateway.write(own, &vec![0; 1 << 20]).unwrap();
    assert_eq!(written, Config::default().send_buffer());
    assert!(pair.gateway.drain(pair.now).len() > written);
}

#[test]
fn first_payload_beyond_the_window_makes_no_stream() {
    let mut pair = Pair::with(Config::default().set_stream_window(4096), Config::default());
    pair.run();
    pair.gateway.events.clear();
    pair.gateway.feed(pair.now, &open(2, &[0; 4097], true));
    let error = Violation::StreamCredit.into();
    assert_eq!(pair.gateway.failed, Some(error));
    assert_eq!(pair.gateway.accept(), None);
    assert_eq!(pair.gateway.connection.live_streams(), 0);
}

#[test]
fn a_stream_that_nobody_answers_harms_nobody() {
    let mut pair = Pair::new();
    let stuck = pair.edge.open(b"anybody?");
    pair.run();
    for _ in 0..200 {
        pair.pass(Duration::from_secs(3));
        pair.run();
    }
    let call = pair.edge.open(b"ping");
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(stuck));
    assert_eq!(pair.gateway.accept(), Some(call));
    pair.gateway.write(call, b"pong").unwrap();
    pair.run();
    assert_eq!(pair.edge.read(call), Ok(Some(Bytes::from_static(b"pong"))));
    assert_eq!(pair.edge.read(stuck), Err(ReadError::Blocked));
    assert_eq!((&pair.edge.failed, &pair.gateway.failed), (&None, &None));
}

/// SCHED-1
#[test]
fn credit_does_not_wait_behind_payload() {
    let mut pair = Pair::new();
    let upload = pair.edge.open(b"");
    let download = pair.edge.open(b"");
    pair.edge.write(upload, &[0; 60_000]).unwrap();
    pair.run();
    pair.gateway.write(download, &[0; 60_000]).unwrap();
    let _ = pair.gateway.read_all(upload);
    let mut sent = bytes::BytesMut::from(&pair.gateway.drain(pair.now)[..]);
    let first = crate::decode(&mut sent, u16::MAX).unwrap();
    assert!(matches!(first, Some(Frame::StreamCredit { id, .. }) if id == upload));
}

/// GOAWAY-2: the last stream may end before the final word, or after it.
#[test]
fn draining_ends_in_either_order() {
    for ends_first in [true, false] {
        let mut pair = Pair::new();
        let call = pair.edge.open(b"");
        pair.edge.finish(call);
        pair.run();
        let end = |pair: &mut Pair| {
            let _ = pair.gateway.read_all(call);
            pair.gateway.finish(call);
            pair.run();
            let _ = pair.edge.read_all(call);
        };
        if ends_first {
            end(&mut pair);
        }
        pair.gateway
            .connection
            .go_away(CloseCode::SHUTDOWN, None, "");
        pair.pass(Duration::from_secs(5));
        pair.run();
        if !ends_first {
            assert!(!pair.gateway.saw(&Event::Drained));
            end(&mut pair);
            pair.run();
        }
        assert!(pair.gateway.saw(&Event::Drained), "{ends_first}");
        assert!(pair.edge.saw(&Event::Drained), "{ends_first}");
    }
}

/// CREDIT-4
#[test]
fn credit_for_an_ended_direction_moves_nothing() {
    let mut pair = Pair::new();
    let call = pair.gateway.open(b"all");
    pair.gateway.finish(call);
    pair.run();
    pair.gateway.events.clear();
    let more = Frame::StreamCredit {
        id: call,
        limit: 1 << 20,
    };
    pair.gateway.feed(pair.now, &bytes_of(&more));
    assert_eq!(pair.gateway.failed, None);
    assert!(pair.gateway.events.is_empty(), "{:?}", pair.gateway.events);
    assert!(pair.gateway.drain(pair.now).is_empty());
}

/// STREAM-6
#[test]
fn a_reset_is_never_the_end() {
    let mut pair = Pair::new();
    pair.gateway.feed(pair.now, &open(2, b"half", false));
    pair.gateway.feed(pair.now, &reset(2));
    // RESET-1: what was not read may be dropped; what follows is not the end.
    assert_eq!(pair.gateway.read(id(2)), Err(ReadError::Reset(CODE)));
}

/// STREAM-4
#[test]
fn closed_streams_are_remembered_within_a_bound() {
    let mut pair = Pair::new();
    for n in 1..=400 {
        pair.gateway.feed(pair.now, &open(2 * n, b"", true));
        let _ = pair.gateway.read_all(id(2 * n));
        pair.gateway.finish(id(2 * n));
        let _ = pair.gateway.drain(pair.now);
        pair.gateway.events.clear();
    }
    assert_eq!(pair.gateway.connection.live_streams(), 0);
    for n in 337..=400 {
        pair.gateway.feed(pair.now, &reset(2 * n));
        pair.gateway.feed(pair.now, &data(2 * n, b"late", false));
    }
    assert_eq!(pair.gateway.failed, None);
    pair.gateway.feed(pair.now, &reset(2 * 100));
    let error = Violation::StreamForgotten.into();
    assert_eq!(pair.gateway.failed, Some(error));
}

/// GOAWAY-4: only what the receiver opened is above `last`.
#[test]
fn goaway_leaves_the_streams_of_its_sender() {
    let mut pair = Pair::new();
    let theirs = pair.edge.open(b"call");
    let ours = pair.gateway.open(b"call");
    pair.run();
    pair.gateway.feed(pair.now, &goaway(LastStream::Nothing));
    assert!(pair.gateway.saw(&Event::Reset {
        id: ours,
        code: ResetCode::REFUSED
    }));
    pair.gateway.write(theirs, b"answer").unwrap();
    pair.gateway.finish(theirs);
    pair.run();
    let (answer, end) = pair.edge.read_all(theirs);
    assert_eq!((answer.as_slice(), end), (&b"answer"[..], Ok(())));
}

#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn writable_means_room() {
    let mut pair = Pair::new();
    let ids: Vec<_> = (0..3).map(|_| pair.edge.open(b"")).collect();
    for id in &ids {
        while pair.edge.write(*id, &[0; 9000]).is_ok() {}
    }
    let mut woken = 0;
    for _ in 0..20 {
        pair.run();
        for id in &ids {
            let _ = pair.gateway.read_all(*id);
        }
        pair.run();
        pair.edge.collect();
        while let Some(event) = pair.edge.events.pop_front() {
            let Event::Writable { id } = event else {
                continue;
            };
            assert!(pair.edge.connection.send_stream(id).unwrap().capacity() > 0);
            while pair.edge.write(id, &[0; 9000]).is_ok() {}
            woken += 1;
        }
    }
    assert!(woken >= 30, "{woken}");
}

/// STREAM-2
#[test]
fn payload_before_the_end_outlives_a_stop() {
    let mut pair = Pair::new();
    let bytes = [open(2, b"request", true), stop(2)].concat();
    pair.gateway.feed(pair.now, &bytes);
    assert_eq!(pair.gateway.read_all(id(2)), (b"request".to_vec(), Ok(())));
}

#[test]
fn an_end_without_payload_wakes_the_reader() {
    let mut pair = Pair::new();
    pair.gateway.feed(pair.now, &open(2, b"x", false));
    let _ = pair.gateway.read_all(id(2));
    pair.gateway.events.clear();
    pair.gateway.feed(pair.now, &data(2, b"", true));
    assert!(pair.gateway.saw(&Event::Readable { id: id(2) }));
    assert_eq!(pair.gateway.read(id(2)), Ok(None));
}

/// STOP-1: whoever waits for room learns that none will come.
#[test]
fn a_writer_that_waits_hears_of_a_stop() {
    let mut pair = Pair::new();
    let call = pair.gateway.open(b"");
    pair.run();
    while pair.gateway.write(call, &[0; 9000]).is_ok() {}
    let _ = pair.gateway.drain(pair.now);
    pair.gateway.events.clear();
    pair.gateway.feed(pair.now, &stop(call.as_u64()));
    let stopped = Event::Stopped {
        id: call,
        code: CODE,
    };
    assert!(pair.gateway.saw(&stopped));
    let error = crate::WriteError::Stopped(CODE);
    assert_eq!(pair.gateway.write(call, b"more"), Err(error));
    assert_eq!(pair.gateway.connection.buffered(), 0);
}
