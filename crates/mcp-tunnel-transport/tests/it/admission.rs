//! A gateway heard, admitted, kept pending, approved while it waits, refused.

use std::time::Duration;

use bytes::Bytes;
use mcp_tunnel_proto::{Config, Refusal, RefusalCode};
use mcp_tunnel_transport::{
    AcceptError, Answer, AnswerError, CloseReason, Exporter, Incoming, LinkConfig, Offer,
    OfferError, accept, tls::ExporterError,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinSet,
    time::Instant,
};

use crate::common::{ca, client_config, handshake, http, server_config, tls_pair};

const SECOND: Duration = Duration::from_secs(1);

/// An offer whose answer is awaited, and what the edge has heard of it.
async fn offered(
    config: &LinkConfig,
) -> (
    JoinSet<Result<Answer<DuplexStream>, AnswerError>>,
    Incoming<DuplexStream>,
) {
    let (client, server) = tls_pair().await;
    let offer = Offer::new(client, Bytes::from_static(b"credential"), config).unwrap();
    let answer = JoinSet::from_iter([offer.answer()]);
    let incoming = accept(server, config).await.unwrap();
    (answer, incoming)
}

async fn next<T: 'static>(set: &mut JoinSet<T>) -> T {
    set.join_next().await.unwrap().unwrap()
}

#[tokio::test]
async fn the_edge_sees_credential_exporter_and_agent_and_admits() {
    let (client, server) = tls_pair().await;
    let exporter = Exporter::of(client.get_ref().1).unwrap();
    let config = LinkConfig::default().set_agent("test/1.0");
    let offer = Offer::new(client, Bytes::from_static(b"credential"), &config).unwrap();
    let mut answer = JoinSet::from_iter([offer.answer()]);
    let incoming = accept(server, &config).await.unwrap();
    assert_eq!(incoming.credential(), "credential");
    assert_eq!(*incoming.exporter(), exporter);
    assert_eq!(incoming.agent(), "test/1.0");
    assert!(!format!("{incoming:?}").contains("\"credential\""));
    let (edge, driver) = incoming.admit().unwrap();
    let mut drivers = JoinSet::from_iter([driver.run()]);
    let Answer::Active { link, driver } = next(&mut answer).await.unwrap() else {
        panic!("not active");
    };
    let mut gateway_driver = JoinSet::from_iter([driver.run()]);
    let mut near = edge
        .open(http(), Bytes::from_static(b"hello"))
        .await
        .unwrap();
    let mut far = link.accept().await.unwrap().stream;
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "hello");
    near.finish().unwrap();
    drop((edge, link, near, far));
    next(&mut drivers).await;
    next(&mut gateway_driver).await;
}

#[tokio::test(start_paused = true)]
async fn a_pending_link_lives_on_pings_and_is_approved_without_a_new_dial() {
    let config = LinkConfig::default();
    let (mut answer, incoming) = offered(&config).await;
    let mut pending = incoming.pend("ABCD-EFGH");
    let offer = tokio::select! {
        reason = pending.closed() => panic!("{reason}"),
        answer = next(&mut answer) => match answer.unwrap() {
            Answer::Pending { approval_code, offer } => {
                assert_eq!(approval_code, "ABCD-EFGH");
                offer
            }
            other => panic!("{other:?}"),
        },
    };
    answer.spawn(offer.answer());
    tokio::select! {
        reason = pending.closed() => panic!("{reason}"),
        answer = next(&mut answer) => panic!("{answer:?}"),
        () = tokio::time::sleep(3600 * SECOND) => {} // virtual
    }
    assert!(pending.rtt().is_some());
    assert_eq!(pending.credential(), "credential");
    let (edge, driver) = pending.admit().unwrap();
    let _drivers = JoinSet::from_iter([driver.run()]);
    let Answer::Active { driver, .. } = next(&mut answer).await.unwrap() else {
        panic!("not active");
    };
    let _gateway_driver = JoinSet::from_iter([driver.run()]);
    assert!(edge.is_open());
}

