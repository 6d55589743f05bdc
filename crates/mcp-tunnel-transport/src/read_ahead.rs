//! Larger reads under TLS, where they pay.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes that are read at once while the peer sends faster than 4 KiB at a time.
const AHEAD: usize = 64 * 1024;

/// A socket for rustls, which reads 4 KiB at a time: four system calls a record.
///
/// Small messages pass straight through, without a copy or a buffer. Only when a read was filled to the brim is the
/// next one made 64 KiB large and handed on in pieces; the buffer goes as soon as the peer pauses. An idle connection
/// therefore costs nothing extra, and bulk needs a sixteenth of the reads.
///
/// Wrap a socket before its TLS handshake: `acceptor.accept(ReadAhead::new(socket))`. Writes pass through.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    ahead: BytesMut,
    filled: bool,
}

impl<IO> ReadAhead<IO> {
    /// A socket that reads ahead.
    pub fn new(io: IO) -> Self {
        Self {
            io,
            ahead: BytesMut::new(),
            filled: false,
        }
    }

    /// The socket itself; what was read ahead is lost.
    pub fn into_inner(self) -> IO {
        self.io
    }

    /// The socket itself.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            if !this.filled {
                let before = buf.remaining();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                this.filled = buf.remaining() == 0 && before > 0;
                return Poll::Ready(Ok(()));
            }
            this.ahead.reserve(AHEAD);
            let read = match poll_read_buf(Pin::new(&mut this.io), cx, &mut this.ahead) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    this.pause();
                    return Poll::Pending;
                }
            };
            this.filled = read >= AHEAD;
        }
        let count = this.ahead.len().min(buf.remaining());
        buf.put_slice(this.ahead.get(..count).unwrap_or_default());
        this.ahead.advance(count);
        if this.ahead.is_empty() && !this.filled {
            this.pause();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO> ReadAhead<IO> {
    fn pause(&mut self) {
        self.ahead = BytesMut::new();
        self.filled = false;
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_come_in_order_through_both_ways_of_reading() {
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let (mut near, far) = tokio::io::duplex(200_000);
        let (mut reader, mut received, mut piece) = (ReadAhead::new(far), Vec::new(), [0; 4096]);
        let write = async {
            near.write_all(&sent).await.unwrap();
            drop(near);
        };
        let read = async {
            loop {
                match reader.read(&mut piece).await.unwrap() {
                    0 => break,
                    count => received.extend_from_slice(&piece[..count]),
                }
            }
        };
        tokio::join!(write, read);
        assert_eq!(received, sent);
        assert_eq!(reader.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn small_messages_need_no_buffer() {
        let (mut near, far) = tokio::io::duplex(1024);
        let (mut reader, mut piece) = (ReadAhead::new(far), [0; 512]);
        for _ in 0..10 {
            near.write_all(&[7; 100]).await.unwrap();
            assert_eq!(reader.read(&mut piece).await.unwrap(), 100);
            assert_eq!(reader.ahead.capacity(), 0);
        }
    }
}
