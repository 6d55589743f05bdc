//! Agents, in versions.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{AgentId, WorkspaceId};

use super::{Change, Listed, Listing, StoreError};

/// One version of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentRecord {
    /// The agent's id, the same in all its versions.
    pub id: AgentId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// 1 for the first, and one more for each change.
    pub version: u64,
    /// What it is: a JSON object with every default filled in, without the members of
    /// this record.
    pub definition: String,
    /// When the agent was made.
    pub created_at: Timestamp,
    /// When this version was made.
    pub updated_at: Timestamp,
    /// When the agent was archived.
    pub archived_at: Option<Timestamp>,
}

/// Which page of a listing of agents.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentListing {
    /// Newest first.
    pub page: Listing,
    /// Only agents made at this time or later.
    pub created_from: Option<Timestamp>,
    /// Only agents made at this time or earlier.
    pub created_until: Option<Timestamp>,
}

impl AgentListing {
    /// A page of agents made at any time.
    #[must_use]
    pub const fn new(page: Listing) -> Self {
        Self {
            page,
            created_from: None,
            created_until: None,
        }
    }
}

/// Keeps agents: every version that ever was, the newest of which counts.
#[async_trait]
pub trait AgentStore: Send + Sync + 'static {
    /// Writes an agent down as version 1, unless the workspace has `most` that are not archived.
    ///
    /// # Errors
    /// [`Refusal::TooMany`](super::Refusal::TooMany).
    async fn create_agent(
        &self,
        change: &Change,
        id: AgentId,
        definition: String,
        most: u32,
    ) -> Result<AgentRecord, StoreError>;

    /// One version of an agent; the newest where none is named.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn agent(
        &self,
        workspace: &WorkspaceId,
        id: AgentId,
        version: Option<u64>,
    ) -> Result<AgentRecord, StoreError>;

    /// A page of agents in their newest versions, newest agent first.
    ///
    /// # Errors
    /// Only the store's own.
    async fn agents(
        &self,
        workspace: &WorkspaceId,
        listing: &AgentListing,
    ) -> Result<Listed<AgentRecord>, StoreError>;

    /// A page of the versions of an agent, newest first; those before `before` where it is given.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn agent_versions(
        &self,
        workspace: &WorkspaceId,
        id: AgentId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Listed<AgentRecord>, StoreError>;

    /// Makes a new version, if `from` is still the newest one: `definition` was made from it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::AgentArchived`](super::Refusal::AgentArchived),
    /// [`Refusal::OtherVersion`](super::Refusal::OtherVersion).
    async fn update_agent(
        &self,
        change: &Change,
        id: AgentId,
        from: u64,
        definition: String,
    ) -> Result<AgentRecord, StoreError>;

    /// Archives an agent; an archived one stays as it is. Sessions that it has go on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn archive_agent(&self, change: &Change, id: AgentId) -> Result<AgentRecord, StoreError>;
}
