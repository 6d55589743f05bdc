//! Credentials, judged in the effect's own transaction.

use mcp_tunnel_auth::WorkId;

use super::scene::{ABROAD, LEASE, Scene, denied, missing, ok, path, workspace};
use crate::store::{
    Acting, Authority, Denial, EnvironmentKind, EventListing, Expected, LAST_LOOK, Listing,
    SessionStatus, StoreError,
};

pub(super) async fn a_token_dies_with_its_claim(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let polled = scene
        .poll()
        .await
        .unwrap_or_else(|| panic!("an item waits"));
    let early = scene.answer(&session, scene.holder(&polled), call).await;
    denied(early, Denial::ClaimOver);
    scene.wait(5);
    let item = scene.claimed().await;
    let late = scene
        .store
        .begin_calls(&scene.holder(&polled), path(&item), &[call])
        .await;
    denied(late, Denial::ClaimOver);
    let late = scene.stop(scene.holder(&polled), &item, true).await;
    denied(late, Denial::ClaimOver);
    ok(scene.beat(scene.holder(&item), &item, Expected::None).await);
    scene.wait(61);
    scene.expire().await;
    let late = scene.answer(&session, scene.holder(&item), call).await;
    denied(late, Denial::ClaimOver);
    let next = scene.claimed().await;
    let late = scene.answer(&session, scene.holder(&item), call).await;
    denied(late, Denial::ClaimOver);
    let late = scene.store.session(&scene.holder(&item), session.id).await;
    denied(late, Denial::ClaimOver);
    ok(scene.store.session(&scene.holder(&next), session.id).await);
    ok(scene.stop(scene.holder(&next), &next, true).await);
    let late = scene.answer(&session, scene.holder(&next), call).await;
    denied(late, Denial::ClaimOver);
    scene.wait(2);
    let last = scene.claimed().await;
    ok(scene.answer(&session, scene.holder(&last), call).await);
}

pub(super) async fn the_holder_may_read_that_its_session_ended(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let before = scene.claimed().await;
    ok(scene.stop(scene.holder(&before), &before, true).await);
    let item = scene.claimed().await;
    let other = scene.session().await;
    let event = scene.event("session.status_terminated", "{}");
    ok(scene
        .store
        .archive_session(&scene.operator(), session.id, event)
        .await);
    let seen = ok(scene.store.session(&scene.holder(&item), session.id).await);
    assert_eq!(seen.status, SessionStatus::Terminated);
    let all = EventListing {
        limit: 10,
        bytes: 1000,
        ..EventListing::default()
    };
    let holder = scene.holder(&item);
    let listed = scene.store.events(&holder, session.id, &all);
    assert_eq!(ok(listed.await).rows.len(), 2);
    let begun = scene
        .store
        .begin_calls(&scene.holder(&item), path(&item), &[call])
        .await;
    denied(begun, Denial::ClaimOver);
    missing(scene.store.session(&scene.holder(&item), other.id).await);
    let earlier = scene
        .store
        .session(&scene.holder(&before), session.id)
        .await;
    denied(earlier, Denial::ClaimOver);
    scene.now_ms += i64::try_from(LAST_LOOK.as_millis()).unwrap_or(i64::MAX);
    let late = scene.store.session(&scene.holder(&item), session.id).await;
    denied(late, Denial::ClaimOver);
}

pub(super) async fn a_used_token_shuts_the_key_out(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let item = scene.claimed().await;
    ok(scene.beat(scene.worker(), &item, Expected::None).await);
    ok(scene
        .beat(scene.holder(&item), &item, Expected::Anything)
        .await);
    let shut = Denial::HeldByToken;
    denied(
        scene.beat(scene.worker(), &item, Expected::Anything).await,
        shut,
    );
    denied(scene.stop(scene.worker(), &item, true).await, shut);
    denied(scene.answer(&session, scene.worker(), call).await, shut);
    ok(scene.store.session(&scene.worker(), session.id).await);
    ok(scene.answer(&session, scene.operator(), call).await);
    ok(scene.stop(scene.operator(), &item, false).await);
    denied(scene.stop(scene.worker(), &item, true).await, shut);
    let other = scene.call(&session).await;
    ok(scene.answer(&session, scene.holder(&item), other).await);
    scene.wait(61);
    scene.expire().await;
    let free = scene.session().await;
    let call = scene.call(&free).await;
    scene.claimed().await;
    ok(scene.answer(&free, scene.worker(), call).await);
}

