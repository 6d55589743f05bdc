//! A session's events, each once, over lost connections.

use crate::error::ClientError;
use crate::events::Events;
use crate::http::Http;
use crate::stream::EventStream;
use managed_agents_api::{Event, EventFilter, EventType, StreamFilter};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Events of a page of history: few enough that a page of large results has room in an answer.
const PAGE: u32 = 100;

/// First pause before the stream is opened again; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);

/// Longest pause before the stream is opened again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Every event of a session once, from its first on, over lost connections.
///
/// Opens the stream, then reads the history, then goes on with the stream, as the API wants it; and does so again when
/// the stream breaks. Keeps the id of each event that it gave out.
#[derive(Debug)]
pub struct Follow {
    http: Http,
    session_id: String,
    stream: Option<EventStream>,
    history: History,
    seen: HashSet<String>,
    ready: VecDeque<Event>,
    open_at: Option<Instant>,
    pause: Duration,
    over: bool,
}

/// How much of the history was read since the stream was opened.
#[derive(Debug)]
enum History {
    /// From the page with this mark on; `None`: from the first.
    From(Option<String>),
    Read,
}

impl Follow {
    pub(crate) fn new(http: Http, session_id: String) -> Self {
        Self {
            http,
            session_id,
            stream: None,
            history: History::From(None),
            seen: HashSet::new(),
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
                if event.id().is_empty() || self.seen.insert(event.id().to_owned()) {
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
        if let History::From(page) = &self.history {
            let filter = EventFilter {
                limit: Some(PAGE),
                page: page.clone(),
                ..EventFilter::default()
            };
            let page = events.page(&filter).await?;
            self.ready.extend(page.data);
            self.history = match page.next_page {
                Some(next) if !next.is_empty() => History::From(Some(next)),
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
        self.history = History::From(None);
        self.open_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
