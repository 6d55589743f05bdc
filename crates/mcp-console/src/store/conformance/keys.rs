//! Cases of keys, of the audit and of announcing changes.

use std::collections::BTreeSet;

use managed_agents_api::serve::{Permission, Permissions};
use mcp_tunnel_auth::{ApiKey, ApiKeyId, CallerKey, CallerKeyId, RouteName, TunnelId};

use super::scene::{ABROAD, Scene, home, missing, ok, refused, time, workspace};
use crate::store::{Listing, NewApiKey, NewCallerKey, Refusal};

fn new_key(scene: &mut Scene<'_>, number: u8) -> NewCallerKey {
    NewCallerKey {
        id: CallerKeyId::new(scene.tick(), &[number; 10]),
        hash: CallerKey::from_entropy([number; 32]).hash(),
        name: format!("key {number}"),
        tunnels: None,
        routes: None,
        expires_at: None,
    }
}

pub(super) async fn a_caller_key_keeps_its_scope(scene: &mut Scene<'_>) {
    let (a, b) = (scene.tunnel("a").await.id, scene.tunnel("b").await.id);
    let mut new = new_key(scene, 1);
    new.tunnels = Some(BTreeSet::from([a, b]));
    new.routes = Some(BTreeSet::from([RouteName::default()]));
    new.expires_at = Some(time(1_900_000_000_000));
    let change = scene.change();
    let narrow = ok(scene
        .store
        .create_caller_key(&change, new.clone(), 10)
        .await);
    assert_eq!(
        (&narrow.tunnels, &narrow.routes),
        (&new.tunnels, &new.routes)
    );
    assert_eq!((narrow.expires_at, narrow.hash), (new.expires_at, new.hash));
    let change = scene.change();
    let wide = new_key(scene, 2);
    let wide = ok(scene.store.create_caller_key(&change, wide, 10).await);
    assert_eq!((&wide.tunnels, &wide.routes), (&None, &None));
    let listed = ok(scene.store.caller_keys(&home(), &Listing::newest(1)).await);
    assert_eq!((&listed.rows[..], listed.more), (&[wide.clone()][..], true));
    let next = Listing::newest(1).after(wide.id);
    let listed = ok(scene.store.caller_keys(&home(), &next).await);
    assert_eq!(
        (&listed.rows[..], listed.more),
        (&[narrow.clone()][..], false)
    );
    assert_eq!(ok(scene.store.access().await).caller_keys, [narrow, wide]);
}

pub(super) async fn a_caller_key_reaches_no_foreign_tunnel(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    for id in [tunnel, TunnelId::new(1, &[9; 10])] {
        let mut new = new_key(scene, 1);
        new.tunnels = Some(BTreeSet::from([id]));
        let change = scene.change_in(ABROAD);
        missing(scene.store.create_caller_key(&change, new, 10).await);
    }
    assert!(ok(scene.store.access().await).caller_keys.is_empty());
}

pub(super) async fn a_workspace_has_its_most_caller_keys(scene: &mut Scene<'_>) {
    let change = scene.change();
    let mut first = new_key(scene, 1);
    first.expires_at = Some(time(scene.now_ms + 10));
    ok(scene.store.create_caller_key(&change, first, 1).await);
    let change = scene.change();
    let second = new_key(scene, 2);
    refused(
        scene
            .store
            .create_caller_key(&change, second.clone(), 1)
            .await,
        Refusal::TooManyCallerKeys { most: 1 },
    );
    scene.now_ms += 20;
    let change = scene.change();
    ok(scene.store.create_caller_key(&change, second, 1).await);
}

pub(super) async fn a_revoked_caller_key_is_gone_from_access(scene: &mut Scene<'_>) {
    let change = scene.change();
    let new = new_key(scene, 1);
    let key = ok(scene.store.create_caller_key(&change, new, 10).await).id;
    let foreign = scene.change_in(ABROAD);
    missing(scene.store.revoke_caller_key(&foreign, key).await);
    let change = scene.change();
    let revoked = ok(scene.store.revoke_caller_key(&change, key).await);
    assert_eq!(revoked.revoked_at, Some(change.at));
    assert!(ok(scene.store.access().await).caller_keys.is_empty());
    let live = Listing::newest(10);
    assert!(
        ok(scene.store.caller_keys(&home(), &live).await)
            .rows
            .is_empty()
    );
    let all = ok(scene
        .store
        .caller_keys(&home(), &live.with_archived())
        .await);
    assert_eq!(all.rows, std::slice::from_ref(&revoked));
    let later = scene.change();
    assert_eq!(
        ok(scene.store.revoke_caller_key(&later, key).await),
        revoked
    );
    assert_eq!(
        scene.actions().await,
        ["caller_key.create", "caller_key.revoke"]
    );
}

