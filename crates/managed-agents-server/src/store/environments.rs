//! Environments and their keys.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyHash, EnvironmentKeyId, WorkspaceId};

use super::{Change, Listed, Listing, StoreError};

/// Environments and their keys.
#[async_trait]
pub trait EnvironmentStore: Send + Sync + 'static {
    /// Writes an environment down, unless the workspace has `most` that are not archived.
    ///
    /// # Errors
    /// [`Refusal::TooMany`](super::Refusal::TooMany).
    async fn create_environment(
        &self,
        change: &Change,
        new: NewEnvironment,
        most: u32,
    ) -> Result<EnvironmentRecord, StoreError>;

    /// One environment, archived or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn environment(
        &self,
        workspace: &WorkspaceId,
        environment: EnvironmentId,
    ) -> Result<EnvironmentRecord, StoreError>;

    /// A page of environments, newest first.
    ///
    /// # Errors
    /// Only the store's own.
    async fn environments(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<EnvironmentRecord>, StoreError>;

    /// Changes what is given.
    ///
    /// # Errors
    /// [`StoreError::NotFound`],
    /// [`Refusal::EnvironmentArchived`](super::Refusal::EnvironmentArchived).
    async fn update_environment(
        &self,
        change: &Change,
        environment: EnvironmentId,
        to: EnvironmentChange,
    ) -> Result<EnvironmentRecord, StoreError>;

    /// Archives an environment, and with it ends what its keys are good for; an archived
    /// one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn archive_environment(
        &self,
        change: &Change,
        environment: EnvironmentId,
    ) -> Result<EnvironmentRecord, StoreError>;

    /// Deletes an environment with its keys: from then on it is as one that never was.
    ///
    /// # Errors
    /// [`StoreError::NotFound`],
    /// [`Refusal::EnvironmentInUse`](super::Refusal::EnvironmentInUse).
    async fn delete_environment(
        &self,
        change: &Change,
        environment: EnvironmentId,
    ) -> Result<(), StoreError>;

    /// A page of keys of an environment, newest first; revoked ones count as archived.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn environment_keys(
        &self,
        workspace: &WorkspaceId,
        environment: EnvironmentId,
        listing: &Listing,
    ) -> Result<Listed<EnvironmentKeyRecord>, StoreError>;

    /// Writes an environment key down, unless the environment has `most` that are not revoked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`Refusal`](super::Refusal) where the environment is archived or has enough.
    async fn create_environment_key(
        &self,
        change: &Change,
        new: NewEnvironmentKey,
        most: u32,
    ) -> Result<EnvironmentKeyRecord, StoreError>;

    /// Revokes a key; a revoked one stays as it is. What was claimed with it is not good
    /// for anything from this transaction on, and whoever waits or streams by it is woken.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn revoke_environment_key(
        &self,
        change: &Change,
        environment: EnvironmentId,
        key: EnvironmentKeyId,
    ) -> Result<EnvironmentKeyRecord, StoreError>;

    /// The key with this hash, revoked or not, of whatever workspace: the one look-up that
    /// comes before a workspace is known.
    ///
    /// # Errors
    /// Only the store's own.
    async fn environment_key(
        &self,
        hash: EnvironmentKeyHash,
    ) -> Result<Option<EnvironmentKeyRecord>, StoreError>;
}

/// Who runs the tools of an environment's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EnvironmentKind {
    /// Workers that take items from the environment's queue.
    SelfHosted,
    /// The platform itself; nobody here.
    Cloud,
}

impl EnvironmentKind {
    /// Its name in rows and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfHosted => "self_hosted",
            Self::Cloud => "cloud",
        }
    }
}

/// An environment to write down.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "an argument with every column")]
pub struct NewEnvironment {
    /// Its id.
    pub id: EnvironmentId,
    /// 1 to 255 characters for people.
    pub name: String,
    /// More for people.
    pub description: Option<String>,
    /// Who runs the tools.
    pub kind: EnvironmentKind,
    /// The JSON text of its configuration, as it is served.
    pub config: String,
    /// The client's own words.
    pub metadata: BTreeMap<String, String>,
}

/// Changes of an environment; what is `None` stays.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EnvironmentChange {
    /// For people.
    pub name: Option<String>,
    /// More for people; `Some(None)` clears it.
    pub description: Option<Option<String>>,
    /// The JSON text of its configuration, as it is served.
    pub config: Option<String>,
    /// Words to set, and to delete where there is `None`.
    pub metadata: BTreeMap<String, Option<String>>,
}

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvironmentRecord {
    /// Its id.
    pub id: EnvironmentId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// For people.
    pub name: String,
    /// More for people.
    pub description: Option<String>,
    /// Who runs the tools.
    pub kind: EnvironmentKind,
    /// The JSON text of its configuration, as it is served.
    pub config: String,
    /// The client's own words.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
}

/// An environment key to write down.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "an argument with every column")]
pub struct NewEnvironmentKey {
    /// Its id.
    pub id: EnvironmentKeyId,
    /// What it reaches.
    pub environment: EnvironmentId,
    /// By what it is known.
    pub hash: EnvironmentKeyHash,
    /// For people.
    pub name: String,
}

/// An environment key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvironmentKeyRecord {
    /// Its id.
    pub id: EnvironmentKeyId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What it reaches.
    pub environment: EnvironmentId,
    /// By what it is known.
    pub hash: EnvironmentKeyHash,
    /// For people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When the environment was archived, with which its keys end.
    pub archived_at: Option<Timestamp>,
}
