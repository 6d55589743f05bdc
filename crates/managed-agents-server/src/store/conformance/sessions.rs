//! Sessions as a whole.

use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::AgentId;

use super::scene::{HOME, Scene, missing, ok, refused, workspace};
use crate::store::{
    Change, EnvironmentKind, Listing, Refusal, SessionChange, SessionListing, SessionStatus,
    TimeSpan, WorkState, Writer,
};

pub(super) async fn a_session_is_found_and_listed(scene: &mut Scene<'_>) {
    let made = scene.session().await;
    assert_eq!(made.status, SessionStatus::Idle);
    assert_eq!((made.position, made.needs_worker), (0, false));
    let item = made
        .work
        .clone()
        .unwrap_or_else(|| panic!("it has an item"));
    assert_eq!(item.state, WorkState::Queued);
    assert_eq!(scene.found(made.id).await, made);
    let second = scene.session().await;
    let mut listing = SessionListing {
        limit: 1,
        ..SessionListing::default()
    };
    let page = ok(scene.store.sessions(&workspace(HOME), &listing).await);
    assert_eq!((page.rows[0].id, page.more), (second.id, true));
    listing.after = Some(second.id);
    let page = ok(scene.store.sessions(&workspace(HOME), &listing).await);
    assert_eq!((page.rows[0].id, page.more), (made.id, false));
    listing.after = None;
    listing.ascending = true;
    let page = ok(scene.store.sessions(&workspace(HOME), &listing).await);
    assert_eq!(page.rows[0].id, made.id);
}

pub(super) async fn filters_are_combined(scene: &mut Scene<'_>) {
    let plain = scene.session().await;
    let mut new = scene.new_session();
    new.agent_id = AgentId::new(2, &[0; 10]);
    new.agent_version = 7;
    let other = ok(scene
        .store
        .create_session(&workspace(HOME), scene.at(), new)
        .await);
    let message = scene.event("session.status_running", "{}");
    let writer = Writer::Loop { now: scene.at() };
    ok(scene
        .append(
            &other,
            writer,
            vec![message],
            (SessionStatus::Running, false),
        )
        .await);
    let created = other.created_at.as_millisecond();
    let span = |from, until| TimeSpan { from, until };
    let agent = Some(other.agent_id);
    let cases = [
        (only(|all| all.agent = agent), vec![other.id]),
        (
            only(|all| (all.agent, all.agent_version) = (agent, Some(8))),
            vec![],
        ),
        (
            only(|all| all.statuses = vec![SessionStatus::Running]),
            vec![other.id],
        ),
        (
            only(|all| all.statuses = vec![SessionStatus::Idle, SessionStatus::Rescheduling]),
            vec![plain.id],
        ),
        (
            only(|all| all.created = span(Some(created), None)),
            vec![other.id],
        ),
        (
            only(|all| all.created = span(None, Some(created))),
            vec![plain.id],
        ),
    ];
    for (listing, expected) in cases {
        let page = ok(scene.store.sessions(&workspace(HOME), &listing).await);
        let found: Vec<_> = page.rows.iter().map(|row| row.id).collect();
        assert_eq!(found, expected, "{listing:?}");
    }
}

pub(super) async fn cloud_and_archived_environments_take_none(scene: &mut Scene<'_>) {
    let cloud = scene.new_environment(HOME, EnvironmentKind::Cloud).await;
    let mut new = scene.new_session();
    new.environment = cloud;
    let made = scene
        .store
        .create_session(&workspace(HOME), scene.at(), new)
        .await;
    refused(made, &Refusal::EnvironmentCloud);
    let mut new = scene.new_session();
    new.environment = scene
        .new_environment("wrkspc_other", EnvironmentKind::SelfHosted)
        .await;
    missing(
        scene
            .store
            .create_session(&workspace(HOME), scene.at(), new)
            .await,
    );
}

