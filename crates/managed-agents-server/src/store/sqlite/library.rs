//! Skills.

use async_trait::async_trait;
use bytes::Bytes;
use mcp_tunnel_auth::{SkillId, SkillVersionId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{required, time};
use super::{SqliteStore, Transaction, audit, count, failed, run};
use crate::store::{
    Change, LibraryStore, Listed, Listing, NewSkillVersion, Refusal, SkillRecord,
    SkillVersionRecord, StoreError,
};

#[async_trait]
impl LibraryStore for SqliteStore {
    async fn create_skill(
        &self,
        change: &Change,
        id: SkillId,
        display_name: String,
        first: NewSkillVersion,
        most: u32,
    ) -> Result<SkillRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let all = sqlx::query("SELECT COUNT(*) FROM skills WHERE workspace = ?")
            .bind(change.workspace.to_string());
        if count(&mut transaction, all).await? >= most {
            return Err(Refusal::TooMany {
                what: "skills",
                most,
            }
            .into());
        }
        let insert = sqlx::query(
            "INSERT INTO skills (id, workspace, name, display_name, created_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(change.workspace.to_string())
        .bind(first.name.clone())
        .bind(display_name)
        .bind(change.at.as_millisecond());
        run(&mut transaction, insert).await?;
        add_version(&mut transaction, change, id, first).await?;
        audit::write(&mut transaction, change, "skill.create", id).await?;
        let record = find(&mut transaction, &change.workspace, id).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn skill(&self, workspace: &WorkspaceId, id: SkillId) -> Result<SkillRecord, StoreError> {
        find(&mut self.read().await?, workspace, id).await
    }

    async fn skills(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<SkillRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT skills.*, latest.id AS latest, latest.created_at AS updated_at
             FROM skills JOIN skill_versions AS latest ON latest.id =
                 (SELECT MAX(id) FROM skill_versions WHERE skill = skills.id)
             WHERE workspace = ?1 AND (?2 IS NULL OR skills.id < ?2)
             ORDER BY skills.id DESC LIMIT ?3",
        )
        .bind(workspace.to_string())
        .bind(listing.before.clone())
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(skill_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn delete_skill(&self, change: &Change, id: SkillId) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        find(&mut transaction, &change.workspace, id).await?;
        let delete = sqlx::query("DELETE FROM skills WHERE id = ?").bind(id.to_string());
        run(&mut transaction, delete).await?;
        audit::write(&mut transaction, change, "skill.delete", id).await?;
        self.commit(transaction, &[]).await
    }

    async fn add_skill_version(
        &self,
        change: &Change,
        skill: SkillId,
        new: NewSkillVersion,
        most: u32,
    ) -> Result<SkillVersionRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, &change.workspace, skill).await?;
        if record.name != new.name {
            return Err(Refusal::OtherSkill.into());
        }
        if versions_of(&mut transaction, skill).await? >= most {
            let what = "versions of the skill";
            return Err(Refusal::TooMany { what, most }.into());
        }
        let id = new.id;
        add_version(&mut transaction, change, skill, new).await?;
        audit::write(&mut transaction, change, "skill_version.create", id).await?;
        let record = find_version(&mut transaction, &change.workspace, skill, Some(id)).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: SkillId,
        version: Option<SkillVersionId>,
    ) -> Result<SkillVersionRecord, StoreError> {
        find_version(&mut self.read().await?, workspace, skill, version).await
    }

    async fn skill_versions(
        &self,
        workspace: &WorkspaceId,
        skill: SkillId,
        listing: &Listing,
    ) -> Result<Listed<SkillVersionRecord>, StoreError> {
        let mut transaction = self.read().await?;
        find(&mut transaction, workspace, skill).await?;
        let rows = sqlx::query(
            "SELECT skill_versions.id, skill, name, description, skill_versions.created_at
             FROM skill_versions JOIN skills ON skills.id = skill
             WHERE skill = ?1 AND (?2 IS NULL OR skill_versions.id < ?2)
             ORDER BY skill_versions.id DESC LIMIT ?3",
        )
        .bind(skill.to_string())
        .bind(listing.before.clone())
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(version_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn skill_archive(
        &self,
        workspace: &WorkspaceId,
        skill: SkillId,
        version: SkillVersionId,
    ) -> Result<Bytes, StoreError> {
        let row = sqlx::query(
            "SELECT archive FROM skill_versions JOIN skills ON skills.id = skill
             WHERE skill_versions.id = ? AND skill = ? AND workspace = ?",
        )
        .bind(version.to_string())
        .bind(skill.to_string())
        .bind(workspace.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?
        .ok_or(StoreError::NotFound)?;
        let archive: Vec<u8> = row.try_get("archive").map_err(failed)?;
        Ok(archive.into())
    }

    async fn delete_skill_version(
        &self,
        change: &Change,
        skill: SkillId,
        version: SkillVersionId,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        find_version(&mut transaction, &change.workspace, skill, Some(version)).await?;
        if versions_of(&mut transaction, skill).await? <= 1 {
            return Err(Refusal::LastVersion.into());
        }
        let delete =
            sqlx::query("DELETE FROM skill_versions WHERE id = ?").bind(version.to_string());
        run(&mut transaction, delete).await?;
        audit::write(&mut transaction, change, "skill_version.delete", version).await?;
        self.commit(transaction, &[]).await
    }
}

async fn versions_of(transaction: &mut Transaction, skill: SkillId) -> Result<u32, StoreError> {
    let all =
        sqlx::query("SELECT COUNT(*) FROM skill_versions WHERE skill = ?").bind(skill.to_string());
    count(transaction, all).await
}

async fn add_version(
    transaction: &mut Transaction,
    change: &Change,
    skill: SkillId,
    new: NewSkillVersion,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO skill_versions (id, skill, description, created_at, archive)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(new.id.to_string())
    .bind(skill.to_string())
    .bind(new.description)
    .bind(change.at.as_millisecond())
    .bind(new.archive.to_vec());
    run(transaction, insert).await?;
    Ok(())
}

async fn find(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    id: SkillId,
) -> Result<SkillRecord, StoreError> {
    let row = sqlx::query(
        "SELECT skills.*, latest.id AS latest, latest.created_at AS updated_at
         FROM skills JOIN skill_versions AS latest ON latest.id =
             (SELECT MAX(id) FROM skill_versions WHERE skill = skills.id)
         WHERE skills.id = ? AND workspace = ?",
    )
    .bind(id.to_string())
    .bind(workspace.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    skill_of(&row.ok_or(StoreError::NotFound)?)
}

async fn find_version(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    skill: SkillId,
    version: Option<SkillVersionId>,
) -> Result<SkillVersionRecord, StoreError> {
    let row = sqlx::query(
        "SELECT skill_versions.id, skill, name, description, skill_versions.created_at
         FROM skill_versions JOIN skills ON skills.id = skill
         WHERE skill = ?1 AND workspace = ?2 AND (?3 IS NULL OR skill_versions.id = ?3)
         ORDER BY skill_versions.id DESC LIMIT 1",
    )
    .bind(skill.to_string())
    .bind(workspace.to_string())
    .bind(version.map(|version| version.to_string()))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    version_of(&row.ok_or(StoreError::NotFound)?)
}

fn skill_of(row: &SqliteRow) -> Result<SkillRecord, StoreError> {
    Ok(SkillRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        name: row.try_get("name").map_err(failed)?,
        display_name: row.try_get("display_name").map_err(failed)?,
        latest: required(row, "latest")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn version_of(row: &SqliteRow) -> Result<SkillVersionRecord, StoreError> {
    Ok(SkillVersionRecord {
        id: required(row, "id")?,
        skill: required(row, "skill")?,
        name: row.try_get("name").map_err(failed)?,
        description: row.try_get("description").map_err(failed)?,
        created_at: time(row, "created_at")?,
    })
}
