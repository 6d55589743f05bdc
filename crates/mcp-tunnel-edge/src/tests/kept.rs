//! Links that lose their connection and are kept: resumed, withdrawn, given up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use mcp_tunnel_auth::{DownReason, GatewayState, LinkReport, LinkReportKind};
use mcp_tunnel_transport::{Answer, Exporter, Link, LinkConfig, Offer, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

use super::world::{Call, PEER, World, config, post, text};
use crate::PeerInfo;

const SECOND: Duration = Duration::from_secs(1);
const KEEP: Duration = Duration::from_secs(60);

/// Gateways on real links, with a relay before each connection that can be cut.
#[derive(Default)]
struct Gateways {
    tasks: JoinSet<()>,
    relays: Vec<watch::Sender<Fate>>,
}

/// A gateway's connection.
struct Cable {
    tls: TlsStream<DuplexStream>,
    exporter: Exporter,
    relay: watch::Sender<Fate>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// It stays, and nothing comes any more.
    FallsSilent,
    Ends,
}

/// Passes bytes on until another fate comes.
async fn relay(mut near: DuplexStream, mut far: DuplexStream, mut fate: watch::Receiver<Fate>) {
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        _ = fate.wait_for(|fate| *fate != Fate::Passes) => {}
    }
    let _ = fate.wait_for(|fate| *fate == Fate::Ends).await;
}

fn link_config() -> LinkConfig {
    LinkConfig::default().set_keep(KEEP)
}

impl Gateways {
    async fn cable(&mut self, world: &World, from: SocketAddr) -> Cable {
        let (near, relay_near) = duplex(64 * 1024);
        let (relay_far, far) = duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(world.links_tls());
        let edge = world.edge.clone();
        self.tasks.spawn(async move {
            let tls = acceptor.accept(far).await.unwrap();
            let _ = edge.accept_link(tls, PeerInfo::tls(from)).await;
        });
        let (fate, ordered) = watch::channel(Fate::Passes);
        self.tasks.spawn(relay(relay_near, relay_far, ordered));
        let tls = world.gateway_handshake(near).await;
        let exporter = Exporter::of(tls.get_ref().1).unwrap();
        Cable {
            tls,
            exporter,
            relay: fate,
        }
    }

    /// An approved gateway whose link is up.
    async fn active(&mut self, world: &mut World, key: u8) -> (Link, watch::Sender<Fate>) {
        world.approve(key);
        let up = self.dial(world, key, &["mcp"]).await;
        assert!(matches!(next_kind(world).await, LinkReportKind::Up));
        up
    }

    /// A link of this gateway that goes on with no session.
    async fn dial(
        &mut self,
        world: &World,
        key: u8,
        routes: &[&str],
    ) -> (Link, watch::Sender<Fate>) {
        self.dial_from(world, key, routes, PEER).await
    }

