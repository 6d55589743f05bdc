//! Keys that let agents call through tunnels.

use crate::error::ClientError;
use crate::http::Http;
use crate::tunnels::WithReason;
use managed_agents_api::{CallerKey, CallerKeyWithSecret, CreateCallerKey, Page, PageQuery};

/// The routes under `/v1/caller_keys`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct CallerKeys<'a> {
    pub(crate) http: &'a Http,
}

impl CallerKeys<'_> {
    /// Makes a key. The answer is the only one that holds its value.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, key: &CreateCallerKey) -> Result<CallerKeyWithSecret, ClientError> {
        self.http.write(&["v1", "caller_keys"], key).await
    }

    /// One page of keys, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<CallerKey>, ClientError> {
        self.http.read(&["v1", "caller_keys"], query).await
    }

    /// Ends a key within two seconds, its running calls included. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke(self, id: &str) -> Result<CallerKey, ClientError> {
        self.http
            .write(
                &["v1", "caller_keys", id, "revoke"],
                &WithReason { reason: None },
            )
            .await
    }
}
