//! Pings, round-trip times and silence.

use std::time::Duration;

use super::{frames::bytes_of, pair::Pair};
use crate::{CloseCode, Config, ConnectionError, Event, Frame};

const MS: Duration = Duration::from_millis(1);

#[test]
fn ping_measures_the_round_trip() {
    let mut pair = Pair::new();
    pair.run();
    pair.gateway.events.clear();
    pair.pass(Duration::from_secs(5));
    let ping = pair.gateway.drain(pair.now);
    pair.now += 30 * MS;
    pair.edge.feed(pair.now, &ping);
    let pong = pair.edge.drain(pair.now);
    pair.now += 30 * MS;
    pair.gateway.feed(pair.now, &pong);
    assert!(pair.gateway.saw(&Event::Rtt(60 * MS)));
    let smoothed = pair.gateway.connection.rtt().unwrap();
    assert!(
        smoothed > Duration::ZERO && smoothed < 60 * MS,
        "{smoothed:?}"
    );
}

/// PING-3: any byte is life, even of a frame that is not complete.
#[test]
fn any_byte_is_life() {
    let mut pair = Pair::new();
    pair.run();
    let data = bytes_of(&Frame::Ping(1));
    for byte in data {
        pair.now += Duration::from_secs(14);
        pair.edge.feed(pair.now, &[byte]);
        pair.edge.connection.handle_timeout(pair.now);
        assert!(!pair.edge.connection.is_closed());
    }
    // The same bytes offered again are none.
    let half = &bytes_of(&Frame::Ping(2))[..5];
    pair.edge.feed(pair.now, half);
    pair.now += Duration::from_secs(14);
    pair.edge.feed(pair.now, &[]);
    pair.now += Duration::from_secs(1);
    pair.edge.connection.handle_timeout(pair.now);
    assert!(pair.edge.saw(&Event::Closed(ConnectionError::Silent)));
    let last = pair.edge.drain(pair.now);
    let close = Frame::Close {
        code: CloseCode::SILENCE,
        text: String::new(),
    };
    assert_eq!(last, bytes_of(&close));
}

/// PING-2, ABUSE-2: of many pings the last is answered.
#[test]
fn pings_in_one_read_get_one_answer() {
    let mut pair = Pair::new();
    pair.run();
    let pings: Vec<u8> = (100..200).flat_map(|n| bytes_of(&Frame::Ping(n))).collect();
    pair.edge.feed(pair.now, &pings);
    assert_eq!(pair.edge.drain(pair.now), bytes_of(&Frame::Pong(199)));
}

/// PING-4: a pong that nobody asked for says nothing.
#[test]
fn stray_pongs_are_ignored() {
    let mut pair = Pair::new();
    pair.run();
    pair.edge.events.clear();
    pair.edge.feed(pair.now, &bytes_of(&Frame::Pong(77)));
    pair.edge.collect();
    assert!(pair.edge.events.is_empty());
    assert_eq!(pair.edge.failed, None);
}

/// PING-1: one outstanding; a peer that sends but never answers does not stop them for ever.
#[test]
fn unanswered_pings_are_sent_again() {
    let mut pair = Pair::with(Config::default(), Config::default());
    pair.run();
    let mut pings = 0;
    for _ in 0..60 {
        pair.now += Duration::from_secs(1);
        pair.edge.feed(pair.now, &[0xbf, 0, 0, 0, 0, 0, 0, 0]);
        pair.edge.connection.handle_timeout(pair.now);
        let sent = pair.edge.drain(pair.now);
        pings += sent.len() / 16;
    }
    assert!((3..=5).contains(&pings), "{pings}");
}

#[test]
fn idle_streams_cost_no_traffic() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        pair.edge.open(b"");
    }
    pair.run();
    let mut bytes = 0;
    for _ in 0..12 {
        pair.pass(Duration::from_secs(5));
        bytes += pair.gateway.drain(pair.now).len();
        pair.run();
    }
    assert!(bytes <= 12 * 32, "{bytes} bytes in a minute");
}

#[test]
fn timeout_is_always_in_the_future_after_polling() {
    let mut pair = Pair::new();
    for _ in 0..50 {
        pair.run();
        for end in [&pair.gateway, &pair.edge] {
            let next = end.connection.poll_timeout().unwrap();
            assert!(next > pair.now, "a busy loop");
        }
        let next = pair.edge.connection.poll_timeout().unwrap();
        pair.pass(next - pair.now);
    }
}
