//! Streams of a link: bytes both ways, each way ended on its own.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use mcp_tunnel_proto::{ResetCode, StreamId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::shared::Shared;

mod error;
mod recv;
mod send;

pub use error::StreamError;
pub use recv::RecvStream;
pub use send::SendStream;

/// A stream of a link, both directions.
///
/// As [`AsyncRead`] it ends only where the peer finished; a reset and a lost link are errors of kind
/// [`io::ErrorKind::ConnectionReset`], with a [`StreamError`] inside. As [`AsyncWrite`], `flush` does nothing but let a
/// stream that has not been announced yet be announced (what is written leaves by itself), and `shutdown` finishes.
///
/// Dropping it resets what was not finished and stops what was not read to its end, with
/// [`ResetCode::CANCELLED`]: an abort never looks like an end.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            send: SendStream::new(Arc::clone(&shared), id),
            recv: RecvStream::new(shared, id),
        }
    }

    /// The two directions, for two tasks.
    #[must_use]
    pub fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// As [`SendStream::write_chunk`].
    ///
    /// # Errors
    ///
    /// As [`SendStream::write_chunk`].
    ///
    /// # Cancel safety
    ///
    /// As [`SendStream::write_chunk`].
    pub async fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        self.send.write_chunk(chunk).await
    }

    /// As [`SendStream::finish`].
    ///
    /// # Errors
    ///
    /// As [`SendStream::finish`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.send.finish()
    }

    /// As [`RecvStream::read_chunk`].
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    ///
    /// # Cancel safety
    ///
    /// As [`RecvStream::read_chunk`].
    pub async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        self.recv.read_chunk().await
    }

    /// Aborts both directions: RESET for what is sent, STOP for what comes.
    pub fn reset(&mut self, code: ResetCode) {
        self.send.reset(code);
        self.recv.stop(code);
    }

    /// Waits until the peer has aborted either direction or the link is lost, without reading or writing;
    /// [`StreamError::Ended`] once both directions have ended and neither can happen.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn aborted(&mut self) -> StreamError {
        std::future::poll_fn(|cx| match self.recv.poll_reset_received(cx) {
            Poll::Pending => self.send.poll_stopped(cx),
            ready => ready,
        })
        .await
    }

    /// The stream's id on its link.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.send.id()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.send.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
