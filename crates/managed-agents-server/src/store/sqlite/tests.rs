use jiff::Timestamp;
use mcp_tunnel_auth::{AgentId, EnvironmentId, EventId, SessionId, ThreadId, WorkspaceId};

use super::*;
use crate::store::{
    Acting, Authority, BYTES_MOST, EVENTS_MOST, NewEvent, Refusal, SessionChange,
    SessionStore as _, conformance,
};

#[tokio::test]
async fn its_library_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check_library(async || {
        number += 1;
        let file = folder.path().join(format!("{number}.db"));
        SqliteStore::open(&SqliteConfig::new(file)).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn it_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check(async || {
        number += 1;
        let file = folder.path().join(format!("{number}.db"));
        SqliteStore::open(&SqliteConfig::new(file)).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_history_is_full_can_still_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConfig::new(folder.path().join("full.db"));
    let store = SqliteStore::open(&file).await.unwrap();
    let (environment, session) = (EnvironmentId::new(1, &[0; 10]), SessionId::new(1, &[0; 10]));
    for rows in [
        format!(
            "INSERT INTO environments (id, workspace, name, kind, config, metadata, created_at, updated_at)
             VALUES ('{environment}', 'wrkspc_home', 'build', 'self_hosted', '{{}}', '{{}}', 0, 0)"
        ),
        format!(
            "INSERT INTO sessions (id, workspace, environment, thread, agent, agent_id, agent_version,
                 metadata, resources, status, position, bytes, created_at, updated_at)
             VALUES ('{session}', 'wrkspc_home', '{environment}', '{}', '{{}}', '{}', 1, '{{}}', '[]',
                 'idle', {EVENTS_MOST}, {BYTES_MOST}, 0, 0)",
            ThreadId::new(1, &[0; 10]),
            AgentId::new(1, &[0; 10]),
        ),
    ] {
        let insert = sqlx::query(sqlx::AssertSqlSafe(rows)).execute(&store.writer);
        insert.await.unwrap();
    }
    let acting = Acting {
        workspace: WorkspaceId::parse("wrkspc_home").unwrap(),
        authority: Authority::Operator {
            actor: "tester".to_owned(),
        },
        now: Timestamp::UNIX_EPOCH,
    };
    let event = |number, kind: &str| NewEvent {
        id: EventId::new(number, &[0; 10]),
        kind: kind.to_owned(),
        processed: true,
        answers: None,
        body: "{}".to_owned(),
    };
    let change = SessionChange::default();
    let updated = store.update_session(&acting, session, change, event(1, "session.updated"));
    assert!(matches!(
        updated.await,
        Err(StoreError::Refused(Refusal::TooManyEvents { .. }))
    ));
    let ended = store.archive_session(&acting, session, event(2, "session.status_terminated"));
    assert_eq!(ended.await.unwrap().position, EVENTS_MOST + 1);
    let deleted = store.delete_session(&acting, session, event(3, "session.deleted"));
    deleted.await.unwrap();
}

#[tokio::test]
async fn the_commits_of_others_are_told_from_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConfig::new(folder.path().join("shared.db"));
    let store = SqliteStore::open(&file).await.unwrap();
    let other = SqliteStore::open(&file).await.unwrap();
    let write = async |store: &SqliteStore| {
        let mut writing = store.begin().await.unwrap();
        let insert = sqlx::query(
            "INSERT INTO audit VALUES (hex(randomblob(9)), 'w', 0, 'a', NULL, 'b', 'c', NULL)",
        );
        run(&mut writing, insert).await.unwrap();
        store.commit(writing, &[]).await.unwrap();
    };
    let before = others::version(&store).await.unwrap();
    write(&store).await;
    assert_eq!(others::version(&store).await.unwrap(), before);
    write(&other).await;
    assert_ne!(others::version(&store).await.unwrap(), before);
}

/// As on a full disk, where SQLite does so by itself.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_stops_no_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConfig::new(folder.path().join("ended.db"));
    let store = SqliteStore::open(&file).await.unwrap();
    for _ in 0..READERS_MOST * 2 {
        let mut writing = store.begin().await.unwrap();
        run(&mut writing, sqlx::query("ROLLBACK")).await.unwrap();
        drop(writing);
        let mut reading = store.read().await.unwrap();
        run(&mut reading, sqlx::query("ROLLBACK")).await.unwrap();
    }
    let writing = store.begin().await.unwrap();
    store.commit(writing, &[]).await.unwrap();
}

mod model;
