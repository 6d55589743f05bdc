//! Sessions that outlive their connection, over loopback sockets and TLS, with a relay between that cuts.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, Refusal, RefusalCode};
use mcp_tunnel_transport::{
    ClaimError, CloseReason, Incoming, Link, LinkConfig, Stream, StreamError, Target, Uplink,
    UplinkConfig, UplinkEvent, accept,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::common::{ca, client_config, http, server_config, stream_error};

const KEEP: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

/// A relay whose connections can be cut all at once.
struct Relay {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut watched) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    cut = watched.changed() => match cut {
                        Ok(()) => connections.shutdown().await,
                        Err(_) => return,
                    },
                    accepted = listener.accept() => {
                        let (mut near, _) = accepted.unwrap();
                        connections.spawn(async move {
                            let Ok(mut far) = TcpStream::connect(target).await else {
                                return;
                            };
                            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                        });
                    }
                }
            }
        });
        Self {
            address,
            cuts,
            _task: task,
        }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// An edge, a relay before it, and a gateway's uplink through it.
struct World {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    drivers: JoinSet<CloseReason>,
    relay: Relay,
    uplink: Uplink,
}

impl World {
    async fn start() -> Self {
        Self::with(|config| {
            config
                .set_backoff(MS, 10 * MS)
                .set_resumed_at_once_after(Duration::ZERO)
        })
        .await
    }

    async fn with(change: impl FnOnce(UplinkConfig) -> UplinkConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap()).await;
        let target = Target::new("edge.tunnel.localhost", 443).unwrap();
        let target = target.dialled_at(relay.address.to_string().parse().unwrap());
        let config =
            UplinkConfig::new(client_config()).set_link(LinkConfig::default().set_keep(KEEP));
        let config = change(config);
        Self {
            listener,
            acceptor: TlsAcceptor::from(server_config(ca())),
            drivers: JoinSet::new(),
            relay,
            uplink: Uplink::new(target, config),
        }
    }

    /// Both ends of a new link.
    async fn links(&mut self) -> (Link, Link) {
        let serve = async {
            let incoming = incoming(&self.listener, &self.acceptor).await;
            let (link, driver) = incoming.admit().unwrap();
            self.drivers.spawn(driver.run());
            link
        };
        let active = until(&mut self.uplink, |event| match event {
            UplinkEvent::Active { link, .. } => Some(link),
            _ => None,
        });
        tokio::join!(serve, active)
    }
}

/// The next gateway that says hello.
async fn incoming(listener: &TcpListener, acceptor: &TlsAcceptor) -> Incoming<TcpStream> {
    let (socket, _) = listener.accept().await.unwrap();
    let tls = acceptor.accept(socket).await.unwrap();
    let config = LinkConfig::default().set_keep(KEEP);
    accept(tls, &config).await.unwrap()
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

/// A stream of the edge, and the gateway's end of it.
async fn stream(edge: &Link, gateway: &Link) -> (Stream, Stream) {
    let near = edge.open(http(), Bytes::from_static(b"!")).await.unwrap();
    let mut far = gateway.accept().await.unwrap().stream;
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "!");
    (near, far)
}

async fn said(stream: &mut Stream, wanted: &str) {
    let mut said = Vec::new();
    while said.len() < wanted.len() {
        said.extend_from_slice(&stream.read_chunk().await.unwrap().unwrap());
    }
    assert_eq!(String::from_utf8(said).unwrap(), wanted);
}

/// Drives the uplink and the edge until the session goes on.
async fn resume(world: &mut World, edge: &Link) {
    let World {
        listener,
        acceptor,
        uplink,
        ..
    } = world;
    let serve = async {
        let incoming = incoming(listener, acceptor).await;
        assert_eq!(incoming.claim(), edge.session());
        assert_eq!(incoming.credential(), "credential");
        incoming.resume(edge).unwrap();
    };
    let mut resuming = 0;
    let resumed = until(uplink, |event| match event {
        UplinkEvent::Resuming { .. } => {
            resuming += 1;
            None
        }
        UplinkEvent::Resumed { .. } => Some(()),
        UplinkEvent::Active { .. } => panic!("a new session"),
        _ => None,
    });
    tokio::join!(serve, resumed);
    assert_eq!(resuming, 1);
}