    async fn dial_from(
        &mut self,
        world: &World,
        key: u8,
        routes: &[&str],
        from: SocketAddr,
    ) -> (Link, watch::Sender<Fate>) {
        let Cable {
            tls,
            exporter,
            relay,
        } = self.cable(world, from).await;
        let credential = world.credential(key, 1, routes, &exporter).encode();
        let offer = Offer::new(tls, credential.into(), &link_config()).unwrap();
        match offer.answer().await.unwrap() {
            Answer::Active { link, driver } => {
                self.tasks.spawn(async move { drop(driver.run().await) });
                (link, relay)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Claims the session of `link` with the key of this number.
    async fn claim(&mut self, world: &World, key: u8, link: &Link) -> Answer<DuplexStream> {
        self.claim_from(world, key, link, PEER).await
    }

    async fn claim_from(
        &mut self,
        world: &World,
        key: u8,
        link: &Link,
        from: SocketAddr,
    ) -> Answer<DuplexStream> {
        let Cable {
            tls,
            exporter,
            relay,
        } = self.cable(world, from).await;
        self.relays.push(relay);
        let credential = world.credential(key, 1, &["mcp"], &exporter).encode();
        let offer = Offer::resuming(tls, credential.into(), &link_config(), link).unwrap();
        offer.answer().await.unwrap()
    }
}

async fn next_kind(world: &World) -> LinkReportKind {
    next_report(world).await.kind
}

async fn next_report(world: &World) -> LinkReport {
    loop {
        let report = timeout(2 * KEEP, world.edge.next_report()).await;
        let report = report.expect("a report comes");
        if !matches!(report.kind, LinkReportKind::RoundTrip { .. }) {
            return report;
        }
    }
}

/// Cuts a link, and waits until both sides know.
async fn cut(link: &Link, relay: watch::Sender<Fate>) {
    relay.send_replace(Fate::Ends);
    assert!(link.detached().await.is_some());
    tokio::time::sleep(SECOND).await; // virtual
}

/// A call, and the gateway's end of it.
async fn call(world: &mut World, link: &Link) -> (Call, Stream) {
    let call = world.call(post(1, "{}"));
    let mut stream = link.accept().await.unwrap().stream;
    let mut request = Vec::new();
    while !request.ends_with(b"{}") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    (call, stream)
}

async fn answer(mut stream: Stream) {
    let answer = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    stream.write_chunk(answer).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kept_link_goes_on_with_its_calls_and_is_never_down() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, stream) = call(&mut world, &link).await;
    cut(&link, relay).await;
    // One that comes in the gap waits for it to end.
    let waiting = world.call(post(1, "{}"));
    let resumed = gateways.claim(&world, 1, &link).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    answer(stream).await;
    assert_eq!(text(running.head().await).await.unwrap().body(), "ok");
    answer(link.accept().await.unwrap().stream).await;
    assert_eq!(text(waiting.head().await).await.unwrap().body(), "ok");
    let down = timeout(KEEP / 2, async {
        while !matches!(next_kind(&world).await, LinkReportKind::Down { .. }) {}
    });
    assert!(down.await.is_err(), "it was reported down");
    assert!(link.is_attached());
}

#[tokio::test(start_paused = true)]
async fn a_kept_link_that_nobody_comes_back_to_is_down_after_its_time() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, _stream) = call(&mut world, &link).await;
    let start = Instant::now();
    cut(&link, relay).await;
    let kind = next_kind(&world).await;
    let lost = DownReason::Lost;
    assert_eq!(kind, LinkReportKind::Down { reason: lost });
    assert_eq!(start.elapsed(), KEEP);
    assert_eq!(running.head().await.status(), 502);
}

#[tokio::test(start_paused = true)]
async fn another_gateway_gets_nothing_by_claiming_a_kept_link() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, stream) = call(&mut world, &link).await;
    cut(&link, relay).await;
    world.approve(2);
    // It knows everything but the first gateway's key.
    let answered = gateways.claim(&world, 2, &link).await;
    assert!(matches!(answered, Answer::Active { .. }), "{answered:?}");
    drop(answered);
    let resumed = gateways.claim(&world, 1, &link).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    answer(stream).await;
    assert_eq!(text(running.head().await).await.unwrap().body(), "ok");
}

