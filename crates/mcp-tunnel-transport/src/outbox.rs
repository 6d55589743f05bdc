//! Frames on their way into a connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Buf as _;
use mcp_tunnel_proto::Transmit;
use tokio::io::AsyncWrite;

use crate::config::WRITE_BATCH;

/// Slices that one write hands to TLS at most: heads and payloads of half as many frames.
const SLICES: usize = 64;

/// A batch of frames and how its writing goes.
///
/// All of it goes into vectored writes, so that frames which are ready together leave in one run of TLS records and
/// one system call. Cancel safe: what was not written stays.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) transmit: Transmit,
    /// Since when the connection has taken nothing although something waited.
    blocked_since: Option<Instant>,
    unflushed: bool,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            transmit: Transmit::new(WRITE_BATCH),
            blocked_since: None,
            unflushed: false,
        }
    }

    /// Writes the whole batch; ready once the connection has taken all of it.
    pub(crate) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        while !self.transmit.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.transmit.chunks_vectored(&mut slices);
            let slices = slices.get(..filled).unwrap_or_default();
            match Pin::new(&mut *io).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.transmit.advance(count);
                    self.blocked_since = None;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes what was written since the last flush, if anything.
    pub(crate) fn poll_flush<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            match Pin::new(io).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Poll::Pending;
                }
            }
            self.blocked_since = None;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Both, in order.
    pub(crate) fn poll_drain<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_write(io, cx, now))?;
        self.poll_flush(io, cx, now)
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }
}
