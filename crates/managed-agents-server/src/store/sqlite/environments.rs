//! Environments and their keys.

use async_trait::async_trait;
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyHash, EnvironmentKeyId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{json, named, optional_time, required, time, to_json};
use super::{SqliteStore, Transaction, audit, count, failed, run};
use crate::store::{
    Change, EnvironmentChange, EnvironmentKeyRecord, EnvironmentKind, EnvironmentRecord,
    EnvironmentStore, Listed, Listing, NewEnvironment, NewEnvironmentKey, Refusal, StoreError,
    Topic,
};

#[async_trait]
impl EnvironmentStore for SqliteStore {
    async fn create_environment(
        &self,
        change: &Change,
        new: NewEnvironment,
        most: u32,
    ) -> Result<EnvironmentRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let others = sqlx::query(
            "SELECT COUNT(*) FROM environments WHERE workspace = ? AND archived_at IS NULL",
        )
        .bind(change.workspace.to_string());
        if count(&mut transaction, others).await? >= most {
            let what = "environments that are not archived";
            return Err(Refusal::TooMany { what, most }.into());
        }
        let insert = sqlx::query(
            "INSERT INTO environments
                 (id, workspace, name, description, kind, config, metadata, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        )
        .bind(new.id.to_string())
        .bind(change.workspace.to_string())
        .bind(new.name)
        .bind(new.description)
        .bind(new.kind.as_str())
        .bind(new.config)
        .bind(to_json(&new.metadata)?)
        .bind(change.at.as_millisecond());
        run(&mut transaction, insert).await?;
        audit::write(&mut transaction, change, "environment.create", new.id).await?;
        let record = find(&mut transaction, &change.workspace, new.id).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn environment(
        &self,
        workspace: &WorkspaceId,
        environment: EnvironmentId,
    ) -> Result<EnvironmentRecord, StoreError> {
        let mut transaction = self.read().await?;
        find(&mut transaction, workspace, environment).await
    }

    async fn environments(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<EnvironmentRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM environments WHERE workspace = ?1 AND deleted_at IS NULL
                 AND (?2 IS NULL OR id < ?2) AND (?3 OR archived_at IS NULL)
             ORDER BY id DESC LIMIT ?4",
        )
        .bind(workspace.to_string())
        .bind(listing.before.clone())
        .bind(listing.include_archived)
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(environment_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn update_environment(
        &self,
        change: &Change,
        environment: EnvironmentId,
        to: EnvironmentChange,
    ) -> Result<EnvironmentRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let mut record = live(&mut transaction, &change.workspace, environment).await?;
        for (key, value) in to.metadata {
            match value {
                Some(value) => record.metadata.insert(key, value),
                None => record.metadata.remove(&key),
            };
        }
        let update = sqlx::query(
            "UPDATE environments
             SET name = ?, description = ?, config = ?, metadata = ?, updated_at = ? WHERE id = ?",
        )
        .bind(to.name.unwrap_or(record.name))
        .bind(to.description.unwrap_or(record.description))
        .bind(to.config.unwrap_or(record.config))
        .bind(to_json(&record.metadata)?)
        .bind(change.at.as_millisecond())
        .bind(environment.to_string());
        run(&mut transaction, update).await?;
        audit::write(&mut transaction, change, "environment.update", environment).await?;
        let record = find(&mut transaction, &change.workspace, environment).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn archive_environment(
        &self,
        change: &Change,
        environment: EnvironmentId,
    ) -> Result<EnvironmentRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, &change.workspace, environment).await?;
        if record.archived_at.is_some() {
            return Ok(record);
        }
        let update =
            sqlx::query("UPDATE environments SET archived_at = ?1, updated_at = ?1 WHERE id = ?2")
                .bind(change.at.as_millisecond())
                .bind(environment.to_string());
        run(&mut transaction, update).await?;
        audit::write(&mut transaction, change, "environment.archive", environment).await?;
        let record = find(&mut transaction, &change.workspace, environment).await?;
        self.commit(transaction, &woken(environment)).await?;
        Ok(record)
    }

    async fn delete_environment(
        &self,
        change: &Change,
        environment: EnvironmentId,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        find(&mut transaction, &change.workspace, environment).await?;
        let sessions = sqlx::query(
            "SELECT COUNT(*) FROM sessions
             WHERE environment = ? AND archived_at IS NULL AND deleted_at IS NULL",
        )
        .bind(environment.to_string());
        if count(&mut transaction, sessions).await? > 0 {
            return Err(Refusal::EnvironmentInUse.into());
        }
        // The row stays for those of old sessions that name it.
        let delete = sqlx::query(
            "UPDATE environments
             SET deleted_at = ?1, archived_at = COALESCE(archived_at, ?1) WHERE id = ?2",
        )
        .bind(change.at.as_millisecond())
        .bind(environment.to_string());
        run(&mut transaction, delete).await?;
        audit::write(&mut transaction, change, "environment.delete", environment).await?;
        self.commit(transaction, &woken(environment)).await
    }

