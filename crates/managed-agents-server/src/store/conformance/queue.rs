//! Items and their transitions.

use std::collections::BTreeMap;

use super::scene::{LEASE, Scene, mismatched, ok, path, refused};
use crate::store::{
    ATTEMPTS_MOST, Expected, Listing, Polled, Refusal, SessionStatus, Topic, WorkState, Writer,
};

pub(super) async fn an_item_goes_from_queued_to_stopped(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let item = scene
        .poll()
        .await
        .unwrap_or_else(|| panic!("a new session has an item"));
    assert_eq!((item.session, item.state), (session.id, WorkState::Queued));
    assert_eq!(item.worker.as_deref(), Some("worker-1"));
    let item = ok(scene
        .store
        .acknowledge(&scene.worker(), path(&item), LEASE)
        .await);
    assert_eq!(item.state, WorkState::Starting);
    assert_eq!(item.acknowledged_at, Some(scene.at()));
    let beaten = ok(scene.beat(scene.holder(&item), &item, Expected::None).await);
    assert!(beaten.extended);
    assert_eq!(beaten.work.state, WorkState::Active);
    assert_eq!(beaten.work.started_at, Some(scene.at()));
    let started = scene.at();
    scene.wait(10);
    let at = beaten.work.heartbeat_at.unwrap_or_default();
    let beaten = ok(scene
        .beat(scene.holder(&item), &item, Expected::At(at))
        .await);
    assert_eq!(beaten.work.started_at, Some(started), "it starts once");
    let stopping = ok(scene.stop(scene.operator(), &item, false).await);
    assert_eq!(stopping.state, WorkState::Stopping);
    let beaten = ok(scene
        .beat(scene.holder(&item), &item, Expected::Unknown)
        .await);
    assert!(!beaten.extended);
    assert_eq!(beaten.work.state, WorkState::Stopping);
    let stopped = ok(scene.stop(scene.holder(&item), &item, true).await);
    assert_eq!(stopped.state, WorkState::Stopped);
    assert!(stopped.stopped_at.is_some());
    let beaten = ok(scene.beat(scene.holder(&item), &item, Expected::None).await);
    assert!(!beaten.extended);
    let again = scene.stop(scene.holder(&item), &item, true).await;
    refused(
        again,
        &Refusal::Item {
            state: WorkState::Stopped,
        },
    );
    assert_eq!(scene.poll().await, None, "nothing waits for a worker");
}

pub(super) async fn an_item_is_handed_out_again_when_nobody_acknowledges(scene: &mut Scene<'_>) {
    scene.session().await;
    let first = scene
        .poll()
        .await
        .unwrap_or_else(|| panic!("an item waits"));
    assert_eq!(scene.poll().await, None, "it is reserved");
    scene.wait(5);
    let second = scene
        .poll()
        .await
        .unwrap_or_else(|| panic!("nobody acknowledged"));
    assert_eq!(second.id, first.id);
    assert!(
        second.epoch > first.epoch,
        "each delivery is a claim of its own"
    );
    ok(scene
        .store
        .acknowledge(&scene.worker(), path(&second), LEASE)
        .await);
    scene.wait(6);
    assert_eq!(scene.poll().await, None, "it is acknowledged");
}

pub(super) async fn the_oldest_item_comes_first(scene: &mut Scene<'_>) {
    let one = scene.session().await;
    let two = scene.session().await;
    let polled = [scene.poll().await, scene.poll().await, scene.poll().await];
    let sessions: Vec<_> = polled.iter().flatten().map(|item| item.session).collect();
    assert_eq!(sessions, [one.id, two.id]);
}

pub(super) async fn only_a_reserved_item_is_acknowledged(scene: &mut Scene<'_>) {
    scene.session().await;
    let item = scene.claimed().await;
    let again = scene
        .store
        .acknowledge(&scene.worker(), path(&item), LEASE)
        .await;
    refused(
        again,
        &Refusal::Item {
            state: WorkState::Starting,
        },
    );
    scene.wait(61);
    scene.expire().await;
    let late = scene
        .store
        .acknowledge(&scene.worker(), path(&item), LEASE)
        .await;
    refused(
        late,
        &Refusal::Item {
            state: WorkState::Queued,
        },
    );
}

pub(super) async fn a_heartbeat_names_the_one_before(scene: &mut Scene<'_>) {
    scene.session().await;
    let polled = scene
        .poll()
        .await
        .unwrap_or_else(|| panic!("an item waits"));
    mismatched(scene.beat(scene.worker(), &polled, Expected::None).await);
    let item = ok(scene
        .store
        .acknowledge(&scene.worker(), path(&polled), LEASE)
        .await);
    let some = Expected::At(scene.at());
    mismatched(scene.beat(scene.worker(), &item, some).await);
    let first = ok(scene.beat(scene.worker(), &item, Expected::None).await);
    mismatched(scene.beat(scene.worker(), &item, Expected::None).await);
    mismatched(scene.beat(scene.worker(), &item, Expected::Unknown).await);
    let at = first.work.heartbeat_at.unwrap_or_default();
    let second = ok(scene.beat(scene.worker(), &item, Expected::At(at)).await);
    mismatched(scene.beat(scene.worker(), &item, Expected::At(at)).await);
    assert!(second.work.heartbeat_at > Some(at));
    assert!(ok(scene.beat(scene.worker(), &item, Expected::Anything).await).extended);
}

