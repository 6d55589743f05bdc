//! Skills: files that a sandbox gets before a session's first call.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mcp_tunnel_auth::{SkillId, SkillVersionId, WorkspaceId};

use super::{Change, Listed, Listing, StoreError};

/// A skill, in all its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkillRecord {
    /// Its id.
    pub id: SkillId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its name in sandboxes: the folder of its files. The same in all versions.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// The newest version.
    pub latest: SkillVersionId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its newest version was made.
    pub updated_at: Timestamp,
}

/// One version of a skill, without its files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkillVersionRecord {
    /// Its id.
    pub id: SkillVersionId,
    /// The skill.
    pub skill: SkillId,
    /// The skill's name.
    pub name: String,
    /// What it is for: what the agent reads.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A version that is to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewSkillVersion {
    /// Its id.
    pub id: SkillVersionId,
    /// The skill's name, which a later version must repeat.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its files: a tar archive with one folder, named like the skill.
    pub archive: Bytes,
}

impl NewSkillVersion {
    /// A version of the skill `name`.
    pub fn new(
        id: SkillVersionId,
        name: impl Into<String>,
        description: impl Into<String>,
        archive: Bytes,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            description: description.into(),
            archive,
        }
    }
}

/// Keeps skills. What is deleted is gone, files included.
#[async_trait]
pub trait LibraryStore: Send + Sync + 'static {
    /// Writes a skill and its first version down, unless the workspace has `most`.
    ///
    /// # Errors
    /// [`Refusal::TooMany`](super::Refusal::TooMany).
    async fn create_skill(
        &self,
        change: &Change,
        id: SkillId,
        display_name: String,
        first: NewSkillVersion,
        most: u32,
    ) -> Result<SkillRecord, StoreError>;

    /// One skill.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn skill(&self, workspace: &WorkspaceId, id: SkillId) -> Result<SkillRecord, StoreError>;

    /// A page of skills, newest first.
    ///
    /// # Errors
    /// Only the store's own.
    async fn skills(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<SkillRecord>, StoreError>;

    /// Deletes a skill with all its versions and files.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn delete_skill(&self, change: &Change, id: SkillId) -> Result<(), StoreError>;

    /// Writes another version down, which is the latest from then on, unless there are `most`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TooMany`](super::Refusal::TooMany),
    /// [`Refusal::OtherSkill`](super::Refusal::OtherSkill) where it has another name.
    async fn add_skill_version(
        &self,
        change: &Change,
        skill: SkillId,
        new: NewSkillVersion,
        most: u32,
    ) -> Result<SkillVersionRecord, StoreError>;

    /// One version; the latest where none is named.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: SkillId,
        version: Option<SkillVersionId>,
    ) -> Result<SkillVersionRecord, StoreError>;

    /// A page of versions of a skill, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn skill_versions(
        &self,
        workspace: &WorkspaceId,
        skill: SkillId,
        listing: &Listing,
    ) -> Result<Listed<SkillVersionRecord>, StoreError>;

    /// The files of a version: the archive that it was made with.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn skill_archive(
        &self,
        workspace: &WorkspaceId,
        skill: SkillId,
        version: SkillVersionId,
    ) -> Result<Bytes, StoreError>;

    /// Deletes a version with its files, unless it is the skill's only one. Where it was
    /// the latest, the one before is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::LastVersion`](super::Refusal::LastVersion).
    async fn delete_skill_version(
        &self,
        change: &Change,
        skill: SkillId,
        version: SkillVersionId,
    ) -> Result<(), StoreError>;
}