    async fn environment_keys(
        &self,
        workspace: &WorkspaceId,
        environment: EnvironmentId,
        listing: &Listing,
    ) -> Result<Listed<EnvironmentKeyRecord>, StoreError> {
        let mut transaction = self.read().await?;
        find(&mut transaction, workspace, environment).await?;
        let rows = sqlx::query(
            "SELECT k.*, e.workspace, e.archived_at
             FROM environment_keys k JOIN environments e ON e.id = k.environment
             WHERE e.id = ?1 AND (?2 IS NULL OR k.id < ?2) AND (?3 OR k.revoked_at IS NULL)
             ORDER BY k.id DESC LIMIT ?4",
        )
        .bind(environment.to_string())
        .bind(listing.before.clone())
        .bind(listing.include_archived)
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(key_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn create_environment_key(
        &self,
        change: &Change,
        new: NewEnvironmentKey,
        most: u32,
    ) -> Result<EnvironmentKeyRecord, StoreError> {
        let mut transaction = self.begin().await?;
        live(&mut transaction, &change.workspace, new.environment).await?;
        let others = sqlx::query(
            "SELECT COUNT(*) FROM environment_keys WHERE environment = ? AND revoked_at IS NULL",
        )
        .bind(new.environment.to_string());
        if count(&mut transaction, others).await? >= most {
            return Err(Refusal::TooManyKeys { most }.into());
        }
        let insert = sqlx::query(
            "INSERT INTO environment_keys (id, environment, hash, name, created_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(new.environment.to_string())
        .bind(new.hash.to_string())
        .bind(new.name)
        .bind(change.at.as_millisecond());
        run(&mut transaction, insert).await?;
        audit::write(&mut transaction, change, "environment_key.create", new.id).await?;
        let record = find_key(&mut transaction, change, new.environment, new.id).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn revoke_environment_key(
        &self,
        change: &Change,
        environment: EnvironmentId,
        key: EnvironmentKeyId,
    ) -> Result<EnvironmentKeyRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find_key(&mut transaction, change, environment, key).await?;
        if record.revoked_at.is_some() {
            return Ok(record);
        }
        let update = sqlx::query("UPDATE environment_keys SET revoked_at = ? WHERE id = ?")
            .bind(change.at.as_millisecond())
            .bind(key.to_string());
        run(&mut transaction, update).await?;
        audit::write(&mut transaction, change, "environment_key.revoke", key).await?;
        let record = find_key(&mut transaction, change, environment, key).await?;
        self.commit(transaction, &woken(environment)).await?;
        Ok(record)
    }

    async fn environment_key(
        &self,
        hash: EnvironmentKeyHash,
    ) -> Result<Option<EnvironmentKeyRecord>, StoreError> {
        let row = sqlx::query(
            "SELECT k.*, e.workspace, e.archived_at
             FROM environment_keys k JOIN environments e ON e.id = k.environment
             WHERE k.hash = ?",
        )
        .bind(hash.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        row.as_ref().map(key_of).transpose()
    }
}

/// Whoever polls or streams by a key of the environment.
const fn woken(environment: EnvironmentId) -> [Topic; 2] {
    [Topic::Keys(environment), Topic::Queue(environment)]
}

/// The environment, if it may still be used.
pub(super) async fn live(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    environment: EnvironmentId,
) -> Result<EnvironmentRecord, StoreError> {
    let record = find(transaction, workspace, environment).await?;
    if record.archived_at.is_some() {
        return Err(Refusal::EnvironmentArchived.into());
    }
    Ok(record)
}

async fn find(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    environment: EnvironmentId,
) -> Result<EnvironmentRecord, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM environments WHERE id = ? AND workspace = ? AND deleted_at IS NULL",
    )
    .bind(environment.to_string())
    .bind(workspace.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    environment_of(&row.ok_or(StoreError::NotFound)?)
}

async fn find_key(
    transaction: &mut Transaction,
    change: &Change,
    environment: EnvironmentId,
    key: EnvironmentKeyId,
) -> Result<EnvironmentKeyRecord, StoreError> {
    let row = sqlx::query(
        "SELECT k.*, e.workspace, e.archived_at
         FROM environment_keys k JOIN environments e ON e.id = k.environment
         WHERE k.id = ? AND e.id = ? AND e.workspace = ? AND e.deleted_at IS NULL",
    )
    .bind(key.to_string())
    .bind(environment.to_string())
    .bind(change.workspace.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    key_of(&row.ok_or(StoreError::NotFound)?)
}

fn environment_of(row: &SqliteRow) -> Result<EnvironmentRecord, StoreError> {
    let kinds = [EnvironmentKind::SelfHosted, EnvironmentKind::Cloud];
    Ok(EnvironmentRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        name: row.try_get("name").map_err(failed)?,
        description: row.try_get("description").map_err(failed)?,
        kind: named(row, "kind", &kinds, EnvironmentKind::as_str)?,
        config: row.try_get("config").map_err(failed)?,
        metadata: json(row, "metadata")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}

fn key_of(row: &SqliteRow) -> Result<EnvironmentKeyRecord, StoreError> {
    Ok(EnvironmentKeyRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        environment: required(row, "environment")?,
        hash: required(row, "hash")?,
        name: row.try_get("name").map_err(failed)?,
        created_at: time(row, "created_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}