pub(super) async fn an_api_key_is_found_by_its_hash(scene: &mut Scene<'_>) {
    let key = ApiKey::from_entropy([1; 32]);
    let permissions = Permissions::none().with(Permission::TunnelsRead);
    let new = NewApiKey {
        id: ApiKeyId::new(scene.tick(), &[1; 10]),
        hash: key.hash(),
        name: "reader".to_owned(),
        permissions,
    };
    let change = scene.change();
    let made = ok(scene.store.create_api_key(&change, new).await);
    assert_eq!((&made.workspace, made.permissions), (&home(), permissions));
    assert_eq!(
        ok(scene.store.api_key(key.hash()).await),
        Some(made.clone())
    );
    let other = ApiKey::from_entropy([2; 32]).hash();
    assert_eq!(ok(scene.store.api_key(other).await), None);
    let foreign = scene.change_in(ABROAD);
    missing(scene.store.revoke_api_key(&foreign, made.id).await);
    let change = scene.change();
    let revoked = ok(scene.store.revoke_api_key(&change, made.id).await);
    assert_eq!(revoked.revoked_at, Some(change.at));
    assert_eq!(ok(scene.store.api_key(key.hash()).await), Some(revoked));
    assert_eq!(scene.actions().await, ["api_key.create", "api_key.revoke"]);
}

pub(super) async fn changes_are_announced_when_they_are_there(scene: &mut Scene<'_>) {
    let mut changes = scene.store.changes();
    changes.mark_unchanged();
    let tunnel = scene.tunnel("a").await.id;
    assert!(changes.has_changed().unwrap_or(false));
    changes.mark_unchanged();
    ok(scene.store.tunnel(&home(), tunnel).await);
    ok(scene.store.access().await);
    assert!(
        !changes.has_changed().unwrap_or(true),
        "reading changes nothing"
    );
}

pub(super) async fn the_audit_has_who_when_where_and_why(scene: &mut Scene<'_>) {
    let tunnel = scene.tunnel("a").await.id;
    let mut change = scene.change();
    change.address = Some([192, 0, 2, 7].into());
    change.reason = Some("it leaked".to_owned());
    let new = scene.new_token();
    ok(scene.store.rotate_token(&change, tunnel, new.clone()).await);
    let audit = scene.audit().await;
    let last = &audit[audit.len() - 1];
    assert_eq!(last.change, change);
    assert_eq!(
        (last.action.as_str(), &last.object),
        ("tunnel_token.rotate", &new.id.to_string())
    );
    let elsewhere = ok(scene
        .store
        .audit(&workspace(ABROAD), &Listing::newest(10))
        .await);
    assert!(elsewhere.rows.is_empty());
    let newest = ok(scene.store.audit(&home(), &Listing::newest(1)).await);
    assert_eq!((&newest.rows[0], newest.more), (last, true));
}

pub(super) async fn old_audit_is_forgotten(scene: &mut Scene<'_>) {
    scene.tunnel("a").await;
    let between = scene.tick();
    let kept = scene.tunnel("b").await;
    let changes = scene.store.changes();
    assert_eq!(ok(scene.store.forget_audit(time(between)).await), 1);
    let left = scene.audit().await;
    let objects: Vec<_> = left.iter().map(|record| record.object.clone()).collect();
    assert_eq!(objects, [kept.id.to_string()]);
    assert_eq!(ok(scene.store.forget_audit(time(between)).await), 0);
    assert!(!changes.has_changed().unwrap_or(true), "edges hear nothing");
}

pub(super) async fn numbers_of_snapshots_only_grow(scene: &mut Scene<'_>) {
    scene.tunnel("a").await;
    assert_eq!(ok(scene.store.access().await).last_snapshot, 0);
    let changes = scene.store.changes();
    for (noted, kept) in [(5, 5), (9, 9), (7, 9)] {
        ok(scene.store.note_snapshot(noted).await);
        assert_eq!(ok(scene.store.access().await).last_snapshot, kept);
    }
    assert!(!changes.has_changed().unwrap_or(true), "it is no change");
}
