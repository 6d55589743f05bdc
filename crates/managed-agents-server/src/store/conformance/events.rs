//! Histories.

use mcp_tunnel_auth::{EventId, WorkId};

use super::scene::{Scene, ok, refused};
use crate::store::{
    Append, EventCursor, EventListing, Refusal, SessionRecord, SessionStatus, StoreError, Writer,
};

const IDLE: (SessionStatus, bool) = (SessionStatus::Idle, false);

pub(super) async fn events_are_numbered_and_kept_as_they_came(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let odd =
        "{\"type\": \"user.message\",\"n\":1e400, \"n\":12345678901234567890123,\"s\":\"\\u0041\"}";
    let one = scene.event("user.message", odd);
    let two = scene.event("user.interrupt", "{}");
    let writer = Writer::Client(scene.operator());
    let events = vec![one.clone(), two.clone()];
    let appended = ok(scene.append(&session, writer, events, IDLE).await);
    assert_eq!(appended.position, 2);
    let page = ok(scene
        .store
        .events(&scene.operator(), session.id, &all())
        .await);
    assert_eq!(page.rows, appended.events);
    assert_eq!((page.rows[0].seq, page.rows[1].seq), (1, 2));
    assert_eq!(page.rows[0].body, odd);
    assert_eq!((page.rows[0].id, page.rows[1].id), (one.id, two.id));
    assert!(page.rows[0].processed_at.is_some());
    let behind = ok(scene.store.events_after(session.id, 1, 1000).await);
    assert_eq!(behind.rows, page.rows[1..]);
}

pub(super) async fn who_decided_by_an_older_history_decides_again(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    scene.call(&session).await;
    let event = scene.event("user.message", "{}");
    let stale = Append {
        session: session.id,
        writer: Writer::Loop { now: scene.at() },
        position: 0,
        taken_up: vec![],
        events: vec![event],
        status: SessionStatus::Running,
        needs_worker: false,
        due: None,
        work: WorkId::new(scene.tick(), &[0; 10]),
    };
    let stale = scene.store.append(stale).await;
    assert!(matches!(stale, Err(StoreError::Moved)), "{stale:?}");
    assert_eq!(scene.found(session.id).await.position, 1);
}

pub(super) async fn a_queued_message_moves_to_where_it_is_taken_up(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let mut queued = Vec::new();
    for number in 0..2 {
        let mut message = scene.event("user.message", &format!("{{\"n\":{number}}}"));
        message.processed = false;
        queued.push(message.id);
        let writer = Writer::Client(scene.operator());
        ok(scene
            .append(
                &session,
                writer,
                vec![message],
                (SessionStatus::Running, false),
            )
            .await);
    }
    let call = scene.call(&session).await;
    assert_eq!(listed(scene, &session).await, [call, queued[0], queued[1]]);
    let reply = scene.event("agent.message", "{}");
    let reply_id = reply.id;
    let taken = Append {
        session: session.id,
        writer: Writer::Loop { now: scene.at() },
        position: 3,
        taken_up: vec![queued[0]],
        events: vec![reply],
        status: SessionStatus::Running,
        needs_worker: false,
        due: None,
        work: WorkId::new(scene.tick(), &[0; 10]),
    };
    let appended = ok(scene.store.append(taken.clone()).await);
    assert_eq!(appended.position, 5);
    assert!(appended.events[0].processed_at.is_some());
    assert_eq!(
        listed(scene, &session).await,
        [call, queued[0], reply_id, queued[1]]
    );
    let told = ok(scene.store.events_after(session.id, 3, 1000).await);
    assert_eq!(
        told.rows, appended.events,
        "streams see it again, processed"
    );
    let twice = Append {
        position: 5,
        events: vec![],
        ..taken
    };
    let twice = scene.store.append(twice).await;
    assert!(matches!(twice, Err(StoreError::Moved)), "{twice:?}");
}

