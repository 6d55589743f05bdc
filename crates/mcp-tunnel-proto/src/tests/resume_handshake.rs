//! RESUME in place of admission, on a new link of an old session.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    frames::bytes_of,
    pair::{epoch, http},
};
use crate::{
    Admission, Config, Connection, EdgeHandshake, Features, Frame, GatewayEvent, GatewayHandshake,
    Hello, Position, Refusal, RefusalCode, Resumable, Resume, ResumeClaim, SessionId, Side,
    Transmit, Violation,
};

const SESSION: SessionId = SessionId::new([9; 16]);

fn resumable() -> Option<Resumable> {
    Some(Resumable::new(SESSION, Duration::from_secs(60)))
}

fn config(features: Features) -> Arc<Config> {
    Arc::new(Config::default().set_features(features))
}

fn take(out: &mut Transmit) -> BytesMut {
    BytesMut::from(out.copy_to_bytes(out.remaining()))
}

fn edge(now: Instant, features: Features) -> EdgeHandshake {
    EdgeHandshake::new(now, config(features), "edge").unwrap()
}

/// Both sides' sessions after a first link with these features.
fn first_link(now: Instant, gateway: Features, of_edge: Features) -> (Connection, Connection) {
    let mut out = Transmit::new(1 << 20);
    let mut gateway = GatewayHandshake::new(now, config(gateway), Bytes::new(), "gateway").unwrap();
    gateway.poll_transmit(now, &mut out);
    let mut edge = edge(now, of_edge);
    edge.handle_input(now, &mut take(&mut out))
        .unwrap()
        .unwrap();
    let admitted = edge.admit_resumable(now, config(of_edge), resumable(), &mut out);
    let mut input = take(&mut out);
    while gateway.handle_input(now, &mut input).unwrap().is_some() {}
    (gateway.into_connection(now).unwrap(), admitted.unwrap())
}

/// RESUME-6: both must offer it, or the session ends with its link.
#[test]
fn resumption_needs_both_sides() {
    let now = epoch();
    for (gateway, edge, expected) in [
        (Features::RESUME, Features::RESUME, true),
        (Features::NONE, Features::RESUME, false),
        (Features::RESUME, Features::NONE, false),
    ] {
        let (gateway, edge) = first_link(now, gateway, edge);
        for end in [gateway, edge] {
            assert_eq!(end.position().is_some(), expected);
            assert_eq!(end.agreed().resumable.is_some(), expected);
        }
    }
}

/// RESUME-1, RESUME-2, RESUME-6: a stream goes on over a second link, whatever that link's HELLO says of limits.
#[test]
fn a_session_goes_on_over_a_second_link() {
    let mut now = epoch();
    let (mut gateway, mut edge_session) = first_link(now, Features::RESUME, Features::RESUME);
    let mut out = Transmit::new(1 << 20);
    let stream = edge_session
        .open(http(), &mut Bytes::from_static(b"ask"))
        .unwrap();
    edge_session.poll_transmit(now, &mut out);
    gateway.handle_input(now, &mut take(&mut out)).unwrap();
    let mut send = gateway.send_stream(stream).unwrap();
    send.write(&mut Bytes::from_static(b"answer")).unwrap();
    gateway.poll_transmit(now, &mut out);
    let agreed = *gateway.agreed();
    // All of that is lost with the link.
    out.clear();
    gateway.detach(now).unwrap();
    edge_session.detach(now).unwrap();

    now += Duration::from_secs(3);
    let position = gateway.position().unwrap().as_u64();
    let ours = Resume::new(1, position, [1; 32]);
    let other = Arc::new(
        Config::default()
            .set_features(Features::RESUME)
            .set_max_streams(1),
    );
    let mut dialled =
        GatewayHandshake::resuming(now, other, Bytes::new(), "gateway", SESSION, ours).unwrap();
    dialled.poll_transmit(now, &mut out);
    let mut accepted = edge(now, Features::RESUME);
    let wire = take(&mut out);
    let (first, rest) = wire.split_at(wire.len() - 10);
    let mut input = BytesMut::from(first);
    assert_eq!(
        accepted.handle_input(now, &mut input),
        Ok(None),
        "RESUME is not whole yet"
    );
    let early = accepted.admit(now, config(Features::RESUME), &mut out);
    let mut accepted = early.expect_err("half a HELLO is admitted");
    assert!(out.is_empty());
    input.extend_from_slice(rest);
    let hello = accepted.handle_input(now, &mut input).unwrap().unwrap();
    assert_eq!(hello.resume, Some(ResumeClaim::new(SESSION, 1)));
    assert_eq!(accepted.claimed(), Some(&ours));

    let theirs = Resume::new(1, edge_session.position().unwrap().as_u64(), [2; 32]);
    accepted.resume(now, theirs, &mut out).unwrap();
    edge_session
        .attach(now, Position::new(ours.position))
        .unwrap();
    edge_session.poll_transmit(now, &mut out);
    let mut input = take(&mut out);
    let hello = dialled.handle_input(now, &mut input).unwrap();
    assert!(matches!(hello, Some(GatewayEvent::Hello(_))));
    let resumed = dialled.handle_input(now, &mut input).unwrap();
    assert_eq!(resumed, Some(GatewayEvent::Resumed(theirs)));
    assert_eq!(dialled.handle_input(now, &mut input), Ok(None));
    assert!(
        dialled.into_connection(now).is_err(),
        "the old session goes on"
    );
    gateway.attach(now, Position::new(theirs.position)).unwrap();
    gateway.handle_input(now, &mut input).unwrap();
    gateway.poll_transmit(now, &mut out);
    edge_session.handle_input(now, &mut take(&mut out)).unwrap();
    let piece = edge_session.recv_stream(stream).unwrap().read(100);
    assert_eq!(piece, Ok(Some(Bytes::from_static(b"answer"))));
    assert_eq!(*gateway.agreed(), agreed);
}

