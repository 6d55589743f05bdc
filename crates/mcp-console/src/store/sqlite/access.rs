//! All that an edge judges by.

use sqlx::sqlite::SqliteRow;

use super::{SqliteStore, Transaction, failed, gateways, keys, tunnels};
use crate::store::{AccessRows, StoreError};

pub(super) async fn rows(store: &SqliteStore) -> Result<AccessRows, StoreError> {
    // One transaction: all four queries see the same moment.
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
    })
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