pub(super) async fn heartbeats_of_one_millisecond_differ(scene: &mut Scene<'_>) {
    scene.session().await;
    let item = scene.claimed().await;
    let mut expected = Expected::None;
    let mut last = None;
    for _ in 0..3 {
        let beaten = ok(scene.beat(scene.worker(), &item, expected).await);
        assert!(beaten.work.heartbeat_at > last);
        last = beaten.work.heartbeat_at;
        expected = Expected::At(last.unwrap_or_default());
    }
}

pub(super) async fn a_lease_that_runs_out_queues_the_item_again(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let item = scene.claimed().await;
    scene.wait(59);
    assert_eq!(scene.expire().await, None, "the lease still holds");
    ok(scene.beat(scene.holder(&item), &item, Expected::None).await);
    scene.wait(59);
    assert_eq!(scene.expire().await, None, "a heartbeat prolongs it");
    scene.wait(1);
    let queued = scene
        .expire()
        .await
        .unwrap_or_else(|| panic!("the lease ran out"));
    assert_eq!((queued.id, queued.state), (item.id, WorkState::Queued));
    assert_eq!((queued.heartbeat_at, queued.reserved_at), (None, None));
    assert_eq!(scene.expire().await, None);
    mismatched(scene.beat(scene.worker(), &item, Expected::Anything).await);
    let next = scene.claimed().await;
    assert_eq!((next.id, next.session), (item.id, session.id));
    assert!(next.epoch > item.epoch);
    mismatched(scene.beat(scene.holder(&item), &item, Expected::None).await);
    ok(scene.beat(scene.holder(&next), &next, Expected::None).await);
}

pub(super) async fn a_graceful_stop_ends_by_itself(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    scene.call(&session).await;
    let item = scene.claimed().await;
    ok(scene.stop(scene.worker(), &item, false).await);
    let again = ok(scene.stop(scene.worker(), &item, false).await);
    assert_eq!(
        again.state,
        WorkState::Stopping,
        "asking twice is asking once"
    );
    scene.wait(61);
    let stopped = scene
        .expire()
        .await
        .unwrap_or_else(|| panic!("nobody confirmed"));
    assert_eq!((stopped.id, stopped.state), (item.id, WorkState::Stopped));
    let next = scene.claimed().await;
    assert_ne!(next.id, item.id, "the call still waits");
    let unclaimed = scene.session().await;
    let waiting = unclaimed
        .work
        .unwrap_or_else(|| panic!("it has an item"))
        .id;
    let waiting = crate::store::ItemPath {
        environment: scene.environment,
        work: waiting,
    };
    let waiting = ok(scene.store.work(&scene.operator(), waiting).await);
    let stopped = ok(scene.stop(scene.operator(), &waiting, false).await);
    assert_eq!(stopped.state, WorkState::Stopped, "nobody has to confirm");
}