/// RESUME-2: an edge that has no such session, or not even the feature, admits as if there were no claim.
#[test]
fn an_unknown_session_is_admitted_anew() {
    let now = epoch();
    for features in [Features::RESUME, Features::NONE] {
        let mut out = Transmit::new(1 << 20);
        let ours = Resume::new(5, 1000, [1; 32]);
        let config = config(Features::RESUME);
        let mut gateway =
            GatewayHandshake::resuming(now, config, Bytes::new(), "", SESSION, ours).unwrap();
        gateway.poll_transmit(now, &mut out);
        let mut edge = edge(now, features);
        assert!(
            edge.handle_input(now, &mut take(&mut out))
                .unwrap()
                .is_some()
        );
        edge.pend("CODE");
        let fresh = Arc::new(Config::default());
        edge.admit_resumable(now, fresh, resumable(), &mut out)
            .unwrap();
        let mut input = take(&mut out);
        let mut events = Vec::new();
        while let Some(event) = gateway.handle_input(now, &mut input).unwrap() {
            events.push(event);
        }
        assert!(
            matches!(events.last(), Some(GatewayEvent::Active(_))),
            "{events:?}"
        );
        assert!(gateway.into_connection(now).is_ok());
    }
}

#[track_caller]
fn check_edge(frames: &[Frame]) {
    let now = epoch();
    let mut edge = edge(now, Features::RESUME);
    let bytes: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
    let mut input = BytesMut::from(&bytes[..]);
    let outcome = loop {
        match edge.handle_input(now, &mut input) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(outcome, Err(Violation::UnexpectedFrame.into()));
}

/// ADMISSION-3, RESUME-1: RESUME comes right after a claim of its epoch, once.
#[test]
fn resume_out_of_place_is_refused() {
    let plain = Hello::new(Side::Gateway, &Config::default(), Bytes::new());
    let mut claiming = plain.clone();
    claiming.resume = Some(ResumeClaim::new(SESSION, 2));
    let (plain, claiming) = (
        Frame::Hello(Box::new(plain)),
        Frame::Hello(Box::new(claiming)),
    );
    let resume = |epoch| Frame::Resume(Resume::new(epoch, 0, [0; 32]));
    check_edge(&[plain, resume(2)]);
    check_edge(&[claiming.clone(), resume(1)]);
    check_edge(&[claiming.clone(), resume(2), resume(2)]);
    check_edge(&[claiming, Frame::Ack(0)]);
    // An edge answers no claim that was not made, and none of another epoch.
    let now = epoch();
    let mut out = Transmit::new(1024);
    let answer = edge(now, Features::RESUME).resume(now, Resume::new(0, 0, [0; 32]), &mut out);
    assert!(answer.is_err());
    assert!(out.is_empty());
}

#[track_caller]
fn check_gateway(claim: Option<u32>, frames: &[Frame]) {
    let now = epoch();
    let config = config(Features::RESUME);
    let mut gateway = match claim {
        Some(epoch) => {
            let resume = Resume::new(epoch, 0, [0; 32]);
            GatewayHandshake::resuming(now, config, Bytes::new(), "", SESSION, resume).unwrap()
        }
        None => GatewayHandshake::new(now, config, Bytes::new(), "").unwrap(),
    };
    let hello = Hello::new(Side::Edge, &Config::default(), Bytes::new());
    let mut bytes = bytes_of(&Frame::Hello(Box::new(hello)));
    bytes.extend(frames.iter().flat_map(bytes_of));
    let mut input = BytesMut::from(&bytes[..]);
    let outcome = loop {
        match gateway.handle_input(now, &mut input) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(outcome, Err(Violation::UnexpectedFrame.into()));
}

/// ADMISSION-1, RESUME-2: one verdict, and RESUME only for the claim that was made.
#[test]
fn gateway_takes_one_verdict() {
    let resume = Frame::Resume(Resume::new(3, 0, [0; 32]));
    check_gateway(None, std::slice::from_ref(&resume));
    check_gateway(Some(2), std::slice::from_ref(&resume));
    let refusal = Refusal::new(RefusalCode::SESSION, "");
    let refused = Frame::Admission(Box::new(Admission::Refused(refusal)));
    check_gateway(Some(3), &[refused.clone(), resume]);
    check_gateway(None, &[refused.clone(), refused]);
}
