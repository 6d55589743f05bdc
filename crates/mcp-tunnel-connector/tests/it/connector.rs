//! Links, calls, drain and loss.

use std::time::Duration;

use mcp_diagnostics::admin::{Metrics, Readiness};
use mcp_tunnel_auth::{LinkCredential, LinkRefusal};
use mcp_tunnel_connector::{Connector, ConnectorConfig, Event};
use mcp_tunnel_proto::{CloseCode, Refusal, RefusalCode, ResetCode, StreamKind, TraceContext};
use mcp_tunnel_transport::{Link, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::edge::{
    CALL, Edge, answer, ca, config, connector, finish, key, open, open_as, servers, snapshot, token,
};
use crate::server::{Server, given_up, reserved};

/// Both at once until the edge has a link and the connector says so.
async fn linked(edge: &mut Edge, connector: &mut Connector) -> Link {
    let (link, ()) = tokio::join!(edge.admit(), active(connector));
    link
}

async fn active(connector: &mut Connector) {
    while !matches!(connector.next_event().await, Event::Active { .. }) {}
}

/// The event that ends the program.
async fn ended(connector: &mut Connector) -> Event {
    loop {
        let event = connector.next_event().await;
        if event.exit_code(false).is_some() {
            return event;
        }
    }
}

/// Runs the connector beside what the test does.
async fn while_serving<T>(connector: &mut Connector, test: impl Future<Output = T>) -> T {
    let mut test = std::pin::pin!(test);
    loop {
        tokio::select! {
            output = &mut test => return output,
            _ = connector.next_event() => {}
        }
    }
}

#[tokio::test]
async fn the_token_alone_leads_to_the_edge_and_a_call_is_served() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let readiness = connector.readiness();
    assert!(matches!(*readiness.borrow(), Readiness::NotReady(_)));
    let link = linked(&mut edge, &mut connector).await;
    assert_eq!(*readiness.borrow(), Readiness::Ready);
    let text = while_serving(&mut connector, async {
        let mut stream = open(&link, StreamKind::Http, CALL).await;
        finish(&mut stream).await;
        let (mut socket, request) = server.request().await;
        assert!(
            request.contains(&format!("host: {}", server.address)),
            "{request}"
        );
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
        answer(stream).await.unwrap()
    })
    .await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\nhi"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_is_given_no_longer_than_the_edge_waits() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    // By itself the gateway would wait for minutes.
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    let (text, socket) = while_serving(&mut connector, async {
        let stream = open_as(&link, CALL, |header| {
            header.deadline = Some(Duration::from_millis(50));
        })
        .await;
        let (socket, _) = server.request().await;
        (answer(stream).await.unwrap(), socket)
    })
    .await;
    assert!(text.starts_with("HTTP/1.1 504 "), "{text}");
    assert!(text.contains(r#""hop":"server""#), "{text}");
    // The server learns at once that nobody waits any more.
    while_serving(&mut connector, given_up(socket)).await;
}

#[tokio::test]
async fn a_trace_that_the_edge_began_reaches_the_server_and_a_callers_own_stays() {
    const BEGUN: &str = "00-11111111111111111111111111111111-2222222222222222-00";
    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    while_serving(&mut connector, async {
        let with_own = CALL.replacen("host:", &format!("traceparent: {OWN}\r\nhost:"), 1);
        for (call, told, expect) in [
            (CALL, None, None),
            (CALL, Some(BEGUN), Some(BEGUN)),
            (&with_own, Some(BEGUN), Some(OWN)),
        ] {
            let stream = open_as(&link, call, |header| {
                header.trace = told.and_then(TraceContext::from_traceparent);
            })
            .await;
            let (_, request) = server.request().await;
            let seen: Vec<&str> = request
                .lines()
                .filter_map(|line| line.strip_prefix("traceparent: "))
                .collect();
            assert_eq!(seen, Vec::from_iter(expect), "{request}");
            drop(stream);
        }
    })
    .await;
}

#[tokio::test]
async fn a_pending_gateway_shows_code_and_key_and_needs_no_new_dial() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let incoming = while_serving(&mut connector, Box::pin(edge.incoming())).await;
    let mut pending = incoming.pend("K7QM-2F9D");
    let shown = tokio::select! {
        reason = pending.closed() => panic!("{reason}"),
        event = async {
            loop {
                let event = connector.next_event().await;
                if matches!(event, Event::Pending { .. }) {
                    break event.to_string();
                }
            }
        } => event,
    };
    assert!(
        shown.contains("K7QM-2F9D")
            && shown.contains(&key().public_key().fingerprint().to_string()),
        "{shown}"
    );
    assert_eq!(
        *connector.readiness().borrow(),
        Readiness::NotReady("waiting for approval")
    );
    let (_link, driver) = pending.admit().unwrap();
    tokio::select! {
        reason = driver.run() => panic!("{reason}"),
        event = connector.next_event() => assert!(matches!(event, Event::Active { .. }), "{event}"),
    }
}

#[tokio::test]
async fn a_final_refusal_ends_the_program_with_3_and_a_cure() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let refuse = async {
        edge.incoming()
            .await
            .refuse(Refusal::new(RefusalCode::RETIRED, "this token was rotated"))
            .await;
        std::future::pending::<()>().await;
    };
    let event = tokio::select! {
        () = refuse => unreachable!(),
        event = ended(&mut connector) => event,
    };
    assert_eq!(event.exit_code(false), Some(3));
    assert!(
        event.to_string().contains(
            "this token was rotated; start the gateway with the new token from the console"
        ),
        "{event}"
    );
}

