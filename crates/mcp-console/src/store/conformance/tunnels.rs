//! Cases of tunnels, tokens and certificates.

use mcp_tunnel_auth::{Approval, CallerAuth, CertificateId, ConnectionId, TunnelId};

use super::scene::{ABROAD, HOME, Scene, fingerprint, home, missing, ok, refused, workspace};
use crate::store::{Listing, Refusal, SettingsChange};

pub(super) async fn a_tunnel_is_found_and_listed_newest_first(scene: &mut Scene<'_>) {
    let first = scene.tunnel("one").await;
    let second = scene.tunnel("two").await;
    assert_eq!(first.workspace, home());
    assert_eq!(first.display_name.as_deref(), Some("tunnel one"));
    assert_eq!(
        (first.approval, first.caller_auth),
        (Approval::Manual, CallerAuth::Key)
    );
    assert_eq!(ok(scene.store.tunnel(&home(), first.id).await), first);
    let listed = ok(scene.store.tunnels(&home(), &Listing::newest(10)).await);
    assert_eq!(listed.rows, [second, first]);
    assert!(!listed.more);
}

pub(super) async fn pages_hold_every_tunnel_once(scene: &mut Scene<'_>) {
    let mut made = Vec::new();
    for label in ["a", "b", "c", "d", "e"] {
        made.insert(0, scene.tunnel(label).await.id);
    }
    let mut seen: Vec<TunnelId> = Vec::new();
    let mut listing = Listing::newest(2);
    loop {
        let page = ok(scene.store.tunnels(&home(), &listing).await);
        assert!(page.rows.len() <= 2);
        seen.extend(page.rows.iter().map(|tunnel| tunnel.id));
        // What comes in between does not shift the pages.
        scene.tunnel(&format!("new{}", seen.len())).await;
        match (page.more, seen.last()) {
            (true, Some(last)) => listing = Listing::newest(2).after(last),
            _ => break,
        }
    }
    assert_eq!(seen, made);
}

pub(super) async fn what_is_foreign_is_missing(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("home").await.id;
    let change = scene.change();
    let new = scene.new_certificate();
    let certificate = ok(scene.store.add_certificate(&change, tunnel, new, 2).await).id;
    let change = scene.change();
    let fresh = scene.fresh();
    let gateway = ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(1), fresh)
        .await)
    .id;
    let before = scene.actions().await;

    for id in [tunnel, TunnelId::new(1, &[9; 10])] {
        nothing_is_found_abroad(scene, id, certificate, gateway).await;
    }
    let after = scene.actions().await;
    assert_eq!(after, before);
    let abroad = ok(scene
        .store
        .audit(&workspace(ABROAD), &Listing::newest(10))
        .await);
    assert!(
        abroad.rows.is_empty(),
        "what was not done is not in the audit"
    );
}

pub(super) async fn a_part_of_one_tunnel_is_no_part_of_another(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("home").await.id;
    let change = scene.change();
    let new = scene.new_certificate();
    let certificate = ok(scene.store.add_certificate(&change, tunnel, new, 2).await).id;
    let change = scene.change();
    let fresh = scene.fresh();
    let gateway = ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(1), fresh)
        .await)
    .id;
    let other = scene.tunnel("other").await.id;
    let change = scene.change();
    missing(scene.store.certificate(&home(), other, certificate).await);
    missing(
        scene
            .store
            .archive_certificate(&change, other, certificate)
            .await,
    );
    missing(scene.store.gateway(&home(), other, gateway).await);
    missing(scene.store.refuse(&change, other, gateway).await);
    missing(
        scene
            .store
            .certificate(&home(), tunnel, CertificateId::new(1, &[9; 10]))
            .await,
    );
    missing(
        scene
            .store
            .gateway(&home(), tunnel, ConnectionId::new(1, &[9; 10]))
            .await,
    );
}

/// Every method that takes a tunnel answers in another workspace as if there were none.
async fn nothing_is_found_abroad(
    scene: &mut Scene<'_>,
    id: TunnelId,
    certificate: CertificateId,
    gateway: ConnectionId,
) {
    let abroad = workspace(ABROAD);
    let all = Listing::newest(10).with_archived();
    let change = scene.change_in(ABROAD);
    missing(scene.store.tunnel(&abroad, id).await);
    missing(scene.store.archive_tunnel(&change, id).await);
    let settings = SettingsChange {
        approval: Some(Approval::Auto),
        caller_auth: None,
    };
    missing(scene.store.update_settings(&change, id, settings).await);
    missing(scene.store.reveal_token(&change, id).await);
    let token = scene.new_token();
    missing(scene.store.rotate_token(&change, id, token).await);
    missing(scene.store.certificates(&abroad, id, &all).await);
    missing(scene.store.certificate(&abroad, id, certificate).await);
    missing(
        scene
            .store
            .archive_certificate(&change, id, certificate)
            .await,
    );
    let new = scene.new_certificate();
    missing(scene.store.add_certificate(&change, id, new, 2).await);
    missing(scene.store.gateways(&abroad, id, &all).await);
    missing(scene.store.gateway(&abroad, id, gateway).await);
    missing(scene.store.approve(&change, id, gateway, None).await);
    missing(scene.store.refuse(&change, id, gateway).await);
    missing(scene.store.disconnect(&change, id, gateway, 1).await);
    let fresh = scene.fresh();
    missing(
        scene
            .store
            .approve_key(&change, id, fingerprint(1), fresh)
            .await,
    );
    assert!(ok(scene.store.tunnels(&abroad, &all).await).rows.is_empty());
}

