//! The direction from the peer to here.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use mcp_tunnel_proto::{ReadError, ResetCode, StreamId};
use tokio::io::{AsyncRead, ReadBuf};

use super::StreamError;
use crate::shared::{Interest, Shared, Wakes};

/// The receiving half of a [`Stream`](super::Stream).
///
/// Dropping it before its end asks the peer to stop, with [`ResetCode::CANCELLED`].
pub struct RecvStream {
    shared: Arc<Shared>,
    id: StreamId,
    end: Option<End>,
}

/// How the direction ended, for whoever reads on.
#[derive(Debug, Clone)]
enum End {
    Finished,
    Failed(StreamError),
}

impl RecvStream {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id,
            end: None,
        }
    }

    /// The next bytes as they came, without a copy; `None` once the peer has finished.
    ///
    /// Bytes that arrived before the link was lost are still delivered, and so is an end that arrived.
    ///
    /// # Errors
    ///
    /// A [`StreamError`] inside: `Reset`, `LinkLost`, or `Ended` after [`stop`](Self::stop).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost.
    pub async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_chunk(cx, usize::MAX)).await
    }

    /// [`read_chunk`](Self::read_chunk), polled, of at most `most` bytes.
    ///
    /// # Errors
    ///
    /// As [`read_chunk`](Self::read_chunk).
    pub fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        match &self.end {
            None => {}
            Some(End::Finished) => return Poll::Ready(Ok(None)),
            Some(End::Failed(error)) => return Poll::Ready(Err(error.clone().into())),
        }
        let mut state = self.shared.lock();
        let outcome = match state.connection.recv_stream(self.id) {
            Some(mut recv) => recv.read(most),
            None => Err(ReadError::Closed),
        };
        let end = match outcome {
            Ok(Some(chunk)) => {
                if state.connection.wants_transmit() {
                    Shared::wake_driver(state);
                }
                return Poll::Ready(Ok(Some(chunk)));
            }
            Err(ReadError::Blocked) if state.closed.is_none() => {
                state.park(self.id, Interest::Read, cx);
                if state.connection.wants_transmit() {
                    Shared::wake_driver(state);
                }
                return Poll::Pending;
            }
            Ok(None) => End::Finished,
            Err(ReadError::Reset(code)) => End::Failed(StreamError::Reset(code)),
            Err(_) => End::Failed(match &state.closed {
                Some(reason) => StreamError::LinkLost(reason.clone()),
                None => StreamError::Ended,
            }),
        };
        let mut wakes = Wakes::default();
        state.take_events(&mut wakes);
        if state.connection.wants_transmit() {
            Shared::wake_driver(state);
        } else {
            drop(state);
        }
        self.shared.wake(&mut wakes);
        self.end = Some(end);
        self.poll_read_chunk(cx, most)
    }

    /// Wants no more: what is unread is dropped, the peer is asked to abort. Without effect after the end.
    pub fn stop(&mut self, code: ResetCode) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(End::Failed(StreamError::Ended));
        let mut wakes = Wakes::default();
        let mut state = self.shared.lock();
        if let Some(recv) = state.connection.recv_stream(self.id) {
            recv.stop(code);
        }
        state.take_events(&mut wakes);
        Shared::wake_driver(state);
        self.shared.wake(&mut wakes);
    }

    /// Waits until the peer has aborted this direction, or the link is lost, without reading;
    /// [`StreamError::Ended`] once both directions have ended and neither can happen.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn reset_received(&mut self) -> StreamError {
        poll_fn(|cx| self.poll_reset_received(cx)).await
    }

    /// [`reset_received`](Self::reset_received), polled.
    pub fn poll_reset_received(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let mut state = self.shared.lock();
        if let Some(code) = state.reset(self.id) {
            return Poll::Ready(StreamError::Reset(code));
        }
        if let Some(End::Failed(error)) = &self.end {
            return Poll::Ready(error.clone());
        }
        if let Some(reason) = &state.closed {
            return Poll::Ready(StreamError::LinkLost(reason.clone()));
        }
        if !state.connection.has_stream(self.id) {
            return Poll::Ready(StreamError::Ended);
        }
        state.park(self.id, Interest::Reset, cx);
        Poll::Pending
    }

    /// The stream's id on its link.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut chunk = match ready!(self.poll_read_chunk(cx, buf.remaining())) {
            Ok(chunk) => chunk,
            Err(error) => return Poll::Ready(Err(error)),
        };
        // Small frames are collected: an error or the end shows at the next read.
        while let Some(bytes) = chunk {
            buf.put_slice(&bytes);
            if buf.remaining() == 0 {
                break;
            }
            chunk = match self.poll_read_chunk(cx, buf.remaining()) {
                Poll::Ready(Ok(more)) => more,
                Poll::Ready(Err(_)) | Poll::Pending => None,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(ResetCode::CANCELLED);
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream")
            .field("id", &self.id)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
