//! A session's events, each once, over lost connections.

use crate::error::ClientError;
use crate::events::Events;
use crate::http::Http;
use crate::newest::NewestIds;
use crate::stream::EventStream;
use jiff::Timestamp;
use managed_agents_api::{Event, EventFilter, EventType, StreamFilter, TimeRange};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Events of a page of history: few enough that a page of large results has room in an answer.
const PAGE: u32 = 100;

/// First pause before the stream is opened again; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);

/// Longest pause before the stream is opened again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How far before the newest event that is known the history is read again: events of one moment may come in any order.
const OVERLAP: Duration = Duration::from_secs(30);

/// Every event of a session once, from its first on, over lost connections.
///
/// Opens the stream, then reads the history, then goes on with the stream, as the API wants it; and when the stream
/// breaks, does so again with what is newer than the newest event that it knows, but for 30 s. A message that is queued
/// while there is no stream comes when it is taken up. Keeps [the newest ids](NewestIds) that it gave out: were more to come
/// between the opening of a stream and the end of its history, some could come twice.
#[derive(Debug)]
pub struct Follow {
    http: Http,
    session_id: String,
    stream: Option<EventStream>,
    history: History,
    newest: Option<Timestamp>,
    seen: NewestIds,
    ready: VecDeque<Event>,
    open_at: Option<Instant>,
    pause: Duration,
    over: bool,
}

/// How much of the history was read since the stream was opened.
#[derive(Debug)]
enum History {
    /// What was processed since this time, from the page with this mark on; `None`: from the first.
    From {
        since: Option<Timestamp>,
        page: Option<String>,
    },
    Read,
}

impl Follow {
    pub(crate) fn new(http: Http, session_id: String) -> Self {
        Self {
            http,
            session_id,
            stream: None,
            history: History::From {
                since: None,
                page: None,
            },
            newest: None,
            seen: NewestIds::default(),
            ready: VecDeque::new(),
            open_at: None,
            pause: PAUSE,
            over: false,
        }
    }

    /// The next event; `None` once the session is terminated or deleted.
    ///
    /// # Errors
    /// See [`ClientError`]: only what [does not pass](ClientError::is_passing). Lost connections are made again for
    /// ever, with pauses from 0.5 to 10 s: give up by dropping the call.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost and none comes twice.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                self.newest = self.newest.max(event.processed_at());
                if event.id().is_empty() || self.seen.insert(event.id()) {
                    self.over |= matches!(
                        event.kind(),
                        EventType::SessionStatusTerminated | EventType::SessionDeleted
                    );
                    return Ok(Some(event));
                }
            }
            if self.over {
                return Ok(None);
            }
            match self.step().await {
                Ok(()) => {}
                Err(error) if error.is_passing() => self.lose_stream(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the stream, or reads a page, or an event of the stream: whatever is next.
    async fn step(&mut self) -> Result<(), ClientError> {
        let events = Events {
            http: &self.http,
            session_id: &self.session_id,
        };
        let Some(stream) = &mut self.stream else {
            if let Some(at) = self.open_at {
                sleep_until(at).await;
            }
            self.stream = Some(events.stream(&StreamFilter::default()).await?);
            return Ok(());
        };
        if let History::From { since, page } = &self.history {
            let since = *since;
            let filter = EventFilter {
                limit: Some(PAGE),
                page: page.clone(),
                created_at: TimeRange {
                    gte: since,
                    ..TimeRange::default()
                },
                ..EventFilter::default()
            };
            let page = events.page(&filter).await?;
            self.ready.extend(page.data);
            self.history = match page.next_page {
                Some(next) if !next.is_empty() => History::From {
                    since,
                    page: Some(next),
                },
                _ => History::Read,
            };
            return Ok(());
        }
        match stream.next().await {
            Ok(Some(event)) => {
                self.ready.push_back(event);
                self.pause = PAUSE;
            }
            // A frame that says nothing is left out; the history has what it was.
            Err(ClientError::Frame(_)) => {}
            Ok(None) => self.lose_stream(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn lose_stream(&mut self) {
        self.stream = None;
        self.history = History::From {
            since: self
                .newest
                .and_then(|newest| newest.checked_sub(OVERLAP).ok()),
            page: None,
        };
        self.open_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
