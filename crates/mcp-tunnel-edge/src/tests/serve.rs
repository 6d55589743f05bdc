//! Connections as a listener hands them over: TLS, ALPN, HTTP/1.1 and HTTP/2, and hostile bytes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcp_tunnel_auth::CallerAuth;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::counted::Counted;
use super::gateway::{Gateway, Seen};
use super::world::{PEER, World, bearer, caller_key, config, post};
use crate::serve::{ServeError, Server};
use crate::{DevTarget, Gate, GateConfig, Role};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A listener's side, without the listener.
struct Front {
    server: Server,
    gate: Gate,
    stop: CancellationToken,
}

impl Front {
    fn new(world: &World) -> Self {
        Self::with(world, GateConfig::default())
    }

    fn with(world: &World, gate: GateConfig) -> Self {
        let gate = Gate::new(gate);
        let server = Server::new(world.edge.clone(), gate.clone())
            .with_links(world.links_tls())
            .with_callers(world.callers_tls());
        Self {
            server,
            gate,
            stop: CancellationToken::new(),
        }
    }

    /// A socket from `source`, and how serving it ended.
    fn socket(
        &self,
        world: &mut World,
        source: SocketAddr,
    ) -> (
        DuplexStream,
        tokio::sync::oneshot::Receiver<Result<(), ServeError>>,
    ) {
        let (near, far) = duplex(64 * 1024);
        let (server, stop) = (self.server.clone(), self.stop.clone());
        let (tx, rx) = tokio::sync::oneshot::channel();
        world.tasks.spawn(async move {
            let _ = tx.send(server.serve(far, source, stop).await);
        });
        (near, rx)
    }

    /// A socket whose far end counts what the edge writes.
    fn counted_socket(&self, world: &mut World) -> (DuplexStream, Arc<AtomicUsize>) {
        let (near, far) = duplex(64 * 1024);
        let (far, writes) = Counted::new(far);
        let (server, stop) = (self.server.clone(), self.stop.clone());
        world.tasks.spawn(async move {
            let _ = server.serve(far, PEER, stop).await;
        });
        (near, writes)
    }

    async fn caller(&self, world: &mut World, alpn: &[u8]) -> TlsStream<DuplexStream> {
        let (near, _) = self.socket(world, PEER);
        world.caller_connects(near, alpn).await.unwrap()
    }
}

