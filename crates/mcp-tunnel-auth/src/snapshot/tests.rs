use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::fixture::{self, EXPORTER, NOW, snapshot, tunnel};
use crate::{CredentialKind, GatewayKey};

fn connection() -> ConnectionId {
    ConnectionId::new(NOW, &[7; 10])
}

fn decided(state: GatewayState) -> GatewayAccess {
    GatewayAccess::new(
        fixture::gateway().public_key().fingerprint(),
        connection(),
        state,
    )
}

#[track_caller]
fn check_link(tunnel: TunnelAccess, expect: Result<LinkDecision, LinkRefusal>) {
    let judged =
        snapshot(tunnel).judge_link(&fixture::credential(), &fixture::edge_name(), &EXPORTER);
    assert_eq!(judged, expect);
}

#[test]
fn a_new_gateway_waits_or_is_let_in_as_the_tunnel_says() {
    check_link(tunnel(), Ok(LinkDecision::Pending));
    let auto = TunnelAccess {
        approval: Approval::Auto,
        ..tunnel()
    };
    check_link(auto, Ok(LinkDecision::Active { connection: None }));
}

#[test]
fn an_approved_fingerprint_is_let_in_even_before_it_was_seen() {
    let mut approved = tunnel();
    approved.gateways.push(decided(GatewayState::Approved));
    check_link(
        approved,
        Ok(LinkDecision::Active {
            connection: Some(connection()),
        }),
    );
}

#[test]
fn a_refused_gateway_stays_out_of_an_automatic_tunnel_too() {
    let mut refused = TunnelAccess {
        approval: Approval::Auto,
        ..tunnel()
    };
    refused.gateways.push(decided(GatewayState::Refused));
    check_link(refused, Err(LinkRefusal::GatewayRefused));
}

#[test]
fn a_rotated_token_is_refused_although_its_gateway_is_approved() {
    let mut rotated = tunnel();
    rotated.gateways.push(decided(GatewayState::Approved));
    rotated.tokens[0].state = TokenState::Retired;
    check_link(rotated, Err(LinkRefusal::TokenRotated));
}

#[test]
fn strangers_learn_nothing() {
    let known = snapshot(tunnel());
    let nobody = AccessSnapshot::empty(NOW);
    let other_token = TunnelAccess {
        tokens: Vec::new(),
        ..tunnel()
    };
    let credential = fixture::credential();
    let judge = |snapshot: &AccessSnapshot, credential: &LinkCredential, exporter: &[u8; 32]| {
        snapshot.judge_link(credential, &fixture::edge_name(), exporter)
    };
    assert_eq!(
        judge(&nobody, &credential, &EXPORTER),
        Err(LinkRefusal::Unrecognised)
    );
    assert_eq!(
        judge(&nobody, &credential, &[0; 32]),
        Err(LinkRefusal::Unrecognised)
    );
    assert_eq!(
        judge(&snapshot(other_token), &credential, &EXPORTER),
        Err(LinkRefusal::Unrecognised)
    );

    let mut guessed = fixture::token();
    guessed.seed = crate::TokenSeed::from_bytes([1; 32]);
    let forged = LinkCredential::sign(
        &guessed,
        &fixture::gateway(),
        &EXPORTER,
        fixture::announcement(),
    );
    assert_eq!(
        judge(&known, &forged, &EXPORTER),
        Err(LinkRefusal::Unrecognised)
    );
}

#[test]
fn whoever_uses_the_gateway_key_as_seed_of_an_unknown_token_is_unrecognised() {
    // The stand-in key of an unknown token is the gateway's own: its signature would be good.
    let mut invented = fixture::token();
    let key = GatewayKey::from_bytes([4; 32]);
    invented.seed = crate::TokenSeed::from_bytes([4; 32]);
    let credential = LinkCredential::sign(&invented, &key, &EXPORTER, fixture::announcement());
    let judged = AccessSnapshot::empty(1).judge_link(&credential, &fixture::edge_name(), &EXPORTER);
    assert_eq!(judged, Err(LinkRefusal::Unrecognised));
}

