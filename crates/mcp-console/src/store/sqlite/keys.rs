//! Keys of callers and of the API.

use async_trait::async_trait;
use mcp_tunnel_auth::{ApiKeyHash, ApiKeyId, CallerKeyId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{join, optional_time, required, time, words};
use super::{SqliteStore, Transaction, count, failed, live_tunnel, run, write_audit};
use crate::store::{
    ApiKeyRecord, CallerKeyRecord, Change, KeyStore, Listed, Listing, NewApiKey, NewCallerKey,
    Refusal, StoreError,
};

#[async_trait]
impl KeyStore for SqliteStore {
    async fn create_caller_key(
        &self,
        change: &Change,
        new: NewCallerKey,
        most: u32,
    ) -> Result<CallerKeyRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let live = sqlx::query(
            "SELECT COUNT(*) FROM caller_keys WHERE workspace = ? AND revoked_at IS NULL
                 AND (expires_at IS NULL OR expires_at > ?)",
        )
        .bind(change.workspace.to_string())
        .bind(change.at.as_millisecond());
        if count(&mut transaction, live).await? >= most {
            return Err(Refusal::TooManyCallerKeys { most }.into());
        }
        for tunnel in new.tunnels.iter().flatten() {
            live_tunnel(&mut transaction, change, *tunnel).await?;
        }
        let insert = sqlx::query(
            "INSERT INTO caller_keys
                 (id, workspace, hash, name, tunnels, routes, created_at, expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(change.workspace.to_string())
        .bind(new.hash.to_string())
        .bind(new.name)
        .bind(new.tunnels.map(join))
        .bind(new.routes.map(join))
        .bind(change.at.as_millisecond())
        .bind(new.expires_at.map(jiff::Timestamp::as_millisecond));
        run(&mut transaction, insert).await?;
        write_audit(&mut transaction, change, "caller_key.create", new.id).await?;
        let record = find_caller_key(&mut transaction, &change.workspace, new.id).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn caller_keys(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<CallerKeyRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM caller_keys WHERE workspace = ?1
                 AND (?2 IS NULL OR id < ?2) AND (?3 OR revoked_at IS NULL)
             ORDER BY id DESC LIMIT ?4",
        )
        .bind(workspace.to_string())
        .bind(listing.before.clone())
        .bind(listing.include_archived)
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(caller_key_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn revoke_caller_key(
        &self,
        change: &Change,
        key: CallerKeyId,
    ) -> Result<CallerKeyRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find_caller_key(&mut transaction, &change.workspace, key).await?;
        if record.revoked_at.is_some() {
            return Ok(record);
        }
        let update = sqlx::query("UPDATE caller_keys SET revoked_at = ? WHERE id = ?")
            .bind(change.at.as_millisecond())
            .bind(key.to_string());
        run(&mut transaction, update).await?;
        write_audit(&mut transaction, change, "caller_key.revoke", key).await?;
        let record = find_caller_key(&mut transaction, &change.workspace, key).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn create_api_key(
        &self,
        change: &Change,
        new: NewApiKey,
    ) -> Result<ApiKeyRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let insert = sqlx::query(
            "INSERT INTO api_keys (id, workspace, hash, name, permissions, created_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(change.workspace.to_string())
        .bind(new.hash.to_string())
        .bind(new.name)
        .bind(new.permissions.to_string())
        .bind(change.at.as_millisecond());
        run(&mut transaction, insert).await?;
        write_audit(&mut transaction, change, "api_key.create", new.id).await?;
        let record = find_api_key(&mut transaction, &change.workspace, new.id).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn revoke_api_key(
        &self,
        change: &Change,
        key: ApiKeyId,
    ) -> Result<ApiKeyRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find_api_key(&mut transaction, &change.workspace, key).await?;
        if record.revoked_at.is_some() {
            return Ok(record);
        }
        let update = sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ?")
            .bind(change.at.as_millisecond())
            .bind(key.to_string());
        run(&mut transaction, update).await?;
        write_audit(&mut transaction, change, "api_key.revoke", key).await?;
        let record = find_api_key(&mut transaction, &change.workspace, key).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKeyRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE hash = ?")
            .bind(hash.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.as_ref().map(api_key_of).transpose()
    }
}

async fn find_caller_key(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    key: CallerKeyId,
) -> Result<CallerKeyRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM caller_keys WHERE id = ? AND workspace = ?")
        .bind(key.to_string())
        .bind(workspace.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    caller_key_of(&row.ok_or(StoreError::NotFound)?)
}

async fn find_api_key(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    key: ApiKeyId,
) -> Result<ApiKeyRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM api_keys WHERE id = ? AND workspace = ?")
        .bind(key.to_string())
        .bind(workspace.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    api_key_of(&row.ok_or(StoreError::NotFound)?)
}

pub(super) fn caller_key_of(row: &SqliteRow) -> Result<CallerKeyRecord, StoreError> {
    Ok(CallerKeyRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        hash: required(row, "hash")?,
        name: row.try_get("name").map_err(failed)?,
        tunnels: words(row, "tunnels")?,
        routes: words(row, "routes")?,
        created_at: time(row, "created_at")?,
        expires_at: optional_time(row, "expires_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
    })
}

fn api_key_of(row: &SqliteRow) -> Result<ApiKeyRecord, StoreError> {
    let permissions: String = row.try_get("permissions").map_err(failed)?;
    Ok(ApiKeyRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        hash: required(row, "hash")?,
        name: row.try_get("name").map_err(failed)?,
        permissions: permissions.parse().unwrap_or_else(|never| match never {}),
        created_at: time(row, "created_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
    })
}
