//! HELLO and ADMISSION, the good way and every bad one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    frames::{bytes_of, id},
    pair::{epoch, http},
};
use crate::{
    Admission, CloseCode, Config, Connection, ConnectionError, EdgeHandshake, EncodeError,
    Features, Frame, GatewayEvent, GatewayHandshake, Hello, Limits, MAX_CREDENTIAL, Refusal,
    RefusalCode, Side, Transmit, Violation, decode,
};

struct Greeting {
    now: Instant,
    gateway: GatewayHandshake,
    edge: EdgeHandshake,
}

fn greeting() -> Greeting {
    greeting_with(Config::default(), Config::default())
}

fn greeting_with(gateway: Config, edge: Config) -> Greeting {
    let now = epoch();
    Greeting {
        now,
        gateway: GatewayHandshake::new(
            now,
            Arc::new(gateway),
            Bytes::from_static(b"proof"),
            "gw 1",
        )
        .unwrap(),
        edge: EdgeHandshake::new(now, Arc::new(edge), "edge 1").unwrap(),
    }
}

impl Greeting {
    fn gateway_sends(&mut self) -> BytesMut {
        let mut out = Transmit::new(1 << 20);
        self.gateway.poll_transmit(self.now, &mut out);
        BytesMut::from(out.copy_to_bytes(out.remaining()))
    }

    fn edge_sends(&mut self) -> BytesMut {
        let mut out = Transmit::new(1 << 20);
        self.edge.poll_transmit(self.now, &mut out);
        BytesMut::from(out.copy_to_bytes(out.remaining()))
    }

    /// Carries what there is until nothing is left; what the gateway learned.
    fn run(&mut self) -> Vec<GatewayEvent> {
        let mut events = Vec::new();
        loop {
            let (mut up, mut down) = (self.gateway_sends(), self.edge_sends());
            if up.is_empty() && down.is_empty() {
                return events;
            }
            while self.edge.handle_input(self.now, &mut up).unwrap().is_some() {}
            while let Some(event) = self.gateway.handle_input(self.now, &mut down).unwrap() {
                events.push(event);
            }
            assert!(up.is_empty() && down.is_empty());
        }
    }

    fn admit(self, config: Config) -> (Connection, Connection) {
        let mut out = Transmit::new(1 << 20);
        let edge = self
            .edge
            .admit(self.now, Arc::new(config), &mut out)
            .unwrap();
        let mut input = BytesMut::from(out.copy_to_bytes(out.remaining()));
        let mut gateway = self.gateway;
        while gateway
            .handle_input(self.now, &mut input)
            .unwrap()
            .is_some()
        {}
        (gateway.into_connection(self.now).unwrap(), edge)
    }
}

fn frames(mut bytes: BytesMut) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = decode(&mut bytes, 4096).unwrap() {
        frames.push(frame);
    }
    assert!(bytes.is_empty());
    frames
}