#[tokio::test]
async fn a_proxy_that_ends_tls_in_between_is_noticed() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    // The gateway trusts its certificate, as that of a proxy of its own network.
    let proxy = Edge::bind().await;
    let mut connector = connector(&proxy, server.address);
    let token = token(proxy.address);
    let relay = async {
        let mut inside = proxy.handshake().await.unwrap();
        let mut outside = edge.connect().await;
        drop(tokio::io::copy_bidirectional(&mut inside, &mut outside).await);
        std::future::pending::<()>().await;
    };
    let judge = async {
        let incoming = edge.incoming().await;
        let credential = LinkCredential::decode(incoming.credential()).unwrap();
        let exporter = incoming.exporter().as_bytes();
        let judged = snapshot(&token).judge_link(&credential, &token.edge_name, exporter);
        assert_eq!(judged, Err(LinkRefusal::Intercepted));
        let refusal = Refusal::new(RefusalCode::INTERCEPTED, "");
        incoming.refuse(refusal).await;
        std::future::pending::<()>().await;
    };
    let event = tokio::select! {
        () = relay => unreachable!(),
        () = judge => unreachable!(),
        event = ended(&mut connector) => event,
    };
    assert_eq!(event.exit_code(false), Some(3));
    assert!(
        event
            .to_string()
            .contains("exempt the edge's host name from TLS inspection"),
        "{event}"
    );
    // The same credential would be good without the proxy.
    let mut connector = self::connector(&edge, server.address);
    let direct = async {
        let incoming = edge.incoming().await;
        let credential = LinkCredential::decode(incoming.credential()).unwrap();
        let exporter = incoming.exporter().as_bytes();
        snapshot(&token).judge_link(&credential, &token.edge_name, exporter)
    };
    let judged = while_serving(&mut connector, Box::pin(direct)).await;
    assert!(judged.is_ok(), "{judged:?}");
}

#[tokio::test]
async fn a_rotated_token_lets_running_calls_finish_before_the_gateway_stops() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    let (stream, mut socket) = while_serving(&mut connector, async {
        let stream = open(&link, StreamKind::Http, CALL).await;
        (stream, server.request().await.0)
    })
    .await;
    link.go_away(CloseCode::NO_ERROR, None);
    let rotated = async {
        edge.incoming()
            .await
            .refuse(Refusal::new(RefusalCode::RETIRED, ""))
            .await;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
        answer(stream).await.unwrap()
    };
    let stopped = async {
        let mut code = None;
        loop {
            let event = connector.next_event().await;
            code = code.or_else(|| event.exit_code(false));
            if matches!(event, Event::Stopped) {
                break code;
            }
        }
    };
    let (text, code) = tokio::join!(rotated, stopped);
    assert!(text.ends_with("hi"), "{text}");
    assert_eq!(code, Some(3));
}

