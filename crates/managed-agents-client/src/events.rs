//! Events of a session.

use crate::error::ClientError;
use crate::follow::Follow;
use crate::http::Http;
use crate::stream::EventStream;
use managed_agents_api::{
    Event, EventBody, EventFilter, Page, RawJson, SendEvents, SentEvents, StreamFilter, sse,
};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};

/// The routes under `/v1/sessions/{id}/events`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Events<'a> {
    pub(crate) http: &'a Http,
    pub(crate) session_id: &'a str,
}

impl Events<'_> {
    /// One page of the history, oldest first unless `filter` says otherwise.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, filter: &EventFilter) -> Result<Page<Event>, ClientError> {
        self.http.read(&self.path(), filter).await
    }

    /// Sends events, and answers with them as they were stored. Sent once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send(self, events: &[EventBody]) -> Result<Vec<Event>, ClientError> {
        let events = events
            .iter()
            .filter_map(|event| RawJson::of(event).ok())
            .collect();
        self.send_raw(&SendEvents { events }).await
    }

    /// The same with events whose text is ready: what is repeated byte for byte is stored once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send_raw(self, events: &SendEvents) -> Result<Vec<Event>, ClientError> {
        let sent: SentEvents = self.http.write(&self.path(), events).await?;
        Ok(sent.data)
    }

    /// Opens the stream of what happens from now on. It repeats nothing: to miss nothing, list the history after it is
    /// open, and leave out what was seen; [`Self::follow`] does.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stream(self, filter: &StreamFilter) -> Result<EventStream, ClientError> {
        let path = ["v1", "sessions", self.session_id, "events", "stream"];
        let request = self
            .http
            .request(Method::GET, &path, filter)?
            .header(ACCEPT, HeaderValue::from_static(sse::MEDIA_TYPE));
        let response = self.http.open(request).await?;
        Ok(EventStream::new(self.http.clone(), response))
    }

    /// Every event of the session once, from its first on, over lost connections.
    #[must_use]
    pub fn follow(self) -> Follow {
        Follow::new(self.http.clone(), self.session_id.to_owned())
    }

    fn path(&self) -> [&str; 4] {
        ["v1", "sessions", self.session_id, "events"]
    }
}
