//! What was read and is not yet part of the session.

use std::{
    io,
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mcp_tunnel_proto::{HEADER, QUANTUM};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::config::READ_BUFFER;

/// Room of the first read after a pause; most calls are smaller.
const SMALL_READ: usize = 8 * 1024;

/// The longest part of a frame that bulk leaves in the buffer until the rest has come.
const PART: usize = QUANTUM + HEADER;

/// A link on which nothing comes for this long gives its read buffers back.
const PAUSE: Duration = Duration::from_secs(1);

/// What comes at once on a link that carries nothing but pings, at most.
const PINGS: usize = 256;

/// Bytes read ahead of the session, and the memory for them.
///
/// Payloads leave as slices of the buffer they were read into, so that buffer is free again only once the application
/// has let go of them. Two buffers in turn are enough for applications that do so between two reads, and keep bulk from
/// asking the allocator for 64 KiB with every read.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) bytes: BytesMut,
    /// The buffer before, which slices may still hold.
    spare: BytesMut,
    /// How much the next read may bring.
    room: usize,
    /// When a read last brought something.
    filled: Instant,
    /// Memory was given back, and nothing but pings has come since.
    resting: bool,
}

/// How a read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There may be more.
    Some,
    /// The rest comes later.
    All,
    /// Nothing will come any more.
    End,
}

impl Inbox {
    /// An inbox that `bytes` were read into already.
    pub(crate) fn new(bytes: BytesMut, now: Instant) -> Self {
        let resting = bytes.is_empty();
        Self {
            bytes: if resting { BytesMut::new() } else { bytes },
            spare: BytesMut::new(),
            room: SMALL_READ,
            filled: now,
            resting,
        }
    }

    /// Reads what is there, up to the read buffer's bound.
    ///
    /// # Errors
    ///
    /// Those of the connection, but for an end without TLS' farewell, which is an end.
    pub(crate) fn take<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> io::Result<Taken> {
        if self.resting {
            return self.take_at_rest(io, cx, now);
        }
        // What the session has left is part of one frame.
        let full = self.bytes.len().saturating_add(self.room);
        self.make_room(self.room);
        while self.bytes.len() < full {
            match poll_read_buf(Pin::new(&mut *io), cx, &mut self.bytes) {
                Poll::Ready(Ok(0)) => return Ok(Taken::End),
                Poll::Ready(Ok(_)) => self.filled = now,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Taken::End);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    if self.bytes.is_empty() && now > self.filled + PAUSE {
                        self.release();
                    }
                    return Ok(Taken::All);
                }
            }
        }
        // A peer that fills the room sends bulk: the next read may bring more at once.
        self.room = (self.room * 2).min(READ_BUFFER - PART);
        Ok(Taken::Some)
    }

    /// Reads by way of the stack and copies: a ping costs a link that rests no buffer.
    fn take_at_rest<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> io::Result<Taken> {
        let mut place = [MaybeUninit::uninit(); SMALL_READ];
        let mut read = ReadBuf::uninit(&mut place);
        match Pin::new(io).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => return Ok(Taken::End),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Taken::End);
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(Taken::All),
        }
        self.bytes.extend_from_slice(read.filled());
        self.filled = now;
        self.resting = read.filled().len() <= PINGS;
        Ok(Taken::Some)
    }

    /// Gives all memory back.
    pub(crate) fn release(&mut self) {
        self.bytes = BytesMut::new();
        self.spare = BytesMut::new();
        self.room = SMALL_READ;
        self.resting = true;
    }

    /// Makes room behind what is there, if it can in memory that is there too.
    fn make_room(&mut self, room: usize) {
        let free = self.bytes.capacity() - self.bytes.len();
        if free >= room || self.bytes.try_reclaim(room) {
            return;
        }
        let kept = self.bytes.len();
        let mut next = mem::take(&mut self.spare);
        next.clear();
        if !next.try_reclaim(kept + room) {
            // Room for a longer part of a frame next time.
            let part = if room > SMALL_READ {
                QUANTUM + HEADER
            } else {
                0
            };
            next = BytesMut::with_capacity(kept.max(part) + room);
        }
        next.extend_from_slice(&self.bytes);
        self.spare = mem::replace(&mut self.bytes, next);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::timer::now;

    async fn read(inbox: &mut Inbox, io: &mut tokio::io::DuplexStream) -> Taken {
        poll_fn(|cx| Poll::Ready(inbox.take(io, cx, now()).unwrap())).await
    }

    #[tokio::test]
    async fn two_buffers_serve_an_application_that_keeps_up() {
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut inbox = Inbox::new(BytesMut::new(), now());
        let (mut places, mut held) = (std::collections::BTreeSet::new(), Vec::new());
        for round in 0..40 {
            near.write_all(&vec![round; 60_000]).await.unwrap();
            while read(&mut inbox, &mut far).await == Taken::Some {}
            let payload = inbox.bytes.split_to(50_000).freeze();
            inbox.bytes.clear();
            assert!(payload.iter().all(|byte| *byte == round));
            if round >= 10 {
                places.insert(inbox.bytes.as_ptr() as usize / READ_BUFFER);
            }
            held = vec![payload]; // the one before is let go
        }
        drop(held);
        assert!(places.len() <= 4, "{places:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_gives_memory_back() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let mut inbox = Inbox::new(BytesMut::from(&b"hel"[..]), now());
        near.write_all(b"lo").await.unwrap();
        assert_eq!(read(&mut inbox, &mut far).await, Taken::All);
        inbox.bytes.clear();
        assert_eq!(read(&mut inbox, &mut far).await, Taken::All);
        assert!(inbox.bytes.capacity() > 0);
        tokio::time::advance(2 * PAUSE).await;
        assert_eq!(read(&mut inbox, &mut far).await, Taken::All);
        assert_eq!(inbox.bytes.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_cost_a_link_that_rests_no_buffer() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let mut inbox = Inbox::new(BytesMut::new(), now());
        for _ in 0..3 {
            near.write_all(&[7; 16]).await.unwrap();
            assert_eq!(read(&mut inbox, &mut far).await, Taken::Some);
            assert_eq!(read(&mut inbox, &mut far).await, Taken::All);
            assert_eq!(inbox.bytes.split().len(), 16);
            assert!(inbox.bytes.capacity() < PINGS);
        }
        near.write_all(&[7; 1000]).await.unwrap();
        while read(&mut inbox, &mut far).await == Taken::Some {}
        assert_eq!(inbox.bytes.len(), 1000);
        assert!(inbox.bytes.capacity() >= SMALL_READ);
    }
}
