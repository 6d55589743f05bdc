//! Frames on their way into a connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Buf as _;
use mcp_tunnel_proto::{QUANTUM, Transmit};
use tokio::io::AsyncWrite;

use crate::config::WRITE_BATCH;

/// Slices that one write hands to TLS at most: heads and payloads of half as many frames.
const SLICES: usize = 64;

/// A connection that keeps a batch for this long is slow: what waits in it delays what comes after.
const SLOW: Duration = Duration::from_millis(5);

/// A slow connection counts as fast again once it has taken so many batches in a row at once: more than a kernel takes
/// when it makes room.
const CALM: u8 = 16;

/// A batch of frames and how its writing goes.
///
/// All of it goes into vectored writes, so that frames which are ready together leave in one run of TLS records and
/// one system call. Cancel safe: what was not written stays.
///
/// What has left the session is beyond its scheduler. Hence the next batch is due only once the connection has taken
/// this one ([`is_clear`](Self::is_clear)), and on a slow connection a batch is one quantum.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) transmit: Transmit,
    /// Since when the connection has taken nothing although something waited.
    blocked_since: Option<Instant>,
    unflushed: bool,
    /// Since when the connection has not taken all of this batch.
    kept_since: Option<Instant>,
    /// Batches until a slow connection counts as fast.
    slow: u8,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            transmit: Transmit::new(WRITE_BATCH),
            blocked_since: None,
            unflushed: false,
            kept_since: None,
            slow: 0,
        }
    }

    /// Whether the connection has taken everything.
    pub(crate) fn is_clear(&self) -> bool {
        self.transmit.is_empty() && !self.unflushed
    }

    /// Writes the whole batch; ready once the connection has taken all of it.
    fn poll_write<IO: AsyncWrite + Unpin>(
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
    fn poll_flush<IO: AsyncWrite + Unpin>(
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

    /// Both, in order: ready once it is clear.
    pub(crate) fn poll_drain<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        if self.is_clear() {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(written) = self.poll_write(io, cx, now) {
            written?;
            if let Poll::Ready(flushed) = self.poll_flush(io, cx, now) {
                flushed?;
                self.on_clear(now);
                return Poll::Ready(Ok(()));
            }
        }
        self.kept_since.get_or_insert(now);
        Poll::Pending
    }

    /// Cuts the next batch to how fast this one went.
    fn on_clear(&mut self, now: Instant) {
        let kept = self.kept_since.take();
        let kept = kept.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let was_slow = self.slow > 0;
        self.slow = if kept >= SLOW {
            CALM
        } else {
            self.slow.saturating_sub(1)
        };
        if was_slow != (self.slow > 0) {
            let batch = if self.slow > 0 { QUANTUM } else { WRITE_BATCH };
            self.transmit.set_limit(batch);
        }
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::BytesMut;
    use mcp_tunnel_proto::CloseCode;
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;
    use crate::timer::now;

    /// A connection that takes a batch only after `pause`; says how large batches may be after it.
    async fn batch_after(outbox: &mut Outbox, pause: Duration) -> usize {
        let (mut near, mut far) = duplex(8);
        outbox
            .transmit
            .push_close(CloseCode::NO_ERROR, "a farewell that takes its time");
        let (whole, mut spill) = (outbox.transmit.remaining(), BytesMut::new());
        let drain = poll_fn(|cx| outbox.poll_drain(&mut near, cx, now()));
        let read = async {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            while spill.len() < whole {
                far.read_buf(&mut spill).await.unwrap();
            }
        };
        let (drained, ()) = tokio::join!(drain, read);
        drained.unwrap();
        assert!(outbox.is_clear());
        let mut limit = 0;
        while !outbox.transmit.is_full() {
            outbox.transmit.push_close(CloseCode::NO_ERROR, "");
            limit = outbox.transmit.remaining();
        }
        outbox.transmit.clear();
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_connection_gets_one_quantum_a_time() {
        let mut outbox = Outbox::new();
        assert!(batch_after(&mut outbox, Duration::ZERO).await >= WRITE_BATCH);
        assert!(batch_after(&mut outbox, SLOW).await < QUANTUM + 64);
        for _ in 1..CALM {
            assert!(batch_after(&mut outbox, Duration::ZERO).await < QUANTUM + 64);
        }
        assert!(batch_after(&mut outbox, Duration::ZERO).await >= WRITE_BATCH);
    }
}