pub(super) async fn a_label_is_given_once(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("taken").await.id;
    let change = scene.change();
    ok(scene.store.archive_tunnel(&change, tunnel).await);
    for place in [HOME, ABROAD] {
        let change = scene.change_in(place);
        let again = scene.new_tunnel("taken");
        refused(
            scene.store.create_tunnel(&change, again, 1000).await,
            Refusal::LabelTaken,
        );
    }
}

pub(super) async fn a_workspace_has_its_most(scene: &mut Scene<'_>) {
    let first = scene.tunnel("a").await.id;
    scene.tunnel("b").await;
    let change = scene.change();
    let third = scene.new_tunnel("c");
    refused(
        scene.store.create_tunnel(&change, third.clone(), 2).await,
        Refusal::TooManyTunnels { most: 2 },
    );
    let elsewhere = scene.change_in(ABROAD);
    let other = scene.new_tunnel("d");
    ok(scene.store.create_tunnel(&elsewhere, other, 2).await);
    ok(scene.store.archive_tunnel(&change, first).await);
    let change = scene.change();
    ok(scene.store.create_tunnel(&change, third, 2).await);
}

pub(super) async fn archiving_ends_everything_and_may_be_repeated(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    for _ in 0..2 {
        let change = scene.change();
        let new = scene.new_certificate();
        ok(scene.store.add_certificate(&change, tunnel, new, 2).await);
    }
    let change = scene.change();
    let archived = ok(scene.store.archive_tunnel(&change, tunnel).await);
    assert_eq!(archived.archived_at, Some(change.at));
    let live = Listing::newest(10);
    assert!(
        ok(scene.store.tunnels(&home(), &live).await)
            .rows
            .is_empty()
    );
    let all = ok(scene
        .store
        .tunnels(&home(), &live.clone().with_archived())
        .await);
    assert_eq!(all.rows, std::slice::from_ref(&archived));
    let certificates = scene
        .store
        .certificates(&home(), tunnel, &live.with_archived())
        .await;
    for certificate in ok(certificates).rows {
        assert_eq!(certificate.archived_at, Some(change.at));
    }
    assert!(ok(scene.store.master_keys_in_use().await).is_empty());
    let access = ok(scene.store.access().await);
    assert!(access.tunnels.is_empty() && access.tokens.is_empty());

    let later = scene.change();
    assert_eq!(
        ok(scene.store.archive_tunnel(&later, tunnel).await),
        archived
    );
    let actions = scene.actions().await;
    let archivals = actions.iter().filter(|action| *action == "tunnel.archive");
    assert_eq!(archivals.count(), 1);
}

pub(super) async fn what_is_archived_stays_as_it_is(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let change = scene.change();
    let fresh = scene.fresh();
    let gateway = ok(scene
        .store
        .approve_key(&change, tunnel, fingerprint(1), fresh)
        .await)
    .id;
    let change = scene.change();
    ok(scene.store.archive_tunnel(&change, tunnel).await);
    let change = scene.change();
    let archived = Refusal::TunnelArchived;
    let settings = SettingsChange::default();
    refused(
        scene.store.update_settings(&change, tunnel, settings).await,
        archived,
    );
    refused(scene.store.reveal_token(&change, tunnel).await, archived);
    let token = scene.new_token();
    refused(
        scene.store.rotate_token(&change, tunnel, token).await,
        archived,
    );
    let new = scene.new_certificate();
    refused(
        scene.store.add_certificate(&change, tunnel, new, 2).await,
        archived,
    );
    refused(
        scene.store.approve(&change, tunnel, gateway, None).await,
        archived,
    );
    refused(scene.store.refuse(&change, tunnel, gateway).await, archived);
    refused(
        scene.store.disconnect(&change, tunnel, gateway, 1).await,
        archived,
    );
    let fresh = scene.fresh();
    refused(
        scene
            .store
            .approve_key(&change, tunnel, fingerprint(2), fresh)
            .await,
        archived,
    );
    assert_eq!(ok(scene.store.tunnel(&home(), tunnel).await).id, tunnel);
}

