//! The stream of a session's events.

use crate::error::{ApiError, ClientError};
use crate::http::Http;
use managed_agents_api::Event;
use managed_agents_api::sse::{Message, Reader};
use reqwest::Response;
use std::time::Duration;
use tokio::time::timeout;

/// Longest frame that is read: an event with the largest result has room. What a server gains by more is memory of the
/// client, for the time of one stream.
const FRAME_BYTES: usize = 32 << 20;

/// How long a stream may be silent: official clients wait as long. Our own servers ping every 15 s.
const SILENCE: Duration = Duration::from_secs(600);

/// A stream of events, from when it was opened on.
///
/// Dropping it ends the stream.
#[derive(Debug)]
pub struct EventStream {
    http: Http,
    response: Response,
    reader: Reader,
    silence: Duration,
    ended: bool,
}

impl EventStream {
    pub(crate) fn new(http: Http, response: Response) -> Self {
        Self {
            http,
            response,
            reader: Reader::new(FRAME_BYTES),
            silence: SILENCE,
            ended: false,
        }
    }

    /// Takes the stream for dead after this long without a byte; pings count as bytes. Default: 600 s.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// The next event; `None` where the server ended the stream. Pings are left out.
    ///
    /// # Errors
    /// See [`ClientError`]. After [`ClientError::Frame`] the stream can be read on; every other error is its end.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read is kept for the next call.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(frame) = self.reader.next_frame() {
                match frame.message()? {
                    Message::Event(event) => return Ok(Some(event)),
                    Message::Ping => {}
                    Message::Error(envelope) => {
                        self.ended = true;
                        let status = envelope.error.kind.status();
                        return Err(ApiError::of(status, envelope).into());
                    }
                }
            }
            if self.ended {
                return Ok(None);
            }
            let read = timeout(self.silence, self.response.chunk()).await;
            // Whatever is no chunk ends the stream.
            self.ended = !matches!(read, Ok(Ok(Some(_))));
            let Ok(read) = read else {
                return Err(ClientError::Silent {
                    host: self.http.host(),
                    after: self.silence,
                });
            };
            if let Some(chunk) = read.map_err(|source| self.http.broken(source))? {
                let fed = self.reader.feed(&chunk);
                self.ended = fed.is_err();
                fed?;
            }
        }
    }
}
