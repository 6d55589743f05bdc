//! Cases of environments, their keys, agents and the audit.

use std::collections::BTreeMap;

use mcp_tunnel_auth::{AgentId, EnvironmentId, EnvironmentKeyHash, EnvironmentKeyId};

use super::scene::{ABROAD, HOME, Scene, missing, ok, refused, workspace};
use crate::store::{
    AgentListing, EnvironmentChange, EnvironmentKind, Listing, NewEnvironment, NewEnvironmentKey,
    Refusal,
};

fn new_environment(scene: &mut Scene<'_>, name: &str) -> NewEnvironment {
    NewEnvironment {
        id: EnvironmentId::new(scene.tick(), &[0; 10]),
        name: name.to_owned(),
        description: Some("for a test".to_owned()),
        kind: EnvironmentKind::SelfHosted,
        config: r#"{"type":"self_hosted"}"#.to_owned(),
        metadata: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
    }
}

fn new_key(scene: &mut Scene<'_>, environment: EnvironmentId, byte: u8) -> NewEnvironmentKey {
    NewEnvironmentKey {
        id: EnvironmentKeyId::new(scene.tick(), &[byte; 10]),
        environment,
        hash: EnvironmentKeyHash::from_bytes([byte; 32]),
        name: format!("host {byte}"),
    }
}

pub(super) async fn environments_are_listed_newest_first(scene: &mut Scene<'_>) {
    let first = scene.environment;
    let (new, change) = (new_environment(scene, "b"), scene.change());
    let second = ok(scene.store.create_environment(&change, new, 10).await);
    let (new, change) = (new_environment(scene, "c"), scene.change());
    let most = Refusal::TooMany {
        what: "environments that are not archived",
        most: 2,
    };
    refused(scene.store.create_environment(&change, new, 2).await, &most);
    let home = workspace(HOME);
    let mut listing = Listing::newest(1);
    let page = ok(scene.store.environments(&home, &listing).await);
    assert_eq!((&page.rows[..], page.more), (&[second.clone()][..], true));
    listing.before = Some(second.id.to_string());
    let page = ok(scene.store.environments(&home, &listing).await);
    assert_eq!((page.rows[0].id, page.more), (first, false));
    let abroad = workspace(ABROAD);
    let page = ok(scene
        .store
        .environments(&abroad, &Listing::newest(10))
        .await);
    assert!(page.rows.is_empty());
}

pub(super) async fn an_environment_changes_until_it_is_archived(scene: &mut Scene<'_>) {
    let (new, change) = (new_environment(scene, "a"), scene.change());
    let made = ok(scene.store.create_environment(&change, new, 10).await);
    let to = EnvironmentChange {
        description: Some(None),
        metadata: BTreeMap::from([
            ("a".to_owned(), None),
            ("b".to_owned(), Some("2".to_owned())),
        ]),
        ..EnvironmentChange::default()
    };
    let change = scene.change();
    let store = scene.store;
    let changed = ok(store.update_environment(&change, made.id, to.clone()).await);
    assert_eq!((&changed.name, changed.description), (&made.name, None));
    assert_eq!(
        changed.metadata,
        BTreeMap::from([("b".to_owned(), "2".to_owned())])
    );
    assert_eq!(changed.updated_at, change.at);
    let change = scene.change();
    let archived = ok(store.archive_environment(&change, made.id).await);
    assert_eq!(archived.archived_at, Some(change.at));
    let later = scene.change();
    assert_eq!(
        ok(store.archive_environment(&later, made.id).await),
        archived
    );
    let failed = store.update_environment(&later, made.id, to).await;
    refused(failed, &Refusal::EnvironmentArchived);
    let key = new_key(scene, made.id, 1);
    let failed = store.create_environment_key(&later, key, 10).await;
    refused(failed, &Refusal::EnvironmentArchived);
}

