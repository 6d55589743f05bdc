//! A tunnel stream that can be taken away from whoever reads and writes it.
//!
//! A caller that does not read keeps hyper from polling anything of its call, and so nothing in the call's own task
//! could end it. Access that is withdrawn ends it from outside.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type Slot<S> = Arc<Mutex<Option<S>>>;

/// The stream, as the exchange uses it. Dropping it drops the stream, which resets what has not ended.
#[derive(Debug)]
pub(crate) struct Severable<S> {
    slot: Slot<S>,
    vectored: bool,
}

/// Takes the stream away. Holding it does not keep the stream.
#[derive(Debug)]
pub(crate) struct Severer<S> {
    slot: Slot<S>,
}

impl<S: AsyncWrite> Severable<S> {
    pub(crate) fn new(stream: S) -> (Self, Severer<S>) {
        let vectored = stream.is_write_vectored();
        let slot = Arc::new(Mutex::new(Some(stream)));
        (
            Self {
                slot: Arc::clone(&slot),
                vectored,
            },
            Severer { slot },
        )
    }
}

impl<S: Unpin> Severable<S> {
    fn with<T>(&self, act: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *lock(&self.slot) {
            Some(stream) => act(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl<S> Severer<S> {
    /// Drops the stream, if it has not been dropped yet.
    pub(crate) fn sever(&self) {
        let stream = lock(&self.slot).take();
        drop(stream);
    }
}

impl<S> Drop for Severable<S> {
    fn drop(&mut self) {
        let stream = lock(&self.slot).take();
        drop(stream);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(cx, bufs))
    }
}

/// A poisoned lock means that the stream panicked; dropping it is all that is left to do.
fn lock<S>(slot: &Mutex<Option<S>>) -> MutexGuard<'_, Option<S>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
