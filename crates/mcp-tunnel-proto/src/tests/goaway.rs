//! Going away in two steps, so that no stream is lost.

use std::time::Duration;

use bytes::Bytes;

use super::{
    frames::id,
    pair::{Pair, http},
};
use crate::{CloseCode, Event, LastStream, OpenError, ReadError, ResetCode, WriteError};

fn goaway(last: LastStream) -> Event {
    Event::GoAway {
        last,
        code: CloseCode::SHUTDOWN,
        drain: Some(Duration::from_secs(30)),
        text: "restart".to_owned(),
    }
}

fn leave(pair: &mut Pair) {
    let drain = Some(Duration::from_secs(30));
    pair.gateway
        .connection
        .go_away(CloseCode::SHUTDOWN, drain, "restart");
}

/// GOAWAY-1, GOAWAY-2: a stream that crosses the warning is served; the final word comes after the pong.
#[test]
fn streams_that_cross_the_warning_are_served() {
    let mut pair = Pair::new();
    pair.run();
    leave(&mut pair);
    let crossing = pair.edge.open(b"just in time");
    pair.run();
    assert!(pair.edge.saw(&goaway(LastStream::Any)));
    assert!(pair.edge.saw(&goaway(LastStream::UpTo(crossing))));
    assert_eq!(pair.gateway.accept(), Some(crossing));
    for end in [&mut pair.gateway, &mut pair.edge] {
        let refused = end.connection.open(http(), &mut Bytes::new());
        assert_eq!(refused, Err(OpenError::GoingAway));
        assert!(!end.saw(&Event::Drained));
    }
    pair.gateway.finish(crossing);
    pair.edge.finish(crossing);
    pair.run();
    assert_eq!(pair.gateway.read_all(crossing).1, Ok(()));
    assert_eq!(pair.edge.read_all(crossing).1, Ok(()));
    for end in [&mut pair.gateway, &mut pair.edge] {
        assert!(end.saw(&Event::Drained));
        assert!(!end.saw(&Event::Drained), "said once");
    }
}

/// GOAWAY-3: the final word waits for the pong to a ping after the warning, not for an older one.
#[test]
fn final_word_waits_for_the_right_pong() {
    let mut pair = Pair::new();
    // The first ping is on its way when the gateway decides to leave.
    let ping = pair.gateway.drain(pair.now);
    pair.edge.feed(pair.now, &ping);
    let pong = pair.edge.drain(pair.now);
    leave(&mut pair);
    let warning = pair.gateway.drain(pair.now);
    pair.gateway.feed(pair.now, &pong);
    let next = pair.gateway.drain(pair.now);
    pair.edge.feed(pair.now, &warning);
    pair.edge.feed(pair.now, &next);
    assert!(pair.edge.saw(&goaway(LastStream::Any)));
    assert!(!pair.edge.saw(&goaway(LastStream::Nothing)));
    pair.run();
    assert!(pair.edge.saw(&goaway(LastStream::Nothing)));
    assert!(pair.gateway.saw(&Event::Drained));
}

/// GOAWAY-4: what was not taken is refused, safe to replay, and nothing more is sent on it.
#[test]
fn refused_streams_are_safe_to_replay() {
    let mut pair = Pair::new();
    let taken = pair.edge.open(b"taken");
    pair.run();
    assert_eq!(pair.gateway.accept(), Some(taken));
    leave(&mut pair);
    leave(&mut pair);
    let (late, unsent) = (pair.edge.open(b"late"), {
        let to_gateway = pair.edge.drain(pair.now);
        let to_edge = pair.gateway.drain(pair.now);
        pair.gateway.feed(pair.now, &to_gateway);
        let unsent = pair.edge.open(b"unsent");
        pair.edge.feed(pair.now, &to_edge);
        unsent
    });
    assert_eq!(pair.gateway.accept(), None);
    let code = ResetCode::REFUSED;
    for id in [late, unsent] {
        assert!(pair.edge.saw(&Event::Reset { id, code }));
        assert_eq!(pair.edge.write(id, b"more"), Err(WriteError::Stopped(code)));
        assert_eq!(pair.edge.read(id), Err(ReadError::Reset(code)));
        pair.edge.reset(id, code);
    }
    pair.run();
    assert_eq!(pair.gateway.failed, None);
    assert_eq!(pair.edge.failed, None);
    assert_eq!(pair.edge.connection.live_streams(), 1);
    assert_eq!((taken, pair.edge.connection.buffered()), (id(2), 0));
}

/// GOAWAY-5: whatever else comes for a refused stream is ignored.
#[test]
fn frames_for_refused_streams_are_ignored() {
    let mut pair = Pair::new();
    pair.run();
    leave(&mut pair);
    leave(&mut pair);
    let _lost = pair.gateway.drain(pair.now);
    let stream = pair.edge.open(b"late");
    pair.edge.write(stream, &[0; 30_000]).unwrap();
    pair.run();
    pair.edge.reset(stream, ResetCode::CANCELLED);
    pair.edge.stop(stream, ResetCode::CANCELLED);
    pair.run();
    assert_eq!(pair.gateway.failed, None);
    assert_eq!(pair.gateway.connection.live_streams(), 0);
}

#[test]
fn both_sides_may_leave_at_once() {
    let mut pair = Pair::new();
    pair.edge.connection.go_away(CloseCode::SHUTDOWN, None, "");
    leave(&mut pair);
    pair.run();
    for end in [&mut pair.gateway, &mut pair.edge] {
        assert!(end.saw(&Event::Drained));
        assert_eq!(end.failed, None);
    }
}
