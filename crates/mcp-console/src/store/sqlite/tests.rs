use mcp_tunnel_auth::{Approval, DomainLabel, MasterKey, TokenId, WorkspaceId};

use super::*;
use crate::store::{NewToken, NewTunnel, TunnelStore as _, conformance};

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

/// As on a full disk, where SQLite does so by itself.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_stops_no_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConfig::new(folder.path().join("ended.db"));
    let store = SqliteStore::open(&file).await.unwrap();
    for _ in 0..CONNECTIONS_MOST * 2 {
        let mut writing = store.begin().await.unwrap();
        run(&mut writing, sqlx::query("ROLLBACK")).await.unwrap();
        drop(writing);
        let mut reading = store.read().await.unwrap();
        run(&mut reading, sqlx::query("ROLLBACK")).await.unwrap();
    }
    let writing = store.begin().await.unwrap();
    store.commit(writing).await.unwrap();
}

async fn create(store: &SqliteStore, number: u64) -> Result<TunnelId, StoreError> {
    let workspace = WorkspaceId::parse("home").unwrap();
    let at = jiff::Timestamp::from_millisecond(1_790_000_000_000).unwrap();
    let change = Change::new(format!("audit_{number:09}"), workspace, "tester", at);
    let entropy = [0; 10];
    let id = TokenId::new(number, &entropy);
    let master = MasterKey::from_bytes([1; 32]);
    let new = NewTunnel {
        id: TunnelId::new(number, &entropy),
        label: DomainLabel::parse(&format!("t{number}")).unwrap(),
        display_name: Some("x".repeat(255)),
        approval: Approval::Manual,
        token: NewToken {
            id,
            master_key: master.id(),
            public_key: master.token_public_key(&id),
        },
    };
    store
        .create_tunnel(&change, new, u32::MAX)
        .await
        .map(|tunnel| tunnel.id)
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("console.db");
    let small = SqliteConfig::new(&file).with_most_bytes(256 * 1024);
    let store = SqliteStore::open(&small).await.unwrap();
    let mut made = Vec::new();
    let full = loop {
        match create(&store, made.len() as u64 + 1).await {
            Ok(id) => made.push(id),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert!(made.len() > 10);
    let workspace = WorkspaceId::parse("home").unwrap();
    let all = crate::store::Listing::newest(1000);
    let listed = store.tunnels(&workspace, &all).await.unwrap();
    assert_eq!(listed.rows.len(), made.len(), "reading goes on");
    store.close().await;
    let store = SqliteStore::open(&SqliteConfig::new(&file)).await.unwrap();
    let audit = store.audit(&workspace, &all).await.unwrap();
    assert_eq!(
        audit.rows.len(),
        made.len(),
        "neither a row nor its audit alone"
    );
    create(&store, 1_000_000).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("console.db");
    std::fs::write(
        &file,
        "this is a text that is no database at all, ".repeat(100),
    )
    .unwrap();
    let error = SqliteStore::open(&SqliteConfig::new(&file))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_reads_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("console.db");
    let store = SqliteStore::open(&SqliteConfig::new(&file)).await.unwrap();
    create(&store, 1).await.unwrap();
    for name in ["console.db", "console.db-wal", "console.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}
