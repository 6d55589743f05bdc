//! A TCP stream that acknowledges at once what it reads, where somebody waits for more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP stream that arms `TCP_QUICKACK` again for what it reads.
///
/// A server that leaves `TCP_NODELAY` off sends the second small write of an answer only when the first one is
/// acknowledged, and the kernel delays that acknowledgement by 40 ms. The option does not last: Linux clears it on its
/// own, so setting it once changes nothing.
///
/// Arming costs a system call and a segment on the wire, wasted after the last byte of an answer, which the next
/// request acknowledges on its own. Only the reader of the answer knows that more is to come: it says so through
/// [`Acks`]. Without one, whatever was read is acknowledged once there is nothing more to read.
#[derive(Debug)]
pub(crate) struct QuickAck {
    stream: TcpStream,
    acks: Acks,
    on_demand: bool,
}

/// Asks for the acknowledgement of what a [`QuickAck`] has read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acks(Arc<AtomicU8>);

impl Acks {
    const NOTHING: u8 = 0;
    /// Bytes were read that nobody has asked to acknowledge.
    const OWED: u8 = 1;
    const ASKED: u8 = 2;

    /// Says that more must come. If anything is owed, the next read that finds nothing acknowledges it: then `true`,
    /// and the caller reads on.
    pub(crate) fn ask(&self) -> bool {
        let order = Ordering::Relaxed;
        let asked = self
            .0
            .compare_exchange(Self::OWED, Self::ASKED, order, order);
        asked.is_ok()
    }

    /// A new request acknowledges all that was read before it.
    pub(crate) fn forget(&self) {
        self.set(Self::NOTHING);
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }
}

impl QuickAck {
    pub(crate) fn new(stream: TcpStream) -> Self {
        arm(&stream);
        Self {
            stream,
            acks: Acks::default(),
            on_demand: false,
        }
    }

    /// From now on acknowledges at once only what the reader asks for.
    pub(crate) fn acks(&mut self) -> Acks {
        self.on_demand = true;
        self.acks.clone()
    }
}

impl AsyncRead for QuickAck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.acks.set(Acks::OWED);
        } else if self.acks.is(Acks::ASKED) || (!self.on_demand && self.acks.is(Acks::OWED)) {
            arm(&self.stream);
            self.acks.set(Acks::NOTHING);
        }
        read
    }
}

impl AsyncWrite for QuickAck {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A socket that refuses the option still works, only slower: nothing to report.
#[cfg(target_os = "linux")]
fn arm(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
}

#[cfg(not(target_os = "linux"))]
fn arm(_: &TcpStream) {}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::task::Waker;

    use rustix::net::sockopt::{set_tcp_quickack, tcp_quickack};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_acknowledged_when_more_must_come() {
        let (mut stream, mut peer) = pair().await;
        for _ in 0..3 {
            assert!(!armed_after_a_byte(&mut stream, &mut peer).await);
            assert!(finds_nothing(&mut stream));
            assert!(tcp_quickack(&stream.stream).unwrap());
        }
    }

    #[tokio::test]
    async fn on_demand_the_end_of_an_answer_is_not() {
        let (mut stream, mut peer) = pair().await;
        let acks = stream.acks();
        assert!(!acks.ask(), "nothing was read");
        for _ in 0..3 {
            assert!(!armed_after_a_byte(&mut stream, &mut peer).await);
            assert!(finds_nothing(&mut stream));
            assert!(!tcp_quickack(&stream.stream).unwrap());
            assert!(acks.ask());
            assert!(finds_nothing(&mut stream));
            assert!(tcp_quickack(&stream.stream).unwrap());
            assert!(!acks.ask(), "it is acknowledged");
        }
        armed_after_a_byte(&mut stream, &mut peer).await;
        acks.forget();
        assert!(!acks.ask(), "the next request acknowledges it");
    }

    async fn pair() -> (QuickAck, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let stream = QuickAck::new(stream);
        assert!(tcp_quickack(&stream.stream).unwrap());
        (stream, peer)
    }

    async fn armed_after_a_byte(stream: &mut QuickAck, peer: &mut TcpStream) -> bool {
        set_tcp_quickack(&stream.stream, false).unwrap();
        peer.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        tcp_quickack(&stream.stream).unwrap()
    }

    fn finds_nothing(stream: &mut QuickAck) -> bool {
        let (mut space, mut now) = ([0; 8], Context::from_waker(Waker::noop()));
        let mut buf = ReadBuf::new(&mut space);
        Pin::new(stream).poll_read(&mut now, &mut buf).is_pending()
    }
}
