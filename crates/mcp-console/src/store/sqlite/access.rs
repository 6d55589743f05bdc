//! All that an edge judges by.

use sqlx::sqlite::SqliteRow;

use super::row::{corrupt, number};
use super::{SqliteStore, Transaction, failed, gateways, keys, run, tunnels};
use crate::store::{AccessRows, StoreError};

pub(super) async fn rows(store: &SqliteStore) -> Result<AccessRows, StoreError> {
    // One transaction: all queries see the same moment.
    let mut transaction = store.read().await?;
    Ok(AccessRows {
        tunnels: all(
            &mut transaction,
            "SELECT * FROM tunnels WHERE archived_at IS NULL ORDER BY id",
            tunnels::tunnel_of,
        )
        .await?,
        tokens: all(
            &mut transaction,
            "SELECT tokens.* FROM tokens JOIN tunnels ON tunnels.id = tokens.tunnel
             WHERE tunnels.archived_at IS NULL ORDER BY tokens.tunnel, tokens.id DESC",
            tunnels::token_of,
        )
        .await?,
        gateways: all(
            &mut transaction,
            "SELECT gateways.* FROM gateways JOIN tunnels ON tunnels.id = gateways.tunnel
             WHERE tunnels.archived_at IS NULL AND decision <> 'pending'
             ORDER BY gateways.tunnel, gateways.id",
            gateways::gateway_of,
        )
        .await?,
        caller_keys: all(
            &mut transaction,
            "SELECT * FROM caller_keys WHERE revoked_at IS NULL ORDER BY id",
            keys::caller_key_of,
        )
        .await?,
        last_snapshot: last_snapshot(&mut transaction).await?,
    })
}

/// Writes the number down, in silence: nothing that edges judge by has changed.
pub(super) async fn note_snapshot(store: &SqliteStore, number: u64) -> Result<(), StoreError> {
    let number = i64::try_from(number).map_err(|error| corrupt("number", error))?;
    let mut transaction = store.begin().await?;
    let note = sqlx::query(
        "INSERT INTO snapshots (one, number) VALUES (1, ?)
         ON CONFLICT (one) DO UPDATE SET number = MAX(number, excluded.number)",
    )
    .bind(number);
    run(&mut transaction, note).await?;
    transaction.commit().await.map_err(failed)
}

async fn last_snapshot(transaction: &mut Transaction) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT number FROM snapshots")
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    row.map_or(Ok(0), |row| number(&row, "number"))
}

async fn all<T>(
    transaction: &mut Transaction,
    query: &'static str,
    of: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let rows = sqlx::query(query)
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed)?;
    let mut records = Vec::with_capacity(rows.len());
    for some in rows.chunks(ROWS_AT_ONCE) {
        for row in some {
            records.push(of(row)?);
        }
        // Whoever shares the thread, such as an edge, is not kept waiting by many rows.
        tokio::task::yield_now().await;
    }
    Ok(records)
}

/// Reading a row takes some ten microseconds: a public key is checked.
const ROWS_AT_ONCE: usize = 64;