#[test]
fn interception_and_a_foreign_edge_are_named_to_who_holds_the_token() {
    let snapshot = snapshot(tunnel());
    let credential = fixture::credential();
    let judge =
        |edge: &str, exporter| snapshot.judge_link(&credential, &fixture::host(edge), exporter);
    assert_eq!(
        judge("edge.tunnels.example.com", &[0; 32]),
        Err(LinkRefusal::Intercepted)
    );
    assert_eq!(
        judge("edge.other.example", &EXPORTER),
        Err(LinkRefusal::OtherEdge)
    );
}

#[test]
fn live_links_are_judged_again_by_each_snapshot() {
    let identity = *fixture::credential().identity();
    let rejudge = |tunnel: TunnelAccess, under| snapshot(tunnel).rejudge(&identity, under);
    let mut approved = tunnel();
    approved.gateways.push(decided(GatewayState::Approved));
    assert!(matches!(
        rejudge(approved.clone(), 5),
        Ok(LinkDecision::Active { .. })
    ));

    let mut disconnected = approved.clone();
    disconnected.gateways[0].links_from = 6;
    assert_eq!(
        rejudge(disconnected.clone(), 5),
        Err(LinkRefusal::Disconnected)
    );
    assert!(rejudge(disconnected.clone(), 6).is_ok());
    check_link(
        disconnected,
        Ok(LinkDecision::Active {
            connection: Some(connection()),
        }),
    );

    let mut rotated = approved.clone();
    rotated.tokens[0].state = TokenState::Retired;
    assert_eq!(rejudge(rotated.clone(), 5), Err(LinkRefusal::TokenRotated));
    rotated.gateways[0].state = GatewayState::Refused;
    assert_eq!(
        rejudge(rotated, 5),
        Err(LinkRefusal::GatewayRefused),
        "a refusal closes at once, it does not drain"
    );

    assert_eq!(
        AccessSnapshot::empty(9).rejudge(&identity, 5),
        Err(LinkRefusal::Unrecognised),
        "archived"
    );
    assert_eq!(
        rejudge(tunnel(), 5),
        Ok(LinkDecision::Pending),
        "the approval is gone"
    );
}

#[test]
fn numbers_go_forward_over_clock_steps_and_restored_backups() {
    assert_eq!(AccessSnapshot::next_number(10, 1_000), 1_000);
    assert_eq!(AccessSnapshot::next_number(1_000, 999), 1_001);
    assert_eq!(AccessSnapshot::next_number(u64::MAX, 0), u64::MAX);
    assert!(AccessSnapshot::empty(2).supersedes(&AccessSnapshot::empty(1)));
    assert!(!AccessSnapshot::empty(1).supersedes(&AccessSnapshot::empty(1)));
    assert!(!AccessSnapshot::empty(1).supersedes(&AccessSnapshot::empty(2)));
    assert!(AccessSnapshot::empty(1).judges_as(&AccessSnapshot::empty(2)));
}

#[test]
fn age_counts_from_issue() {
    let snapshot = snapshot(tunnel());
    assert_eq!(snapshot.age(NOW + 1_500), Duration::from_millis(1_500));
    assert_eq!(snapshot.age(NOW - 1), Duration::ZERO);
}

#[test]
fn one_label_or_id_or_hash_stands_for_one_thing() {
    let other_id = TunnelAccess {
        id: TunnelId::new(1, &[1; 10]),
        ..tunnel()
    };
    let other_label = TunnelAccess {
        label: DomainLabel::parse("other").unwrap(),
        ..tunnel()
    };
    for twin in [other_id, other_label] {
        let made = AccessSnapshot::new(1, 1, vec![tunnel(), twin], vec![]);
        assert_eq!(made.unwrap_err(), SnapshotError::DuplicateTunnel);
    }
    let (_, access) = caller();
    let made = AccessSnapshot::new(1, 1, vec![], vec![access.clone(), access]);
    assert_eq!(made.unwrap_err(), SnapshotError::DuplicateCallerKey);
}

