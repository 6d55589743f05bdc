//! What carries a session's bytes: its first connection, or a later one of any kind.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::resume::Socket;

/// A connection, or none between two.
///
/// The first is called without indirection; a session that has changed its link pays one more call a read or write.
pub(crate) enum Carrier<IO> {
    None,
    First(IO),
    Next(Box<dyn Socket>),
}

impl<IO> Carrier<IO> {
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::None)
    }
}

/// What an operation on no connection answers; no caller comes here.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl<IO: AsyncRead + Unpin> AsyncRead for Carrier<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::First(io) => Pin::new(io).poll_read(cx, buf),
            Self::Next(io) => Pin::new(io).poll_read(cx, buf),
            Self::None => gone(),
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Carrier<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::First(io) => Pin::new(io).poll_write(cx, buf),
            Self::Next(io) => Pin::new(io).poll_write(cx, buf),
            Self::None => gone(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::First(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Next(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::None => gone(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::First(io) => io.is_write_vectored(),
            Self::Next(io) => io.is_write_vectored(),
            Self::None => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::First(io) => Pin::new(io).poll_flush(cx),
            Self::Next(io) => Pin::new(io).poll_flush(cx),
            Self::None => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::First(io) => Pin::new(io).poll_shutdown(cx),
            Self::Next(io) => Pin::new(io).poll_shutdown(cx),
            Self::None => gone(),
        }
    }
}