#[tokio::test]
async fn a_pending_link_may_get_another_code_and_be_refused() {
    let config = LinkConfig::default();
    let (mut answer, incoming) = offered(&config).await;
    let mut pending = incoming.pend("first");
    for code in ["first", "second"] {
        let answered = tokio::select! {
            reason = pending.closed() => panic!("{reason}"),
            answered = next(&mut answer) => answered.unwrap(),
        };
        let Answer::Pending {
            approval_code,
            offer,
        } = answered
        else {
            panic!("{answered:?}");
        };
        assert_eq!(approval_code, code);
        answer.spawn(offer.answer());
        pending.pend_again("second");
    }
    let refusal = Refusal::new(RefusalCode::REFUSED, "not you").retry_after(30 * SECOND);
    let (answered, ()) = tokio::join!(next(&mut answer), pending.refuse(refusal.clone()));
    let mut answered = answered.unwrap();
    if let Answer::Pending { offer, .. } = answered {
        answered = offer.answer().await.unwrap(); // the second code, said twice
    }
    assert!(
        matches!(&answered, Answer::Refused(said) if *said == refusal),
        "{answered:?}"
    );
}

#[tokio::test]
async fn a_refusal_arrives_with_code_time_and_text() {
    let (mut answer, incoming) = offered(&LinkConfig::default()).await;
    let refusal = Refusal::new(RefusalCode::RETIRED, "rotated").retry_after(7 * SECOND);
    let (answered, ()) = tokio::join!(next(&mut answer), incoming.refuse(refusal.clone()));
    assert!(matches!(answered.unwrap(), Answer::Refused(said) if said == refusal));
}

