//! Cases of gateways.

use mcp_tunnel_auth::{
    Announcement, ApprovalCode, DownReason, GatewayKey, LinkRefusal, LinkReportKind, RouteName,
    TunnelId,
};

use super::scene::{Scene, fingerprint, home, ok, pending, refused, time};
use crate::store::{
    Decision, GATEWAYS_MOST, GatewayRecord, Listing, Observed, PENDING_MOST, Refusal,
};

async fn gateways(scene: &Scene<'_>, tunnel: TunnelId) -> Vec<GatewayRecord> {
    ok(scene
        .store
        .gateways(&home(), tunnel, &Listing::newest(1000))
        .await)
    .rows
}

async fn observe(
    scene: &mut Scene<'_>,
    tunnel: TunnelId,
    key: u8,
    kind: LinkReportKind,
) -> Observed {
    let report = scene.report(tunnel, key, kind);
    let fresh = scene.fresh();
    ok(scene.store.observe(&report, fresh).await)
}

pub(super) async fn a_pending_gateway_is_approved_by_a_person(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    assert_eq!(
        observe(scene, tunnel, 1, pending(1)).await,
        Observed::Written
    );
    let all = gateways(scene, tunnel).await;
    let [waiting] = &all[..] else {
        panic!("one gateway waits: {all:?}");
    };
    assert_eq!(waiting.decision, Decision::Pending);
    assert_eq!(waiting.fingerprint, fingerprint(1));
    let code = Some(ApprovalCode::from_entropy([1; 5]));
    assert_eq!(waiting.approval_code, code);
    assert_eq!(waiting.version.as_deref(), Some("1.2.3"));
    assert_eq!(waiting.remote_address, Some(([192, 0, 2, 1], 4711).into()));
    assert_eq!(waiting.routes.len(), 1);
    assert!(waiting.token.is_some() && waiting.connected_at.is_none());
    assert!(ok(scene.store.access().await).gateways.is_empty());

    let change = scene.change();
    let approved = ok(scene.store.approve(&change, tunnel, waiting.id, None).await);
    assert_eq!(approved.decision, Decision::Approved);
    assert_eq!(approved.approval_code, None);
    assert_eq!(ok(scene.store.access().await).gateways, [approved]);

    observe(scene, tunnel, 1, LinkReportKind::Up).await;
    let up = ok(scene.store.gateway(&home(), tunnel, waiting.id).await);
    assert_eq!(up.connected_at, up.last_seen_at);
    let reason = DownReason::Lost;
    observe(scene, tunnel, 1, LinkReportKind::Down { reason }).await;
    let down = ok(scene.store.gateway(&home(), tunnel, waiting.id).await);
    assert_eq!(down.connected_at, up.connected_at);
    assert!(down.last_seen_at > up.last_seen_at);
}

pub(super) async fn an_approval_may_name_the_key(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    observe(scene, tunnel, 1, pending(1)).await;
    let waiting = gateways(scene, tunnel).await.remove(0);
    let change = scene.change();
    let other = Some(fingerprint(2));
    refused(
        scene
            .store
            .approve(&change, tunnel, waiting.id, other)
            .await,
        Refusal::OtherKey,
    );
    assert_eq!(gateways(scene, tunnel).await[0].decision, Decision::Pending);
    let same = Some(fingerprint(1));
    ok(scene.store.approve(&change, tunnel, waiting.id, same).await);
}

pub(super) async fn a_key_is_approved_before_it_comes(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let change = scene.change();
    let fresh = scene.fresh();
    let known = ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(1), fresh)
        .await);
    assert_eq!((known.id, known.decision), (fresh, Decision::Approved));
    assert_eq!(known.last_seen_at, None);
    observe(scene, tunnel, 1, LinkReportKind::Up).await;
    let change = scene.change();
    let other = scene.fresh();
    let again = ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(1), other)
        .await);
    assert_eq!(again.id, fresh, "one row for a tunnel and a key");
    assert_eq!(gateways(scene, tunnel).await.len(), 1);
}

pub(super) async fn a_refused_gateway_stays_out(scene: &mut Scene<'_>) {
    let tunnel = scene.automatic_tunnel("a").await.id;
    observe(scene, tunnel, 1, LinkReportKind::Up).await;
    let gateway = gateways(scene, tunnel).await.remove(0).id;
    let change = scene.change();
    let out = ok(scene.store.refuse(&change, tunnel, gateway).await);
    assert_eq!(out.decision, Decision::Refused);
    // A report that was on its way changes nothing about the decision.
    for kind in [LinkReportKind::Up, pending(3)] {
        observe(scene, tunnel, 1, kind).await;
        let still = ok(scene.store.gateway(&home(), tunnel, gateway).await);
        assert_eq!(
            (still.decision, still.approval_code),
            (Decision::Refused, None)
        );
    }
    let change = scene.change();
    let back = ok(scene.store.approve(&change, tunnel, gateway, None).await);
    assert_eq!(back.decision, Decision::Approved);
}