async fn read_until(tls: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        let mut byte = [0; 1];
        match tls.read(&mut byte).await {
            Ok(1) => text.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn head(more: &str) -> String {
    let key = bearer(&caller_key(1));
    format!(
        "POST /mcp HTTP/1.1\r\nhost: mcp--demo.tunnel.example\r\nmcp-tunnel-authorization: {key}\r\n{more}\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn one_port_serves_gateways_and_both_versions_of_http() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    world.approve(1);
    let (near, _) = front.socket(&mut world, PEER);
    let mut gateway = world.gateway_connects(near, 1).await;
    gateway.active().await;
    assert_eq!(front.gate.unproven(Role::Gateway), 0);

    let mut tls = front.caller(&mut world, b"http/1.1").await;
    for _ in 0..2 {
        tls.write_all(head("content-length: 2\r\n").as_bytes())
            .await
            .unwrap();
        tls.write_all(b"{}").await.unwrap();
        let (stream, _) = gateway.request().await;
        gateway.answer(stream, OK).await;
        let answer = read_until(&mut tls, "hi").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(front.gate.unproven(Role::Caller), 0);

    let tls = front.caller(&mut world, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    world.tasks.spawn(async move {
        let _ = connection.await;
    });
    let call = sender.send_request(over_h2(post(1, "{}")));
    let answering = async {
        let (stream, seen) = gateway.request().await;
        assert!(
            seen.starts_with("POST /mcp HTTP/1.1\r\n") && seen.ends_with("{}"),
            "{seen}"
        );
        gateway.answer(stream, OK).await;
    };
    let (answer, ()) = tokio::join!(call, answering);
    assert_eq!(
        answer
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes(),
        "hi"
    );
}

fn over_h2(request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.remove("host").unwrap();
    parts.uri = format!("https://{}{}", host.to_str().unwrap(), parts.uri)
        .parse()
        .unwrap();
    Request::from_parts(parts, body)
}

#[tokio::test(start_paused = true)]
async fn a_short_answer_leaves_in_one_write() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let mut tls = front.caller(&mut world, b"http/1.1").await;
    tls.write_all(format!("{}{{}}", head("content-length: 2\r\n")).as_bytes())
        .await
        .unwrap();
    let (stream, _) = gateway.request().await;
    gateway.answer(stream, OK).await;
    // One TLS record, and so one read of plaintext.
    let mut first = [0; 1024];
    let len = tls.read(&mut first).await.unwrap();
    assert!(
        first[..len].ends_with(b"\r\n\r\nhi"),
        "{}",
        String::from_utf8_lossy(&first[..len])
    );
}

#[tokio::test(start_paused = true)]
async fn a_small_call_costs_the_edge_one_write_each_way() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    world.approve(1);
    let (near, to_gateway) = front.counted_socket(&mut world);
    let mut gateway = world.gateway_connects(near, 1).await;
    gateway.active().await;
    let (near, to_caller) = front.counted_socket(&mut world);
    let mut tls = world.caller_connects(near, b"http/1.1").await.unwrap();
    let mut before = (0, 0);
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                  4\r\nhi\n\n\r\n0\r\n\r\n";
    for (number, (answer, end)) in [
        (OK, "hi"),
        (OK, "hi"),
        (events, "0\r\n\r\n"),
        (events, "0\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        tls.write_all(format!("{}{{}}", head("content-length: 2\r\n")).as_bytes())
            .await
            .unwrap();
        let (stream, _) = gateway.request().await;
        gateway.answer(stream, answer).await;
        read_until(&mut tls, end).await;
        let now = (
            to_gateway.load(Ordering::Relaxed),
            to_caller.load(Ordering::Relaxed),
        );
        if number > 0 {
            assert_eq!((now.0 - before.0, now.1 - before.1), (1, 1), "{number}");
        }
        before = now;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_and_its_short_body_reach_the_gateway_together() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let mut tls = front.caller(&mut world, b"http/1.1").await;
    tls.write_all(format!("{}{{}}", head("content-length: 2\r\n")).as_bytes())
        .await
        .unwrap();
    let Seen::Data(stream, data) = gateway.next().await else {
        panic!()
    };
    assert!(
        data.ends_with(b"\r\n\r\n{}"),
        "{}",
        String::from_utf8_lossy(&data)
    );
    assert!(matches!(gateway.next().await, Seen::End(id) if id == stream));
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_resets_its_streams() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    for (close, begun) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut tls = front.caller(&mut world, b"http/1.1").await;
        tls.write_all(format!("{}{{}}", head("content-length: 2\r\n")).as_bytes())
            .await
            .unwrap();
        let (stream, _) = gateway.request().await;
        if begun {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            gateway.write(stream, head).await;
            read_until(&mut tls, "\r\n\r\n").await;
        }
        let start = Instant::now();
        if close {
            tls.shutdown().await.unwrap();
        } else {
            drop(tls);
        }
        gateway.reset_of(stream).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{close} {begun}");
    }
    // HTTP/2: the stream alone, with the connection in good order.
    let tls = front.caller(&mut world, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    world.tasks.spawn(async move {
        let _ = connection.await;
    });
    let call = sender.send_request(over_h2(post(1, "{}")));
    let stream = tokio::select! {
        biased;
        _ = call => panic!("no answer yet"),
        (stream, _) = gateway.request() => stream,
    };
    gateway.reset_of(stream).await;
    assert!(sender.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_lost_gateway_is_no_clean_end_for_the_caller() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        let mut gateway = world.active(1).await;
        let mut tls = front.caller(&mut world, b"http/1.1").await;
        tls.write_all(head("content-length: 0\r\n").as_bytes())
            .await
            .unwrap();
        let (stream, _) = gateway.request().await;
        gateway
            .write(
                stream,
                format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n1\r\na\r\n"),
            )
            .await;
        read_until(&mut tls, "a").await;
        gateway.vanish().await;
        let mut rest = String::new();
        let _ = tls.read_to_string(&mut rest).await;
        assert!(!rest.contains("0\r\n\r\n"), "{framing}: {rest:?}");
        assert!(rest.len() < 6, "{framing}: {rest:?}");
    }
    let mut gateway = world.active(1).await;
    let tls = front.caller(&mut world, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    world.tasks.spawn(async move {
        let _ = connection.await;
    });
    let call = sender.send_request(over_h2(post(1, "{}")));
    let answering = async {
        let (stream, _) = gateway.request().await;
        gateway
            .write(
                stream,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
            )
            .await;
    };
    let (answer, ()) = tokio::join!(call, answering);
    let mut body = answer.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    gateway.vanish().await;
    let error = body.frame().await.unwrap().expect_err("reset");
    assert!(!error.is_timeout());
}

// Hostile bytes, judged by what the gateway gets.

/// What the gateway saw of a request, or the status that the caller got instead.
async fn judged(world: &mut World, gateway: &mut Gateway, bytes: &str) -> Result<String, String> {
    let front = Front::new(world);
    let mut tls = front.caller(world, b"http/1.1").await;
    tls.write_all(bytes.as_bytes()).await.unwrap();
    let answered = async {
        let mut answer = read_until(&mut tls, "\r\n\r\n").await;
        answer.truncate(12);
        answer
    };
    tokio::select! {
        biased;
        (stream, seen) = gateway.request() => {
            gateway.answer(stream, OK).await;
            Ok(seen)
        }
        answer = answered => Err(answer),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_smuggled() {
    let mut world = World::new(config());
    world.tunnels[0].caller_auth = CallerAuth::Upstream;
    let mut gateway = world.active(1).await;
    let host = "host: mcp--demo.tunnel.example\r\n";
    // Refused, by the HTTP server or by the edge, before anything reaches the gateway.
    for (what, bytes) in [
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\n{host}content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ),
        (
            "length list",
            format!("POST / HTTP/1.1\r\n{host}content-length: 1, 1\r\n\r\na"),
        ),
        (
            "signed length",
            format!("POST / HTTP/1.1\r\n{host}content-length: +1\r\n\r\na"),
        ),
        (
            "chunked not last",
            format!("POST / HTTP/1.1\r\n{host}transfer-encoding: chunked, gzip\r\n\r\n"),
        ),
        (
            "spaced name",
            format!("POST / HTTP/1.1\r\n{host}content-length : 1\r\n\r\na"),
        ),
        (
            "folded header",
            format!("GET / HTTP/1.1\r\n{host}x: a\r\n b\r\n\r\n"),
        ),
        (
            "bare cr",
            format!("GET / HTTP/1.1\r\n{host}x: a\rb\r\n\r\n"),
        ),
        ("two hosts", format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
        (
            "other host in target",
            format!("GET http://evil.example/ HTTP/1.1\r\n{host}\r\n"),
        ),
        (
            "two authorizations",
            format!("GET / HTTP/1.1\r\n{host}authorization: a\r\nauthorization: b\r\n\r\n"),
        ),
        (
            "authority form",
            format!("CONNECT evil.example:80 HTTP/1.1\r\n{host}\r\n"),
        ),
        ("asterisk form", format!("OPTIONS * HTTP/1.1\r\n{host}\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
        (
            "user in host",
            "GET / HTTP/1.1\r\nhost: a@mcp--demo.tunnel.example\r\n\r\n".into(),
        ),
        ("http 2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
    ] {
        let judged = judged(&mut world, &mut gateway, &bytes).await;
        let status = judged.expect_err(what);
        assert!(
            ["HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 431", ""].contains(&status.as_str()),
            "{what}: {status}"
        );
    }
    // Passed, with one reading only.
    let both = format!(
        "POST / HTTP/1.1\r\n{host}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    );
    let seen = judged(&mut world, &mut gateway, &both).await;
    if let Ok(seen) = seen {
        assert!(!seen.contains("content-length: 3"), "{seen}");
    }
    let upgrade = format!(
        "GET / HTTP/1.1\r\n{host}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n"
    );
    let seen = judged(&mut world, &mut gateway, &upgrade).await.unwrap();
    for gone in ["connection", "upgrade", "http2-settings"] {
        assert!(!seen.contains(gone), "{seen}");
    }
    let named = format!(
        "GET / HTTP/1.1\r\n{host}connection: x-forwarded-for, host, authorization\r\nx-forwarded-for: 10.0.0.1\r\nauthorization: a\r\n\r\n"
    );
    let seen = judged(&mut world, &mut gateway, &named).await.unwrap();
    assert!(
        seen.contains("x-forwarded-for: 192.0.2.1\r\n")
            && seen.contains("host: mcp--demo.tunnel.example\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("authorization"), "{seen}");
    let absolute = format!("GET https://mcp--demo.tunnel.example/x?y HTTP/1.1\r\n{host}\r\n");
    let seen = judged(&mut world, &mut gateway, &absolute).await.unwrap();
    assert!(seen.starts_with("GET /x?y HTTP/1.1\r\n"), "{seen}");
    let trailers = format!(
        "POST / HTTP/1.1\r\n{host}transfer-encoding: chunked\r\ntrailer: host\r\n\r\n1\r\na\r\n0\r\nhost: evil\r\n\r\n"
    );
    let seen = judged(&mut world, &mut gateway, &trailers).await.unwrap();
    assert!(
        !seen.contains("evil") && !seen.contains("trailer"),
        "{seen}"
    );
}

/// A caller whose body cannot be read still reads the answer: it must not be told that its key is wrong.
#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_is_named_and_is_no_refusal() {
    let mut world = World::new(config());
    world.tunnels[0].caller_auth = CallerAuth::Upstream;
    let front = Front::new(&world);
    let gateway = world.active(1).await;
    for body in [
        "transfer-encoding: chunked\r\n\r\n8\r\n{\"id\":7,\r\nnonsense\r\n",
        "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        // Its inner coding would travel on without its name.
        "transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ] {
        let mut tls = front.caller(&mut world, b"http/1.1").await;
        let request = format!("POST / HTTP/1.1\r\nhost: mcp--demo.tunnel.example\r\n{body}");
        tls.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut tls, "}}}").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{body}: {answer}");
        assert!(answer.contains("the body of the request"), "{answer}");
        if body.contains("\"id\":7") {
            assert!(answer.contains("\"id\":7"), "{answer}");
        }
    }
    drop(gateway);
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_exchanges_of_their_own() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let mut tls = front.caller(&mut world, b"http/1.1").await;
    let one = head("content-length: 0\r\n");
    let other = one.replace("Bearer mck_", "Bearer mck_x");
    tls.write_all(format!("{one}{other}").as_bytes())
        .await
        .unwrap();
    let (stream, seen) = gateway.request().await;
    assert_eq!(seen.matches("POST").count(), 1);
    gateway.answer(stream, OK).await;
    // The second is judged on its own head.
    assert!(read_until(&mut tls, "hi").await.starts_with("HTTP/1.1 200"));
    assert!(
        read_until(&mut tls, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 403")
    );
}

// Limits before proof.

#[tokio::test(start_paused = true)]
async fn a_silent_or_slow_socket_is_closed_in_time() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let start = Instant::now();
    let (_silent, served) = front.socket(&mut world, PEER);
    assert!(matches!(
        served.await.unwrap(),
        Err(ServeError::Unproven { .. })
    ));
    assert_eq!(start.elapsed().as_secs(), 10);

    // A handshake, and then nothing; or a head that never ends; or only refused requests.
    for bytes in [
        "",
        "GET / HTTP/1.1\r\nx: ",
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let start = Instant::now();
        let (near, served) = front.socket(&mut world, PEER);
        let mut tls = world.caller_connects(near, b"http/1.1").await.unwrap();
        tls.write_all(bytes.as_bytes()).await.unwrap();
        assert!(
            matches!(served.await.unwrap(), Err(ServeError::Unproven { .. })),
            "{bytes:?}"
        );
        assert_eq!(start.elapsed().as_secs(), 10, "{bytes:?}");
    }
    // A gateway that says no HELLO has half of that.
    let start = Instant::now();
    let (near, served) = front.socket(&mut world, PEER);
    let _tls = world.gateway_handshake(near).await;
    assert!(matches!(served.await.unwrap(), Err(ServeError::Link(_))));
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(
        (
            front.gate.unproven(Role::Caller),
            front.gate.unproven(Role::Gateway)
        ),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_proven_caller_may_stay() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let mut tls = front.caller(&mut world, b"http/1.1").await;
    for pause in [0, 30, 60] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        tls.write_all(head("content-length: 0\r\n").as_bytes())
            .await
            .unwrap();
        let (stream, _) = gateway.request().await;
        gateway.answer(stream, OK).await;
        assert!(read_until(&mut tls, "hi").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_is_at_most_32_kib() {
    let mut world = World::new(config());
    world.tunnels[0].caller_auth = CallerAuth::Upstream;
    let mut gateway = world.active(1).await;
    let request = |len: usize| {
        let filler = "y".repeat(len);
        format!("GET / HTTP/1.1\r\nhost: mcp--demo.tunnel.example\r\nx: {filler}\r\n\r\n")
    };
    judged(&mut world, &mut gateway, &request(30_000))
        .await
        .unwrap();
    assert_eq!(
        judged(&mut world, &mut gateway, &request(33_000))
            .await
            .unwrap_err(),
        "HTTP/1.1 431"
    );
}

#[tokio::test(start_paused = true)]
async fn sources_that_hold_their_share_do_not_harm_others() {
    let mut world = World::new(config());
    let gate = GateConfig::default()
        .set_callers_per_source(4)
        .set_gateways_per_source(4);
    let front = Front::with(&world, gate);
    world.approve(1);
    let source = |last: u8| SocketAddr::new(IpAddr::from([127, 0, 0, last]), 1_000);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(front.socket(&mut world, source(2)));
    }
    let (_near, served) = front.socket(&mut world, source(2));
    assert!(matches!(served.await.unwrap(), Err(ServeError::Gate(_))));
    let (near, _) = front.socket(&mut world, source(1));
    let mut gateway = world.gateway_connects(near, 1).await;
    gateway.active().await;
}

/// What the TLS of a client said.
fn alert(failed: &std::io::Error) -> Option<&rustls::Error> {
    failed.get_ref().and_then(|inside| inside.downcast_ref())
}

#[tokio::test(start_paused = true)]
async fn a_listener_for_one_role_takes_no_other_and_says_so() {
    const NONE_IN_COMMON: rustls::Error =
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    let world = World::new(config());
    let gate = Gate::new(GateConfig::default());
    let gateways_only = Server::new(world.edge.clone(), gate.clone()).with_links(world.links_tls());
    let callers_only =
        Server::new(world.edge.clone(), gate.clone()).with_callers(world.callers_tls());
    for (server, alpn) in [
        (&gateways_only, &b"http/1.1"[..]),
        (&callers_only, mcp_tunnel_transport::tls::ALPN),
        (&callers_only, b"acme-tls/1"),
    ] {
        let (near, far) = duplex(64 * 1024);
        let (served, connected) = tokio::join!(
            server.serve(far, PEER, CancellationToken::new()),
            // In TLS 1.3 a client may have finished before the alert comes: it is there to be read then.
            async { world.caller_connects(near, alpn).await?.read_u8().await }
        );
        assert!(matches!(served, Err(ServeError::Protocol)), "{served:?}");
        let failed = connected.unwrap_err();
        assert_eq!(alert(&failed), Some(&NONE_IN_COMMON), "{failed:?}");
    }
    let (mut near, far) = duplex(64 * 1024);
    let (served, ()) = tokio::join!(
        gateways_only.serve(far, PEER, CancellationToken::new()),
        async {
            let hello = client_hello_without_alpn(&world);
            near.write_all(&hello).await.unwrap();
        }
    );
    assert!(matches!(served, Err(ServeError::Role(Role::Caller))));
}

fn client_hello_without_alpn(world: &World) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(world.client_without_alpn(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(start_paused = true)]
async fn on_stop_a_connection_finishes_what_runs() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let (near, served) = front.socket(&mut world, PEER);
    let mut tls = world.caller_connects(near, b"http/1.1").await.unwrap();
    tls.write_all(head("content-length: 0\r\n").as_bytes())
        .await
        .unwrap();
    let (stream, _) = gateway.request().await;
    front.stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.answer(stream, OK).await;
    let answer = read_until(&mut tls, "hi").await;
    assert!(answer.contains("connection: close"), "{answer}");
    served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn on_stop_nothing_holds_a_connection_for_ever() {
    let mut world = World::new(config().set_drain(Duration::from_secs(30)));
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    // A call that does not end, over both versions; and a proven caller that has begun a head.
    let mut served = Vec::new();
    let mut held = Vec::new();
    for _ in 0..2 {
        let (near, ended) = front.socket(&mut world, PEER);
        let mut tls = world.caller_connects(near, b"http/1.1").await.unwrap();
        tls.write_all(head("content-length: 0\r\n").as_bytes())
            .await
            .unwrap();
        let (stream, _) = gateway.request().await;
        served.push(ended);
        held.push((tls, stream));
    }
    let (tls, stream) = held.last_mut().unwrap();
    gateway.answer(*stream, OK).await;
    read_until(tls, "hi").await;
    tls.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let (near, ended) = front.socket(&mut world, PEER);
    let tls = world.caller_connects(near, b"h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
    world.tasks.spawn(async move {
        let _ = connection.await;
    });
    let call = sender.send_request(over_h2(post(1, "{}")));
    world.tasks.spawn(async move {
        let _ = call.await;
    });
    gateway.request().await;
    served.push(ended);
    let start = Instant::now();
    front.stop.cancel();
    let ends = futures_util::future::join_all(served).await;
    let ends: Vec<_> = ends.into_iter().map(|end| end.unwrap().is_ok()).collect();
    assert_eq!(ends, [false, true, false]);
    assert_eq!(start.elapsed().as_secs(), 31);
    assert_eq!(world.edge.live_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_bounded_while_others_run() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let mut slow = front.caller(&mut world, b"http/1.1").await;
    slow.write_all(head("content-length: 0\r\n").as_bytes())
        .await
        .unwrap();
    let (stream, _) = gateway.request().await;
    gateway
        .write(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n",
        )
        .await;
    gateway.write(stream, vec![b'x'; 100_000_000]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nobody has read a byte of it, and the gateway could not send more than the windows on the way.
    let unsent = gateway.unsent(stream).await;
    assert!(unsent > 100_000_000 - 1_500_000, "{unsent}");
    let mut quick = front.caller(&mut world, b"http/1.1").await;
    for _ in 0..10 {
        let start = Instant::now();
        quick
            .write_all(head("content-length: 0\r\n").as_bytes())
            .await
            .unwrap();
        let (stream, _) = gateway.request().await;
        gateway.answer(stream, OK).await;
        assert!(
            read_until(&mut quick, "hi")
                .await
                .starts_with("HTTP/1.1 200")
        );
        assert!(
            start.elapsed() < Duration::from_millis(10),
            "{:?}",
            start.elapsed()
        );
    }
    // What was stalled goes on where it was.
    let mut read = 0;
    let mut buffer = vec![0; 65_536];
    while read < 3_000_000 {
        read += slow.read(&mut buffer).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_cannot_hold_a_call_that_is_cut() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let mut stalled = front.caller(&mut world, b"http/1.1").await;
    stalled
        .write_all(head("content-length: 0\r\n").as_bytes())
        .await
        .unwrap();
    let (stream, _) = gateway.request().await;
    gateway
        .write(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n",
        )
        .await;
    gateway.write(stream, vec![b'x'; 100_000_000]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    world.keys.clear();
    world.publish();
    gateway.reset_of(stream).await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_development_connection_is_plain_http() {
    let mut world = World::new(config());
    let front = Front::new(&world);
    let mut gateway = world.active(1).await;
    let (mut near, far) = duplex(64 * 1024);
    let (server, stop) = (front.server.clone(), front.stop.clone());
    let loopback = SocketAddr::from(([127, 0, 0, 1], 1));
    world.tasks.spawn(async move {
        let _ = server
            .serve_dev(far, loopback, DevTarget::default(), stop)
            .await;
    });
    near.write_all(b"GET /mcp HTTP/1.1\r\nhost: localhost:1\r\n\r\n")
        .await
        .unwrap();
    let (stream, _) = gateway.request().await;
    gateway.answer(stream, OK).await;
    assert!(
        read_until(&mut near, "hi")
            .await
            .starts_with("HTTP/1.1 200")
    );
}