pub(super) async fn a_deleted_environment_never_was(scene: &mut Scene<'_>) {
    let (new, change) = (new_environment(scene, "a"), scene.change());
    let id = ok(scene.store.create_environment(&change, new, 10).await).id;
    let (new, change) = (new_key(scene, id, 7), scene.change());
    let hash = new.hash;
    let key = ok(scene.store.create_environment_key(&change, new, 10).await);
    let (mut new, at) = (scene.new_session(), scene.at());
    new.environment = id;
    let home = workspace(HOME);
    let session = ok(scene.store.create_session(&home, at, new).await);
    let change = scene.change();
    let failed = scene.store.delete_environment(&change, id).await;
    refused(failed, &Refusal::EnvironmentInUse);
    let (operator, event) = (
        scene.operator(),
        scene.event("session.status_terminated", "{}"),
    );
    ok(scene
        .store
        .archive_session(&operator, session.id, event)
        .await);
    let mut foreign = scene.change();
    foreign.workspace = workspace(ABROAD);
    missing(scene.store.delete_environment(&foreign, id).await);
    ok(scene.store.delete_environment(&change, id).await);
    let home = workspace(HOME);
    missing(scene.store.environment(&home, id).await);
    let change = scene.change();
    missing(scene.store.delete_environment(&change, id).await);
    missing(scene.store.archive_environment(&change, id).await);
    missing(
        scene
            .store
            .revoke_environment_key(&change, id, key.id)
            .await,
    );
    let all = Listing::newest(10).with_archived();
    let listed = ok(scene.store.environments(&home, &all).await);
    assert!(listed.rows.iter().all(|record| record.id != id));
    let found = ok(scene.store.environment_key(hash).await);
    let ended = found.is_none_or(|record| record.archived_at.is_some());
    assert!(ended, "its key is good for something");
}

pub(super) async fn keys_have_their_most_and_are_revoked_once(scene: &mut Scene<'_>) {
    let environment = scene.environment;
    let (new, change) = (new_key(scene, environment, 1), scene.change());
    let store = scene.store;
    let key = ok(store.create_environment_key(&change, new, 2).await);
    let (new, change) = (new_key(scene, environment, 2), scene.change());
    let most = Refusal::TooManyKeys { most: 2 };
    refused(
        store.create_environment_key(&change, new.clone(), 2).await,
        &most,
    );
    let change = scene.change();
    let revoked = ok(store
        .revoke_environment_key(&change, environment, key.id)
        .await);
    assert_eq!(revoked.revoked_at, Some(change.at));
    let later = scene.change();
    let again = store.revoke_environment_key(&later, environment, key.id);
    assert_eq!(ok(again.await), revoked);
    assert_eq!(
        ok(store.environment_key(key.hash).await),
        Some(revoked.clone())
    );
    let change = scene.change();
    let second = ok(store.create_environment_key(&change, new, 2).await);
    let home = workspace(HOME);
    let live = Listing::newest(10);
    let listed = ok(store.environment_keys(&home, environment, &live).await);
    let ids: Vec<_> = listed.rows.iter().map(|record| record.id).collect();
    assert_eq!(ids, [second.id, scene.key]);
    let all = Listing::newest(2).with_archived();
    let listed = ok(store.environment_keys(&home, environment, &all).await);
    assert_eq!(
        (&listed.rows[..], listed.more),
        (&[second, revoked][..], true)
    );
    let other = scene.new_environment(HOME, EnvironmentKind::Cloud).await;
    let change = scene.change();
    missing(store.revoke_environment_key(&change, other, key.id).await);
    missing(
        store
            .environment_keys(&workspace(ABROAD), environment, &all)
            .await,
    );
}

async fn new_agent(scene: &mut Scene<'_>, definition: &str) -> AgentId {
    let id = AgentId::new(scene.tick(), &[0; 10]);
    let change = scene.change();
    let made = scene
        .store
        .create_agent(&change, id, definition.to_owned(), 10);
    let made = ok(made.await);
    assert_eq!((made.id, made.version), (id, 1));
    assert_eq!((made.created_at, made.updated_at), (change.at, change.at));
    id
}