fn caller() -> (CallerKey, CallerKeyAccess) {
    let key = CallerKey::from_entropy([8; 32]);
    let access = CallerKeyAccess::new(
        CallerKeyId::new(NOW, &[8; 10]),
        key.hash(),
        fixture::workspace("acme"),
    );
    (key, access)
}

/// Presents the caller's key for the route `mcp` of the tunnel at `NOW`.
#[track_caller]
fn check_caller(access: CallerKeyAccess, tunnel: TunnelAccess, expect: Result<(), CallerRefusal>) {
    let snapshot = AccessSnapshot::new(NOW, NOW, vec![tunnel.clone()], vec![access]).unwrap();
    let judged =
        snapshot.authorise_caller(Some(&caller().0), Some(&tunnel), &RouteName::default(), NOW);
    assert_eq!(judged.map(|_| ()), expect);
}

#[test]
fn scope_of_a_caller_key() {
    let access = || caller().1;
    check_caller(access(), tunnel(), Ok(()));
    check_caller(
        CallerKeyAccess {
            tunnels: Some([tunnel().id].into()),
            ..access()
        },
        tunnel(),
        Ok(()),
    );
    check_caller(
        CallerKeyAccess {
            routes: Some([RouteName::default()].into()),
            ..access()
        },
        tunnel(),
        Ok(()),
    );
    check_caller(
        CallerKeyAccess {
            expires_at_ms: Some(NOW + 1),
            ..access()
        },
        tunnel(),
        Ok(()),
    );

    let out = Err(CallerRefusal::OutOfScope);
    check_caller(
        CallerKeyAccess {
            tunnels: Some(BTreeSet::new()),
            ..access()
        },
        tunnel(),
        out,
    );
    let foreign = TunnelId::new(1, &[1; 10]);
    check_caller(
        CallerKeyAccess {
            tunnels: Some([foreign].into()),
            ..access()
        },
        tunnel(),
        out,
    );
    check_caller(
        CallerKeyAccess {
            routes: Some([RouteName::parse("search").unwrap()].into()),
            ..access()
        },
        tunnel(),
        out,
    );
    check_caller(
        CallerKeyAccess {
            workspace: fixture::workspace("other"),
            ..access()
        },
        tunnel(),
        out,
    );
    let listed = CallerKeyAccess {
        workspace: fixture::workspace("other"),
        tunnels: Some([tunnel().id].into()),
        ..access()
    };
    check_caller(listed, tunnel(), out);
    check_caller(
        CallerKeyAccess {
            expires_at_ms: Some(NOW),
            ..access()
        },
        tunnel(),
        Err(CallerRefusal::Expired),
    );
    let hash = CallerKey::from_entropy([9; 32]).hash();
    check_caller(
        CallerKeyAccess { hash, ..access() },
        tunnel(),
        Err(CallerRefusal::Unknown),
    );
}

#[test]
fn missing_keys_and_unknown_tunnels_are_refused_and_upstream_tunnels_are_open() {
    let (key, access) = caller();
    let by_key = tunnel();
    let upstream = TunnelAccess {
        caller_auth: CallerAuth::Upstream,
        ..tunnel()
    };
    let snapshot = AccessSnapshot::new(NOW, NOW, vec![tunnel()], vec![access.clone()]).unwrap();
    let judge = |key, tunnel| snapshot.authorise_caller(key, tunnel, &RouteName::default(), NOW);
    assert_eq!(
        judge(Some(&key), Some(&by_key)),
        Ok(CallerGrant::Key(access.id))
    );
    assert_eq!(judge(None, Some(&by_key)), Err(CallerRefusal::Missing));
    assert_eq!(judge(None, None), Err(CallerRefusal::UnknownTunnel));
    assert_eq!(judge(Some(&key), None), Err(CallerRefusal::UnknownTunnel));
    assert_eq!(judge(None, Some(&upstream)), Ok(CallerGrant::Upstream));
}

