//! Taking away what nobody needs any more, a few rows at a time: other writers wait for one batch at most.

use jiff::Timestamp;
use mcp_tunnel_auth::SessionId;
use sqlx::Row as _;

use super::row::{required, to_json};
use super::{SqliteStore, Transaction, failed, run};
use crate::store::StoreError;

/// One batch of each kind; whether there may be more.
pub(super) async fn forget(
    store: &SqliteStore,
    before: Timestamp,
    most: u32,
) -> Result<bool, StoreError> {
    let events = empty_one(store, most).await?;
    let items = forget_items(store, before, most).await?;
    let sessions = forget_sessions(store, before, most).await?;
    Ok(events || items || sessions)
}

/// Takes away what was said in a deleted session, but for the last word.
pub(super) async fn empty(
    transaction: &mut Transaction,
    session: SessionId,
    most: u32,
) -> Result<(), StoreError> {
    let mut left = false;
    for rows in [
        "DELETE FROM events WHERE rowid IN
             (SELECT rowid FROM events WHERE session = ? AND kind <> 'session.deleted' LIMIT ?)",
        "DELETE FROM begun WHERE session = ?1 AND call IN
             (SELECT call FROM begun WHERE session = ?1 LIMIT ?2)",
    ] {
        let rows = sqlx::query(rows).bind(session.to_string()).bind(most);
        left |= run(transaction, rows).await?.rows_affected() >= u64::from(most);
    }
    if !left {
        let done =
            sqlx::query("UPDATE sessions SET bytes = 0 WHERE id = ?").bind(session.to_string());
        run(transaction, done).await?;
    }
    Ok(())
}

async fn empty_one(store: &SqliteStore, most: u32) -> Result<bool, StoreError> {
    let row =
        sqlx::query("SELECT id FROM sessions WHERE deleted_at IS NOT NULL AND bytes > 0 LIMIT 1")
            .fetch_optional(&store.pool)
            .await
            .map_err(failed)?;
    let Some(row) = row else {
        return Ok(false);
    };
    let mut transaction = store.begin().await?;
    empty(&mut transaction, required(&row, "id")?, most).await?;
    store.commit(transaction, &[]).await?;
    Ok(true)
}

/// Stopped items of sessions that are over, and all but the newest one of others.
async fn forget_items(
    store: &SqliteStore,
    before: Timestamp,
    most: u32,
) -> Result<bool, StoreError> {
    let ids = found(
        store,
        "SELECT w.id FROM works w JOIN sessions s ON s.id = w.session
         WHERE w.stopped_at < ? AND (s.status = 'terminated'
             OR EXISTS (SELECT 1 FROM works n WHERE n.session = w.session AND n.id > w.id))
         LIMIT ?",
        before,
        most,
    );
    let ids = ids.await?;
    take_away(
        store,
        &["DELETE FROM works WHERE id IN (SELECT value FROM json_each(?))"],
        &ids,
        most,
    )
    .await
}

/// What is left of deleted sessions, once their events and items are gone.
async fn forget_sessions(
    store: &SqliteStore,
    before: Timestamp,
    most: u32,
) -> Result<bool, StoreError> {
    let ids = found(
        store,
        "SELECT id FROM sessions s WHERE deleted_at < ? AND bytes = 0
             AND NOT EXISTS (SELECT 1 FROM works w WHERE w.session = s.id) LIMIT ?",
        before,
        most,
    );
    let ids = ids.await?;
    let rows = [
        "DELETE FROM events WHERE session IN (SELECT value FROM json_each(?))",
        "DELETE FROM sessions WHERE id IN (SELECT value FROM json_each(?))",
    ];
    take_away(store, &rows, &ids, most).await
}

/// Looked for as a reader: the writers' turn is for taking away alone.
async fn found(
    store: &SqliteStore,
    query: &'static str,
    before: Timestamp,
    most: u32,
) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(query)
        .bind(before.as_millisecond())
        .bind(most)
        .fetch_all(&store.pool)
        .await
        .map_err(failed)?;
    let ids = rows.iter().map(|row| row.try_get("id").map_err(failed));
    ids.collect()
}

/// Nothing that was found comes back to life: items and sessions that are over stay so.
async fn take_away(
    store: &SqliteStore,
    queries: &[&'static str],
    ids: &[String],
    most: u32,
) -> Result<bool, StoreError> {
    if ids.is_empty() {
        return Ok(false);
    }
    let mut transaction = store.begin().await?;
    for query in queries {
        run(&mut transaction, sqlx::query(*query).bind(to_json(&ids)?)).await?;
    }
    store.commit(transaction, &[]).await?;
    Ok(ids.len() >= usize::try_from(most).unwrap_or(usize::MAX))
}