pub(super) async fn an_agent_keeps_every_version(scene: &mut Scene<'_>) {
    let id = new_agent(scene, r#"{"n":12345678901234567890.10}"#).await;
    let change = scene.change();
    let store = scene.store;
    let second = ok(store.update_agent(&change, id, 1, "two".to_owned()).await);
    assert_eq!((second.version, second.definition.as_str()), (2, "two"));
    let newest = 2;
    let failed = store.update_agent(&change, id, 1, "late".to_owned()).await;
    refused(failed, &Refusal::OtherVersion { newest });
    let home = workspace(HOME);
    assert_eq!(ok(store.agent(&home, id, None).await), second);
    let first = ok(store.agent(&home, id, Some(1)).await);
    assert_eq!(first.definition, r#"{"n":12345678901234567890.10}"#);
    for version in [0, 3, u64::MAX] {
        missing(store.agent(&home, id, Some(version)).await);
    }
    let page = ok(store.agent_versions(&home, id, None, 1).await);
    assert_eq!((&page.rows[..], page.more), (&[second][..], true));
    let page = ok(store.agent_versions(&home, id, Some(2), 1).await);
    assert_eq!((&page.rows[..], page.more), (&[first][..], false));
    let abroad = workspace(ABROAD);
    missing(store.agent(&abroad, id, None).await);
    missing(store.agent_versions(&abroad, id, None, 1).await);
}

pub(super) async fn agents_are_listed_and_archived(scene: &mut Scene<'_>) {
    let first = new_agent(scene, "a").await;
    let between = scene.at();
    let second = new_agent(scene, "b").await;
    let change = scene.change();
    let store = scene.store;
    ok(store.update_agent(&change, first, 1, "a2".to_owned()).await);
    let home = workspace(HOME);
    let all = AgentListing::new(Listing::newest(10));
    let listed = ok(store.agents(&home, &all).await);
    let told: Vec<_> = listed
        .rows
        .iter()
        .map(|record| (record.id, record.definition.as_str()))
        .collect();
    assert_eq!(told, [(second, "b"), (first, "a2")]);
    let mut older = all.clone();
    older.created_until = Some(between);
    let listed = ok(store.agents(&home, &older).await);
    assert_eq!(
        listed.rows.iter().map(|one| one.id).collect::<Vec<_>>(),
        [first]
    );
    let change = scene.change();
    let archived = ok(store.archive_agent(&change, first).await);
    assert_eq!(
        (archived.archived_at, archived.version),
        (Some(change.at), 2)
    );
    let later = scene.change();
    assert_eq!(ok(store.archive_agent(&later, first).await), archived);
    let failed = store.update_agent(&later, first, 2, "x".to_owned()).await;
    refused(failed, &Refusal::AgentArchived);
    let listed = ok(store.agents(&home, &all).await);
    assert_eq!(
        listed.rows.iter().map(|one| one.id).collect::<Vec<_>>(),
        [second]
    );
    let what = "agents that are not archived";
    let id = AgentId::new(scene.tick(), &[1; 10]);
    let failed = store.create_agent(&later, id, "c".to_owned(), 1).await;
    refused(failed, &Refusal::TooMany { what, most: 1 });
}

pub(super) async fn the_audit_has_who_when_where_and_why(scene: &mut Scene<'_>) {
    let (environment, key) = (scene.environment, scene.key);
    let mut change = scene.change();
    change.address = Some([192, 0, 2, 7].into());
    change.reason = Some("it leaked".to_owned());
    ok(scene
        .store
        .revoke_environment_key(&change, environment, key)
        .await);
    let home = workspace(HOME);
    let listed = ok(scene.store.audit(&home, &Listing::newest(10)).await);
    let actions: Vec<_> = listed.rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "environment_key.revoke",
            "environment_key.create",
            "environment.create"
        ]
    );
    let newest = &listed.rows[0];
    assert_eq!(
        (&newest.change, &newest.object),
        (&change, &key.to_string())
    );
    let abroad = ok(scene
        .store
        .audit(&workspace(ABROAD), &Listing::newest(10))
        .await);
    assert!(abroad.rows.is_empty());
    assert_eq!(ok(scene.store.forget_audit(change.at).await), 2);
    let left = ok(scene.store.audit(&home, &Listing::newest(10)).await);
    assert_eq!((left.rows.len(), left.more), (1, false));
}
