//! A session's events without a gap: the stream is opened first, then the history is read, then the stream.
//!
//! ```text
//!  open stream ─► history, page by page ─► CaughtUp ─► stream … ─┐
//!      ▲  pause 0.5 s to 10 s                                   │ dropped, silent, or asked to read again
//!      └────────────────────────────────────────────────────────┘
//! ```
//!
//! After the first time only what is newer than the newest event known is read again; ids tell what came twice. The stream
//! waits in its socket while the history is read, so that nothing is held twice in memory.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::access::{Access, Refusal};
use crate::calls::Observation;
use crate::observe::observe;

/// Events that wait for the session; more wait in the socket.
pub(crate) const WAITING: usize = 64;
/// A stream that says nothing for so long, not even a ping, is opened again.
const SILENCE: Duration = Duration::from_secs(300);
/// Pauses between two connections.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How far before the newest known event the history is read again: events of one moment may come in any order.
const OVERLAP: Duration = Duration::from_secs(30);

/// What comes out.
#[derive(Debug)]
pub(crate) enum Fed {
    /// An event and its id.
    Event(String, Observation),
    /// The history is read.
    CaughtUp,
    /// There will be no more.
    Ended(Refusal),
}

/// Feeds a session until its receiver is dropped.
pub(crate) async fn feed(access: Arc<Access>, out: mpsc::Sender<Fed>, again: Arc<Notify>) {
    let mut feeder = Feeder {
        access,
        out,
        again,
        newest: None,
    };
    let mut pause = PAUSE.0;
    loop {
        let began = Instant::now();
        match feeder.connection().await {
            Ok(Gone::AskedToRead) => {
                pause = PAUSE.0;
                continue;
            }
            Ok(Gone::Session) => return,
            Ok(Gone::Stream { heard }) if heard || began.elapsed() > PAUSE.1 => pause = PAUSE.0,
            Ok(Gone::Stream { .. }) => {}
            Err(Refusal::Later { after, .. }) => pause = pause.max(after.unwrap_or_default()),
            Err(refusal) => {
                let _ = feeder.out.send(Fed::Ended(refusal)).await;
                return;
            }
        }
        tokio::select! {
            () = sleep(pause.min(PAUSE.1)) => {}
            () = feeder.out.closed() => return,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Why a connection is over.
enum Gone {
    /// The session wants its history read again.
    AskedToRead,
    /// Nobody listens any more.
    Session,
    /// The stream ended.
    Stream {
        /// It had said something.
        heard: bool,
    },
}

struct Feeder {
    access: Arc<Access>,
    out: mpsc::Sender<Fed>,
    again: Arc<Notify>,
    newest: Option<Timestamp>,
}

impl Feeder {
    async fn connection(&mut self) -> Result<Gone, Refusal> {
        let mut stream = self.access.stream().await?;
        if !self.history().await? || self.out.send(Fed::CaughtUp).await.is_err() {
            return Ok(Gone::Session);
        }
        let mut heard = false;
        loop {
            let next = tokio::select! {
                next = timeout(SILENCE, stream.next()) => next,
                () = self.again.notified() => return Ok(Gone::AskedToRead),
                () = self.out.closed() => return Ok(Gone::Session),
            };
            match next {
                Ok(Ok(Some(event))) => {
                    heard = true;
                    if !self.tell(&event).await {
                        return Ok(Gone::Session);
                    }
                }
                Ok(Ok(None)) => return Ok(Gone::Stream { heard }),
                Ok(Err(error)) => {
                    debug!(session = self.access.session(), %error, "the event stream broke");
                    return Ok(Gone::Stream { heard });
                }
                Err(_) => {
                    warn!(
                        session = self.access.session(),
                        "the event stream is silent"
                    );
                    return Ok(Gone::Stream { heard });
                }
            }
        }
    }

    /// Reads the history; whether anybody listens.
    async fn history(&mut self) -> Result<bool, Refusal> {
        let since = self
            .newest
            .and_then(|newest| newest.checked_sub(OVERLAP).ok());
        let mut page: Option<String> = None;
        loop {
            let found = self.access.history(since, page.clone()).await?;
            for event in &found.data {
                if !self.tell(event).await {
                    return Ok(false);
                }
            }
            match found.next_page.filter(|next| !next.is_empty()) {
                // It would be asked for ever, and at once.
                Some(next) if page.as_ref() == Some(&next) => {
                    let why = "a page of the history names itself as the next one".to_owned();
                    return Err(Refusal::Later { after: None, why });
                }
                Some(next) => page = Some(next),
                None => return Ok(true),
            }
        }
    }

    /// Whether the session listens on: not to what follows its end.
    async fn tell(&mut self, event: &managed_agents_api::Event) -> bool {
        self.newest = self.newest.max(event.processed_at());
        let observation = observe(event);
        if observation == Observation::Other {
            return !self.out.is_closed();
        }
        let over = observation == Observation::SessionEnded;
        let fed = Fed::Event(event.id().to_owned(), observation);
        self.out.send(fed).await.is_ok() && !over
    }
}