pub(super) async fn a_revoked_key_ends_what_was_claimed_with_it(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let item = scene.claimed().await;
    ok(scene.beat(scene.holder(&item), &item, Expected::None).await);
    let old = scene.key;
    scene.revoke(old).await;
    let gone = Denial::KeyRevoked;
    denied(scene.store.poll(&scene.claim()).await, gone);
    denied(
        scene.beat(scene.worker(), &item, Expected::Anything).await,
        gone,
    );
    denied(
        scene
            .beat(scene.holder(&item), &item, Expected::Anything)
            .await,
        gone,
    );
    denied(scene.stop(scene.holder(&item), &item, true).await, gone);
    denied(scene.answer(&session, scene.worker(), call).await, gone);
    denied(
        scene.answer(&session, scene.holder(&item), call).await,
        gone,
    );
    denied(
        scene.store.session(&scene.holder(&item), session.id).await,
        gone,
    );
    let environment = scene.environment;
    denied(
        scene.store.queue_stats(&scene.worker(), environment).await,
        gone,
    );
    scene.key = scene.new_key(environment).await;
    scene.wait(61);
    scene.expire().await;
    let next = scene.claimed().await;
    ok(scene.answer(&session, scene.holder(&next), call).await);
}

pub(super) async fn a_key_reaches_its_environment_only(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let item = scene.claimed().await;
    let home = (scene.environment, scene.key);
    let other = super::scene::HOME;
    scene.environment = scene
        .new_environment(other, EnvironmentKind::SelfHosted)
        .await;
    scene.key = scene.new_key(scene.environment).await;
    assert_eq!(scene.poll().await, None);
    missing(scene.beat(scene.worker(), &item, Expected::Anything).await);
    missing(scene.stop(scene.worker(), &item, true).await);
    missing(scene.store.session(&scene.worker(), session.id).await);
    missing(scene.answer(&session, scene.worker(), call).await);
    let listing = EventListing {
        limit: 10,
        bytes: 1000,
        ..EventListing::default()
    };
    missing(
        scene
            .store
            .events(&scene.worker(), session.id, &listing)
            .await,
    );
    missing(scene.store.queue_stats(&scene.worker(), home.0).await);
    let works = scene
        .store
        .works(&scene.worker(), home.0, &Listing::newest(10))
        .await;
    missing(works);
    let mut wrong = path(&item);
    wrong.environment = scene.environment;
    missing(scene.store.work(&scene.operator(), wrong).await);
}

pub(super) async fn a_token_reaches_its_session_only(scene: &mut Scene<'_>) {
    scene.session().await;
    let other = scene.session().await;
    let call = scene.call(&other).await;
    let item = scene.claimed().await;
    let second = scene.claimed().await;
    missing(scene.answer(&other, scene.holder(&item), call).await);
    missing(scene.store.session(&scene.holder(&item), other.id).await);
    missing(
        scene
            .beat(scene.holder(&item), &second, Expected::None)
            .await,
    );
    missing(scene.stop(scene.holder(&item), &second, true).await);
    let begun = scene
        .store
        .begin_calls(&scene.holder(&item), path(&second), &[call])
        .await;
    missing(begun);
    let forged = scene.acting(Authority::Item {
        work: WorkId::new(1, &[1; 10]),
        epoch: 1,
    });
    missing(scene.store.session(&forged, other.id).await);
}

pub(super) async fn what_is_foreign_is_missing(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let item = scene.claimed().await;
    let abroad = Acting {
        workspace: workspace(ABROAD),
        ..scene.operator()
    };
    missing(scene.store.session(&abroad, session.id).await);
    missing(scene.store.work(&abroad, path(&item)).await);
    missing(scene.stop(abroad.clone(), &item, true).await);
    missing(scene.answer(&session, abroad.clone(), call).await);
    missing(scene.store.queue_stats(&abroad, scene.environment).await);
    let lost = scene.store.acknowledge(&abroad, path(&item), LEASE).await;
    missing(lost);
    let event = scene.event("session.deleted", "{}");
    let deleted: Result<(), StoreError> =
        scene.store.delete_session(&abroad, session.id, event).await;
    missing(deleted);
    let home = scene.store.item_home(item.id).await;
    assert_eq!(ok(home).map(|home| home.session), Some(session.id));
    assert_eq!(
        ok(scene.store.item_home(WorkId::new(1, &[3; 10])).await),
        None
    );
}
