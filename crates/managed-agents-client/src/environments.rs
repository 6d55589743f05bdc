//! Environments, and the keys of their workers.

use crate::error::ClientError;
use crate::http::Http;
use managed_agents_api::{
    CreateEnvironment, CreateEnvironmentKey, Deleted, Environment, EnvironmentKey,
    EnvironmentKeyWithSecret, Page, PageQuery, Reason, UpdateEnvironment,
};

/// The routes under `/v1/environments`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Environments<'a> {
    pub(crate) http: &'a Http,
}

impl Environments<'_> {
    /// Makes an environment.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, environment: &CreateEnvironment) -> Result<Environment, ClientError> {
        self.http.write(&["v1", "environments"], environment).await
    }

    /// One page of environments, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<Environment>, ClientError> {
        self.http.read(&["v1", "environments"], query).await
    }

    /// One environment.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(self, id: &str) -> Result<Environment, ClientError> {
        self.http.read(&["v1", "environments", id], &()).await
    }

    /// Changes an environment; its kind never changes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update(
        self,
        id: &str,
        update: &UpdateEnvironment,
    ) -> Result<Environment, ClientError> {
        self.http.write(&["v1", "environments", id], update).await
    }

    /// Archives an environment: no session can be made in it any more. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn archive(self, id: &str) -> Result<Environment, ClientError> {
        self.http
            .write(&["v1", "environments", id, "archive"], &Reason::default())
            .await
    }

    /// Deletes an environment.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(self, id: &str) -> Result<Deleted, ClientError> {
        self.http.delete(&["v1", "environments", id]).await
    }
}

/// The routes under `/v1/environments/{id}/keys`: our own servers have them.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct EnvironmentKeys<'a> {
    pub(crate) http: &'a Http,
    pub(crate) environment_id: &'a str,
}

impl EnvironmentKeys<'_> {
    /// Makes a key; `name` has 1 to 255 characters. The answer is the only one that holds its value.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, name: &str) -> Result<EnvironmentKeyWithSecret, ClientError> {
        let body = CreateEnvironmentKey {
            name: name.to_owned(),
        };
        self.http
            .write(&["v1", "environments", self.environment_id, "keys"], &body)
            .await
    }

    /// One page of keys, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<EnvironmentKey>, ClientError> {
        self.http
            .read(&["v1", "environments", self.environment_id, "keys"], query)
            .await
    }

    /// Ends a key within two seconds, its polls, streams and heartbeats included. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke(self, id: &str) -> Result<EnvironmentKey, ClientError> {
        let path = [
            "v1",
            "environments",
            self.environment_id,
            "keys",
            id,
            "revoke",
        ];
        self.http.write(&path, &Reason::default()).await
    }
}