#[test]
fn the_key_that_stands_in_for_a_missing_one_is_no_key() {
    let zero = CallerKey::from_entropy([0; 32]);
    let access = CallerKeyAccess {
        hash: zero.hash(),
        ..caller().1
    };
    let snapshot = AccessSnapshot::new(NOW, NOW, vec![tunnel()], vec![access]).unwrap();
    let judged = snapshot.authorise_caller(None, Some(&tunnel()), &RouteName::default(), NOW);
    assert_eq!(judged, Err(CallerRefusal::Missing));
}

#[test]
fn a_snapshot_crosses_processes_and_authenticates_as_nothing() {
    let (key, access) = caller();
    let mut tunnel = tunnel();
    tunnel.gateways.push(decided(GatewayState::Approved));
    let snapshot = AccessSnapshot::new(NOW, NOW, vec![tunnel], vec![access]).unwrap();
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(
        serde_json::from_str::<AccessSnapshot>(&json).unwrap(),
        snapshot
    );

    let words = json.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    for word in words {
        assert!(
            !CredentialKind::recognise(word).is_some_and(CredentialKind::is_ours),
            "{word}"
        );
        assert!(CallerKey::parse(&format!("mck_{word}")).is_err());
    }
    assert!(!json.contains(key.encode().expose_secret()));
    // Every 32 bytes in it, used as a seed or as a caller key, prove nothing.
    for text in json.split('"').filter(|text| text.len() == 43) {
        use base64::Engine as _;
        let Ok(bytes) = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text) else {
            continue;
        };
        let bytes: [u8; 32] = bytes.try_into().unwrap();
        let mut token = fixture::token();
        token.seed = crate::TokenSeed::from_bytes(bytes);
        let forged = LinkCredential::sign(
            &token,
            &fixture::gateway(),
            &EXPORTER,
            fixture::announcement(),
        );
        assert!(
            snapshot
                .judge_link(&forged, &fixture::edge_name(), &EXPORTER)
                .is_err()
        );
        let stolen = CallerKey::from_entropy(bytes);
        let target = snapshot.tunnels().next();
        assert!(
            snapshot
                .authorise_caller(Some(&stolen), target, &RouteName::default(), NOW)
                .is_err()
        );
    }
}

#[test]
fn a_report_crosses_processes() {
    use crate::{ApprovalCode, DownReason, LinkId, LinkReport, LinkReportKind};
    let kinds = [
        LinkReportKind::Pending {
            approval_code: ApprovalCode::from_entropy([1; 5]),
        },
        LinkReportKind::Up,
        LinkReportKind::RoundTrip {
            time: Duration::from_micros(1_250),
        },
        LinkReportKind::Down {
            reason: DownReason::Withdrawn(LinkRefusal::TokenRotated),
        },
        LinkReportKind::Down {
            reason: DownReason::Lost,
        },
        LinkReportKind::Refused {
            reason: LinkRefusal::GatewayRefused,
        },
    ];
    for kind in kinds {
        let remote = "[2001:db8::1]:443".parse().unwrap();
        let identity = *fixture::credential().identity();
        let report = LinkReport::new(
            LinkId::new(NOW, &[1; 10]),
            identity,
            remote,
            fixture::announcement(),
            NOW,
            kind,
        );
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<LinkReport>(&json).unwrap(), report);
    }
}

proptest! {
    #[test]
    fn only_the_exact_key_is_let_in(bits: [u8; 32], present: [u8; 32], others: Vec<[u8; 32]>) {
        let access = |bits: [u8; 32]| CallerKeyAccess { hash: CallerKey::from_entropy(bits).hash(), ..caller().1 };
        let mut bits: BTreeSet<_> = others.into_iter().chain([bits]).collect();
        bits.remove(&present);
        let keys = bits.iter().copied().map(access).collect();
        let snapshot = AccessSnapshot::new(NOW, NOW, vec![tunnel()], keys).unwrap();
        let judge = |bits| {
            let key = CallerKey::from_entropy(bits);
            snapshot.authorise_caller(Some(&key), Some(&tunnel()), &RouteName::default(), NOW)
        };
        prop_assert!(judge(present).is_err());
        for known in bits {
            prop_assert!(judge(known).is_ok());
        }
    }
}
