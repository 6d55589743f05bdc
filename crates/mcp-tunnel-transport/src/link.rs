//! A link as its users hold it.

use std::{
    fmt,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use mcp_tunnel_proto::{self as proto, CloseCode, OpenHeader, SessionId, StreamId};
use tokio::{sync::Notify, time::timeout};

use crate::{
    CloseReason, Stream, StreamError,
    shared::{Shared, State},
};

/// A link that carries streams; clones are the same link.
///
/// The bytes move as long as its [`LinkDriver`](crate::LinkDriver) runs. When the last clone is dropped the link takes
/// and opens no further streams, and closes once those that are left have ended.
#[derive(Clone)]
pub struct Link {
    handle: Arc<Handle>,
}

/// A stream that the peer opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct IncomingStream {
    /// What the peer said about it.
    pub header: OpenHeader,
    /// The stream; the peer's first bytes are usually there already.
    pub stream: Stream,
}

/// Why no stream was opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer allowed no further stream in time.
    #[error("the peer had no room for another stream within {after:?}")]
    NoRoom {
        /// The configured time.
        after: Duration,
    },
    /// The stream was opened, and the peer did not take all of its first bytes in time: it may have acted on those that
    /// it has. The stream was reset.
    #[error("the peer did not take the stream's first bytes within {after:?}")]
    Stalled {
        /// The configured time.
        after: Duration,
    },
    /// One side is going away: open it on another link.
    #[error("the link is going away")]
    GoingAway,
    /// The header is longer than the protocol allows.
    #[error("the stream's header is too long")]
    HeaderTooLong,
    /// All stream ids of this link are used up: a new link is needed.
    #[error("the link's stream ids are used up")]
    IdsExhausted,
    /// The link has ended.
    #[error("the link has ended")]
    Closed(#[source] CloseReason),
    /// The peer ended the stream while its first bytes were on their way.
    #[error("the stream ended at once")]
    Stream(#[from] StreamError),
}

impl OpenError {
    /// Whether the peer has surely not processed anything, so that another link may be tried.
    #[must_use]
    pub fn is_replay_safe(&self) -> bool {
        match self {
            Self::NoRoom { .. } | Self::GoingAway | Self::IdsExhausted => true,
            Self::Closed(_) | Self::HeaderTooLong => true,
            Self::Stalled { .. } => false,
            Self::Stream(error) => error.is_replay_safe(),
        }
    }
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle { shared }),
        }
    }

    /// Opens a stream, with its first bytes if there are any already.
    ///
    /// OPEN needs no answer and leaves in one write with `first`. With an empty `first` it waits for the first write,
    /// flush or read on the stream, so that it leaves together with what is written next. Only where the peer allows
    /// no further stream, or no more bytes of `first`, does this wait, at most
    /// [`LinkConfig::set_open_timeout`](crate::LinkConfig::set_open_timeout).
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens no stream, or resets the one whose first bytes were under way.
    pub async fn open(&self, header: OpenHeader, mut first: Bytes) -> Result<Stream, OpenError> {
        let mut opened = match self.try_open(header.clone(), &mut first)? {
            Some(stream) => stream,
            None => self.open_later(header, &mut first).await?,
        };
        if !first.is_empty() {
            let after = self.shared().open_timeout;
            let written = timeout(after, opened.write_chunk(first)).await;
            let written = written.map_err(|_elapsed| OpenError::Stalled { after })?;
            written.map_err(stream_error)?;
        }
        Ok(opened)
    }

    /// The next stream that the peer opened; `None` once no further will come, because the link has
    /// [`drained`](Self::drained) or ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no stream is lost.
    pub async fn accept(&self) -> Option<IncomingStream> {
        self.wait(&self.shared().arrivals, |state| {
            match state.incoming.pop_front() {
                Some(arrived) => Some(Some(arrived)),
                None if state.is_accepting() => None,
                None => Some(None),
            }
        })
        .await
        .map(|(id, header)| IncomingStream {
            header,
            stream: self.stream(id),
        })
    }

    /// Waits until the peer has said that it takes no new streams; `None` if the link ended without that.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn going_away(&self) -> Option<CloseCode> {
        self.wait(&self.shared().turns, |state| match state.going_away {
            Some(code) => Some(Some(code)),
            None => state.closed.is_some().then_some(None),
        })
        .await
    }

    /// The session's name, if it outlives its connection.
    pub fn session(&self) -> Option<SessionId> {
        let state = self.shared().lock();
        state
            .resumption
            .as_ref()
            .map(|resumption| resumption.session)
    }

    /// Waits until the session has no connection, and says why; `None` once it has ended. Its streams stay open, and
    /// what is written waits.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn detached(&self) -> Option<CloseReason> {
        self.wait(&self.shared().turns, |state| {
            match (&state.closed, state.lost()) {
                (Some(_), _) => Some(None),
                (None, Some(reason)) => Some(Some(reason.clone())),
                (None, None) => None,
            }
        })
        .await
    }

    /// Waits until the session has a connection; `false` once it has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn attached(&self) -> bool {
        self.wait(&self.shared().turns, |state| {
            match (&state.closed, state.lost()) {
                (Some(_), _) => Some(false),
                (None, Some(_)) => None,
                (None, None) => Some(true),
            }
        })
        .await
    }

    /// Whether the session has a connection now.
    pub fn is_attached(&self) -> bool {
        let state = self.shared().lock();
        state.closed.is_none() && state.lost().is_none()
    }

    /// Bytes that were sent and are kept until the peer has them.
    pub fn retained(&self) -> u64 {
        self.shared().lock().connection.retained()
    }

    /// Ends a session that has no connection: its streams fail with [`CloseReason::NotResumed`]. Without effect on one
    /// that has a connection.
    pub fn give_up(&self) {
        self.shared().give_up();
    }

    /// Waits until one side is going away and the last stream has ended, or the link has.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn drained(&self) {
        self.wait(&self.shared().turns, |state| {
            (state.drained || state.closed.is_some()).then_some(())
        })
        .await;
    }

    /// Waits for the end of the link.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        self.wait(&self.shared().turns, |state| state.closed.clone())
            .await
    }

    /// Takes no new streams of the peer, in two steps so that none is lost; running streams go on. The peer is told
    /// `code` and how long they may take. See [`drained`](Self::drained).
    pub fn go_away(&self, code: CloseCode, drain: Option<Duration>) {
        let mut state = self.shared().lock();
        if !state.departing {
            state.departing = true;
            state.connection.go_away(code, drain, "");
        }
        Shared::wake_driver(state);
    }

    /// [`go_away`](Self::go_away), then [`drained`](Self::drained) for at most `within`, then [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the link going away, and not closed.
    pub async fn drain(&self, code: CloseCode, within: Duration) {
        self.go_away(code, Some(within));
        let _ = timeout(within, self.drained()).await;
        self.close(code, "");
    }

    /// Ends the link at once: its streams fail, the peer is told `code` and `text` (at most 256 bytes).
    pub fn close(&self, code: CloseCode, text: &str) {
        self.shared().close(code, text);
    }

    /// Whether the link has not ended; it may be going away.
    pub fn is_alive(&self) -> bool {
        self.shared().lock().closed.is_none()
    }

    /// Whether the link takes new streams from this side, and has a connection for them.
    pub fn is_open(&self) -> bool {
        let state = self.shared().lock();
        state.closed.is_none()
            && state.lost().is_none()
            && state.going_away.is_none()
            && !state.departing
    }

    /// Streams of both sides that have not ended.
    pub fn live_streams(&self) -> usize {
        self.shared().lock().connection.live_streams()
    }

    /// Smoothed round-trip time, once a ping was answered.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared().lock().connection.rtt()
    }

    /// The machine has slept for so long, for programs that hear of it from their system: a ping asks for the peer at
    /// once, and a session that is kept lets go of a connection that must be dead. A link that was dialled notices by
    /// itself, see [`LinkConfig::set_sleep_watch`](crate::LinkConfig::set_sleep_watch).
    pub fn slept(&self, time: Duration) {
        let mut state = self.shared().lock();
        state.connection.on_sleep(time);
        Shared::wake_driver(state);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn stream(&self, id: StreamId) -> Stream {
        Stream::new(Arc::clone(self.shared()), id)
    }

    /// `None`: the peer allows no further stream now.
    fn try_open(&self, header: OpenHeader, first: &mut Bytes) -> Result<Option<Stream>, OpenError> {
        let mut state = self.shared().lock();
        if let Some(reason) = &state.closed {
            return Err(OpenError::Closed(reason.clone()));
        }
        let announce = !first.is_empty();
        let id = match state.connection.open(header, first) {
            Ok(id) => id,
            Err(proto::OpenError::NoSlot) => return Ok(None),
            Err(error) => return Err(refused(error, &state)),
        };
        if announce {
            Shared::wake_driver(state);
        }
        Ok(Some(self.stream(id)))
    }

    async fn open_later(&self, header: OpenHeader, first: &mut Bytes) -> Result<Stream, OpenError> {
        let slots = &self.shared().slots;
        let after = self.shared().open_timeout;
        let wait = async {
            loop {
                let slot = slots.notified();
                tokio::pin!(slot);
                slot.as_mut().enable();
                if let Some(stream) = self.try_open(header.clone(), first)? {
                    return Ok::<_, OpenError>(stream);
                }
                slot.await;
            }
        };
        let opened = timeout(after, wait).await;
        let stream = opened.map_err(|_elapsed| OpenError::NoRoom { after })??;
        // One notice may stand for many slots: whoever got one lets the next try.
        slots.notify_one();
        Ok(stream)
    }

    /// Looks at the state whenever `notify` says so, until `look` has an answer.
    async fn wait<T>(
        &self,
        notify: &Notify,
        mut look: impl FnMut(&mut MutexGuard<'_, State>) -> Option<T>,
    ) -> T {
        loop {
            let notified = notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(answer) = look(&mut self.shared().lock()) {
                return answer;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared().lock();
        f.debug_struct("Link")
            .field("live_streams", &state.connection.live_streams())
            .field("rtt", &state.connection.rtt())
            .field("closed", &state.closed)
            .finish()
    }
}

/// Counts the links among the holders of what they share.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.orphan();
    }
}

fn refused(error: proto::OpenError, state: &State) -> OpenError {
    match error {
        proto::OpenError::GoingAway => OpenError::GoingAway,
        proto::OpenError::HeadTooLong => OpenError::HeaderTooLong,
        proto::OpenError::IdsExhausted => OpenError::IdsExhausted,
        _ => OpenError::Closed(state.closed.clone().unwrap_or(CloseReason::Abandoned)),
    }
}

fn stream_error(error: std::io::Error) -> OpenError {
    let stream = StreamError::of(&error).cloned();
    OpenError::Stream(stream.unwrap_or(StreamError::Ended))
}