pub(super) async fn an_update_changes_what_is_given_and_says_so(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    scene.tick();
    let event = scene.event("session.updated", r#"{"title":"b"}"#);
    let change = SessionChange {
        title: Some(Some("b".to_owned())),
        ..SessionChange::default()
    };
    let updated = ok(scene
        .store
        .update_session(&scene.operator(), session.id, change, event)
        .await);
    assert_eq!(updated.title.as_deref(), Some("b"));
    assert_eq!(updated.agent, session.agent);
    assert_eq!(updated.position, 1);
    assert_eq!(updated.updated_at, scene.at());
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
    let change = SessionChange {
        agent: Some("{}".to_owned()),
        ..SessionChange::default()
    };
    let event = scene.event("session.updated", "{}");
    let late = scene
        .store
        .update_session(&scene.operator(), session.id, change, event)
        .await;
    refused(late, &Refusal::SessionRunning);
}

pub(super) async fn an_archived_session_is_over(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let call = scene.call(&session).await;
    let item = scene.claimed().await;
    let event = scene.event("session.status_terminated", "{}");
    let over = ok(scene
        .store
        .archive_session(&scene.operator(), session.id, event)
        .await);
    assert_eq!(over.status, SessionStatus::Terminated);
    assert!(over.archived_at.is_some() && !over.needs_worker);
    assert_eq!(
        over.work.as_ref().map(|work| work.state),
        Some(WorkState::Stopped)
    );
    let event = scene.event("session.status_terminated", "{}");
    let again = ok(scene
        .store
        .archive_session(&scene.operator(), session.id, event)
        .await);
    assert_eq!(again, over, "once is enough");
    refused(
        scene.answer(&session, scene.operator(), call).await,
        &Refusal::SessionEnded,
    );
    let writer = Writer::Loop { now: scene.at() };
    let late = scene
        .append(&session, writer, vec![], (SessionStatus::Running, true))
        .await;
    refused(late, &Refusal::SessionEnded);
    let late = scene.stop(scene.worker(), &item, true).await;
    refused(
        late,
        &Refusal::Item {
            state: WorkState::Stopped,
        },
    );
    scene.wait(3600);
    assert_eq!((scene.expire().await, scene.poll().await), (None, None));
    let mut listing = SessionListing {
        limit: 10,
        ..SessionListing::default()
    };
    assert_eq!(
        ok(scene.store.sessions(&workspace(HOME), &listing).await).rows,
        []
    );
    listing.include_archived = true;
    assert_eq!(
        ok(scene.store.sessions(&workspace(HOME), &listing).await)
            .rows
            .len(),
        1
    );
}

pub(super) async fn a_session_may_end_by_itself(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let item = scene.claimed().await;
    let event = scene.event("session.status_terminated", "{}");
    let writer = Writer::Loop { now: scene.at() };
    ok(scene
        .append(
            &session,
            writer,
            vec![event],
            (SessionStatus::Terminated, false),
        )
        .await);
    let late = scene.stop(scene.holder(&item), &item, true).await;
    refused(
        late,
        &Refusal::Item {
            state: WorkState::Stopped,
        },
    );
    let event = scene.event("user.message", "{}");
    let writer = Writer::Client(scene.operator());
    let late = scene
        .append(&session, writer, vec![event], (SessionStatus::Idle, false))
        .await;
    refused(late, &Refusal::SessionEnded);
    assert_eq!(scene.found(session.id).await.archived_at, None);
}

pub(super) async fn a_deleted_session_leaves_one_event(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    scene.call(&session).await;
    let position = scene.found(session.id).await.position;
    let event = scene.event("session.deleted", r#"{"type":"session.deleted"}"#);
    let last = event.id;
    ok(scene
        .store
        .delete_session(&scene.operator(), session.id, event)
        .await);
    missing(scene.store.session(&scene.operator(), session.id).await);
    let event = scene.event("session.deleted", "{}");
    missing(
        scene
            .store
            .delete_session(&scene.operator(), session.id, event)
            .await,
    );
    let told = ok(scene.store.events_after(session.id, position, 1000).await);
    assert_eq!(
        told.rows.iter().map(|row| row.id).collect::<Vec<_>>(),
        [last]
    );
    assert_eq!(
        ok(scene.store.events_after(session.id, 0, 1000).await),
        told
    );
    assert_eq!(scene.poll().await, None);
}

pub(super) async fn time_in_turns_and_usage_are_kept(scene: &mut Scene<'_>) {
    let session = scene.session().await;
    let begin = scene.at();
    let writer = |scene: &Scene<'_>| Writer::Loop { now: scene.at() };
    let running = (SessionStatus::Running, false);
    let event = scene.event("session.status_running", "{}");
    let at = writer(scene);
    ok(scene.append(&session, at, vec![event], running).await);
    let since = scene.found(session.id).await.active_since;
    assert!(since >= Some(begin), "{since:?}");
    scene.wait(5);
    let said = scene.event("session.usage", r#"{"usage":{"input_tokens":1}}"#);
    let again = scene.event("session.usage", r#"{"usage":{"input_tokens":2}}"#);
    let idle = scene.event("session.status_idle", "{}");
    let at = writer(scene);
    let idling = (SessionStatus::Idle, false);
    ok(scene
        .append(&session, at, vec![said, again, idle], idling)
        .await);
    scene.wait(100);
    let rested = scene.found(session.id).await;
    assert!((5000..5100).contains(&rested.active_ms), "{rested:?}");
    assert_eq!(rested.active_since, None);
    assert_eq!(
        rested.usage.as_deref(),
        Some(r#"{"usage":{"input_tokens":2}}"#)
    );
    let event = scene.event("session.status_running", "{}");
    let at = writer(scene);
    ok(scene.append(&session, at, vec![event], running).await);
    scene.wait(7);
    let event = scene.event("session.status_terminated", "{}");
    let over = ok(scene
        .store
        .archive_session(&scene.operator(), session.id, event)
        .await);
    assert!((12_000..12_200).contains(&over.active_ms), "{over:?}");
    assert_eq!(over.active_since, None);
}

pub(super) async fn what_is_over_is_forgotten_in_the_end(scene: &mut Scene<'_>) {
    // One goes on and has had two items, one is archived, one is deleted after a long history.
    let [alive, archived, deleted] = [
        scene.session().await,
        scene.session().await,
        scene.session().await,
    ];
    scene.call(&alive).await;
    let first = scene.claimed().await;
    ok(scene.stop(scene.worker(), &first, true).await);
    for _ in 0..3 {
        let item = scene.claimed().await;
        ok(scene.stop(scene.operator(), &item, true).await);
    }
    let event = scene.event("session.status_terminated", "{}");
    ok(scene
        .store
        .archive_session(&scene.operator(), archived.id, event)
        .await);
    for _ in 0..4 {
        let many = (0..500)
            .map(|_| scene.event("agent.message", "{}"))
            .collect();
        let writer = Writer::Loop { now: scene.at() };
        ok(scene
            .append(&deleted, writer, many, (SessionStatus::Idle, false))
            .await);
    }
    let position = scene.found(deleted.id).await.position;
    let event = scene.event("session.deleted", "{}");
    ok(scene
        .store
        .delete_session(&scene.operator(), deleted.id, event)
        .await);
    let told = ok(scene.store.events_after(deleted.id, 0, 1000).await);
    assert_eq!(told.rows.len(), 1, "what goes later is not to be read now");
    assert!(told.rows[0].seq > position);
    let items = async |scene: &Scene<'_>| {
        let listing = Listing::newest(100).with_archived();
        let operator = scene.operator();
        let listed = scene.store.works(&operator, scene.environment, &listing);
        ok(listed.await).rows
    };
    let before = scene.at();
    let mut rounds = 0;
    while ok(scene.store.forget_ended(Timestamp::MIN, 100).await) {
        rounds += 1;
    }
    assert!(rounds < 30, "it comes to an end");
    assert_eq!(items(scene).await.len(), 4, "all of them are new");
    let told = ok(scene.store.events_after(deleted.id, 0, 1000).await);
    assert_eq!(told.rows.len(), 1, "the last word stays a while");
    scene.wait(60);
    let before = before
        .saturating_add(SignedDuration::from_secs(30))
        .unwrap_or(Timestamp::MAX);
    while ok(scene.store.forget_ended(before, 1).await) {}
    let left = items(scene).await;
    assert_eq!(
        left.len(),
        1,
        "the newest of the one that goes on: {left:?}"
    );
    assert!(left[0].session == alive.id && left[0].id != first.id);
    let told = ok(scene.store.events_after(deleted.id, 0, 1000).await);
    assert_eq!(told.rows, []);
    ok(scene.store.session(&scene.operator(), archived.id).await);
    assert!(!ok(scene.store.forget_ended(scene.at(), 1).await));
}

pub(super) async fn what_is_due_is_found_until_it_rests(scene: &mut Scene<'_>) {
    let quiet = scene.session().await;
    assert_eq!(ok(scene.store.due(scene.at(), 10).await).sessions, []);
    let mut new = scene.new_session();
    new.events = vec![scene.event("user.message", "{}")];
    let session = ok(scene
        .store
        .create_session(&workspace(HOME), scene.at(), new)
        .await);
    let due = ok(scene.store.due(scene.at(), 10).await);
    assert_eq!(due.sessions, [(workspace(HOME), session.id)]);
    let stale = scene.store.rest(session.id, 0, None).await;
    assert!(
        matches!(stale, Err(crate::store::StoreError::Moved)),
        "{stale:?}"
    );
    scene.wait(1);
    let later = scene.at();
    scene.wait(-1);
    ok(scene.store.rest(session.id, 1, Some(later)).await);
    let due = ok(scene.store.due(scene.at(), 10).await);
    assert_eq!((due.sessions.len(), due.next), (0, Some(later)));
    assert_eq!(ok(scene.store.due(later, 10).await).sessions.len(), 1);
    ok(scene.store.rest(session.id, 1, None).await);
    assert_eq!(
        ok(scene.store.due(later, 10).await),
        crate::store::Due::default()
    );
    let _: (Change, _) = (scene.change(), quiet);
}

fn only(change: impl FnOnce(&mut SessionListing)) -> SessionListing {
    let mut listing = SessionListing {
        limit: 10,
        ..SessionListing::default()
    };
    change(&mut listing);
    listing
}
