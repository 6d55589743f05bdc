//! Sessions, their events and their work.

use async_trait::async_trait;
use mcp_tunnel_auth::{EnvironmentId, SessionId, WorkId, WorkspaceId};

use super::{AgentStore, EnvironmentStore, StoreError};

/// Sessions, their events and their work; with its supertraits, all that a server keeps
/// beside its library.
#[async_trait]
pub trait SessionStore: EnvironmentStore + AgentStore {
    /// What a work item belongs to: the one look-up that an item token allows before a
    /// workspace is known.
    ///
    /// # Errors
    /// Only the store's own.
    async fn item_home(&self, work: WorkId) -> Result<Option<ItemHome>, StoreError>;
}

/// What a work item belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemHome {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The environment in whose queue it is.
    pub environment: EnvironmentId,
    /// The session that it is about.
    pub session: SessionId,
}
