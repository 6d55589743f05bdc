//! Every public future of this crate, dropped at each of its await points: nothing is lost, stuck or leaked.
//! `cargo xtask tidy` compares the names behind CANCEL with the public async functions.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mcp_tunnel_auth::LinkReportKind;
use mcp_tunnel_proto::CloseCode;
use mcp_tunnel_transport::{Answer, Exporter, Link, LinkConfig, Offer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use self::cut::Cut;
use super::world::{PEER, World, bearer, caller_key, config, post};
use crate::serve::Server;
use crate::{DevTarget, Gate, GateConfig, PeerInfo, Role};

// The one helper for futures that are dropped half-way; a crate for it would be larger than it.
#[path = "../../../mcp-tunnel-transport/tests/it/cut.rs"]
mod cut;

/// What must come; most of it is virtual.
const SOON: Duration = Duration::from_secs(600);

fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(timeout(SOON, work));
    async { work.await.expect("it is stuck") }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A gateway that answers every call, until its link ends or `calls` are answered.
async fn gateway(tls: TlsStream<DuplexStream>, credential: Vec<u8>, calls: usize) {
    let config = LinkConfig::default();
    let offer = Offer::new(tls, credential.into(), &config).unwrap();
    let Ok(Answer::Active { link, driver }) = offer.answer().await else {
        return;
    };
    tokio::join!(answer(link, calls), driver.run());
}

async fn answer(link: Link, calls: usize) {
    for _ in 0..calls {
        let Some(incoming) = link.accept().await else {
            return;
        };
        let mut stream = incoming.stream;
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            match stream.read_chunk().await {
                Ok(Some(chunk)) => request.extend_from_slice(&chunk),
                Ok(None) | Err(_) => break,
            }
        }
        let _ = stream.write_all(OK).await;
        let _ = stream.shutdown().await;
    }
    link.drain(CloseCode::SHUTDOWN, SOON).await;
}

/// A gateway of the world's only tunnel, whose link runs in the world's tasks.
async fn serving(world: &mut World, calls: usize) {
    let (tls, exporter) = world.connect().await;
    let credential = world.credential(1, 1, &["mcp"], &exporter).encode();
    world.tasks.spawn(gateway(tls, credential, calls));
    soon(async { while !matches!(world.edge.next_report().await.kind, LinkReportKind::Up) {} })
        .await;
}

