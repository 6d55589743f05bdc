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
    for _ in 0..120 {
        pair.now += Duration::from_secs(1);
        pair.edge.feed(pair.now, &[0xbf, 0, 0, 0, 0, 0, 0, 0]);
        pair.edge.connection.handle_timeout(pair.now);
        let sent = pair.edge.drain(pair.now);
        pings += sent.len() / 16;
    }
    // One in six intervals, since the link is busy.
    assert!((3..=4).contains(&pings), "{pings}");
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

/// Both ends of a session that survives its link, after a minute of round trips that take `rtt`.
fn measured(rtt: impl Fn(u32) -> Duration) -> Pair {
    let mut pair = Pair::resumable(Config::default(), Config::default());
    for n in 0..12 {
        let ping = pair.gateway.drain(pair.now);
        let start = pair.now;
        pair.now += rtt(n);
        pair.edge.feed(pair.now, &ping);
        let pong = pair.edge.drain(pair.now);
        pair.gateway.feed(pair.now, &pong);
        pair.gateway.collect();
        pair.now = start + Duration::from_secs(6);
        pair.gateway.connection.handle_timeout(pair.now);
        assert!(pair.gateway.connection.is_attached());
    }
    pair.gateway.events.clear();
    pair
}

/// After what time without a byte the gateway's session lets go of its link; what it sends gets lost.
fn let_go_after(pair: &mut Pair) -> Duration {
    for _ in 0..1000 {
        let _lost = pair.gateway.drain(pair.now);
        if pair.gateway.saw(&Event::Detached) {
            return pair.gateway.connection.silence();
        }
        pair.now = pair.gateway.connection.poll_timeout().unwrap();
        pair.gateway.connection.handle_timeout(pair.now);
    }
    panic!("the link lives for ever");
}

/// PING-3: on a link with short round trips the answer to a ping is not waited for as long as on one without.
#[test]
fn silence_follows_the_round_trip() {
    let quick = let_go_after(&mut measured(|_| 60 * MS));
    // The ping left 6 s after the last byte.
    assert!(quick <= Duration::from_secs(10), "{quick:?}");
    assert!(quick >= Duration::from_secs(9), "{quick:?}");
    let shaky = let_go_after(&mut measured(
        |n| if n % 2 == 0 { 100 * MS } else { 1500 * MS },
    ));
    assert!(shaky > quick + Duration::from_secs(2), "{shaky:?}");
    let slow = let_go_after(&mut measured(|_| Duration::from_secs(4)));
    assert_eq!(slow, Config::default().silence());
}

/// PING-3: a ping waits behind what was sent before it, so that much on the way earns patience.
#[test]
fn what_is_on_the_way_earns_patience() {
    let mut pair = measured(|_| 60 * MS);
    let stream = pair.gateway.open(b"");
    let mut sent = 0;
    while let Ok(more) = pair.gateway.write(stream, &[0; 16_384]) {
        sent += more;
        let _lost = pair.gateway.drain(pair.now);
    }
    assert!(sent > 60_000);
    let limit = 1 << 20;
    let credit = bytes_of(&Frame::StreamCredit { id: stream, limit });
    pair.gateway.feed(pair.now, &credit);
    while pair.gateway.write(stream, &[0; 16_384]).is_ok() {
        let _lost = pair.gateway.drain(pair.now);
    }
    // Just under 512 KiB, which may be retained: nearly four seconds more than without.
    let heard = pair.now;
    let _ = let_go_after(&mut pair);
    assert!(pair.now - heard > Duration::from_secs(7));
    assert!(pair.now - heard <= Config::default().silence());
}

/// A session that ends with its link is given all the time there is.
#[test]
fn without_resumption_silence_is_not_shortened() {
    let mut pair = Pair::new();
    pair.run();
    let heard = pair.now;
    while !pair.edge.connection.is_closed() {
        let _lost = pair.edge.drain(pair.now);
        pair.now = pair.edge.connection.poll_timeout().unwrap();
        pair.edge.connection.handle_timeout(pair.now);
    }
    assert_eq!(pair.now - heard, Config::default().silence());
}

/// While bytes arrive nobody needs to ask: pings only measure.
#[test]
fn a_busy_link_is_hardly_pinged() {
    let mut pair = Pair::new();
    pair.run();
    let id = pair.edge.open(b"");
    pair.run();
    let mut pings = 0;
    for _ in 0..120 {
        pair.pass(Duration::from_secs(1));
        pair.gateway.write(id, b"event").unwrap();
        let events = pair.gateway.drain(pair.now);
        pair.edge.feed(pair.now, &events);
        let answer = pair.edge.drain(pair.now);
        pings += usize::from(!answer.is_empty());
        pair.gateway.feed(pair.now, &answer);
        let _ = pair.edge.read_all(id);
    }
    // The edge's own, and its answers to the gateway's.
    assert!(pings <= 4 + 24, "{pings}");
    assert!(pair.edge.connection.rtt().is_some());
}

/// A machine that has slept for longer than the silence knows at once; a ping settles a shorter sleep.
#[test]
fn sleep_counts_as_silence() {
    let mut pair = measured(|_| 60 * MS);
    pair.run();
    pair.gateway.connection.on_sleep(Duration::from_secs(3600));
    pair.gateway.connection.handle_timeout(pair.now);
    assert!(pair.gateway.saw(&Event::Detached));

    let mut pair = measured(|_| 60 * MS);
    pair.run();
    pair.gateway.connection.on_sleep(Duration::from_secs(8));
    pair.gateway.connection.handle_timeout(pair.now);
    assert!(!pair.gateway.saw(&Event::Detached));
    let ping = pair.gateway.drain(pair.now);
    assert!(!ping.is_empty(), "it asks at once");
    pair.now += 60 * MS;
    pair.edge.feed(pair.now, &ping);
    let pong = pair.edge.drain(pair.now);
    pair.gateway.feed(pair.now, &pong);
    pair.pass(Duration::from_secs(4));
    assert!(pair.gateway.connection.is_attached());
    // The same, and no answer.
    pair.gateway.connection.on_sleep(Duration::from_secs(8));
    let before = pair.now;
    while pair.gateway.connection.is_attached() {
        let _lost = pair.gateway.drain(pair.now);
        pair.now = pair.gateway.connection.poll_timeout().unwrap();
        pair.gateway.connection.handle_timeout(pair.now);
    }
    assert!(pair.now - before <= Duration::from_secs(4));
}

/// Where the clock shows the sleep, nothing has to be told.
#[test]
fn a_jump_of_the_clock_counts_as_silence() {
    let mut pair = measured(|_| 60 * MS);
    pair.run();
    pair.now += Duration::from_secs(3600);
    pair.gateway.connection.handle_timeout(pair.now);
    assert!(pair.gateway.saw(&Event::Detached));
}
