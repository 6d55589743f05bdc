//! The supervised uplink over loopback sockets, against an edge that behaves in every way.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, Refusal, RefusalCode};
use mcp_tunnel_transport::{
    AnswerError, CloseReason, Incoming, Link, LinkConfig, LostReason, Target, Uplink, UplinkConfig,
    UplinkEvent, accept, dial::DialError,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::common::{ca, client_config, http, new_ca, server_config};

const MS: Duration = Duration::from_millis(1);

/// An edge that hears gateways out one by one.
struct Edge {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    drivers: JoinSet<CloseReason>,
}

/// A port that nobody gets while the socket lives: it is bound and not listened on, so that connecting is refused, and
/// whoever asks for it by number may listen on it.
fn reserved() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

impl Edge {
    async fn start() -> Self {
        Self::bind("127.0.0.1:0".parse().unwrap()).await
    }

    async fn bind(address: SocketAddr) -> Self {
        Self {
            listener: TcpListener::bind(address).await.unwrap(),
            acceptor: TlsAcceptor::from(server_config(ca())),
            drivers: JoinSet::new(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn incoming(&self) -> Incoming<TcpStream> {
        let (socket, _) = self.listener.accept().await.unwrap();
        let tls = self.acceptor.accept(socket).await.unwrap();
        accept(tls, &LinkConfig::default()).await.unwrap()
    }

    async fn admit(&mut self) -> Link {
        let (link, driver) = self.incoming().await.admit().unwrap();
        self.drivers.spawn(driver.run());
        link
    }
}

fn uplink(address: SocketAddr) -> Uplink {
    Uplink::new(target(address), config())
}

fn target(address: SocketAddr) -> Target {
    let target = Target::new("edge.tunnel.localhost", 443).unwrap();
    target.dialled_at(address.to_string().parse().unwrap())
}

fn config() -> UplinkConfig {
    UplinkConfig::new(client_config()).set_backoff(MS, 10 * MS)
}

/// The events up to the first that `wanted` takes; presents a credential where one is asked for.
async fn until<T>(uplink: &mut Uplink, mut wanted: impl FnMut(UplinkEvent) -> Option<T>) -> T {
    loop {
        let event = uplink.next().await;
        if matches!(event, UplinkEvent::Dialled { .. }) {
            uplink.present(Bytes::from_static(b"credential"));
        }
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

async fn until_active(uplink: &mut Uplink) -> Link {
    until(uplink, |event| match event {
        UplinkEvent::Active { link, .. } => Some(link),
        _ => None,
    })
    .await
}

async fn until_lost(uplink: &mut Uplink) -> LostReason {
    until(uplink, |event| match event {
        UplinkEvent::Lost { reason } => Some(reason),
        _ => None,
    })
    .await
}

async fn until_stopped(uplink: &mut Uplink) {
    until(uplink, |event| {
        matches!(event, UplinkEvent::Stopped).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_dials_presents_and_carries_streams() {
    let mut edge = Edge::start().await;
    let mut uplink = uplink(edge.address());
    assert!(matches!(
        uplink.next().await,
        UplinkEvent::Dialling { attempt: 1 }
    ));
    let serve = async {
        let incoming = edge.incoming().await;
        assert_eq!(incoming.credential(), "credential");
        let exporter = *incoming.exporter();
        let (link, driver) = incoming.admit().unwrap();
        edge.drivers.spawn(driver.run());
        (link, exporter)
    };
    let run = async {
        let UplinkEvent::Dialled { exporter, address } = uplink.next().await else {
            panic!("not dialled");
        };
        uplink.present(Bytes::from_static(b"credential"));
        (until_active(&mut uplink).await, exporter, address)
    };
    let ((edge_link, theirs), (link, ours, _)) = tokio::join!(serve, run);
    assert_eq!(ours, theirs);
    let mut near = edge_link
        .open(http(), Bytes::from_static(b"call"))
        .await
        .unwrap();
    let mut far = link.accept().await.unwrap().stream;
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "call");
    far.write_chunk(Bytes::from_static(b"answer"))
        .await
        .unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "answer");
    uplink.stop();
    until_stopped(&mut uplink).await;
    assert!(matches!(uplink.next().await, UplinkEvent::Stopped));
}

#[tokio::test]
async fn it_shows_the_code_and_is_approved_without_a_new_dial() {
    let mut edge = Edge::start().await;
    let mut uplink = uplink(edge.address());
    let serve = async {
        let mut pending = edge.incoming().await.pend("CODE");
        // Driven until the uplink has shown the code, then approved.
        let _ = tokio::time::timeout(50 * MS, pending.closed()).await;
        let (link, driver) = pending.admit().unwrap();
        edge.drivers.spawn(driver.run());
        link
    };
    let mut seen = Vec::new();
    let run = until(&mut uplink, |event| match event {
        UplinkEvent::Active { link, .. } => Some(link),
        UplinkEvent::Pending { approval_code } => {
            seen.push(approval_code);
            None
        }
        UplinkEvent::Lost { reason } => panic!("{reason:?}"),
        _ => None,
    });
    let (edge_link, link) = tokio::join!(serve, run);
    assert_eq!(seen, ["CODE"]);
    assert!(edge_link.is_open() && link.is_open());
}

#[tokio::test]
async fn a_refusal_is_told_and_the_wait_is_at_least_what_the_edge_asked() {
    let edge = Edge::start().await;
    let mut uplink = uplink(edge.address());
    let refuse = async {
        let refusal = Refusal::new(RefusalCode::OVERLOADED, "later").retry_after(200 * MS);
        edge.incoming().await.refuse(refusal).await;
    };
    let run = async {
        let refused = until(&mut uplink, |event| match event {
            UplinkEvent::Refused {
                code,
                retry_after,
                text,
            } => Some((code, retry_after, text)),
            _ => None,
        })
        .await;
        assert_eq!(
            refused,
            (RefusalCode::OVERLOADED, Some(200 * MS), "later".to_owned())
        );
        match uplink.next().await {
            UplinkEvent::Waiting { delay } => assert!((200 * MS..211 * MS).contains(&delay)),
            other => panic!("{other:?}"),
        }
    };
    tokio::join!(refuse, run);
}

#[tokio::test]
async fn a_link_that_is_lost_is_dialled_again() {
    let mut edge = Edge::start().await;
    let mut uplink = uplink(edge.address());
    for _ in 0..3 {
        let (edge_link, link) = tokio::join!(edge.admit(), until_active(&mut uplink));
        edge.drivers.shutdown().await; // the edge is gone without a word
        drop(edge_link);
        let reason = until_lost(&mut uplink).await;
        assert!(
            matches!(
                reason,
                LostReason::Closed(CloseReason::Eof | CloseReason::Io(_))
            ),
            "{reason:?}"
        );
        assert!(link.accept().await.is_none());
    }
}

#[tokio::test]
async fn an_edge_that_starts_later_is_found() {
    let (_port, address) = reserved();
    let mut uplink = uplink(address);
    for attempt in 1..4 {
        let first = uplink.next().await;
        assert!(
            matches!(first, UplinkEvent::Dialling { attempt: a } if a == attempt),
            "{first:?}"
        );
        let reason = until_lost(&mut uplink).await;
        assert!(
            matches!(reason, LostReason::Dial(DialError::Connect { .. })),
            "{reason:?}"
        );
        assert!(matches!(uplink.next().await, UplinkEvent::Waiting { .. }));
    }
    let mut edge = Edge::bind(address).await;
    let (_edge_link, _link) = tokio::join!(edge.admit(), until_active(&mut uplink));
}

#[tokio::test(start_paused = true)]
async fn waits_grow_to_the_cap_and_are_jittered() {
    let (_port, address) = reserved();
    let config = config().set_backoff(Duration::from_secs(1), Duration::from_secs(8));
    let mut uplink = Uplink::new(target(address), config);
    let mut waits = Vec::new();
    while waits.len() < 30 {
        if let UplinkEvent::Waiting { delay } = uplink.next().await {
            waits.push(delay);
        }
    }
    for (wait, ceiling) in waits
        .iter()
        .zip([1, 2, 4].into_iter().chain(std::iter::repeat(8)))
    {
        assert!(*wait < Duration::from_secs(ceiling), "{waits:?}");
    }
    let longest = waits.iter().max().unwrap();
    let shortest = waits[3..].iter().min().unwrap();
    assert!(
        *longest > Duration::from_secs(4) && *shortest < Duration::from_secs(4),
        "{waits:?}"
    );
}

#[tokio::test]
async fn a_healthy_link_starts_the_back_off_over() {
    for (healthy_after, attempt) in [(Duration::ZERO, 2), (Duration::from_secs(3600), 4)] {
        let (_port, address) = reserved();
        let config = config().set_healthy_after(healthy_after);
        let mut uplink = Uplink::new(target(address), config);
        for _ in 0..2 {
            until_lost(&mut uplink).await;
        }
        let mut edge = Edge::bind(address).await;
        let (link, _) = tokio::join!(edge.admit(), until_active(&mut uplink));
        drop((link, edge));
        until_lost(&mut uplink).await;
        let next = until(&mut uplink, |event| match event {
            UplinkEvent::Dialling { attempt } => Some(attempt),
            _ => None,
        })
        .await;
        assert_eq!(next, attempt);
    }
}

#[tokio::test]
async fn a_draining_edge_gets_a_replacement_while_the_old_link_finishes() {
    let mut edge = Edge::start().await;
    let config = config().set_healthy_after(Duration::ZERO);
    let mut uplink = Uplink::new(target(edge.address()), config);
    let (old_edge, old) = tokio::join!(edge.admit(), until_active(&mut uplink));
    let mut near = old_edge
        .open(http(), Bytes::from_static(b"running"))
        .await
        .unwrap();
    let mut far = old.accept().await.unwrap().stream;
    old_edge.go_away(CloseCode::WITHDRAWN, None);

    let mut draining = None;
    let run = until(&mut uplink, |event| match event {
        UplinkEvent::Draining { code } => {
            draining = Some(code);
            None
        }
        UplinkEvent::Active { link, .. } => Some(link),
        UplinkEvent::Lost { reason } => panic!("{reason:?}"),
        _ => None,
    });
    let (_new_edge, new) = tokio::join!(edge.admit(), run);
    assert_eq!(draining, Some(CloseCode::WITHDRAWN));
    assert!(new.is_open() && old.is_alive());
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "running");
    far.write_chunk(Bytes::from_static(b"done")).await.unwrap();
    far.finish().unwrap();
    assert_eq!(near.read_chunk().await.unwrap().unwrap(), "done");
    near.finish().unwrap();
    assert_eq!(near.read_chunk().await.unwrap(), None);
    assert_eq!(far.read_chunk().await.unwrap(), None);
    assert!(old.accept().await.is_none());
    // The gateway closes the old link, and its end is not an event: the new one is up.
    tokio::select! {
        event = uplink.next() => panic!("{event:?}"),
        reason = old_edge.closed() => {
            assert!(matches!(reason, CloseReason::Peer { code: CloseCode::NO_ERROR, .. }));
        }
    }
    assert!(new.is_open() && !old.is_alive());
}

#[tokio::test]
async fn a_drain_stops_as_soon_as_the_last_stream_has_ended() {
    let mut edge = Edge::start().await;
    let mut uplink = uplink(edge.address());
    let (edge_link, link) = tokio::join!(edge.admit(), until_active(&mut uplink));
    let mut near = edge_link
        .open(http(), Bytes::from_static(b"running"))
        .await
        .unwrap();
    let mut far = link.accept().await.unwrap().stream;
    uplink.drain();
    let finish = async {
        assert_eq!(edge_link.going_away().await, Some(CloseCode::SHUTDOWN));
        near.finish().unwrap();
        while far.read_chunk().await.unwrap().is_some() {}
        far.finish().unwrap();
        assert_eq!(near.read_chunk().await.unwrap(), None);
    };
    let start = std::time::Instant::now();
    tokio::join!(finish, until_stopped(&mut uplink));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "waited for the deadline"
    );
    let reason = edge_link.closed().await;
    assert!(
        matches!(
            reason,
            CloseReason::Peer {
                code: CloseCode::SHUTDOWN,
                ..
            }
        ),
        "{reason:?}"
    );
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let mut edge = Edge::start().await;
    let config = config().set_drain_timeout(50 * MS);
    let mut uplink = Uplink::new(target(edge.address()), config);
    let (edge_link, link) = tokio::join!(edge.admit(), until_active(&mut uplink));
    let _near = edge_link
        .open(http(), Bytes::from_static(b"for ever"))
        .await
        .unwrap();
    let _far = link.accept().await.unwrap();
    uplink.drain();
    until_stopped(&mut uplink).await;
    assert!(!link.is_alive());
}

#[tokio::test]
async fn stopping_between_attempts_is_immediate() {
    let (_port, address) = reserved();
    let mut waiting = uplink(address);
    until_lost(&mut waiting).await;
    waiting.stop();
    assert!(matches!(waiting.next().await, UplinkEvent::Stopped));
    let mut fresh = uplink(address);
    fresh.drain();
    assert!(matches!(fresh.next().await, UplinkEvent::Stopped));
}

#[tokio::test]
async fn dialling_at_once_skips_the_wait() {
    let config = config().set_backoff(Duration::from_secs(3600), Duration::from_secs(3600));
    let (_port, address) = reserved();
    let mut uplink = Uplink::new(target(address), config);
    until_lost(&mut uplink).await;
    uplink.dial_now();
    assert!(matches!(
        uplink.next().await,
        UplinkEvent::Dialling { attempt: 2 }
    ));
}

#[tokio::test]
async fn an_edge_of_another_authority_is_refused_before_the_credential() {
    let edge = Edge {
        acceptor: TlsAcceptor::from(server_config(&new_ca())),
        ..Edge::start().await
    };
    let mut uplink = uplink(edge.address());
    let refuse = async {
        let (socket, _) = edge.listener.accept().await.unwrap();
        assert!(edge.acceptor.accept(socket).await.is_err());
    };
    let (reason, ()) = tokio::join!(until_lost(&mut uplink), refuse);
    assert!(
        matches!(reason, LostReason::Dial(DialError::Tls { .. })),
        "{reason:?}"
    );
}

#[tokio::test]
async fn a_credential_that_is_not_presented_or_too_long_is_a_loss() {
    let edge = Edge::start().await;
    let config = config().set_credential_timeout(10 * MS);
    let mut uplink = Uplink::new(target(edge.address()), config);
    let acceptor = Arc::new(edge.acceptor.clone());
    let hear = async {
        loop {
            let (socket, _) = edge.listener.accept().await.unwrap();
            let _ = acceptor.accept(socket).await;
        }
    };
    let run = async {
        let lost = loop {
            if let UplinkEvent::Lost { reason } = uplink.next().await {
                break reason;
            }
        };
        assert!(matches!(lost, LostReason::NotPresented { .. }), "{lost:?}");
        loop {
            match uplink.next().await {
                UplinkEvent::Dialled { .. } => uplink.present(Bytes::from(vec![0; 5000])),
                UplinkEvent::Lost {
                    reason: LostReason::Offer(_),
                } => break,
                // A busy machine may take longer between the two than the credential has.
                UplinkEvent::Lost { reason } => {
                    assert!(
                        matches!(reason, LostReason::NotPresented { .. }),
                        "{reason:?}"
                    );
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = run => {}
    }
}

#[tokio::test]
async fn an_edge_that_drops_the_offer_is_a_loss_and_a_dropped_next_loses_nothing() {
    let edge = Edge::start().await;
    let mut uplink = uplink(edge.address());
    let drop_it = async { drop(edge.incoming().await) };
    let run = async {
        loop {
            // Each call is dropped soon after it began to wait.
            let event = tokio::time::timeout(MS, uplink.next()).await;
            match event {
                Ok(UplinkEvent::Dialled { .. }) => uplink.present(Bytes::new()),
                Ok(UplinkEvent::Lost { reason }) => return reason,
                _ => {}
            }
        }
    };
    let ((), reason) = tokio::join!(drop_it, run);
    assert!(
        matches!(reason, LostReason::Answer(AnswerError::Ended(_))),
        "{reason:?}"
    );
}
