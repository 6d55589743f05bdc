//! Sessions.

use crate::error::ClientError;
use crate::http::Http;
use managed_agents_api::{
    CreateSession, Deleted, Page, PageQuery, Reason, Session, SessionFilter, Thread, UpdateSession,
};

/// The routes under `/v1/sessions`, but for [events](crate::Events).
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'a> {
    pub(crate) http: &'a Http,
}

impl Sessions<'_> {
    /// Makes a session.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, session: &CreateSession) -> Result<Session, ClientError> {
        self.http.write(&["v1", "sessions"], session).await
    }

    /// One page of sessions, newest first unless `filter` says otherwise.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, filter: &SessionFilter) -> Result<Page<Session>, ClientError> {
        self.http.read(&["v1", "sessions"], filter).await
    }

    /// One session.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(self, id: &str) -> Result<Session, ClientError> {
        self.http.read(&["v1", "sessions", id], &()).await
    }

    /// Changes a session.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update(self, id: &str, update: &UpdateSession) -> Result<Session, ClientError> {
        self.http.write(&["v1", "sessions", id], update).await
    }

    /// Archives a session; it reads as terminated since. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn archive(self, id: &str) -> Result<Session, ClientError> {
        self.http
            .write(&["v1", "sessions", id, "archive"], &Reason::default())
            .await
    }

    /// Deletes a session with its events.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(self, id: &str) -> Result<Deleted, ClientError> {
        self.http.delete(&["v1", "sessions", id]).await
    }

    /// One page of a session's threads.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn threads(self, id: &str, query: &PageQuery) -> Result<Page<Thread>, ClientError> {
        self.http
            .read(&["v1", "sessions", id, "threads"], query)
            .await
    }
}
