//! One stream from its opening to its end.

use std::time::Duration;

use super::pair::Pair;
use crate::{ConnectionError, Event, ReadError, ResetCode, WriteError};

#[test]
fn open_carries_first_payload_and_fin() {
    let mut pair = Pair::new();
    let id = pair.edge.open(b"ping");
    pair.edge.finish(id);
    pair.run();
    let got = pair.gateway.accept().unwrap();
    assert_eq!(got, id);
    assert_eq!(pair.gateway.read_all(id), (b"ping".to_vec(), Ok(())));
    pair.gateway.write(id, b"pong").unwrap();
    pair.gateway.finish(id);
    pair.run();
    assert_eq!(pair.edge.read_all(id), (b"pong".to_vec(), Ok(())));
    assert_eq!(pair.edge.connection.live_streams(), 0);
    assert_eq!(pair.gateway.connection.live_streams(), 0);
    assert!(pair.edge.saw(&Event::StreamClosed { id }));
}

#[test]
#[cfg_attr(miri, ignore = "minutes under an interpreter")]
fn bulk_flows_both_ways_beyond_every_window() {
    let mut pair = Pair::new();
    let id = pair.edge.open(b"");
    pair.run();
    pair.gateway.accept().unwrap();
    let total = 40 * 1024 * 1024;
    let block = vec![7; 100_000];
    let (mut sent, mut received) = (0, 0);
    while received < total {
        while sent < total {
            match pair
                .gateway
                .write(id, &block[..block.len().min(total - sent)])
            {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        pair.step();
        let (bytes, end) = pair.edge.read_all(id);
        assert_eq!(end, Err(ReadError::Blocked));
        received += bytes.len();
    }
    assert_eq!(received, total);
}

#[test]
fn cancel_reaches_both_directions() {
    let mut pair = Pair::new();
    let id = pair.edge.open(b"ask");
    pair.run();
    pair.gateway.accept().unwrap();
    let code = ResetCode::CANCELLED;
    pair.edge.reset(id, code);
    pair.edge.stop(id, code);
    pair.run();
    assert!(pair.gateway.saw(&Event::Reset { id, code }));
    assert!(pair.gateway.saw(&Event::Stopped { id, code }));
    assert_eq!(pair.gateway.read(id), Err(ReadError::Reset(code)));
    assert_eq!(pair.gateway.write(id, b"x"), Err(WriteError::Stopped(code)));
    // The edge is through; the gateway's application still holds its sending half.
    assert_eq!(pair.edge.connection.live_streams(), 0);
    assert_eq!(pair.gateway.connection.live_streams(), 1);
    pair.gateway.reset(id, code);
    assert_eq!(pair.gateway.connection.live_streams(), 0);
}

#[test]
fn silence_ends_the_session_and_pings_prevent_it() {
    let mut pair = Pair::new();
    for _ in 0..20 {
        pair.pass(Duration::from_secs(5));
        pair.run();
    }
    assert!(!pair.edge.connection.is_closed());
    for _ in 0..3 {
        pair.pass(Duration::from_secs(5));
    }
    assert!(pair.edge.saw(&Event::Closed(ConnectionError::Silent)));
}