pub(super) async fn an_automatic_tunnel_approves_and_says_so(scene: &mut Scene<'_>) {
    let tunnel = scene.automatic_tunnel("a").await.id;
    observe(scene, tunnel, 1, LinkReportKind::Up).await;
    observe(scene, tunnel, 1, LinkReportKind::Up).await;
    assert_eq!(
        gateways(scene, tunnel).await[0].decision,
        Decision::Approved
    );
    let audit = scene.audit().await;
    let approvals: Vec<_> = audit
        .iter()
        .filter(|record| record.action == "connection.approve")
        .collect();
    let [approval] = &approvals[..] else {
        panic!("approved once: {audit:?}");
    };
    assert_eq!(approval.change.actor, "edge");
    // Without a person's word a manual tunnel approves nobody.
    let manual = scene.tunnel("b").await.id;
    observe(scene, manual, 1, LinkReportKind::Up).await;
    assert_eq!(gateways(scene, manual).await[0].decision, Decision::Pending);
}

pub(super) async fn pending_gateways_are_few(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let most = u8::try_from(PENDING_MOST).unwrap_or(u8::MAX);
    for key in 1..=most + 2 {
        assert_eq!(
            observe(scene, tunnel, key, pending(key)).await,
            Observed::Written
        );
    }
    let waiting = gateways(scene, tunnel).await;
    assert_eq!(waiting.len(), usize::from(most));
    let gone = |key| {
        !waiting
            .iter()
            .any(|gateway| gateway.fingerprint == fingerprint(key))
    };
    assert!(
        gone(1) && gone(2),
        "the ones heard of least lately make room"
    );
}

pub(super) async fn who_waits_is_not_pushed_out_by_who_comes_and_goes(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    observe(scene, tunnel, 1, pending(1)).await;
    for key in 2..50 {
        let report = scene.report(tunnel, key, pending(key));
        let fresh = scene.fresh();
        ok(scene.store.observe(&report, fresh).await);
        let reason = DownReason::Closed;
        let mut gone = report;
        gone.kind = LinkReportKind::Down { reason };
        ok(scene.store.observe(&gone, fresh).await);
    }
    let rows = gateways(scene, tunnel).await;
    let waits = rows
        .iter()
        .find(|gateway| gateway.fingerprint == fingerprint(1));
    assert!(waits.is_some_and(|gateway| gateway.approval_code.is_some()));
    let codes = rows
        .iter()
        .filter(|gateway| gateway.approval_code.is_some());
    assert_eq!(codes.count(), 1, "the code of a link goes with it");
}

pub(super) async fn approvals_stay_and_refusals_make_room(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let known = |number: u32| {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        GatewayKey::from_bytes(seed).public_key().fingerprint()
    };
    for number in 1..GATEWAYS_MOST {
        let (change, fresh) = (scene.change(), scene.fresh());
        ok(scene
            .store
            .approve_key(&change, tunnel, known(number), fresh)
            .await);
    }
    let (change, last) = (scene.change(), scene.fresh());
    ok(scene
        .store
        .approve_key(&change, tunnel, known(0), last)
        .await);
    let (change, fresh) = (scene.change(), scene.fresh());
    let most = GATEWAYS_MOST;
    refused(
        scene
            .store
            .approve_key(&change, tunnel, fingerprint(1), fresh)
            .await,
        Refusal::TooManyGateways { most },
    );
    assert_eq!(
        observe(scene, tunnel, 1, pending(1)).await,
        Observed::Ignored
    );
    let change = scene.change();
    ok(scene.store.refuse(&change, tunnel, last).await);
    assert_eq!(
        observe(scene, tunnel, 1, pending(1)).await,
        Observed::Written
    );
    let access = ok(scene.store.access().await).gateways;
    assert!(
        access
            .iter()
            .all(|gateway| gateway.decision == Decision::Approved)
    );
    assert_eq!(access.len(), usize::try_from(most).unwrap_or(0) - 1);
}

pub(super) async fn a_code_outlives_the_end_of_an_older_link(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let older = scene.report(tunnel, 1, pending(1));
    let newer = scene.report(tunnel, 1, pending(2));
    let reason = DownReason::Lost;
    let mut lost = older.clone();
    lost.kind = LinkReportKind::Down { reason };
    for report in [older, newer, lost] {
        let fresh = scene.fresh();
        ok(scene.store.observe(&report, fresh).await);
    }
    let code = Some(ApprovalCode::from_entropy([2; 5]));
    assert_eq!(gateways(scene, tunnel).await[0].approval_code, code);
}

