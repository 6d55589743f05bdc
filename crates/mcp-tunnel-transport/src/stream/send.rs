//! The direction from here to the peer.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use mcp_tunnel_proto::{ResetCode, SendStream as ProtoSend, StreamId, WriteError};
use tokio::io::AsyncWrite;

use super::StreamError;
use crate::shared::{Interest, Shared, State, Wakes};

/// The sending half of a [`Stream`](super::Stream).
///
/// Dropping it before [`finish`](Self::finish) resets the direction with [`ResetCode::CANCELLED`].
pub struct SendStream {
    shared: Arc<Shared>,
    id: StreamId,
    /// Finished or reset by this side.
    ended: bool,
}

impl SendStream {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id,
            ended: false,
        }
    }

    /// Sends all of `chunk` without copying it (pieces under 1 KiB are collected); waits for the peer's credit.
    ///
    /// Done means accepted, not arrived.
    ///
    /// # Errors
    ///
    /// A [`StreamError`] inside: `Stopped`, `LinkLost` or `Ended`.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: some of `chunk` may have been accepted, and nobody knows how much. Use
    /// [`poll_write_chunk`](Self::poll_write_chunk) where that matters.
    pub async fn write_chunk(&mut self, mut chunk: Bytes) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_chunk(cx, &mut chunk)).await
    }

    /// Takes as much off the front of `chunk` as there is room for; ready once it is empty.
    ///
    /// # Errors
    ///
    /// As [`write_chunk`](Self::write_chunk).
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        while !chunk.is_empty() {
            ready!(self.poll_with(cx, |send| send.write(chunk)))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the direction after what was written; the end travels on the last bytes if those have not left yet.
    ///
    /// # Errors
    ///
    /// A [`StreamError`] inside: `Stopped`, `LinkLost`, or `Ended` the second time.
    pub fn finish(&mut self) -> io::Result<()> {
        self.end(|send| send.finish())?
            .map_err(|error| match error {
                WriteError::Stopped(code) => StreamError::Stopped(code).into(),
                _ => StreamError::Ended.into(),
            })
    }

    /// Aborts the direction: what has not left is dropped, the peer sees an error. Without effect once it has ended.
    pub fn reset(&mut self, code: ResetCode) {
        let _ = self.end(|send| send.reset(code));
    }

    /// Waits until the peer wants no more of this direction, or the link is lost; [`StreamError::Ended`] once both
    /// directions have ended and neither can happen.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn stopped(&mut self) -> StreamError {
        poll_fn(|cx| self.poll_stopped(cx)).await
    }

    /// [`stopped`](Self::stopped), polled.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let mut state = self.shared.lock();
        if let Some(code) = state.stopped(self.id) {
            return Poll::Ready(StreamError::Stopped(code));
        }
        if let Some(reason) = &state.closed {
            return Poll::Ready(StreamError::LinkLost(reason.clone()));
        }
        if !state.connection.has_stream(self.id) {
            return Poll::Ready(StreamError::Ended);
        }
        state.park(self.id, Interest::Stop, cx);
        Poll::Pending
    }

    /// The stream's id on its link.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    fn poll_with<T>(
        &self,
        cx: &Context<'_>,
        write: impl FnOnce(&mut ProtoSend<'_>) -> Result<T, WriteError>,
    ) -> Poll<io::Result<T>> {
        if self.ended {
            return Poll::Ready(Err(StreamError::Ended.into()));
        }
        let mut state = self.shared.lock();
        if let Some(reason) = &state.closed {
            return Poll::Ready(Err(StreamError::LinkLost(reason.clone()).into()));
        }
        let outcome = match state.connection.send_stream(self.id) {
            Some(mut send) => write(&mut send),
            None => Err(WriteError::Closed),
        };
        Poll::Ready(match outcome {
            Ok(written) => {
                Shared::wake_driver(state);
                Ok(written)
            }
            Err(WriteError::Blocked) => {
                state.park(self.id, Interest::Write, cx);
                return Poll::Pending;
            }
            Err(WriteError::Stopped(code)) => Err(StreamError::Stopped(code).into()),
            Err(_) => Err(StreamError::Ended.into()),
        })
    }

    /// Lets go of the direction, once.
    fn end<T>(&mut self, end: impl FnOnce(ProtoSend<'_>) -> T) -> io::Result<T> {
        if std::mem::replace(&mut self.ended, true) {
            return Err(StreamError::Ended.into());
        }
        let mut wakes = Wakes::default();
        let mut state = self.shared.lock();
        let ended = state.connection.send_stream(self.id).map(end);
        let lost = lost(&state);
        state.take_events(&mut wakes);
        Shared::wake_driver(state);
        self.shared.wake(&mut wakes);
        match (lost, ended) {
            (None, Some(ended)) => Ok(ended),
            (Some(lost), _) => Err(lost.into()),
            (None, None) => Err(StreamError::Ended.into()),
        }
    }
}

fn lost(state: &State) -> Option<StreamError> {
    state.closed.clone().map(StreamError::LinkLost)
}

impl AsyncWrite for SendStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_with(cx, |send| send.write_slice(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_with(cx, |send| {
            let mut written = 0;
            for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
                match send.write_slice(buf) {
                    Ok(count) => written += count,
                    Err(error) if written == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(written)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Announces the stream if that has not happened yet; what is written leaves by itself.
    ///
    /// A lost link is no error here, but at the next write or read: who flushes between reads, as hyper does, would
    /// else never read an answer that had arrived whole before the link ended.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.shared.lock();
        if state.connection.wants_transmit() {
            Shared::wake_driver(state);
        }
        Poll::Ready(Ok(()))
    }

    /// [`finish`](SendStream::finish); again and again it is fine.
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.finish())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.reset(ResetCode::CANCELLED);
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream")
            .field("id", &self.id)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