pub(super) async fn pages_hold_every_event_once(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let mut expected = Vec::new();
    for number in 0..7 {
        let kind = if number % 2 == 0 {
            "user.message"
        } else {
            "agent.message"
        };
        let mut event = scene.event(kind, "{}");
        event.processed = number < 5;
        expected.push(event.id);
        let writer = Writer::Loop { now: scene.at() };
        ok(scene.append(&session, writer, vec![event], IDLE).await);
    }
    for descending in [false, true] {
        let mut found = Vec::new();
        let mut listing = EventListing {
            limit: 3,
            descending,
            ..all()
        };
        loop {
            let page = ok(scene
                .store
                .events(&scene.operator(), session.id, &listing)
                .await);
            found.extend(page.rows.iter().map(|row| row.id));
            let last = page
                .rows
                .last()
                .unwrap_or_else(|| panic!("a page is not empty"));
            listing.after = Some(EventCursor {
                queued: last.processed_at.is_none(),
                seq: last.seq,
            });
            if !page.more {
                break;
            }
        }
        if descending {
            found.reverse();
        }
        assert_eq!(found, expected);
    }
    let messages = EventListing {
        kinds: vec!["agent.message".to_owned()],
        ..all()
    };
    let page = ok(scene
        .store
        .events(&scene.operator(), session.id, &messages)
        .await);
    assert_eq!(page.rows.len(), 3);
    let mut late = all();
    late.processed.from = Some(scene.now_ms + 1);
    let page = ok(scene
        .store
        .events(&scene.operator(), session.id, &late)
        .await);
    assert_eq!(page.rows, []);
}

pub(super) async fn pages_are_cut_by_weight(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    for _ in 0..3 {
        let event = scene.event(
            "user.message",
            &format!("{{\"t\":\"{}\"}}", "x".repeat(1000)),
        );
        let writer = Writer::Loop { now: scene.at() };
        ok(scene.append(&session, writer, vec![event], IDLE).await);
    }
    let page = |bytes| EventListing { bytes, ..all() };
    for (bytes, count) in [(1, 1), (2100, 2), (10_000, 3)] {
        let found = ok(scene
            .store
            .events(&scene.operator(), session.id, &page(bytes))
            .await);
        assert_eq!((found.rows.len(), found.more), (count, count < 3));
        let behind = ok(scene.store.events_after(session.id, 0, bytes).await);
        assert_eq!(behind, found);
    }
}

pub(super) async fn a_call_has_one_result(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let other = scene.session().await;
    ok(scene.answer(&session, scene.operator(), call).await);
    let twice = scene.answer(&session, scene.operator(), call).await;
    refused(twice, &Refusal::OtherResult);
    assert_eq!(
        scene.found(session.id).await.position,
        2,
        "nothing of it is left"
    );
    ok(scene.answer(&other, scene.operator(), call).await);
}

pub(super) async fn an_item_is_queued_where_one_is_needed(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let item = scene.claimed().await;
    ok(scene.stop(scene.worker(), &item, true).await);
    assert_eq!(scene.poll().await, None, "an idle session needs none");
    let event = scene.event("session.status_running", "{}");
    let writer = Writer::Loop { now: scene.at() };
    ok(scene
        .append(
            &session,
            writer,
            vec![event],
            (SessionStatus::Running, false),
        )
        .await);
    let item = scene.claimed().await;
    assert_eq!(item.session, session.id);
    scene.call(&session).await;
    assert_eq!(scene.poll().await, None, "one is enough");
}

async fn listed(scene: &Scene<'_>, session: &SessionRecord) -> Vec<EventId> {
    let page = ok(scene
        .store
        .events(&scene.operator(), session.id, &all())
        .await);
    page.rows.iter().map(|row| row.id).collect()
}

fn all() -> EventListing {
    EventListing {
        limit: 1000,
        bytes: 1 << 20,
        ..EventListing::default()
    }
}