#[tokio::test]
async fn an_unknown_tunnel_gets_a_second_chance() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let early = async {
        edge.incoming()
            .await
            .refuse(Refusal::new(RefusalCode::TUNNEL, ""))
            .await;
        edge.admit().await
    };
    let events = async {
        loop {
            let event = connector.next_event().await;
            assert_eq!(event.exit_code(true), None, "{event}");
            if matches!(event, Event::Active { .. }) {
                break;
            }
        }
    };
    tokio::join!(early, events);
}

#[tokio::test]
async fn an_edge_that_is_down_ends_the_program_only_if_asked_and_is_found_again() {
    let (_port, address) = reserved();
    let server = Server::bind().await;
    let mut connector = Connector::new(config(address, server.address)).unwrap();
    let lost = loop {
        let event = connector.next_event().await;
        if matches!(event, Event::Lost { .. }) {
            break event;
        }
    };
    assert_eq!(
        (lost.exit_code(true), lost.exit_code(false)),
        (Some(4), None)
    );
    assert!(lost.to_string().contains("Connection refused"), "{lost}");
    let mut edge = Edge::bind_to(address).await;
    linked(&mut edge, &mut connector).await;
}

#[tokio::test]
async fn an_edge_under_another_authority_gets_no_credential() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    let mut config = config(edge.address, server.address);
    let other = mcp_tunnel_transport::local_ca::LocalCa::generate(
        "tunnel.localhost",
        std::time::SystemTime::now(),
    )
    .unwrap();
    config = config.with_edge_roots(vec![other.certificate().clone()]);
    let mut connector = Connector::new(config).unwrap();
    let lost = async {
        loop {
            if let Event::Lost { reason } = connector.next_event().await {
                break reason;
            }
        }
    };
    let (accepted, reason) = tokio::join!(edge.handshake(), lost);
    assert!(accepted.is_err());
    assert!(
        mcp_diagnostics::telemetry::chain(&reason)
            .to_string()
            .contains("certificate"),
        "{reason:?}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_and_never_an_end() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    let broken = while_serving(&mut connector, async {
        let stream = open(&link, StreamKind::Http, CALL).await;
        let (mut socket, _) = server.request().await;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin")
            .await
            .unwrap();
        drop(socket);
        answer(stream).await.unwrap_err()
    })
    .await;
    assert!(
        matches!(
            StreamError::of(&broken),
            Some(StreamError::Reset(ResetCode::UNREACHABLE))
        ),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_caller_that_gives_up_is_felt_by_the_server_at_once() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    while_serving(&mut connector, async {
        // Before and after the answer has begun, with the edge's half ended.
        for begun in [false, true] {
            let mut stream = open(&link, StreamKind::Http, CALL).await;
            finish(&mut stream).await;
            let (mut socket, _) = server.request().await;
            if begun {
                socket
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin")
                    .await
                    .unwrap();
                stream.read_u8().await.unwrap();
            }
            drop(stream);
            given_up(socket).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_link_ends_its_calls_at_the_server() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    while_serving(&mut connector, async {
        let _stream = open(&link, StreamKind::Http, CALL).await;
        let (socket, _) = server.request().await;
        // As if the edge's process were killed.
        edge.drivers.abort_all();
        given_up(socket).await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connector_ends_its_calls_on_both_sides() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    let (stream, socket) = while_serving(&mut connector, async {
        let stream = open(&link, StreamKind::Http, CALL).await;
        (stream, server.request().await.0)
    })
    .await;
    drop(connector);
    given_up(socket).await;
    let lost = answer(stream).await.unwrap_err();
    assert!(
        matches!(StreamError::of(&lost), Some(StreamError::LinkLost(_))),
        "{lost:?}"
    );
}

#[tokio::test]
async fn other_kinds_of_streams_are_reset_as_unsupported() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    let refused = while_serving(&mut connector, async {
        answer(open(&link, StreamKind::Tls, "hello").await)
            .await
            .unwrap_err()
    })
    .await;
    assert!(
        matches!(
            StreamError::of(&refused),
            Some(StreamError::Reset(ResetCode::UNSUPPORTED))
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_drain_lets_running_calls_finish_and_takes_no_new_ones() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let readiness = connector.readiness();
    let link = linked(&mut edge, &mut connector).await;
    let (stream, mut socket) = while_serving(&mut connector, async {
        let stream = open(&link, StreamKind::Http, CALL).await;
        (stream, server.request().await.0)
    })
    .await;
    connector.drain();
    assert_eq!(*readiness.borrow(), Readiness::NotReady("draining"));
    let finish = async {
        link.going_away().await.expect("the gateway says so");
        assert!(!link.is_open());
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
        answer(stream).await.unwrap()
    };
    let stopped = async { while !matches!(connector.next_event().await, Event::Stopped) {} };
    // The idle connection to the server is no reason to wait.
    let both = tokio::time::timeout(Duration::from_millis(3_500), async {
        tokio::join!(finish, stopped)
    });
    let (text, ()) = both.await.expect("idle, and so stopped");
    assert!(text.ends_with("hi"), "{text}");
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let config =
        config(edge.address, server.address).with_drain_deadline(Duration::from_millis(50));
    let mut connector = Connector::new(config).unwrap();
    let link = linked(&mut edge, &mut connector).await;
    let (stream, socket) = while_serving(&mut connector, async {
        let stream = open(&link, StreamKind::Http, CALL).await;
        (stream, server.request().await.0)
    })
    .await;
    let stop = CancellationToken::new();
    stop.cancel();
    connector.run(stop).await;
    given_up(socket).await;
    assert!(answer(stream).await.is_err());
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let _link = linked(&mut edge, &mut connector).await;
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), connector.run(stop))
        .await
        .expect("nothing to wait for");
}

#[tokio::test]
async fn an_https_server_is_reached_under_the_authority_that_the_operator_names() {
    let (mut edge, server) = (Edge::bind().await, Edge::bind_web().await);
    let target = format!("https://localhost:{}/mcp", server.address.port());
    for (trusted, status) in [(true, "200"), (false, "502")] {
        let mut servers = servers(&[&target]);
        if trusted {
            servers = servers.with_roots(vec![ca().certificate().clone()]);
        }
        let mut connector =
            Connector::new(ConnectorConfig::new(token(edge.address), key(), servers)).unwrap();
        let link = linked(&mut edge, &mut connector).await;
        let serve = Box::pin(async {
            if let Ok(mut tls) = server.handshake().await {
                while tls.read_u8().await.unwrap() != b'}' {}
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
                std::future::pending::<()>().await;
            }
            std::future::pending::<()>().await;
        });
        let call = async {
            answer(open(&link, StreamKind::Http, CALL).await)
                .await
                .unwrap()
        };
        let text = while_serving(&mut connector, async {
            tokio::select! { text = call => text, () = serve => unreachable!() }
        })
        .await;
        assert_eq!(text.get(9..12), Some(status), "{text}");
    }
}

#[tokio::test]
async fn what_happened_is_counted() {
    let (recorder, metrics) = Metrics::detached();
    let guard = metrics::set_default_local_recorder(&recorder);
    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let link = linked(&mut edge, &mut connector).await;
    while_serving(&mut connector, async {
        let stream = open(&link, StreamKind::Http, CALL).await;
        let (mut socket, _) = server.request().await;
        assert!(
            metrics
                .render()
                .contains("mcp_tunnel_gateway_calls_running 1")
        );
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        answer(stream).await.unwrap();
        let stream = open(&link, StreamKind::Http, CALL).await;
        drop(server.request().await.0);
        answer(stream).await.unwrap();
    })
    .await;
    let rendered = metrics.render();
    for line in [
        "mcp_tunnel_gateway_calls_total{route=\"mcp\"} 1",
        "mcp_tunnel_gateway_answer_seconds_count{route=\"mcp\"} 1",
        "mcp_tunnel_gateway_failures_total{kind=\"broken\"} 1",
        "mcp_tunnel_gateway_calls_running 0",
        "mcp_tunnel_gateway_links_total 1",
    ] {
        assert!(rendered.contains(line), "no {line} in\n{rendered}");
    }
    drop(guard);
}