#[test]
fn both_sides_see_each_other_and_agree() {
    let edge = Config::default().set_features(Features::from_bits(6));
    let mut greeting = greeting_with(
        Config::default()
            .set_features(Features::from_bits(3))
            .set_max_streams(7),
        edge.clone(),
    );
    let events = greeting.run();
    let [GatewayEvent::Hello(hello)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((hello.side, hello.agent.as_str()), (Side::Edge, "edge 1"));
    let (gateway, edge) = greeting.admit(edge.set_stream_window(9999));
    // ADMISSION-5: the limits of `active`, not those of the edge's HELLO. HELLO-6: features in common.
    assert_eq!(gateway.agreed().peer.stream_window, 9999);
    assert_eq!(edge.agreed().peer.max_streams, 7);
    assert_eq!(gateway.agreed().local, edge.agreed().peer);
    assert_eq!(gateway.agreed().features, Features::from_bits(2));
    assert_eq!(gateway.agreed().version, 1);
}

/// ADMISSION-1, ADMISSION-6: pending answers pings and becomes active on the same link.
#[test]
fn pending_lives_and_becomes_active() {
    let mut greeting = greeting();
    greeting.run();
    greeting.edge.pend("K7QF-2M9X");
    greeting.edge.pend("K7QF 3A\n1B");
    assert_eq!(
        greeting.run(),
        [GatewayEvent::Pending {
            approval_code: "K7QF3A1B".to_owned()
        }],
        "only the latest word is sent, and only what may be shown",
    );
    for _ in 0..100 {
        greeting.now += Duration::from_secs(5);
        greeting.gateway.handle_timeout(greeting.now).unwrap();
        greeting.edge.handle_timeout(greeting.now).unwrap();
        greeting.run();
    }
    assert_eq!(greeting.gateway.rtt(), Some(Duration::ZERO));
    let (gateway, _) = greeting.admit(Config::default());
    assert_eq!(gateway.agreed().side, Side::Gateway);
}

#[test]
fn pending_ends_in_silence() {
    let mut greeting = greeting();
    greeting.run();
    greeting.edge.pend("CODE");
    greeting.run();
    let dead = greeting.now + Config::default().silence();
    greeting
        .edge
        .handle_timeout(dead - Duration::from_millis(1))
        .unwrap();
    assert_eq!(
        greeting.edge.handle_timeout(dead),
        Err(ConnectionError::Silent)
    );
    greeting.now = dead;
    let sent = frames(greeting.edge_sends());
    assert!(
        matches!(
            &sent[..],
            [Frame::Close {
                code: CloseCode::SILENCE,
                ..
            }]
        ),
        "{sent:?}"
    );
    assert!(greeting.edge.poll_timeout().is_none());
}

#[test]
fn refusal_says_why_and_when() {
    let mut greeting = greeting();
    greeting.run();
    let refusal =
        Refusal::new(RefusalCode::OVERLOADED, "later").retry_after(Duration::from_secs(2));
    greeting.edge.refuse(refusal.clone());
    assert_eq!(greeting.run(), [GatewayEvent::Refused(refusal)]);
    let mut out = Transmit::new(1024);
    assert!(
        greeting
            .edge
            .admit(greeting.now, Arc::default(), &mut out)
            .is_err()
    );
    assert!(RefusalCode::RETIRED.is_final() && !RefusalCode::OVERLOADED.is_final());
}

#[test]
fn nobody_is_admitted_before_hello() {
    let greeting = greeting();
    let mut out = Transmit::new(1024);
    assert!(
        greeting
            .edge
            .admit(greeting.now, Arc::default(), &mut out)
            .is_err()
    );
    assert!(greeting.gateway.into_connection(greeting.now).is_err());
    assert!(out.is_empty());
}

/// Feeds `bytes` to an edge and expects the violation, its CLOSE, and nothing more.
#[track_caller]
fn check_edge(bytes: &[u8], expected: Violation) {
    let mut greeting = greeting();
    greeting.edge_sends();
    let mut input = BytesMut::from(bytes);
    let outcome = loop {
        match greeting.edge.handle_input(greeting.now, &mut input) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(outcome, Err(ConnectionError::PeerMisbehaved(expected)));
    let sent = frames(greeting.edge_sends());
    let [Frame::Close { code, .. }] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(*code, expected.close_code());
    assert!(
        greeting
            .edge
            .handle_input(greeting.now, &mut input)
            .is_err()
    );
    assert!(greeting.edge_sends().is_empty());
}

fn hello(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let mut hello = Hello::new(Side::Gateway, &Config::default(), Bytes::new());
    change(&mut hello);
    bytes_of(&Frame::Hello(Box::new(hello)))
}

/// HELLO-1: judged by the header, so that an unproven peer holds at most 4 KiB.
#[test]
fn hello_is_bounded_and_first_and_once() {
    check_edge(&[0x01, 0x10, 0x00, 0, 0, 0, 0, 0], Violation::HelloSize);
    check_edge(&[0x05, 0, 8, 0, 0, 0, 0, 0], Violation::UnexpectedFrame);
    check_edge(b"GET / HTTP/1.1\r\n", Violation::UnexpectedFrame);
    check_edge(
        &[hello(|_| {}), hello(|_| {})].concat(),
        Violation::UnexpectedFrame,
    );
    let largest = hello(|h| h.credential = Bytes::from(vec![1; MAX_CREDENTIAL]));
    assert!(largest.len() <= 4096);
}

#[test]
fn own_hello_that_is_too_long_is_an_error() {
    let credential = Bytes::from(vec![0; 4096]);
    let outcome = GatewayHandshake::new(epoch(), Arc::default(), credential, "");
    assert_eq!(outcome.err(), Some(EncodeError::TooLong));
}

/// HELLO-4: the highest version in common, or none.
#[test]
fn versions_are_negotiated_both_ways() {
    check_edge(
        &hello(|h| (h.min_version, h.max_version) = (2, 9)),
        Violation::Version,
    );
    check_edge(
        &hello(|h| (h.min_version, h.max_version) = (0, 0)),
        Violation::Version,
    );
    let mut greeting = greeting();
    let mut wide = BytesMut::from(&hello(|h| (h.min_version, h.max_version) = (0, 200))[..]);
    assert!(
        greeting
            .edge
            .handle_input(greeting.now, &mut wide)
            .unwrap()
            .is_some()
    );
    let mut old = Hello::new(Side::Edge, &Config::default(), Bytes::new());
    (old.min_version, old.max_version) = (2, 3);
    let mut input = BytesMut::from(&bytes_of(&Frame::Hello(Box::new(old)))[..]);
    let outcome = greeting.gateway.handle_input(greeting.now, &mut input);
    assert_eq!(outcome, Err(Violation::Version.into()));
}

/// HELLO-5
#[test]
fn two_gateways_do_not_talk() {
    check_edge(&hello(|h| h.side = Side::Edge), Violation::Side);
}

/// HELLO-3
#[test]
fn limits_below_the_least_are_refused() {
    check_edge(
        &hello(|h| h.limits = Limits::new(4095, 1, 1, 1)),
        Violation::Range,
    );
}

/// ADMISSION-3, FRAME-6: a gateway that was not admitted opens nothing.
#[test]
fn nothing_but_pings_before_admission() {
    let open = Frame::Open {
        id: id(1),
        header: Box::new(http()),
        first: Bytes::new(),
        fin: true,
    };
    for frame in [open, Frame::SessionCredit(1), Frame::Ack(0)] {
        check_edge(
            &[hello(|_| {}), bytes_of(&frame)].concat(),
            Violation::UnexpectedFrame,
        );
    }
    let admission = Frame::Admission(Box::new(Admission::Pending {
        approval_code: "A".to_owned(),
    }));
    check_edge(
        &[hello(|_| {}), bytes_of(&admission)].concat(),
        Violation::UnexpectedFrame,
    );
}

/// ADMISSION-2: nor does the edge.
#[test]
fn gateway_takes_no_stream_before_admission() {
    let mut greeting = greeting();
    let open = Frame::Open {
        id: id(2),
        header: Box::new(http()),
        first: Bytes::new(),
        fin: true,
    };
    let mut input = greeting.edge_sends();
    input.extend_from_slice(&bytes_of(&open));
    assert!(
        greeting
            .gateway
            .handle_input(greeting.now, &mut input)
            .unwrap()
            .is_some()
    );
    let outcome = greeting.gateway.handle_input(greeting.now, &mut input);
    assert_eq!(outcome, Err(Violation::UnexpectedFrame.into()));
}

/// FRAME-5: ignorable frames are skipped after HELLO, fatal ones are not; PING-2 holds meanwhile.
#[test]
fn unknown_frames_before_admission() {
    check_edge(
        &[hello(|_| {}), vec![0x3f, 0, 0, 0, 0, 0, 0, 0]].concat(),
        Violation::UnknownFrame,
    );
    let mut greeting = greeting();
    greeting.edge_sends();
    let padding = [0xbf, 0, 3, 0, 0, 0, 0, 9, 1, 2, 3];
    let pings = [bytes_of(&Frame::Ping(4)), bytes_of(&Frame::Ping(5))].concat();
    let mut input = BytesMut::from(&[hello(|_| {}), padding.to_vec(), pings].concat()[..]);
    while greeting
        .edge
        .handle_input(greeting.now, &mut input)
        .unwrap()
        .is_some()
    {}
    let sent = frames(greeting.edge_sends());
    assert!(
        matches!(sent[..], [Frame::Pong(5), Frame::Ping(1)]),
        "{sent:?}"
    );
}

/// PING-1: no ping before the peer's HELLO.
#[test]
fn first_words_are_hello_alone() {
    let mut greeting = greeting();
    assert!(matches!(
        frames(greeting.gateway_sends())[..],
        [Frame::Hello(_)]
    ));
    assert!(matches!(
        frames(greeting.edge_sends())[..],
        [Frame::Hello(_)]
    ));
    let silent = greeting.now + Config::default().silence();
    assert_eq!(greeting.gateway.poll_timeout(), Some(silent));
}

/// CLOSE-1, CLOSE-2: a close travels in place of everything else.
#[test]
fn close_during_the_handshake_is_told() {
    let mut greeting = greeting();
    greeting.run();
    greeting.edge.close(CloseCode::SHUTDOWN, "bye");
    let mut input = greeting.edge_sends();
    let outcome = greeting.gateway.handle_input(greeting.now, &mut input);
    let text = "bye".to_owned();
    let expected = ConnectionError::ClosedByPeer {
        code: CloseCode::SHUTDOWN,
        text,
    };
    assert_eq!(outcome, Err(expected.clone()));
    assert_eq!(greeting.gateway.handle_timeout(greeting.now), Err(expected));
    assert!(
        greeting.gateway_sends().is_empty(),
        "a close is not answered"
    );
}

/// The edge may open streams in the same breath as it admits.
#[test]
fn input_behind_admission_is_left_for_the_session() {
    let mut greeting = greeting();
    greeting.run();
    let mut out = Transmit::new(1 << 20);
    let mut edge = greeting
        .edge
        .admit(greeting.now, Arc::default(), &mut out)
        .unwrap();
    let opened = edge.open(http(), &mut Bytes::from_static(b"now")).unwrap();
    edge.poll_transmit(greeting.now, &mut out);
    let mut input = BytesMut::from(out.copy_to_bytes(out.remaining()));
    let event = greeting
        .gateway
        .handle_input(greeting.now, &mut input)
        .unwrap();
    assert!(matches!(event, Some(GatewayEvent::Active(_))));
    assert_eq!(
        greeting.gateway.handle_input(greeting.now, &mut input),
        Ok(None)
    );
    let mut gateway = greeting.gateway.into_connection(greeting.now).unwrap();
    gateway.handle_input(greeting.now, &mut input).unwrap();
    let piece = gateway.recv_stream(opened).unwrap().read(10).unwrap();
    assert_eq!(piece, Some(Bytes::from_static(b"now")));
}