#[tokio::test(start_paused = true)]
async fn access_that_is_withdrawn_ends_a_kept_link_at_once() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, _stream) = call(&mut world, &link).await;
    cut(&link, relay).await;
    world.decide(1, GatewayState::Refused);
    let start = Instant::now();
    world.publish();
    let kind = next_kind(&world).await;
    let withdrawn = DownReason::Withdrawn(mcp_tunnel_auth::LinkRefusal::GatewayRefused);
    assert_eq!(kind, LinkReportKind::Down { reason: withdrawn });
    assert_eq!(running.head().await.status(), 502);
    assert!(start.elapsed() < 2 * SECOND);
    let refused = gateways.claim(&world, 1, &link).await;
    assert!(matches!(refused, Answer::Refused(_)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_does_not_come_back_to_a_kept_link() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    cut(&link, relay).await;
    world.rotate_token();
    world.publish();
    assert!(matches!(
        next_kind(&world).await,
        LinkReportKind::Down { .. }
    ));
    let refused = gateways.claim(&world, 1, &link).await;
    assert!(matches!(refused, Answer::Refused(_)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn kept_links_are_bounded() {
    let config = config().set_max_kept_links_per_tunnel(1);
    let (mut world, mut gateways) = (World::new(config), Gateways::default());
    let (first, first_relay) = gateways.active(&mut world, 1).await;
    let (second, second_relay) = gateways.active(&mut world, 2).await;
    cut(&first, first_relay).await;
    let start = Instant::now();
    cut(&second, second_relay).await;
    assert!(matches!(
        next_kind(&world).await,
        LinkReportKind::Down { .. }
    ));
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    let resumed = gateways.claim(&world, 1, &first).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    let anew = gateways.claim(&world, 2, &second).await;
    assert!(matches!(anew, Answer::Active { .. }), "{anew:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_begins_anew_ends_the_calls_that_it_left() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, _stream) = call(&mut world, &link).await;
    cut(&link, relay).await;
    let start = Instant::now();
    let (fresh, _relay) = gateways.active(&mut world, 1).await;
    assert_eq!(running.head().await.status(), 502);
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    assert!(matches!(
        next_kind(&world).await,
        LinkReportKind::Down { .. }
    ));
    let (next, stream) = call(&mut world, &fresh).await;
    answer(stream).await;
    assert_eq!(text(next.head().await).await.unwrap().body(), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_check_and_other_gateways_leave_a_kept_link_alone() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, stream) = call(&mut world, &link).await;
    cut(&link, relay).await;
    let _check = gateways.dial(&world, 1, &[]).await;
    let _other = gateways.active(&mut world, 2).await;
    let resumed = gateways.claim(&world, 1, &link).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    answer(stream).await;
    assert_eq!(text(running.head().await).await.unwrap().body(), "ok");
}

const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)), 4_000);

/// One for each server of a machine, or one key copied to another machine: each is a program of its own.
#[tokio::test(start_paused = true)]
async fn gateways_that_share_a_key_leave_each_other_s_kept_links_alone() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, stream) = call(&mut world, &link).await;
    cut(&link, relay).await;
    let _other_server = gateways.dial(&world, 1, &["other"]).await;
    world.host = "another";
    let routes = ["mcp", "other"];
    let _other_machine = gateways.dial_from(&world, 1, &routes, ELSEWHERE).await;
    let resumed = gateways.claim(&world, 1, &link).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    answer(stream).await;
    assert_eq!(text(running.head().await).await.unwrap().body(), "ok");
}

/// A container that was made anew has another name, a machine that was moved another address.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_begins_anew_is_known_by_name_or_address() {
    for (host, from) in [("another", PEER), ("test", ELSEWHERE)] {
        let (mut world, mut gateways) = (World::new(config()), Gateways::default());
        let (link, relay) = gateways.active(&mut world, 1).await;
        let (running, _stream) = call(&mut world, &link).await;
        cut(&link, relay).await;
        let start = Instant::now();
        world.host = host;
        let _fresh = gateways.dial_from(&world, 1, &["more", "mcp"], from).await;
        assert_eq!(running.head().await.status(), 502);
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_not_heard_since_its_gateway_began_anew_is_not_kept() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, _stream) = call(&mut world, &link).await;
    // The host of the gateway lost power, and its connection is not known to be gone.
    relay.send_replace(Fate::FallsSilent);
    tokio::time::sleep(SECOND).await; // virtual
    let start = Instant::now();
    let _fresh = gateways.active(&mut world, 1).await;
    assert!(link.is_attached());
    assert_eq!(running.head().await.status(), 502);
    assert!(start.elapsed() < KEEP / 2, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_lives_on_beside_a_new_one_is_kept() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    let (running, stream) = call(&mut world, &link).await;
    let _fresh = gateways.active(&mut world, 1).await;
    tokio::time::sleep(KEEP).await; // virtual
    relay.send_replace(Fate::FallsSilent);
    assert!(link.detached().await.is_some());
    tokio::time::sleep(SECOND).await; // virtual
    let resumed = gateways.claim(&world, 1, &link).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    answer(stream).await;
    assert_eq!(text(running.head().await).await.unwrap().body(), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_resumes_from_elsewhere_is_reported_there() {
    let (mut world, mut gateways) = (World::new(config()), Gateways::default());
    let (link, relay) = gateways.active(&mut world, 1).await;
    cut(&link, relay).await;
    let resumed = gateways.claim_from(&world, 1, &link, ELSEWHERE).await;
    assert!(matches!(resumed, Answer::Resumed), "{resumed:?}");
    let report = next_report(&world).await;
    assert_eq!(report.kind, LinkReportKind::Up);
    assert_eq!(report.remote_address, ELSEWHERE);
}