#[tokio::test]
async fn a_pending_gateway_that_leaves_is_noticed() {
    let config = LinkConfig::default();
    let (mut answer, incoming) = offered(&config).await;
    let mut pending = incoming.pend("code");
    let (reason, ()) = tokio::join!(pending.closed(), async {
        drop(next(&mut answer).await);
    });
    assert!(
        matches!(reason, CloseReason::Eof | CloseReason::Io(_)),
        "{reason:?}"
    );
    let again = pending.closed().await;
    assert!(matches!(again, CloseReason::Eof | CloseReason::Io(_)));
    assert!(pending.admit().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_pending_gateway_that_falls_silent_is_noticed() {
    let config = LinkConfig::default();
    let (mut answer, incoming) = offered(&config).await;
    let mut pending = incoming.pend("code");
    let _unpolled = tokio::select! {
        reason = pending.closed() => panic!("{reason}"),
        answered = next(&mut answer) => answered.unwrap(),
    };
    let start = Instant::now();
    let reason = pending.closed().await;
    assert!(matches!(reason, CloseReason::Silent { .. }), "{reason}");
    assert!(start.elapsed() <= 17 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_never_answers_is_given_up() {
    let config = LinkConfig::default();
    let (mut answer, _unanswered) = offered(&config).await;
    let start = Instant::now();
    let error = next(&mut answer).await.unwrap_err();
    assert!(matches!(error, AnswerError::TimedOut { .. }), "{error}");
    assert_eq!(start.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_hello_gets_five_seconds() {
    let (_mute, server) = tls_pair().await;
    let start = Instant::now();
    let error = accept(server, &LinkConfig::default()).await.unwrap_err();
    assert!(
        matches!(error, AcceptError::TimedOut { after } if after == 5 * SECOND),
        "{error}"
    );
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_dribbling_peer_gets_no_more_than_five_seconds() {
    let (mut client, server) = tls_pair().await;
    let dribble = async {
        for byte in [0x01, 0x0f, 0xf0, 0, 0, 0, 0, 0]
            .into_iter()
            .chain(std::iter::repeat(0))
        {
            if client.write_u8(byte).await.is_err() || client.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(SECOND).await; // virtual
        }
    };
    let (start, config) = (Instant::now(), LinkConfig::default());
    tokio::select! {
        outcome = accept(server, &config) => {
            assert!(matches!(outcome, Err(AcceptError::TimedOut { .. })), "{outcome:?}");
        }
        () = dribble => panic!("accept gave up early"),
    }
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test]
async fn a_hello_over_four_kibibytes_is_refused_by_its_header() {
    let (mut client, server) = tls_pair().await;
    client
        .write_all(&[0x01, 0x10, 0x00, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    client.flush().await.unwrap();
    let config = LinkConfig::default().set_close_timeout(Duration::from_millis(50));
    let error = accept(server, &config).await.unwrap_err();
    assert!(
        matches!(error, AcceptError::Ended(CloseReason::Violation(_))),
        "{error:?}"
    );
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert!(
        said.windows(3).any(|bytes| bytes[0] == 0x0a),
        "no CLOSE in {said:?}"
    );
}

#[tokio::test]
async fn garbage_and_early_ends_are_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0x42, 0, 1, 0, 0, 0, 0, 1, 0],
        b"\x01",
    ] {
        let (mut client, server) = tls_pair().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let error = accept(server, &LinkConfig::default()).await.unwrap_err();
        assert!(matches!(error, AcceptError::Ended(_)), "{error:?}");
    }
}

#[tokio::test]
async fn the_protocols_limits_are_those_of_the_config() {
    let config = LinkConfig::default().set_protocol(Config::default().set_max_streams(3));
    let pair = crate::common::link_pair(&config).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(pair.stream().await);
    }
    tokio::select! {
        biased;
        _ = pair.edge.open(http(), Bytes::new()) => panic!("a fourth stream"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(pair.edge.live_streams(), 3);
}

#[tokio::test]
async fn a_connection_that_cannot_carry_a_link_is_refused_unread() {
    let mut shared = rustls::ServerConfig::builder_with_provider(crate::common::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(crate::common::resolver(ca()));
    shared.alpn_protocols = Vec::new();
    let edge = "edge.tunnel.localhost";
    let (client, server) = handshake(client_config(), std::sync::Arc::new(shared), edge).await;
    let error = accept(server.unwrap(), &LinkConfig::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, AcceptError::Exporter(ExporterError::Alpn)),
        "{error}"
    );
    let error = Offer::new(client.unwrap(), Bytes::new(), &LinkConfig::default()).unwrap_err();
    assert!(
        matches!(error, OfferError::Exporter(ExporterError::Alpn)),
        "{error}"
    );
}

#[tokio::test]
async fn a_credential_that_is_too_long_is_refused_here() {
    let (client, _server) = handshake(client_config(), server_config(ca()), "localhost").await;
    let credential = Bytes::from(vec![0; 4096]);
    let error = Offer::new(client.unwrap(), credential, &LinkConfig::default()).unwrap_err();
    assert!(matches!(error, OfferError::Credential(_)), "{error}");
}

#[tokio::test]
async fn whatever_is_dropped_before_it_is_a_link_closes_its_connection() {
    // A dropped `accept`.
    let (client, server) = tls_pair().await;
    let config = LinkConfig::default();
    tokio::select! {
        biased;
        _ = accept(server, &config) => panic!("nothing was said"),
        () = tokio::task::yield_now() => {}
    }
    let offer = Offer::new(client, Bytes::new(), &config).unwrap();
    assert!(matches!(offer.answer().await, Err(AnswerError::Ended(_))));

    // A dropped `answer`.
    let (client, server) = tls_pair().await;
    let offer = Offer::new(client, Bytes::new(), &config).unwrap();
    tokio::select! {
        biased;
        _ = offer.answer() => panic!("nobody answered"),
        () = tokio::task::yield_now() => {}
    }
    let mut pending = accept(server, &config).await.unwrap().pend("code");
    assert!(!pending.closed().await.is_deliberate());

    // A dropped `Incoming`, `PendingLink` and `LinkDriver`.
    let ways: [fn(Incoming<DuplexStream>); 3] =
        [drop, |it| drop(it.pend("code")), |it| drop(it.admit())];
    for drop_it in ways {
        let (mut answer, incoming) = offered(&config).await;
        drop_it(incoming);
        assert!(matches!(
            next(&mut answer).await,
            Err(AnswerError::Ended(_))
        ));
    }
}