async fn no_call_is_left(world: &World) {
    soon(async {
        while world.edge.live_calls() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// CANCEL: `Edge::accept_link`
#[tokio::test(start_paused = true)]
async fn a_dropped_link_is_reported_down_and_another_serves() {
    Cut::everywhere(async |cut| {
        let mut world = World::new(config());
        world.approve(1);
        let (near, far) = duplex(256 * 1024);
        let (acceptor, edge) = (TlsAcceptor::from(world.links_tls()), world.edge.clone());
        let mut accepted = JoinSet::new();
        accepted.spawn(async move {
            let tls = acceptor.accept(far).await.unwrap();
            cut.apply(edge.accept_link(tls, PeerInfo::tls(PEER))).await
        });
        let tls = world.gateway_handshake(near).await;
        let exporter = Exporter::of(tls.get_ref().1).unwrap();
        let credential = world.credential(1, 1, &["mcp"], &exporter).encode();
        world.tasks.spawn(gateway(tls, credential, 1));
        let call = world.call(post(1, "{}"));
        let ended = soon(accepted.join_next()).await.unwrap().unwrap();
        drop(soon(call.head()).await);
        no_call_is_left(&world).await;
        // What was reported up is reported down.
        let (mut up, mut down) = (0, 0);
        while let Ok(report) = timeout(Duration::from_secs(1), world.edge.next_report()).await {
            up += i32::from(matches!(report.kind, LinkReportKind::Up));
            down += i32::from(matches!(report.kind, LinkReportKind::Down { .. }));
        }
        assert!(down >= up, "{up} up, {down} down");
        serving(&mut world, 1).await;
        let response = world.answer_to(post(1, "{}")).await;
        assert_eq!(response.status(), 200);
        ended.is_some()
    })
    .await;
}

/// CANCEL: `Edge::next_report`
#[tokio::test(start_paused = true)]
async fn a_report_that_a_dropped_future_was_told_of_is_told_again() {
    Cut::everywhere(async |cut| {
        let mut world = World::new(config());
        let edge = world.edge.clone();
        let dial = async {
            for _ in 0..20 {
                yield_now().await;
            }
            let mut gateway = world.dial(1).await;
            gateway.pending().await
        };
        let (first, shown) = tokio::join!(cut.apply(edge.next_report()), dial);
        let whole = first.is_some();
        let report = match first {
            Some(report) => report,
            None => soon(edge.next_report()).await,
        };
        let told = matches!(report.kind, LinkReportKind::Pending { approval_code } if approval_code.to_string() == shown);
        assert!(told);
        whole
    })
    .await;
}

/// CANCEL: `Edge::run`
#[tokio::test(start_paused = true)]
async fn a_dropped_run_stops_no_link_and_can_be_begun_again() {
    Cut::everywhere(async |cut| {
        let mut world = World::new(config());
        world.approve(1);
        serving(&mut world, 2).await;
        let (edge, stop) = (world.edge.clone(), CancellationToken::new());
        let end = async {
            for _ in 0..20 {
                yield_now().await;
            }
            let response = world.answer_to(post(1, "{}")).await;
            assert_eq!(response.status(), 200);
            stop.cancel();
        };
        let (run, ()) = tokio::join!(cut.apply(edge.run(stop.clone())), end);
        soon(edge.run(stop.clone())).await;
        let response = world.answer_to(post(1, "{}")).await;
        assert_eq!(response.status(), 503, "it has drained");
        run.is_some()
    })
    .await;
}

/// A call on a connection of its own; what came back.
async fn call_over(
    mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    host: &str,
) -> String {
    let key = bearer(&caller_key(1));
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\nmcp-tunnel-authorization: {key}\r\n\
         connection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let _ = io.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// CANCEL: `Server::serve`, `Server::serve_dev`
#[tokio::test(start_paused = true)]
async fn a_dropped_connection_gives_its_place_and_its_call_back() {
    for dev in [false, true] {
        let mut world = World::new(config());
        world.approve(1);
        serving(&mut world, 1000).await;
        let gate = Gate::new(GateConfig::default());
        let server =
            Server::new(world.edge.clone(), gate.clone()).with_callers(world.callers_tls());
        let target = DevTarget::default();
        Cut::everywhere(async |cut| {
            let (near, far) = duplex(64 * 1024);
            let stop = CancellationToken::new();
            let serve = async {
                let served = if dev {
                    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
                    let serve = server.serve_dev(far, loopback, target.clone(), stop);
                    cut.apply(serve).await
                } else {
                    cut.apply(server.serve(far, PEER, stop)).await
                };
                served.is_some()
            };
            let call = async {
                if dev {
                    return call_over(near, "localhost:1").await;
                }
                match world.caller_connects(near, b"http/1.1").await {
                    Ok(tls) => call_over(tls, "mcp--demo.tunnel.example").await,
                    Err(_) => String::new(),
                }
            };
            let (whole, answer) = soon(async { tokio::join!(serve, call) }).await;
            assert!(!whole || answer.ends_with("\r\n\r\nhi"), "{answer}");
            no_call_is_left(&world).await;
            assert_eq!(gate.unproven(Role::Caller), 0, "a place at the gate leaked");
            whole
        })
        .await;
    }
}

/// CANCEL: `Ticket::until_proven`
#[tokio::test(start_paused = true)]
async fn a_proof_that_a_dropped_future_was_told_of_is_told_again() {
    Cut::everywhere(async |cut| {
        let gate = Gate::new(GateConfig::default());
        let ticket = gate.admit(Role::Caller, PEER.ip()).unwrap();
        let prove = async {
            yield_now().await;
            ticket.proven();
        };
        let (first, ()) = tokio::join!(cut.apply(ticket.until_proven()), prove);
        soon(ticket.until_proven()).await;
        assert_eq!(gate.unproven(Role::Caller), 0);
        first.is_some()
    })
    .await;
}
