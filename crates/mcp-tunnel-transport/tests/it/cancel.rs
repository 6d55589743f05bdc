//! Every public future of this crate, dropped at each of its await points: nothing is lost, stuck or leaked.
//! `cargo xtask tidy` compares the names behind CANCEL with the public async functions.

use std::time::Duration;

use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, Config, Refusal, RefusalCode, ResetCode};
use mcp_tunnel_transport::{
    Answer, AnswerError, CloseReason, Link, LinkConfig, Offer, PendingLink, Stream, StreamError,
    Target, Uplink, UplinkConfig, UplinkEvent, accept,
    dial::{self, TcpOptions},
};
use tokio::{
    io::{AsyncReadExt as _, DuplexStream},
    net::{TcpListener, TcpStream},
    task::{JoinSet, yield_now},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    common::{
        Pair, ca, client_config, http, link_pair, link_parts, server_config, stream_error, tls_pair,
    },
    cut::Cut,
};

const SOON: Duration = Duration::from_secs(60);

/// What must come; where the clock is paused it costs no time.
fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(timeout(SOON, work));
    async { work.await.expect("it is stuck") }
}

/// Gives everything that is ready a turn.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

/// A stream goes through, and then nothing is left.
async fn works(pair: &Pair) {
    let (mut near, mut far) = soon(pair.stream()).await;
    near.finish().unwrap();
    far.finish().unwrap();
    assert_eq!(soon(far.read_chunk()).await.unwrap(), None);
    assert_eq!(soon(near.read_chunk()).await.unwrap(), None);
    is_empty(pair).await;
}

