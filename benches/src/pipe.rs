//! A long link in one process: a pipe with a delay and a rate, in tokio time.

use std::{
    collections::VecDeque,
    future::Future as _,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// What a sender's kernel takes beyond what is on its way: bytes at least, and this long at the link's rate.
const SENDER: usize = 64 * 1024;
const SENDER_TIME: Duration = Duration::from_millis(2);

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// One way.
    pub delay: Duration,
    /// Each way, in bytes per second.
    pub rate: u64,
}

impl Length {
    /// A link of so many Mbit/s with this round trip in milliseconds.
    pub const fn new(megabits: u64, rtt_millis: u64) -> Self {
        Self {
            delay: Duration::from_micros(rtt_millis * 500),
            rate: megabits * 125_000,
        }
    }

    /// On its way at once, plus what the sender's kernel takes.
    fn capacity(&self) -> usize {
        SENDER.max(self.within(SENDER_TIME)) + self.within(self.delay)
    }

    fn within(&self, time: Duration) -> usize {
        let bytes = u128::from(self.rate) * time.as_micros() / 1_000_000;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn time_of(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.rate.max(1))
    }
}

/// One end of a link. Bytes arrive in order, after the delay, no faster than the rate. Holds no buffer while nothing is
/// on its way.
pub struct Pipe {
    incoming: Arc<Way>,
    outgoing: Arc<Way>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Both ends of a new link; without a length, bytes are there at once.
pub fn pipe(length: Option<Length>) -> (Pipe, Pipe) {
    let (up, down) = (Way::new(length), Way::new(length));
    let near = Pipe {
        incoming: Arc::clone(&down),
        outgoing: Arc::clone(&up),
        sleep: None,
    };
    let far = Pipe {
        incoming: up,
        outgoing: down,
        sleep: None,
    };
    (near, far)
}

struct Way {
    length: Option<Length>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the times at which they arrive.
    pieces: VecDeque<(Option<Instant>, Bytes)>,
    held: usize,
    /// When the last byte has left.
    left_at: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    closed: bool,
}

impl Way {
    fn new(length: Option<Length>) -> Arc<Self> {
        Arc::new(Self {
            length,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl State {
    /// When a piece that is written now arrives.
    fn arrival(&mut self, length: &Length, bytes: usize) -> Instant {
        let now = Instant::now();
        let begins = self.left_at.map_or(now, |at| at.max(now));
        let leaves = begins + length.time_of(bytes);
        self.left_at = Some(leaves);
        leaves + length.delay
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        loop {
            let incoming = Arc::clone(&self.incoming);
            let mut state = incoming.lock();
            let now = incoming.length.map(|_| Instant::now());
            while let Some((due, piece)) = state.pieces.front_mut()
                && *due <= now
                && buf.remaining() > 0
            {
                let count = piece.len().min(buf.remaining());
                buf.put_slice(piece.get(..count).unwrap_or_default());
                piece.advance(count);
                if piece.is_empty() {
                    state.pieces.pop_front();
                }
                state.held -= count;
            }
            if buf.remaining() < before || state.pieces.is_empty() && state.closed {
                if state.pieces.is_empty() {
                    state.pieces = VecDeque::new();
                }
                let writer = state.writer.take();
                drop(state);
                if let Some(writer) = writer {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            let due = state.pieces.front().and_then(|(due, _)| *due);
            state.reader = Some(cx.waker().clone());
            drop(state);
            let Some(due) = due else {
                self.sleep = None;
                return Poll::Pending;
            };
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(due),
                None => self.sleep = Some(Box::pin(sleep_until(due))),
            }
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.outgoing.lock();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = self.outgoing.length;
        let capacity = length.map_or(SENDER, |length| length.capacity());
        let room = capacity.saturating_sub(state.held);
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let piece = Bytes::copy_from_slice(buf.get(..room.min(buf.len())).unwrap_or_default());
        let count = piece.len();
        let due = length.map(|length| state.arrival(&length, count));
        // A reader that waits for an earlier piece has a timer of its own.
        let reader = state
            .pieces
            .is_empty()
            .then(|| mem::take(&mut state.reader));
        state.pieces.push_back((due, piece));
        state.held += count;
        drop(state);
        if let Some(reader) = reader.flatten() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.incoming.close();
        self.outgoing.close();
    }
}
