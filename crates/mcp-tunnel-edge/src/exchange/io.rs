//! A tunnel stream as hyper's IO: the end of the request is a FIN, and nothing else ever is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use mcp_tunnel_transport::StreamError;
use tokio::io::{AsyncRead, AsyncWrite};

use super::upload::Upload;

/// The near end of one exchange.
///
/// hyper flushes after it has written the request's last byte; the FIN goes out in that flush, on the last data frame
/// instead of in a frame of its own. Before that point a shutdown by hyper is not passed on: an exchange that ends
/// early is dropped, and dropping the stream resets it.
#[derive(Debug)]
pub(crate) struct StreamIo<S> {
    stream: TokioIo<S>,
    upload: Upload,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Sent,
    /// The far end wants no more of the request: it has answered already, or is about to. What still comes from the
    /// caller is dropped, since hyper would take an error here for the end of the answer too.
    Unwanted,
}

impl<S> StreamIo<S> {
    pub(crate) fn new(stream: S, upload: Upload) -> Self {
        Self {
            stream: TokioIo::new(stream),
            upload,
            end: End::Open,
        }
    }

    /// A far end that stops reading is no failure of the exchange; what it has to say is still to be read.
    fn unless_stopped<T>(&mut self, done: io::Result<T>, instead: T) -> io::Result<T> {
        let error = match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match StreamError::of(&error) {
            Some(StreamError::Stopped(_)) => {
                self.end = End::Unwanted;
                Ok(instead)
            }
            _ => Err(error),
        }
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for StreamIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for StreamIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end == End::Unwanted {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.unless_stopped(written, buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match self.end {
            End::Unwanted => return Poll::Ready(Ok(())),
            End::Open if self.upload.is_told_end() => {
                let sent = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
                self.end = End::Sent;
                sent
            }
            End::Open | End::Sent => ready!(Pin::new(&mut self.stream).poll_flush(cx)),
        };
        Poll::Ready(self.unless_stopped(flushed, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.upload.is_told_end() {
            return self.as_mut().poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if self.end == End::Unwanted {
            return Poll::Ready(Ok(len));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.unless_stopped(written, len))
    }
}
