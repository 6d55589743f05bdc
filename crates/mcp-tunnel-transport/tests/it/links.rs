//! Links from outside: ends, drains, silence, stalls, and futures dropped while they wait.

use std::time::Duration;

use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, Config};
use mcp_tunnel_transport::{CloseReason, LinkConfig, OpenError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::Instant,
};

use crate::common::{http, link_pair, link_parts};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn close_reaches_the_other_side_with_code_and_text() {
    let mut pair = link_pair(&LinkConfig::default()).await;
    pair.edge.close(CloseCode::DISCONNECTED, "by an operator");
    let here = pair.edge.closed().await;
    assert!(matches!(
        here,
        CloseReason::Local {
            code: CloseCode::DISCONNECTED
        }
    ));
    match pair.gateway.closed().await {
        CloseReason::Peer { code, text } => {
            assert_eq!(
                (code, text.as_str()),
                (CloseCode::DISCONNECTED, "by an operator")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(!pair.edge.is_alive() && !pair.gateway.is_open());
    assert!(pair.gateway.accept().await.is_none());
    assert_eq!(pair.gateway.going_away().await, None);
    while let Some(reason) = pair.drivers.join_next().await {
        assert!(reason.unwrap().is_deliberate());
    }
}

#[tokio::test]
async fn a_link_that_nobody_holds_closes_once_its_streams_end() {
    let mut pair = link_pair(&LinkConfig::default()).await;
    let (mut near, mut far) = pair.stream().await;
    drop((pair.edge.clone(), pair.edge));
    near.write_all(b"still here").await.unwrap();
    far.read_exact(&mut [0; 10]).await.unwrap();
    drop((near, far));
    let reason = pair.gateway.closed().await;
    assert!(
        matches!(
            reason,
            CloseReason::Peer {
                code: CloseCode::NO_ERROR,
                ..
            }
        ),
        "{reason}"
    );
    while pair.drivers.join_next().await.is_some() {}
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_refuses_what_is_new() {
    let mut pair = link_pair(&LinkConfig::default()).await;
    let (mut near, mut far) = pair.stream().await;
    pair.gateway.go_away(CloseCode::SHUTDOWN, Some(SECOND));
    assert_eq!(pair.edge.going_away().await, Some(CloseCode::SHUTDOWN));
    assert!(!pair.edge.is_open() && pair.edge.is_alive());
    let error = pair.edge.open(http(), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, OpenError::GoingAway) && error.is_replay_safe());

    near.write_all(b"late").await.unwrap();
    near.finish().unwrap();
    let mut request = Vec::new();
    far.read_to_end(&mut request).await.unwrap();
    far.write_all(&request).await.unwrap();
    far.finish().unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"late");
    assert!(pair.gateway.accept().await.is_none());
    pair.gateway.drain(CloseCode::SHUTDOWN, SECOND).await;
    let reason = pair.edge.closed().await;
    assert!(
        matches!(
            reason,
            CloseReason::Peer {
                code: CloseCode::SHUTDOWN,
                ..
            }
        ),
        "{reason}"
    );
    while pair.drivers.join_next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_whatever_runs() {
    let pair = link_pair(&LinkConfig::default()).await;
    let _held = pair.stream().await;
    let start = Instant::now();
    pair.gateway.drain(CloseCode::SHUTDOWN, 7 * SECOND).await;
    assert_eq!(start.elapsed(), 7 * SECOND);
    assert!(matches!(pair.edge.closed().await, CloseReason::Peer { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_on_pings_and_knows_its_round_trip() {
    let pair = link_pair(&LinkConfig::default()).await;
    tokio::time::sleep(600 * SECOND).await; // virtual
    assert!(pair.edge.is_alive() && pair.gateway.is_alive());
    assert!(pair.edge.rtt().is_some() && pair.gateway.rtt().is_some());
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_within_its_time() {
    let (_gateway, _hung, edge, driver) = link_parts(&LinkConfig::default()).await;
    let start = Instant::now();
    // The gateway's driver is alive and never polled: its socket is open, and mute.
    let reason = driver.await;
    assert!(
        matches!(reason, CloseReason::Silent { after } if after == 15 * SECOND),
        "{reason}"
    );
    assert!(start.elapsed() <= 15 * SECOND, "{:?}", start.elapsed());
    assert!(!edge.is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_bytes_is_given_up() {
    let protocol = Config::default()
        .set_silence(3600 * SECOND)
        .set_ping_interval(1800 * SECOND);
    let config = LinkConfig::default()
        .set_protocol(protocol)
        .set_write_stall(4 * SECOND);
    let (_gateway, _hung, edge, driver) = link_parts(&config).await;
    let mut drivers = JoinSet::from_iter([driver]);
    let mut streams = Vec::new();
    for _ in 0..16 {
        // More than the connection between the two holds.
        streams.push(
            edge.open(http(), Bytes::from(vec![0; 60_000]))
                .await
                .unwrap(),
        );
    }
    let start = Instant::now();
    let reason = drivers.join_next().await.unwrap().unwrap();
    assert!(
        matches!(reason, CloseReason::Stalled { after } if after == 4 * SECOND),
        "{reason}"
    );
    assert!(start.elapsed() <= 5 * SECOND, "{:?}", start.elapsed());
}

/// In virtual time a driver that asks again and again without waiting would never let the clock move.
#[tokio::test(start_paused = true)]
async fn a_ping_that_finds_no_room_waits_for_it() {
    let config = LinkConfig::default().set_write_stall(12 * SECOND);
    let (_gateway, _hung, edge, driver) = link_parts(&config).await;
    let mut drivers = JoinSet::from_iter([driver]);
    let mut streams = Vec::new();
    for _ in 0..16 {
        let first = Bytes::from(vec![0; 60_000]);
        streams.push(edge.open(http(), first).await.unwrap());
    }
    let start = Instant::now();
    let reason = drivers.join_next().await.unwrap().unwrap();
    assert!(matches!(reason, CloseReason::Stalled { .. }), "{reason}");
    assert!(start.elapsed() <= 13 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn futures_dropped_while_they_wait_lose_nothing() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (edge, gateway) = (&pair.edge, &pair.gateway);
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = gateway.accept() => panic!("nothing was opened"),
            _ = gateway.going_away() => panic!("nobody goes away"),
            () = gateway.drained() => panic!("nothing drains"),
            _ = gateway.closed() => panic!("nothing was closed"),
            () = tokio::time::sleep(SECOND) => {} // virtual
        }
    }
    let streams: Vec<_> =
        futures_util::future::join_all((0..3).map(|_| edge.open(http(), Bytes::from_static(b"!"))))
            .await;
    let mut accepted = Vec::new();
    while accepted.len() < streams.len() {
        accepted.push(gateway.accept().await.unwrap());
    }
    // Dropped in the middle of a drain: the link goes on going away.
    tokio::select! {
        () = gateway.drain(CloseCode::SHUTDOWN, 60 * SECOND) => panic!("streams are open"),
        code = edge.going_away() => assert_eq!(code, Some(CloseCode::SHUTDOWN)),
    }
    assert!(edge.is_alive());
    drop((streams, accepted));
    edge.drained().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_dropped_while_it_waits_opens_nothing() {
    let config = Config::default().set_max_streams(1);
    let pair = link_pair(&LinkConfig::default().set_protocol(config)).await;
    let held = pair.stream().await;
    tokio::select! {
        biased;
        _ = pair.edge.open(http(), Bytes::from_static(b"!")) => panic!("there was no room"),
        () = tokio::time::sleep(SECOND) => {} // virtual
    }
    drop(held);
    let (_near, _far) = pair.stream().await;
    assert_eq!(pair.edge.live_streams(), 1);
}