async fn is_empty(pair: &Pair) {
    soon(async {
        while pair.edge.live_streams() + pair.gateway.live_streams() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// CANCEL: `Link::accept`
#[tokio::test(start_paused = true)]
async fn a_dropped_accept_leaves_its_stream_to_the_next() {
    let pair = link_pair(&LinkConfig::default()).await;
    Cut::everywhere(async |cut| {
        let open = async {
            settle().await;
            let opened = pair.edge.open(http(), Bytes::from_static(b"!")).await;
            opened.unwrap()
        };
        let (accepted, near) = tokio::join!(cut.apply(pair.gateway.accept()), open);
        let whole = accepted.is_some();
        let incoming = match accepted {
            Some(incoming) => incoming,
            None => soon(pair.gateway.accept()).await,
        };
        assert_eq!(incoming.unwrap().stream.id(), near.id());
        drop(near);
        is_empty(&pair).await;
        whole
    })
    .await;
}

/// CANCEL: `Link::open`
#[tokio::test(start_paused = true)]
async fn a_dropped_open_leaves_nothing_and_its_slot_to_the_next() {
    let config = Config::default().set_max_streams(1);
    let pair = link_pair(&LinkConfig::default().set_protocol(config)).await;
    Cut::everywhere(async |cut| {
        // It waits for the only slot, and then for room for its first bytes.
        let held = pair.stream().await;
        let first = Bytes::from(vec![7; 300_000]);
        let serve = async {
            settle().await;
            drop(held);
            let accept = timeout(Duration::from_secs(1), pair.gateway.accept());
            let Ok(Some(incoming)) = accept.await else {
                return;
            };
            let mut read = Vec::new();
            let mut stream = incoming.stream;
            let _ = stream.read_to_end(&mut read).await;
            assert!(read.iter().all(|byte| *byte == 7));
        };
        let open = async {
            let opened = cut.apply(pair.edge.open(http(), first)).await;
            opened.map(|stream| stream.unwrap().finish().unwrap())
        };
        let (opened, ()) = tokio::join!(open, serve);
        is_empty(&pair).await;
        works(&pair).await;
        opened.is_some()
    })
    .await;
}

/// Two openers that wait for one slot: the one that is dropped when it is told of it passes the word on.
#[tokio::test(start_paused = true)]
async fn a_slot_that_a_dropped_opener_was_told_of_goes_to_another() {
    let config = Config::default().set_max_streams(1);
    let pair = link_pair(&LinkConfig::default().set_protocol(config)).await;
    Cut::everywhere(async |cut| {
        let held = pair.stream().await;
        let other = async {
            yield_now().await;
            pair.edge.open(http(), Bytes::new()).await.unwrap()
        };
        let release = async {
            settle().await;
            drop(held);
        };
        let first = async {
            let opened = cut.apply(pair.edge.open(http(), Bytes::new())).await;
            opened.is_some()
        };
        let all = async { tokio::join!(first, other, release) };
        let (whole, stream, ()) = soon(all).await;
        drop(stream);
        is_empty(&pair).await;
        whole
    })
    .await;
}

/// CANCEL: `Stream::read_chunk`, `RecvStream::read_chunk`
#[tokio::test(start_paused = true)]
async fn a_dropped_read_loses_no_byte() {
    let pair = link_pair(&LinkConfig::default()).await;
    Cut::everywhere(async |cut| {
        let (mut near, mut far) = pair.stream().await;
        let write = async {
            for byte in 0..20_u8 {
                settle().await;
                near.write_chunk(Bytes::from(vec![byte; 700]))
                    .await
                    .unwrap();
            }
            near.finish().unwrap();
        };
        let read = async {
            let mut received = Vec::new();
            let begin = async {
                while let Some(chunk) = far.read_chunk().await.unwrap() {
                    received.extend_from_slice(&chunk);
                }
            };
            let whole = cut.apply(begin).await.is_some();
            let (_send, mut recv) = far.split();
            while let Some(chunk) = recv.read_chunk().await.unwrap() {
                received.extend_from_slice(&chunk);
            }
            (whole, received)
        };
        let ((), (whole, received)) = tokio::join!(write, read);
        let sent: Vec<u8> = (0..20).flat_map(|byte| [byte; 700]).collect();
        assert!(
            received == sent,
            "{} of {} bytes",
            received.len(),
            sent.len()
        );
        drop(near);
        is_empty(&pair).await;
        whole
    })
    .await;
}

/// CANCEL: `Stream::write_chunk`, `SendStream::write_chunk`
#[tokio::test(start_paused = true)]
async fn a_dropped_write_leaves_a_prefix_and_a_stream_that_goes_on() {
    const LENGTH: usize = 500_000;
    let pair = link_pair(&LinkConfig::default()).await;
    for split in [false, true] {
        Cut::everywhere(async |cut| {
            let (mut near, mut far) = pair.stream().await;
            let sent: Vec<u8> = (0..LENGTH).map(|n| (n / 3).to_le_bytes()[0]).collect();
            let chunk = Bytes::from(sent.clone());
            let write = async {
                let whole = if split {
                    let (mut send, recv) = near.split();
                    let whole = cut.apply(send.write_chunk(chunk)).await;
                    send.write_chunk(Bytes::from_static(b"more")).await.unwrap();
                    send.finish().unwrap();
                    drop(recv);
                    whole
                } else {
                    let whole = cut.apply(near.write_chunk(chunk)).await;
                    near.write_chunk(Bytes::from_static(b"more")).await.unwrap();
                    near.finish().unwrap();
                    whole
                };
                whole.is_some()
            };
            let mut received = Vec::new();
            let (whole, read) = tokio::join!(write, far.read_to_end(&mut received));
            read.unwrap();
            let prefix = received.strip_suffix(b"more").expect("what came after");
            assert!(sent.starts_with(prefix), "no prefix of what was written");
            assert!(!whole || prefix.len() == LENGTH);
            drop(far);
            is_empty(&pair).await;
            whole
        })
        .await;
    }
}

/// CANCEL: `Stream::aborted`, `RecvStream::reset_received`, `SendStream::stopped`
#[tokio::test(start_paused = true)]
async fn an_abort_that_a_dropped_future_was_told_of_is_told_again() {
    let pair = link_pair(&LinkConfig::default()).await;
    for kind in 0..3 {
        Cut::everywhere(async |cut| {
            let (mut near, far) = pair.stream().await;
            let abort = async {
                settle().await;
                near.reset(ResetCode::DEADLINE);
            };
            let (whole, told) = match kind {
                0 => {
                    let mut far = far;
                    let (first, ()) = tokio::join!(cut.apply(far.aborted()), abort);
                    (first.is_some(), soon(far.aborted()).await)
                }
                1 => {
                    let (_send, mut recv) = far.split();
                    let (first, ()) = tokio::join!(cut.apply(recv.reset_received()), abort);
                    (first.is_some(), soon(recv.reset_received()).await)
                }
                _ => {
                    let (mut send, _recv) = far.split();
                    let (first, ()) = tokio::join!(cut.apply(send.stopped()), abort);
                    (first.is_some(), soon(send.stopped()).await)
                }
            };
            let code = ResetCode::DEADLINE;
            assert!(
                matches!(told, StreamError::Reset(said) | StreamError::Stopped(said) if said == code),
                "{told}"
            );
            is_empty(&pair).await;
            whole
        })
        .await;
    }
}

/// CANCEL: `Link::going_away`, `Link::drained`, `Link::closed`, `Link::drain`
#[tokio::test(start_paused = true)]
async fn an_end_that_a_dropped_future_was_told_of_is_told_again() {
    for kind in 0..4 {
        Cut::everywhere(async |cut| {
            let pair = link_pair(&LinkConfig::default()).await;
            let (near, far) = pair.stream().await;
            let leave = async {
                settle().await;
                pair.edge.go_away(CloseCode::SHUTDOWN, None);
                settle().await;
                drop((near, far));
                pair.edge.drained().await;
                if kind == 2 {
                    pair.edge.close(CloseCode::SHUTDOWN, "");
                }
            };
            let link = &pair.gateway;
            match kind {
                0 => {
                    let (first, ()) = tokio::join!(cut.apply(link.going_away()), leave);
                    assert_eq!(soon(link.going_away()).await, Some(CloseCode::SHUTDOWN));
                    first.is_some()
                }
                1 => {
                    let (first, ()) = tokio::join!(cut.apply(link.drained()), leave);
                    soon(link.drained()).await;
                    first.is_some()
                }
                2 => {
                    let (first, ()) = tokio::join!(cut.apply(link.closed()), leave);
                    let reason = soon(link.closed()).await;
                    assert!(matches!(reason, CloseReason::Peer { .. }), "{reason}");
                    first.is_some()
                }
                _ => {
                    // Dropped, it goes on going away, and does not close.
                    let drain = link.drain(CloseCode::SHUTDOWN, SOON);
                    let (first, ()) = tokio::join!(cut.apply(drain), leave);
                    soon(pair.edge.going_away()).await;
                    assert_eq!(first.is_none(), link.is_alive());
                    first.is_some()
                }
            }
        })
        .await;
    }
}

/// CANCEL: `Link::detached`, `Link::attached`
#[tokio::test(start_paused = true)]
async fn a_gap_that_a_dropped_future_was_told_of_is_told_again() {
    Cut::everywhere(async |cut| {
        let config = LinkConfig::default().set_keep(SOON);
        let (gateway, near, edge, far) = Box::pin(link_parts(&config)).await;
        let mut drivers = JoinSet::new();
        drivers.spawn(near);
        let lose = async {
            settle().await;
            drop(far);
        };
        let (first, ()) = tokio::join!(cut.apply(gateway.detached()), lose);
        assert!(soon(gateway.detached()).await.is_some());
        let attached = cut.apply(gateway.attached());
        let end = async {
            settle().await;
            gateway.give_up();
        };
        let (second, ()) = tokio::join!(attached, end);
        assert!(!soon(gateway.attached()).await && !edge.is_alive());
        first.is_some() && second.is_some()
    })
    .await;
}

/// CANCEL: `LinkDriver::run`
#[tokio::test(start_paused = true)]
async fn a_dropped_driver_ends_its_link_on_both_sides() {
    Cut::everywhere(async |cut| {
        let (gateway, near, edge, far) = Box::pin(link_parts(&LinkConfig::default())).await;
        let mut drivers = JoinSet::new();
        drivers.spawn(near);
        let call = async {
            let opened = edge.open(http(), Bytes::from_static(b"call")).await;
            let Ok(mut stream) = opened else { return };
            let _ = stream.finish();
            let answer = stream.read_chunk().await;
            // An answer, or an error: never an end that nobody made.
            if let Ok(answer) = answer {
                assert_eq!(answer.as_deref(), Some(&b"answer"[..]));
                edge.close(CloseCode::NO_ERROR, "");
            }
        };
        let serve = async {
            while let Some(incoming) = gateway.accept().await {
                let mut stream = incoming.stream;
                let _ = stream.write_chunk(Bytes::from_static(b"answer")).await;
                let _ = stream.finish();
            }
        };
        let all = async { tokio::join!(cut.apply(far), call, serve) };
        let (driven, (), ()) = soon(all).await;
        assert!(!edge.is_alive());
        soon(gateway.closed()).await;
        driven.is_some()
    })
    .await;
}

/// An offer that is answered, and the edge's side of it.
async fn offer() -> (
    Offer<DuplexStream>,
    impl Future<
        Output = Result<
            mcp_tunnel_transport::Incoming<DuplexStream>,
            mcp_tunnel_transport::AcceptError,
        >,
    >,
) {
    let (client, server) = tls_pair().await;
    let config = LinkConfig::default();
    let offer = Offer::new(client, Bytes::from_static(b"credential"), &config).unwrap();
    (offer, async move {
        accept(server, &LinkConfig::default()).await
    })
}

/// CANCEL: `accept`
#[tokio::test(start_paused = true)]
async fn a_dropped_accept_closes_the_connection() {
    Cut::everywhere(async |cut| {
        let (offer, accepted) = offer().await;
        let mut answer = JoinSet::from_iter([offer.answer()]);
        let accepted = cut.apply(accepted).await;
        let whole = accepted.is_some();
        drop(accepted);
        let error = soon(answer.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap_err();
        assert!(matches!(error, AnswerError::Ended(_)), "{error}");
        whole
    })
    .await;
}

/// CANCEL: `Offer::answer`
#[tokio::test(start_paused = true)]
async fn a_dropped_offer_closes_the_connection() {
    Cut::everywhere(async |cut| {
        let (offer, accepted) = offer().await;
        let edge = async {
            let incoming = accepted.await.ok()?;
            let (link, driver) = incoming.admit().unwrap();
            driver.run().await;
            Some(link)
        };
        let mut edge = JoinSet::from_iter([edge]);
        let answer = cut.apply(offer.answer()).await;
        let whole = answer.is_some();
        drop(answer);
        let link = soon(edge.join_next()).await.unwrap().unwrap();
        assert!(link.is_none_or(|link: Link| !link.is_alive()));
        whole
    })
    .await;
}

/// CANCEL: `Incoming::refuse`, `PendingLink::refuse`
#[tokio::test(start_paused = true)]
async fn a_dropped_refusal_closes_the_connection() {
    for pending in [false, true] {
        Cut::everywhere(async |cut| {
            let (offer, accepted) = offer().await;
            let gateway = async {
                let mut offer = offer;
                loop {
                    match offer.answer().await {
                        Ok(Answer::Pending { offer: again, .. }) => offer = again,
                        other => return other,
                    }
                }
            };
            let mut gateway = JoinSet::from_iter([gateway]);
            let incoming = accepted.await.unwrap();
            let refusal = Refusal::new(RefusalCode::RETIRED, "");
            let refused = if pending {
                cut.apply(incoming.pend("code").refuse(refusal)).await
            } else {
                cut.apply(incoming.refuse(refusal)).await
            };
            let answer = soon(gateway.join_next()).await.unwrap().unwrap();
            match answer {
                Ok(Answer::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::RETIRED),
                Err(AnswerError::Ended(_)) if refused.is_none() => {}
                other => panic!("{other:?}"),
            }
            refused.is_some()
        })
        .await;
    }
}

/// CANCEL: `PendingLink::closed`
#[tokio::test(start_paused = true)]
async fn a_pending_link_whose_watch_is_dropped_stays_pending() {
    Cut::everywhere(async |cut| {
        let (offer, accepted) = offer().await;
        let gateway = async {
            let Answer::Pending { offer, .. } = offer.answer().await.unwrap() else {
                panic!("not pending");
            };
            match offer.answer().await.unwrap() {
                Answer::Active { link, driver } => (link, driver),
                other => panic!("{other:?}"),
            }
        };
        let mut gateway = JoinSet::from_iter([gateway]);
        let mut pending: PendingLink<_> = accepted.await.unwrap().pend("code");
        // Three pings' time, so that there is something to do.
        let watch = timeout(Duration::from_secs(16), pending.closed());
        let watched = cut.apply(watch).await;
        assert!(!matches!(watched, Some(Ok(_))), "it was closed");
        // Whoever dropped it goes on with another, until there is a decision.
        let _ = timeout(Duration::from_secs(6), pending.closed()).await;
        let (edge, driver) = pending.admit().unwrap();
        let mut drivers = JoinSet::from_iter([driver.run()]);
        let (link, driver) = soon(gateway.join_next()).await.unwrap().unwrap();
        let mut others = JoinSet::from_iter([driver.run()]);
        let mut near = edge.open(http(), Bytes::from_static(b"!")).await.unwrap();
        near.finish().unwrap();
        assert!(soon(link.accept()).await.is_some());
        drivers.abort_all();
        others.abort_all();
        watched.is_some()
    })
    .await;
}

/// CANCEL: `dial::resolve`, `dial::connect`, `dial::secure`
#[tokio::test]
async fn a_dropped_dial_closes_its_socket() {
    let acceptor = TlsAcceptor::from(server_config(ca()));
    Cut::everywhere(async |cut| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Target::new("edge.tunnel.localhost", 443).unwrap();
        let target = target.dialled_at(address.to_string().parse().unwrap());
        let dial = async {
            let addresses = dial::resolve(target.address(), SOON).await.unwrap();
            let socket = dial::connect(&addresses, &TcpOptions::default(), SOON).await;
            let secured = dial::secure(socket.unwrap(), &target, &client_config(), SOON).await;
            drop(secured.unwrap());
        };
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            if let Ok(mut tls) = acceptor.accept(socket).await {
                // The other end is closed, or dropped without a farewell.
                let _ = tls.read_u8().await;
            }
        };
        let dialled = async {
            let dialled = cut.apply(dial).await;
            // Dropped at once, it may not even have knocked; then this connection is the one that ends.
            drop(TcpStream::connect(address).await.unwrap());
            dialled.is_some()
        };
        soon(async { tokio::join!(dialled, serve) }).await.0
    })
    .await;
}

/// CANCEL: `Uplink::next`
#[tokio::test]
async fn an_uplink_whose_next_is_dropped_each_time_comes_up_and_stops() {
    let acceptor = TlsAcceptor::from(server_config(ca()));
    Cut::everywhere(async |cut| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Target::new("edge.tunnel.localhost", 443).unwrap();
        let target = target.dialled_at(address.parse().unwrap());
        let mut uplink = Uplink::new(target, UplinkConfig::new(client_config()));
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let tls = acceptor.accept(socket).await.unwrap();
            let incoming = accept(tls, &LinkConfig::default()).await.unwrap();
            let (link, driver) = incoming.admit().unwrap();
            let call = async {
                let mut stream = link.open(http(), Bytes::from_static(b"?")).await.unwrap();
                assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "!");
            };
            tokio::join!(call, driver.run()).1
        };
        let drive = async {
            let (mut cuts, mut calls) = (0, JoinSet::new());
            loop {
                let event = tokio::select! {
                    biased;
                    Some(_) = calls.join_next() => {
                        uplink.drain();
                        continue;
                    }
                    event = cut.apply(uplink.next()) => event,
                };
                let Some(event) = event else {
                    cuts += 1;
                    yield_now().await;
                    continue;
                };
                match event {
                    UplinkEvent::Dialled { .. } => uplink.present(Bytes::new()),
                    UplinkEvent::Active { link, .. } => {
                        calls.spawn(async move {
                            let mut stream: Stream = link.accept().await.unwrap().stream;
                            stream.write_chunk(Bytes::from_static(b"!")).await.unwrap();
                            stream.finish().unwrap();
                        });
                    }
                    UplinkEvent::Stopped => return cuts,
                    UplinkEvent::Dialling { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        let (reason, cuts) = soon(async { tokio::join!(serve, drive) }).await;
        assert!(reason.is_deliberate(), "{reason}");
        cuts == 0
    })
    .await;
}

/// After all of these a stream of a lost link still says so.
#[tokio::test(start_paused = true)]
async fn a_read_that_was_dropped_hears_of_a_lost_link() {
    let mut pair = link_pair(&LinkConfig::default()).await;
    let (_near, mut far) = pair.stream().await;
    let read = far.read_chunk();
    assert!(timeout(Duration::from_secs(1), read).await.is_err());
    pair.drivers.shutdown().await;
    let error = stream_error(soon(far.read_chunk()).await);
    assert!(matches!(error, StreamError::LinkLost(_)), "{error}");
}