pub(super) async fn settings_change_what_is_given(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let before = scene.actions().await.len();
    let change = scene.change();
    let nothing = SettingsChange::default();
    let same = ok(scene.store.update_settings(&change, tunnel, nothing).await);
    assert_eq!(same.approval, Approval::Manual);
    assert_eq!(scene.actions().await.len(), before, "nothing was changed");
    let open = SettingsChange {
        approval: None,
        caller_auth: Some(CallerAuth::Upstream),
    };
    let opened = ok(scene.store.update_settings(&change, tunnel, open).await);
    assert_eq!(
        (opened.approval, opened.caller_auth),
        (Approval::Manual, CallerAuth::Upstream)
    );
    let change = scene.change();
    let auto = SettingsChange {
        approval: Some(Approval::Auto),
        caller_auth: Some(CallerAuth::Key),
    };
    let changed = ok(scene.store.update_settings(&change, tunnel, auto).await);
    assert_eq!(
        (changed.approval, changed.caller_auth),
        (Approval::Auto, CallerAuth::Key)
    );
    assert_eq!(ok(scene.store.access().await).tunnels, [changed]);
    assert_eq!(scene.actions().await.len(), before + 2);
}

pub(super) async fn a_token_is_the_same_until_it_is_rotated(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await;
    let change = scene.change();
    let (of, first) = ok(scene.store.reveal_token(&change, tunnel.id).await);
    assert_eq!(of, tunnel);
    let change = scene.change();
    let (_, same) = ok(scene.store.reveal_token(&change, tunnel.id).await);
    assert_eq!(same, first);
    let new = scene.new_token();
    let change = scene.change();
    let (_, rotated) = ok(scene
        .store
        .rotate_token(&change, tunnel.id, new.clone())
        .await);
    assert_eq!(rotated.token, new);
    let change = scene.change();
    assert_eq!(
        ok(scene.store.reveal_token(&change, tunnel.id).await).1,
        rotated
    );
    let tokens = ok(scene.store.access().await).tokens;
    let [current, retired] = &tokens[..] else {
        panic!("both tokens are known to edges, the newest first: {tokens:?}");
    };
    assert_eq!(current, &rotated);
    assert_eq!(
        (retired.token.id, retired.retired_at.is_some()),
        (first.token.id, true)
    );
    assert_eq!(
        scene.actions().await[1..],
        [
            "tunnel_token.reveal",
            "tunnel_token.reveal",
            "tunnel_token.rotate",
            "tunnel_token.reveal"
        ]
    );
}

pub(super) async fn certificates_have_their_most(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let change = scene.change();
        let new = scene.new_certificate();
        ids.push(ok(scene.store.add_certificate(&change, tunnel, new, 2).await).id);
    }
    let change = scene.change();
    let third = scene.new_certificate();
    refused(
        scene
            .store
            .add_certificate(&change, tunnel, third.clone(), 2)
            .await,
        Refusal::TooManyCertificates { most: 2 },
    );
    ok(scene
        .store
        .archive_certificate(&change, tunnel, ids[0])
        .await);
    let change = scene.change();
    ok(scene.store.add_certificate(&change, tunnel, third, 2).await);
}

pub(super) async fn certificates_are_listed_and_archived(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let change = scene.change();
    let new = scene.new_certificate();
    let first = ok(scene
        .store
        .add_certificate(&change, tunnel, new.clone(), 2)
        .await);
    assert_eq!(
        (&first.pem, &first.fingerprint),
        (&new.pem, &new.fingerprint)
    );
    assert_eq!((first.tunnel, first.expires_at), (tunnel, new.expires_at));
    let change = scene.change();
    let archived = ok(scene
        .store
        .archive_certificate(&change, tunnel, first.id)
        .await);
    assert_eq!(archived.archived_at, Some(change.at));
    let later = scene.change();
    let again = scene
        .store
        .archive_certificate(&later, tunnel, first.id)
        .await;
    assert_eq!(ok(again), archived);
    let change = scene.change();
    let new = scene.new_certificate();
    let second = ok(scene.store.add_certificate(&change, tunnel, new, 2).await);
    let live = Listing::newest(10);
    let listed = ok(scene.store.certificates(&home(), tunnel, &live).await);
    assert_eq!(listed.rows, std::slice::from_ref(&second));
    let all = scene
        .store
        .certificates(&home(), tunnel, &live.with_archived())
        .await;
    assert_eq!(ok(all).rows, [second, archived.clone()]);
    assert_eq!(
        ok(scene.store.certificate(&home(), tunnel, first.id).await),
        archived
    );
}
