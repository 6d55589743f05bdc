//! The queue of an environment.

use crate::error::ClientError;
use crate::http::Http;
use managed_agents_api::{
    Begun, BegunBefore, HeartbeatQuery, MetadataPatch, Page, PageQuery, PollQuery, StopWork,
    UpdateWork, Work, WorkHeartbeat, WorkQueueStats, headers,
};
use reqwest::Method;
use std::time::Duration;

/// The routes under `/v1/environments/{id}/work`.
///
/// Every call can be cancelled; a write may then have been carried out all the same, and a poll may have reserved an
/// item, which then comes back by itself.
#[derive(Clone, Copy, Debug)]
pub struct WorkQueue<'a> {
    pub(crate) http: &'a Http,
    pub(crate) environment_id: &'a str,
}

/// What a poll brought.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Poll {
    /// An item, reserved until it is acknowledged.
    pub work: Option<Work>,
    /// Whether the server needs no pause between polls, and has [`WorkQueue::begun`]: ours alone.
    pub immediate: bool,
}

/// What a stop came to.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "it stopped, or had stopped")]
pub enum Stopped {
    /// It stopped or is asked to; some servers answer with the item.
    Now(Option<Box<Work>>),
    /// It had stopped before.
    Before,
}

impl<'a> WorkQueue<'a> {
    /// Waits for work as long as `query` says. Sent once. Takes 204, an empty body and `null` for no work.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn poll(
        self,
        query: &PollQuery,
        worker_id: Option<&str>,
    ) -> Result<Poll, ClientError> {
        let mut request = self
            .http
            .request(Method::GET, &self.path(&["poll"]), query)?;
        if let Some(worker_id) = worker_id {
            request = request.header(headers::WORKER_ID, worker_id);
        }
        let block = Duration::from_millis(query.block_ms.unwrap_or_default().into());
        let patient = self.http.with_timeout(self.http.timeout() + block);
        let answer = patient.send(request).await?;
        let immediate = answer
            .headers
            .get(headers::POLL)
            .is_some_and(|value| value == headers::POLL_IMMEDIATE);
        let work = if answer.body.trim_ascii().is_empty() {
            None
        } else {
            self.http.parse(&answer.body)?
        };
        Ok(Poll { work, immediate })
    }

    /// Takes a reserved item.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ack(self, work_id: &str) -> Result<Work, ClientError> {
        let path = self.path(&[work_id, "ack"]);
        self.http.post(&path, &()).await
    }

    /// Extends the lease of an item.
    ///
    /// # Errors
    /// See [`ClientError`]; status 412 where another holder has the item: its state is in
    /// [`ApiError::details`](crate::ApiError::details).
    pub async fn heartbeat(
        self,
        work_id: &str,
        query: &HeartbeatQuery,
    ) -> Result<WorkHeartbeat, ClientError> {
        let path = self.path(&[work_id, "heartbeat"]);
        self.http.post(&path, query).await
    }

    /// Asks an item's worker to stop, or ends the item.
    ///
    /// # Errors
    /// See [`ClientError`]. That the item has stopped before (409) is no error.
    pub async fn stop(self, work_id: &str, stop: &StopWork) -> Result<Stopped, ClientError> {
        let path = self.path(&[work_id, "stop"]);
        let request = self.http.request(Method::POST, &path, &())?.json(stop);
        match self.http.send(request).await {
            Ok(answer) if answer.body.trim_ascii().is_empty() => Ok(Stopped::Now(None)),
            Ok(answer) => self.http.parse(&answer.body).map(Stopped::Now),
            Err(error) if error.status() == Some(409) => Ok(Stopped::Before),
            Err(error) => Err(error),
        }
    }

    /// Says that tools are about to start: a route of our own servers, see [`Poll::immediate`].
    ///
    /// # Errors
    /// See [`ClientError`]; without an answer the tools must not start.
    pub async fn begun(self, work_id: &str, begun: &Begun) -> Result<BegunBefore, ClientError> {
        self.http
            .write(&self.path(&[work_id, "begun"]), begun)
            .await
    }

    /// One page of items.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<Work>, ClientError> {
        self.http.read(&self.path(&[]), query).await
    }

    /// One item.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(self, work_id: &str) -> Result<Work, ClientError> {
        self.http.read(&self.path(&[work_id]), &()).await
    }

    /// Changes an item's metadata.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update(self, work_id: &str, metadata: MetadataPatch) -> Result<Work, ClientError> {
        let path = self.path(&[work_id]);
        self.http.write(&path, &UpdateWork { metadata }).await
    }

    /// How full the queue is, and how many workers poll it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stats(self) -> Result<WorkQueueStats, ClientError> {
        self.http.read(&self.path(&["stats"]), &()).await
    }

    fn path<'p>(self, rest: &[&'p str]) -> Vec<&'p str>
    where
        'a: 'p,
    {
        [&["v1", "environments", self.environment_id, "work"], rest].concat()
    }
}