#[tokio::test]
async fn streams_go_on_over_one_connection_after_another() {
    let mut world = World::start().await;
    let (edge, gateway) = world.links().await;
    let (mut near, mut far) = stream(&edge, &gateway).await;
    for round in 0..4 {
        let (request, answer) = (format!("request {round}"), format!("answer {round}"));
        near.write_chunk(request.clone().into()).await.unwrap();
        world.relay.cut();
        far.write_chunk(answer.clone().into()).await.unwrap();
        resume(&mut world, &edge).await;
        said(&mut far, &request).await;
        said(&mut near, &answer).await;
    }
    near.finish().unwrap();
    far.finish().unwrap();
    assert_eq!(near.read_chunk().await.unwrap(), None);
    assert_eq!(far.read_chunk().await.unwrap(), None);
    assert!(edge.is_open() && gateway.is_open());
}

#[tokio::test]
async fn connections_that_do_not_last_are_replaced_all_the_same() {
    let hours = 60 * KEEP;
    let mut world = World::with(|config| {
        config
            .set_backoff(hours, hours)
            .set_resumed_at_once_after(hours)
    })
    .await;
    let (edge, gateway) = world.links().await;
    for _ in 0..2 {
        world.relay.cut();
        let resumed = resume(&mut world, &edge);
        timeout(Duration::from_secs(30), resumed).await.unwrap();
    }
    assert!(gateway.is_open());
}

#[tokio::test]
async fn what_is_opened_in_the_gap_arrives_after_it() {
    let mut world = World::start().await;
    let (edge, gateway) = world.links().await;
    world.relay.cut();
    assert!(edge.detached().await.is_some() && !edge.is_open());
    let mut near = edge
        .open(http(), Bytes::from_static(b"call"))
        .await
        .unwrap();
    near.finish().unwrap();
    let (accepted, ()) = tokio::join!(gateway.accept(), resume(&mut world, &edge));
    assert!(edge.attached().await && edge.is_open());
    said(&mut accepted.unwrap().stream, "call").await;
}

#[tokio::test]
async fn an_edge_without_the_session_starts_a_new_one() {
    let mut world = World::start().await;
    let (edge, gateway) = world.links().await;
    let (_near, mut far) = stream(&edge, &gateway).await;
    world.relay.cut();
    let (_new_edge, new_gateway) = world.links().await;
    assert!(new_gateway.is_open());
    let lost = stream_error(far.read_chunk().await);
    assert!(
        matches!(lost, StreamError::LinkLost(CloseReason::NotResumed { .. })),
        "{lost}"
    );
    assert!(!gateway.is_alive());
    // The edge's own end waits for a gateway that may still come.
    assert!(edge.is_alive() && !edge.is_open());
}

#[tokio::test]
async fn a_gateway_that_is_refused_loses_its_session() {
    let mut world = World::start().await;
    let (edge, gateway) = world.links().await;
    let (_near, mut far) = stream(&edge, &gateway).await;
    world.relay.cut();
    let serve = async {
        let incoming = incoming(&world.listener, &world.acceptor).await;
        assert_eq!(incoming.claim(), edge.session());
        incoming
            .refuse(Refusal::new(RefusalCode::RETIRED, ""))
            .await;
    };
    let refused = until(&mut world.uplink, |event| match event {
        UplinkEvent::Refused { code, .. } => Some(code),
        _ => None,
    });
    let ((), code) = tokio::join!(serve, refused);
    assert_eq!(code, RefusalCode::RETIRED);
    let lost = stream_error(far.read_chunk().await);
    assert!(matches!(lost, StreamError::LinkLost(_)), "{lost}");
}

