//! Agents.

use crate::error::ClientError;
use crate::http::Http;
use managed_agents_api::{Agent, CreateAgent, Page, PageQuery, Reason, UpdateAgent};

/// The routes under `/v1/agents`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Agents<'a> {
    pub(crate) http: &'a Http,
}

impl Agents<'_> {
    /// Makes an agent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, agent: &CreateAgent) -> Result<Agent, ClientError> {
        self.http.write(&["v1", "agents"], agent).await
    }

    /// One page of agents, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<Agent>, ClientError> {
        self.http.read(&["v1", "agents"], query).await
    }

    /// The newest version of an agent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(self, id: &str) -> Result<Agent, ClientError> {
        self.http.read(&["v1", "agents", id], &()).await
    }

    /// Makes a new version.
    ///
    /// # Errors
    /// See [`ClientError`]; status 409 where the update names another version than the newest.
    pub async fn update(self, id: &str, update: &UpdateAgent) -> Result<Agent, ClientError> {
        self.http.write(&["v1", "agents", id], update).await
    }

    /// One page of an agent's versions.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn versions(self, id: &str, query: &PageQuery) -> Result<Page<Agent>, ClientError> {
        self.http
            .read(&["v1", "agents", id, "versions"], query)
            .await
    }

    /// Archives an agent: no session can be made with it any more. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn archive(self, id: &str) -> Result<Agent, ClientError> {
        self.http
            .write(&["v1", "agents", id, "archive"], &Reason::default())
            .await
    }
}
