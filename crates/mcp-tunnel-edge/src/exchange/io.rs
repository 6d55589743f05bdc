//! A tunnel stream as hyper's IO: the end of the request is a FIN, and nothing else ever is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
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
}

impl<S> StreamIo<S> {
    pub(crate) fn new(stream: S, upload: Upload) -> Self {
        Self {
            stream: TokioIo::new(stream),
            upload,
            end: End::Open,
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end == End::Open && self.upload.is_told_end() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.end = End::Sent;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
