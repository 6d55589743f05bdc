//! The audit.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::WorkspaceId;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{corrupt, required, time};
use super::{Query, SqliteStore, Transaction, failed, run};
use crate::store::{AuditRecord, AuditStore, Change, Listed, Listing, StoreError};

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<AuditRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE workspace = ?1 AND (?2 IS NULL OR id < ?2)
             ORDER BY id DESC LIMIT ?3",
        )
        .bind(workspace.to_string())
        .bind(listing.before.clone())
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(record_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn forget_audit(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let delete = sqlx::query("DELETE FROM audit WHERE at < ?").bind(before.as_millisecond());
        let forgotten = run(&mut transaction, delete).await?.rows_affected();
        self.commit(transaction, &[]).await?;
        Ok(forgotten)
    }
}

/// Writes the row of a change into the change's own transaction.
pub(super) async fn write(
    transaction: &mut Transaction,
    change: &Change,
    action: &'static str,
    object: impl ToString,
) -> Result<(), StoreError> {
    let query: Query = sqlx::query(
        "INSERT INTO audit (id, workspace, at, actor, address, action, object, reason)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(change.audit_id.clone())
    .bind(change.workspace.to_string())
    .bind(change.at.as_millisecond())
    .bind(change.actor.clone())
    .bind(change.address.map(|address| address.to_string()))
    .bind(action)
    .bind(object.to_string())
    .bind(change.reason.clone());
    run(transaction, query).await?;
    Ok(())
}

fn record_of(row: &SqliteRow) -> Result<AuditRecord, StoreError> {
    let text = |column| row.try_get::<String, _>(column).map_err(failed);
    let address: Option<String> = row.try_get("address").map_err(failed)?;
    let mut change = Change::new(
        text("id")?,
        required(row, "workspace")?,
        text("actor")?,
        time(row, "at")?,
    );
    change.address = address
        .map(|address| address.parse().map_err(|error| corrupt("address", error)))
        .transpose()?;
    change.reason = row.try_get("reason").map_err(failed)?;
    Ok(AuditRecord::new(change, text("action")?, text("object")?))
}
