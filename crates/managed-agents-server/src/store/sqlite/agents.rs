//! Agents.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{AgentId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{number, optional_time, required, signed, time};
use super::{SqliteStore, Transaction, audit, count, failed, run};
use crate::store::{AgentListing, AgentRecord, AgentStore, Change, Listed, Refusal, StoreError};

#[async_trait]
impl AgentStore for SqliteStore {
    async fn create_agent(
        &self,
        change: &Change,
        id: AgentId,
        definition: String,
        most: u32,
    ) -> Result<AgentRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let live =
            sqlx::query("SELECT COUNT(*) FROM agents WHERE workspace = ? AND archived_at IS NULL")
                .bind(change.workspace.to_string());
        if count(&mut transaction, live).await? >= most {
            let what = "agents that are not archived";
            return Err(Refusal::TooMany { what, most }.into());
        }
        let insert = sqlx::query(
            "INSERT INTO agents (id, workspace, version, created_at) VALUES (?, ?, 1, ?)",
        )
        .bind(id.to_string())
        .bind(change.workspace.to_string())
        .bind(change.at.as_millisecond());
        run(&mut transaction, insert).await?;
        add_version(&mut transaction, change, id, 1, definition).await?;
        audit::write(&mut transaction, change, "agent.create", id).await?;
        let record = find(&mut transaction, &change.workspace, id, None).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn agent(
        &self,
        workspace: &WorkspaceId,
        id: AgentId,
        version: Option<u64>,
    ) -> Result<AgentRecord, StoreError> {
        find(&mut self.read().await?, workspace, id, version).await
    }

    async fn agents(
        &self,
        workspace: &WorkspaceId,
        listing: &AgentListing,
    ) -> Result<Listed<AgentRecord>, StoreError> {
        let page = &listing.page;
        let rows = sqlx::query(
            "SELECT agents.*, definition, agent_versions.created_at AS updated_at
             FROM agents JOIN agent_versions
                 ON agent_versions.agent = agents.id AND agent_versions.version = agents.version
             WHERE workspace = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 OR archived_at IS NULL)
                 AND (?4 IS NULL OR agents.created_at >= ?4)
                 AND (?5 IS NULL OR agents.created_at <= ?5)
             ORDER BY id DESC LIMIT ?6",
        )
        .bind(workspace.to_string())
        .bind(page.before.clone())
        .bind(page.include_archived)
        .bind(listing.created_from.map(Timestamp::as_millisecond))
        .bind(listing.created_until.map(Timestamp::as_millisecond))
        .bind(page.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(agent_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, page.limit))
    }

    async fn agent_versions(
        &self,
        workspace: &WorkspaceId,
        id: AgentId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Listed<AgentRecord>, StoreError> {
        let mut transaction = self.read().await?;
        find(&mut transaction, workspace, id, None).await?;
        let rows = sqlx::query(
            "SELECT agents.id, workspace, agents.created_at, archived_at,
                 agent_versions.version, definition, agent_versions.created_at AS updated_at
             FROM agents JOIN agent_versions ON agent_versions.agent = agents.id
             WHERE id = ?1 AND (?2 IS NULL OR agent_versions.version < ?2)
             ORDER BY agent_versions.version DESC LIMIT ?3",
        )
        .bind(id.to_string())
        .bind(
            before
                .map(|version| signed("version", version))
                .transpose()?,
        )
        .bind(limit.saturating_add(1))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(agent_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, limit))
    }

    async fn update_agent(
        &self,
        change: &Change,
        id: AgentId,
        from: u64,
        definition: String,
    ) -> Result<AgentRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, &change.workspace, id, None).await?;
        if record.archived_at.is_some() {
            return Err(Refusal::AgentArchived.into());
        }
        if record.version != from {
            let newest = record.version;
            return Err(Refusal::OtherVersion { newest }.into());
        }
        let next = from.saturating_add(1);
        add_version(&mut transaction, change, id, next, definition).await?;
        let update = sqlx::query("UPDATE agents SET version = ? WHERE id = ?")
            .bind(signed("version", next)?)
            .bind(id.to_string());
        run(&mut transaction, update).await?;
        audit::write(&mut transaction, change, "agent.update", id).await?;
        let record = find(&mut transaction, &change.workspace, id, None).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn archive_agent(&self, change: &Change, id: AgentId) -> Result<AgentRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, &change.workspace, id, None).await?;
        if record.archived_at.is_some() {
            return Ok(record);
        }
        let update = sqlx::query("UPDATE agents SET archived_at = ? WHERE id = ?")
            .bind(change.at.as_millisecond())
            .bind(id.to_string());
        run(&mut transaction, update).await?;
        audit::write(&mut transaction, change, "agent.archive", id).await?;
        let record = find(&mut transaction, &change.workspace, id, None).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }
}

/// One version of an agent of the workspace; the newest where none is named.
pub(super) async fn find(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    id: AgentId,
    version: Option<u64>,
) -> Result<AgentRecord, StoreError> {
    let version = version
        .map(|version| i64::try_from(version).map_err(|_| StoreError::NotFound))
        .transpose()?;
    let row = sqlx::query(
        "SELECT agents.id, workspace, agents.created_at, archived_at,
             agent_versions.version, definition, agent_versions.created_at AS updated_at
         FROM agents JOIN agent_versions ON agent_versions.agent = agents.id
         WHERE id = ?1 AND workspace = ?2
             AND agent_versions.version = COALESCE(?3, agents.version)",
    )
    .bind(id.to_string())
    .bind(workspace.to_string())
    .bind(version)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    agent_of(&row.ok_or(StoreError::NotFound)?)
}

async fn add_version(
    transaction: &mut Transaction,
    change: &Change,
    id: AgentId,
    version: u64,
    definition: String,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO agent_versions (agent, version, definition, created_at) VALUES (?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(signed("version", version)?)
    .bind(definition)
    .bind(change.at.as_millisecond());
    run(transaction, insert).await?;
    Ok(())
}

fn agent_of(row: &SqliteRow) -> Result<AgentRecord, StoreError> {
    Ok(AgentRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        version: number(row, "version")?,
        definition: row.try_get("definition").map_err(failed)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}
