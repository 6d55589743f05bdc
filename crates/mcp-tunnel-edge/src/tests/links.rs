//! Links, from HELLO to their end.

use std::time::Duration;

use mcp_tunnel_auth::{
    Approval, DownReason, GatewayState, LinkRefusal, LinkReport, LinkReportKind,
};
use mcp_tunnel_proto::{CloseCode, RefusalCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::gateway::gateway;
use super::world::{World, config, get, post, text};

async fn kinds<const N: usize>(world: &World) -> [LinkReportKind; N] {
    let mut kinds = Vec::new();
    for _ in 0..N {
        kinds.push(world.edge.next_report().await.kind);
    }
    kinds.try_into().unwrap()
}

/// The next report that is no round trip.
async fn report(world: &World) -> LinkReport {
    loop {
        let report = world.edge.next_report().await;
        if !matches!(report.kind, LinkReportKind::RoundTrip { .. }) {
            return report;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn approval_turns_a_pending_link_active_without_a_new_dial() {
    let mut world = World::new(config());
    let mut gateway = world.dial(1).await;
    let shown = gateway.pending().await;
    let LinkReport {
        kind,
        remote_address,
        identity,
        announcement,
        ..
    } = report(&world).await;
    let LinkReportKind::Pending { approval_code } = kind else {
        panic!("{kind:?}")
    };
    assert_eq!(approval_code.to_string(), shown);
    assert_eq!(remote_address, super::world::PEER);
    assert_eq!(announcement.routes()[0].as_str(), "mcp");
    // Nothing travels before approval.
    let call = world.answer_to(post(1, "{}")).await;
    assert_eq!(call.status(), 503);
    assert!(call.body().contains("approve"), "{}", call.body());

    world.decide(1, GatewayState::Approved);
    world.publish();
    gateway.active().await;
    let up = report(&world).await;
    assert_eq!((up.kind, up.identity), (LinkReportKind::Up, identity));
}

#[tokio::test(start_paused = true)]
async fn an_automatic_tunnel_lets_an_unseen_gateway_in() {
    let mut world = World::new(config());
    world.tunnels[0].approval = Approval::Auto;
    world.publish();
    world.dial(1).await.active().await;
    world.decide(2, GatewayState::Refused);
    world.publish();
    assert_eq!(
        world.dial(2).await.refused().await.code,
        RefusalCode::REFUSED
    );
}

#[tokio::test(start_paused = true)]
async fn eight_links_of_a_tunnel_may_wait() {
    let mut world = World::new(config());
    let mut waiting = Vec::new();
    let mut codes = std::collections::HashSet::new();
    for number in 0..8 {
        let mut gateway = world.dial(number).await;
        codes.insert(gateway.pending().await);
        waiting.push(gateway);
    }
    assert_eq!(codes.len(), 8);
    let refusal = world.dial(8).await.refused().await;
    assert_eq!(refusal.code, RefusalCode::OVERLOADED);
    assert!(refusal.retry_after.is_some());
    // One that leaves makes room; and an approved one does not count.
    waiting.pop().unwrap().vanish().await;
    assert!(matches!(
        kinds::<9>(&world).await[8],
        LinkReportKind::Down {
            reason: DownReason::Lost
        }
    ));
    world.dial(9).await.pending().await;
    world.active(10).await;
}

#[tokio::test(start_paused = true)]
async fn pending_links_of_one_gateway_share_a_code_and_end_with_the_last() {
    let mut world = World::new(config());
    let mut running = world.dial(1).await;
    let code = running.pending().await;
    let mut check = world.dial(1).await;
    assert_eq!(check.pending().await, code);
    let mut other = world.dial(2).await;
    assert_ne!(other.pending().await, code);
    check.vanish().await;
    check.closed().await;
    for _ in 0..3 {
        let kind = report(&world).await.kind;
        assert!(matches!(kind, LinkReportKind::Pending { .. }), "{kind:?}");
    }
    // What the running gateway shows is still good.
    let mut again = world.dial(1).await;
    assert_eq!(again.pending().await, code);
    again.vanish().await;
    running.vanish().await;
    let downs = [report(&world).await, report(&world).await];
    assert!(
        downs.iter().any(|report| report.kind
            == LinkReportKind::Down {
                reason: DownReason::Lost
            }),
        "{downs:?}"
    );
    assert_ne!(world.dial(1).await.pending().await, code);
}

#[tokio::test(start_paused = true)]
async fn a_link_waits_an_hour_and_no_longer() {
    let mut world = World::new(config().set_snapshot_max_age(Duration::from_secs(7_200)));
    let start = Instant::now();
    let mut gateway = world.dial(1).await;
    gateway.pending().await;
    report(&world).await;
    let down = report(&world).await;
    assert_eq!(
        down.kind,
        LinkReportKind::Down {
            reason: DownReason::NotApproved
        }
    );
    let waited = start.elapsed();
    assert!((3_600..3_602).contains(&waited.as_secs()), "{waited:?}");
    let refusal = gateway.refused().await;
    assert!(
        !refusal.code.is_final() && refusal.retry_after.is_some(),
        "{refusal:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_prove_itself_is_refused() {
    let mut world = World::new(config());
    world.approve(1);
    // A token that is not of this tunnel; one that nobody knows.
    for token in [7, 8] {
        let refusal = world.dial_as(1, token, &["mcp"]).await.refused().await;
        assert_eq!(refusal.code, RefusalCode::TUNNEL);
    }
    // A credential made for another TLS connection.
    let (_, exporter) = world.connect().await;
    let credential = world.credential(1, 1, &["mcp"], &exporter);
    let (tls, _) = world.connect().await;
    let (mut other, engine) = gateway(tls);
    world.tasks.spawn(engine.run(credential.encode().into()));
    assert_eq!(other.refused().await.code, RefusalCode::INTERCEPTED);
    // Something else altogether.
    let (tls, _) = world.connect().await;
    let (mut other, engine) = gateway(tls);
    world.tasks.spawn(engine.run("nonsense".into()));
    assert_eq!(other.refused().await.code, RefusalCode::CREDENTIAL);
    // Of these the console hears of one: only there was the token genuine.
    let refused = LinkReportKind::Refused {
        reason: LinkRefusal::Intercepted,
    };
    assert_eq!(report(&world).await.kind, refused);
    world.dial(1).await.active().await;
    assert_eq!(report(&world).await.kind, LinkReportKind::Up);
}

#[tokio::test(start_paused = true)]
async fn a_refused_gateway_is_cut_within_two_seconds_and_its_calls_with_it() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, "{}"));
    let (stream, _) = gateway.request().await;
    gateway
        .write(
            stream,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
        )
        .await;
    let response = call.head().await;
    let start = Instant::now();
    world.decide(1, GatewayState::Refused);
    world.publish();
    text(response).await.expect_err("the answer is cut");
    let said = gateway.closed().await.unwrap();
    // The reason alone: the gateway has the cure.
    assert!(
        said.contains("withdrawn") && said.contains("an administrator refused this gateway"),
        "{said}"
    );
    assert!(!said.contains(LinkRefusal::GatewayRefused.cure()), "{said}");
    assert!(start.elapsed() < Duration::from_secs(2));
    // That it was up has not been read yet, and is not worth telling any more.
    let down = DownReason::Withdrawn(LinkRefusal::GatewayRefused);
    assert_eq!(
        report(&world).await.kind,
        LinkReportKind::Down { reason: down }
    );
    assert_eq!(
        world.dial(1).await.refused().await.code,
        RefusalCode::REFUSED
    );
}

#[tokio::test(start_paused = true)]
async fn an_archived_tunnel_is_cut_within_two_seconds_even_if_the_gateway_takes_nothing() {
    let mut world = World::new(config());
    let mut frozen = world.active(1).await;
    let mut waiting = world.dial(2).await;
    waiting.pending().await;
    frozen.freeze().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    world.tunnels.clear();
    world.publish();
    assert_eq!(waiting.refused().await.code, RefusalCode::TUNNEL);
    let mut down = 0;
    while down < 2 {
        if let LinkReportKind::Down { reason } = report(&world).await.kind {
            assert_eq!(reason, DownReason::Withdrawn(LinkRefusal::Unrecognised));
            down += 1;
        }
    }
    assert!(
        start.elapsed() <= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    drop(frozen.next());
}

#[tokio::test(start_paused = true)]
async fn an_operator_disconnects_links_and_the_gateway_may_come_back() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let next = world.snapshot().number() + 1;
    world.decide(1, GatewayState::Approved).links_from = next;
    world.publish();
    assert!(gateway.closed().await.unwrap().contains("operator"));
    world.dial(1).await.active().await;
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_drains_its_links_and_opens_none() {
    let mut world = World::new(config().set_drain(Duration::from_secs(30)));
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, "{}"));
    let (stream, _) = gateway.request().await;
    let start = Instant::now();
    world.rotate_token();
    assert_eq!(gateway.going_away().await, CloseCode::WITHDRAWN);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(
        world.dial(1).await.refused().await.code,
        RefusalCode::RETIRED
    );
    // What runs may finish; what is new goes to the link with the new token.
    let mut new = world.dial_as(1, 200, &["mcp"]).await;
    new.active().await;
    let other = world.call(get(1));
    let (on_new, _) = new.request().await;
    new.answer(on_new, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew")
        .await;
    assert_eq!(text(other.head().await).await.unwrap().body(), "new");
    tokio::time::sleep(Duration::from_secs(20)).await;
    gateway
        .answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")
        .await;
    assert_eq!(text(call.head().await).await.unwrap().body(), "old");
    // Idle now, so it ends before the deadline.
    gateway.closed().await;
    assert!(
        start.elapsed() < Duration::from_secs(22),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_draining_link_ends_at_its_deadline() {
    let mut world = World::new(config().set_drain(Duration::from_secs(30)));
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, "{}"));
    gateway.request().await;
    let start = Instant::now();
    world.rotate_token();
    gateway.closed().await;
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(call.head().await.status(), 502);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_falls_silent_is_noticed() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    assert_eq!(report(&world).await.kind, LinkReportKind::Up);
    let call = world.call(post(1, "{}"));
    gateway.request().await;
    gateway.freeze().await;
    let start = Instant::now();
    assert_eq!(call.head().await.status(), 502);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        report(&world).await.kind,
        LinkReportKind::Down {
            reason: DownReason::Lost
        }
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_current_snapshot_no_link_comes_up() {
    let mut world = World::new(config());
    world.approve(1);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let refusal = world.dial(1).await.refused().await;
    assert_eq!(refusal.code, RefusalCode::UNAVAILABLE);
    world.publish();
    world.dial(1).await.active().await;
}

#[tokio::test(start_paused = true)]
async fn round_trips_are_reported() {
    let mut world = World::new(config());
    let _gateway = world.active(1).await;
    assert_eq!(kinds::<1>(&world).await, [LinkReportKind::Up]);
    let next = world.edge.next_report().await;
    assert!(
        matches!(next.kind, LinkReportKind::RoundTrip { .. }),
        "{next:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_stops_lets_calls_finish_and_takes_no_new_ones() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let mut pending = world.dial(2).await;
    pending.pending().await;
    let call = world.call(post(1, "{}"));
    let (stream, _) = gateway.request().await;
    let stop = CancellationToken::new();
    let (edge, stopping) = (world.edge.clone(), stop.clone());
    let (done, mut ended) = tokio::sync::oneshot::channel();
    world.tasks.spawn(async move {
        edge.run(stopping).await;
        let _ = done.send(());
    });
    stop.cancel();
    assert_eq!(gateway.going_away().await, CloseCode::SHUTDOWN);
    assert_eq!(pending.refused().await.code, RefusalCode::UNAVAILABLE);
    assert_eq!(world.answer_to(post(1, "{}")).await.status(), 503);
    assert_eq!(
        world.dial(1).await.refused().await.code,
        RefusalCode::UNAVAILABLE
    );
    assert!(ended.try_recv().is_err());
    gateway
        .answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast")
        .await;
    assert_eq!(text(call.head().await).await.unwrap().body(), "last");
    let start = Instant::now();
    ended.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_stops_does_not_wait_for_ever() {
    let mut world = World::new(config().set_drain(Duration::from_secs(30)));
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, "{}"));
    gateway.request().await;
    let stop = CancellationToken::new();
    stop.cancel();
    let start = Instant::now();
    world.edge.run(stop).await;
    assert!(
        (30..33).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    assert!([403, 502].contains(&call.head().await.status().as_u16()));
}