pub(super) async fn an_item_that_ends_in_vain_is_followed_a_few_times(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    scene.call(&session).await;
    let mut ended = 0;
    let mut pause = 0;
    while ended <= ATTEMPTS_MOST {
        match scene.poll().await {
            Some(item) => {
                ok(scene
                    .store
                    .acknowledge(&scene.worker(), path(&item), LEASE)
                    .await);
                ok(scene.stop(scene.worker(), &item, true).await);
                ended += 1;
                assert!(ended == 1 || ended == 2 || pause > 0, "the later ones wait");
                pause = 0;
            }
            None => {
                pause += 1;
                assert!(pause <= 61, "the wait has an end");
                scene.wait(1);
            }
        }
    }
    scene.wait(3600);
    assert_eq!(scene.poll().await, None, "enough is enough");
    let stuck = scene.found(session.id).await;
    assert!(stuck.needs_worker && stuck.attempts > ATTEMPTS_MOST);
    let message = scene.event("user.message", r#"{"type":"user.message"}"#);
    let writer = Writer::Client(scene.operator());
    ok(scene
        .append(&session, writer, vec![message], (SessionStatus::Idle, true))
        .await);
    assert!(
        scene.poll().await.is_some(),
        "whoever writes wants it to go on"
    );
}

pub(super) async fn an_operator_who_stops_is_obeyed_until_somebody_writes(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let item = scene.claimed().await;
    ok(scene.stop(scene.operator(), &item, false).await);
    ok(scene.stop(scene.worker(), &item, true).await);
    assert_eq!(scene.poll().await, None);
    assert!(scene.found(session.id).await.held);
    scene.call(&session).await;
    assert_eq!(scene.poll().await, None, "the loop alone changes nothing");
    ok(scene.answer(&session, scene.operator(), call).await);
    assert!(scene.poll().await.is_some(), "the operator goes on");
    assert!(!scene.found(session.id).await.held);
}

pub(super) async fn stats_count_what_waits(scene: &mut Scene<'_>) {
    let empty = ok(scene
        .store
        .queue_stats(&scene.worker(), scene.environment)
        .await);
    assert_eq!(empty, crate::store::QueueStats::default());
    let first = scene.session().await;
    scene.session().await;
    scene.poll().await;
    let stats = ok(scene
        .store
        .queue_stats(&scene.worker(), scene.environment)
        .await);
    assert_eq!((stats.depth, stats.pending), (1, 1));
    assert_eq!(stats.oldest_queued_at, Some(first.created_at));
    let listed = ok(scene
        .store
        .works(&scene.worker(), scene.environment, &Listing::newest(1))
        .await);
    assert!(listed.more);
    assert_ne!(listed.rows[0].session, first.id, "newest first");
}

pub(super) async fn metadata_is_merged(scene: &mut Scene<'_>) {
    scene.session().await;
    let item = scene
        .poll()
        .await
        .unwrap_or_else(|| panic!("an item waits"));
    let words = |pairs: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
        let owned =
            |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        pairs.iter().map(owned).collect()
    };
    let operator = scene.operator();
    let first = words(&[("a", Some("1")), ("b", Some("2"))]);
    ok(scene
        .store
        .update_work(&operator, path(&item), &first, 2)
        .await);
    let second = words(&[("a", None), ("c", Some("3"))]);
    let merged = ok(scene
        .store
        .update_work(&operator, path(&item), &second, 2)
        .await);
    let keys: Vec<_> = merged.metadata.keys().cloned().collect();
    assert_eq!(keys, ["b", "c"]);
    let third = words(&[("d", Some("4"))]);
    let full = scene
        .store
        .update_work(&operator, path(&item), &third, 2)
        .await;
    refused(
        full,
        &Refusal::TooMany {
            what: "words about the item",
            most: 2,
        },
    );
    assert_eq!(
        ok(scene.store.work(&operator, path(&item)).await).metadata,
        merged.metadata
    );
}

pub(super) async fn calls_are_begun_once(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let one = scene.call(&session).await;
    let two = scene.call(&session).await;
    let item = scene.claimed().await;
    let holder = scene.holder(&item);
    let begun = scene.store.begin_calls(&holder, path(&item), &[one]).await;
    assert_eq!(ok(begun), []);
    let again = scene.store.begin_calls(&holder, path(&item), &[one]).await;
    assert_eq!(ok(again), [], "the same claim may say so again");
    let strange = mcp_tunnel_auth::EventId::new(1, &[9; 10]);
    let strange = scene
        .store
        .begin_calls(&holder, path(&item), &[strange])
        .await;
    refused(strange, &Refusal::NoSuchCall);
    scene.wait(61);
    scene.expire().await;
    let next = scene.claimed().await;
    let holder = scene.holder(&next);
    let begun = scene
        .store
        .begin_calls(&holder, path(&next), &[one, two])
        .await;
    assert_eq!(ok(begun), [one]);
    let again = scene
        .store
        .begin_calls(&holder, path(&next), &[one, two])
        .await;
    assert_eq!(ok(again), [one], "it stays begun by the first claim");
    ok(scene.stop(scene.holder(&next), &next, true).await);
    scene.wait(2);
    let third = scene.claimed().await;
    let holder = scene.holder(&third);
    let begun = scene.store.begin_calls(&holder, path(&third), &[two]).await;
    assert_eq!(ok(begun), [two], "another item is another claim");
}

pub(super) async fn a_poll_that_finds_nothing_knows_when(scene: &mut Scene<'_>) {
    let empty = ok(scene.store.poll(&scene.claim()).await);
    assert_eq!(empty, Polled::Empty { next: None });
    scene.session().await;
    scene.poll().await;
    let reserved = scene.at();
    scene.wait(1);
    let empty = ok(scene.store.poll(&scene.claim()).await);
    let next = reserved.saturating_add(jiff::SignedDuration::from_secs(5));
    assert_eq!(empty, Polled::Empty { next: next.ok() });
}

pub(super) async fn commits_wake_those_who_wait(scene: &mut Scene<'_>) {
    let queue = scene
        .store
        .changes()
        .subscribe(Topic::Queue(scene.environment));
    let loops = scene.store.changes().subscribe(Topic::Loop);
    let session = scene.session().await;
    assert!(queue.has_changed().unwrap_or(false));
    assert!(loops.has_changed().unwrap_or(false));
    let events = scene.store.changes().subscribe(Topic::Session(session.id));
    scene.call(&session).await;
    assert!(events.has_changed().unwrap_or(false));
    let mut queue = scene
        .store
        .changes()
        .subscribe(Topic::Queue(scene.environment));
    let item = scene.claimed().await;
    queue.mark_unchanged();
    ok(scene.stop(scene.worker(), &item, true).await);
    assert!(queue.has_changed().unwrap_or(false), "another item follows");
    let keys = scene
        .store
        .changes()
        .subscribe(Topic::Keys(scene.environment));
    scene.revoke(scene.key).await;
    assert!(keys.has_changed().unwrap_or(false));
}