#[tokio::test]
async fn a_claim_to_another_session_is_given_back() {
    let (mut world, mut other) = (World::start().await, World::start().await);
    let (edge, gateway) = world.links().await;
    let (other_edge, _other_gateway) = other.links().await;
    world.relay.cut();
    assert!(gateway.detached().await.is_some());
    let serve = async {
        let incoming = incoming(&world.listener, &world.acceptor).await;
        let unresumed = incoming.resume(&other_edge).unwrap_err();
        assert_eq!(unresumed.error, ClaimError::OtherSession);
        unresumed.incoming.resume(&edge).unwrap();
    };
    let resumed = until(&mut world.uplink, |event| {
        matches!(event, UplinkEvent::Resumed { .. }).then_some(())
    });
    tokio::join!(serve, resumed);
    assert!(other_edge.is_attached());
}

#[tokio::test]
async fn a_gateway_that_drains_in_the_gap_finishes_after_it() {
    let mut world = World::start().await;
    let (edge, gateway) = world.links().await;
    let (mut near, mut far) = stream(&edge, &gateway).await;
    world.relay.cut();
    until(&mut world.uplink, |event| {
        matches!(event, UplinkEvent::Resuming { .. }).then_some(())
    })
    .await;
    world.uplink.drain();
    let World {
        listener,
        acceptor,
        uplink,
        ..
    } = &mut world;
    let serve = async {
        incoming(listener, acceptor).await.resume(&edge).unwrap();
        near.finish().unwrap();
        said(&mut near, "the end").await;
        assert_eq!(near.read_chunk().await.unwrap(), None);
    };
    let finish = async {
        far.write_chunk(Bytes::from_static(b"the end"))
            .await
            .unwrap();
        far.finish().unwrap();
        assert_eq!(far.read_chunk().await.unwrap(), None);
    };
    let stopped = until(uplink, |event| {
        matches!(event, UplinkEvent::Stopped).then_some(())
    });
    tokio::join!(serve, finish, stopped);
    let reason = edge.closed().await;
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
}

/// The edge is away for good, and what waits for it is given up with the drain's deadline.
#[tokio::test]
async fn a_gateway_that_drains_in_the_gap_stops_in_time_though_no_edge_comes() {
    let mut world = World::with(|config| {
        config
            .set_backoff(MS, 10 * MS)
            .set_drain_timeout(100 * MS)
            .set_resumed_at_once_after(Duration::ZERO)
    })
    .await;
    let (edge, gateway) = world.links().await;
    let (_near, mut far) = stream(&edge, &gateway).await;
    drop(world.listener);
    world.relay.cut();
    until(&mut world.uplink, |event| {
        matches!(event, UplinkEvent::Resuming { .. }).then_some(())
    })
    .await;
    world.uplink.drain();
    let stopped = until(&mut world.uplink, |event| {
        matches!(event, UplinkEvent::Stopped).then_some(())
    });
    timeout(KEEP / 2, stopped).await.expect("it goes on");
    assert!(far.read_chunk().await.is_err());
}

#[tokio::test]
async fn a_gateway_that_stops_in_the_gap_stops_at_once() {
    let mut world = World::start().await;
    let (edge, gateway) = world.links().await;
    let (_near, mut far) = stream(&edge, &gateway).await;
    world.relay.cut();
    assert!(gateway.detached().await.is_some());
    world.uplink.stop();
    let stopped = until(&mut world.uplink, |event| {
        matches!(event, UplinkEvent::Stopped).then_some(())
    });
    timeout(Duration::from_secs(20), stopped).await.unwrap();
    let lost = stream_error(far.read_chunk().await);
    assert!(
        matches!(lost, StreamError::LinkLost(CloseReason::Local { .. })),
        "{lost}"
    );
}