pub(super) async fn a_check_does_not_speak_for_the_gateway(scene: &mut Scene<'_>) {
    let tunnel = scene.automatic_tunnel("a").await.id;
    let announce = |version: &str, routes| {
        Announcement::new(version, "host", routes).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut older = scene.report(tunnel, 1, LinkReportKind::Up);
    older.announcement = announce("1.0.0", vec![RouteName::default()]);
    let live = scene.report(tunnel, 1, LinkReportKind::Up);
    let mut check = scene.report(tunnel, 1, LinkReportKind::Up);
    check.announcement = announce("9.9.9", Vec::new());
    check.remote_address = ([192, 0, 2, 99], 1).into();
    for report in [&older, &live] {
        let fresh = scene.fresh();
        ok(scene.store.observe(report, fresh).await);
    }
    let said = gateways(scene, tunnel).await.remove(0);
    assert_eq!(said.version.as_deref(), Some("1.2.3"));
    let reason = DownReason::Closed;
    let down = LinkReportKind::Down { reason };
    for (mut report, kind) in [
        (older, down),
        (check.clone(), LinkReportKind::Up),
        (check, down),
    ] {
        (report.kind, report.at_ms) = (kind, scene.tick());
        let fresh = scene.fresh();
        ok(scene.store.observe(&report, fresh).await);
        let mut now = gateways(scene, tunnel).await.remove(0);
        assert!(now.last_seen_at > said.last_seen_at);
        now.last_seen_at = said.last_seen_at;
        assert_eq!(now, said);
    }
}

pub(super) async fn the_audit_of_automatic_gateways_goes_with_them(scene: &mut Scene<'_>) {
    let tunnel = scene.automatic_tunnel("a").await.id;
    for number in 0..GATEWAYS_MOST + 20 {
        let mut report = scene.report(tunnel, 1, LinkReportKind::Up);
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        report.identity.gateway = GatewayKey::from_bytes(seed).public_key();
        let fresh = scene.fresh();
        ok(scene.store.observe(&report, fresh).await);
    }
    let actions = scene.actions().await;
    let approvals = actions
        .iter()
        .filter(|action| *action == "connection.approve");
    assert_eq!(
        u32::try_from(approvals.count()),
        Ok(GATEWAYS_MOST),
        "the holder of a token does not fill the audit"
    );
}

pub(super) async fn pending_gateways_are_forgotten(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    observe(scene, tunnel, 1, pending(1)).await;
    let change = scene.change();
    let fresh = scene.fresh();
    ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(2), fresh)
        .await);
    let between = scene.tick();
    observe(scene, tunnel, 3, pending(3)).await;
    assert_eq!(ok(scene.store.forget_pending(time(between)).await), 1);
    let left: Vec<_> = gateways(scene, tunnel).await;
    let keys: Vec<_> = left.iter().map(|gateway| gateway.fingerprint).collect();
    assert_eq!(keys, [fingerprint(3), fingerprint(2)]);
    assert_eq!(ok(scene.store.forget_pending(time(between)).await), 0);
}

pub(super) async fn reports_of_what_is_gone_leave_nothing(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let unknown = TunnelId::new(1, &[9; 10]);
    assert_eq!(
        observe(scene, unknown, 1, LinkReportKind::Up).await,
        Observed::Ignored
    );
    let reason = DownReason::Closed;
    let down = LinkReportKind::Down { reason };
    assert_eq!(observe(scene, tunnel, 1, down).await, Observed::Ignored);
    let reason = LinkRefusal::TokenRotated;
    let turned_away = LinkReportKind::Refused { reason };
    assert_eq!(
        observe(scene, tunnel, 1, turned_away).await,
        Observed::Ignored
    );
    assert!(gateways(scene, tunnel).await.is_empty());
    let change = scene.change();
    ok(scene.store.archive_tunnel(&change, tunnel).await);
    assert_eq!(
        observe(scene, tunnel, 1, pending(1)).await,
        Observed::Ignored
    );
}

pub(super) async fn a_disconnection_names_a_number(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let change = scene.change();
    let fresh = scene.fresh();
    ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(1), fresh)
        .await);
    let change = scene.change();
    let number = 1_790_000_000_123;
    let cut = ok(scene.store.disconnect(&change, tunnel, fresh, number).await);
    assert_eq!((cut.links_from, cut.decision), (number, Decision::Approved));
    assert_eq!(ok(scene.store.access().await).gateways, [cut]);
}
