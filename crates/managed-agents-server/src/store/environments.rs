//! Environments and their keys.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyHash, EnvironmentKeyId, WorkspaceId};

use super::{Change, StoreError};

/// Environments and their keys.
#[async_trait]
pub trait EnvironmentStore: Send + Sync + 'static {
    /// Writes an environment down.
    ///
    /// # Errors
    /// Only the store's own.
    async fn create_environment(
        &self,
        change: &Change,
        new: NewEnvironment,
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
