//! The driver over a connection that fails in every way at every byte.
//!
//! Both drivers run over memory without TLS, so that a byte offset means the same in each run. One side's
//! connection carries the fault. Whatever happens, nothing hangs, nothing panics, and nothing that was cut short
//! looks whole.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use mcp_tunnel_proto::{
    CloseCode, EdgeHandshake, GatewayEvent, GatewayHandshake, OpenHeader, Resumable, RouteName,
    SessionId, StreamKind,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    CloseReason, Link, LinkConfig, LinkDriver, carrier::Carrier, greeting::Greeting, timer::now,
    tls::ResumeKey,
};

mod memory;
mod resume;
mod wakes;

/// What goes wrong once a side has moved so many bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Reads see an end after this many bytes.
    EofAt(usize),
    /// Reads fail after this many bytes.
    ReadErrorAt(usize),
    /// Writes fail after this many bytes.
    WriteErrorAt(usize),
    /// Writes take no more after this many bytes.
    StallAt(usize),
    /// Writes take nothing after this many bytes, and say so at once.
    WriteZeroAt(usize),
    /// Reads bring nothing more after this many bytes.
    SilenceAt(usize),
    /// Flushes fail, or never end, after this many bytes written.
    FlushErrorAt(usize),
    FlushStallAt(usize),
    /// The last steps fail, or never end.
    ShutdownError,
    ShutdownStall,
    /// Every write takes, and every read brings, one byte.
    Dribble,
    /// Reads, writes and flushes are short, or not ready for a moment, as the seed has it.
    Ragged(u64),
}

impl Fault {
    /// A number of the sequence that a ragged connection follows.
    fn draw(&mut self) -> Option<u64> {
        let Self::Ragged(state) = self else {
            return None;
        };
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some(*state >> 33)
    }

    /// Whether it is not ready now, and will be soon.
    fn pauses(&mut self, cx: &Context<'_>) -> bool {
        let pauses = self.draw().is_some_and(|drawn| drawn.is_multiple_of(3));
        if pauses {
            cx.waker().wake_by_ref();
        }
        pauses
    }

    /// How much a ragged or dribbling connection moves at once.
    fn most(&mut self) -> usize {
        match self.draw() {
            Some(drawn) if drawn.is_multiple_of(4) => 1,
            Some(drawn) => usize::try_from(drawn % 2000).unwrap() + 1,
            None if *self == Self::Dribble => 1,
            None => usize::MAX,
        }
    }
}

struct Faulty {
    io: DuplexStream,
    fault: Fault,
    read: usize,
    written: usize,
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let fault = self.fault;
        let most = match fault {
            Fault::EofAt(at) if self.read >= at => return Poll::Ready(Ok(())),
            Fault::ReadErrorAt(at) if self.read >= at => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Fault::SilenceAt(at) if self.read >= at => return Poll::Pending,
            Fault::EofAt(at) | Fault::ReadErrorAt(at) | Fault::SilenceAt(at) => at - self.read,
            _ if self.fault.pauses(cx) => return Poll::Pending,
            _ => self.fault.most(),
        };
        let mut piece = buf.take(most);
        let poll = Pin::new(&mut self.io).poll_read(cx, &mut piece);
        // `take` starts with nothing known to be initialised; copying is fine for a test.
        let got = piece.filled().to_vec();
        buf.put_slice(&got);
        self.read += got.len();
        poll
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let fault = self.fault;
        let most = match fault {
            Fault::WriteErrorAt(at) if self.written >= at => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Fault::StallAt(at) if self.written >= at => return Poll::Pending,
            Fault::WriteZeroAt(at) if self.written >= at => return Poll::Ready(Ok(0)),
            Fault::WriteErrorAt(at) | Fault::StallAt(at) | Fault::WriteZeroAt(at) => {
                at - self.written
            }
            _ if self.fault.pauses(cx) => return Poll::Pending,
            _ => self.fault.most(),
        };
        let piece = buf.get(..buf.len().min(most)).unwrap_or(buf);
        let poll = Pin::new(&mut self.io).poll_write(cx, piece);
        if let Poll::Ready(Ok(count)) = &poll {
            self.written += count;
        }
        poll
    }

    /// Takes from several slices at once, and ends anywhere in them.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let fault = self.fault;
        match fault {
            Fault::FlushErrorAt(at) if self.written >= at => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Fault::FlushStallAt(at) if self.written >= at => return Poll::Pending,
            _ if self.fault.pauses(cx) => return Poll::Pending,
            _ => {}
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fault {
            Fault::ShutdownError => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Fault::ShutdownStall => return Poll::Pending,
            _ => {}
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn config() -> LinkConfig {
    LinkConfig::default().set_write_stall(Duration::from_secs(4))
}

/// The edge's link, admitted on whatever hello comes.
async fn edge<IO>(io: IO, config: &LinkConfig) -> Result<(Link, LinkDriver<IO>), CloseReason>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = EdgeHandshake::new(now(), config.protocol().clone(), "edge").unwrap();
    let mut greeting = Greeting::new(io, handshake, config);
    greeting.next().await?;
    let protocol = config.protocol().clone();
    let Greeting {
        io,
        handshake,
        input,
        mut outbox,
        ..
    } = greeting;
    let kept = Resumable::new(SessionId::new([1; 16]), config.keep());
    let kept = (!config.keep().is_zero()).then_some(kept);
    let connection = handshake
        .admit_resumable(now(), protocol, kept, &mut outbox.transmit)
        .unwrap();
    let key = Some(ResumeKey::for_test([7; 32]));
    Ok(LinkDriver::start(
        io, input, outbox, connection, key, config,
    ))
}

async fn gateway<IO>(io: IO, config: &LinkConfig) -> Result<(Link, LinkDriver<IO>), CloseReason>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let protocol = config.protocol().clone();
    let handshake = GatewayHandshake::new(now(), protocol, Bytes::new(), "gateway").unwrap();
    let mut greeting = Greeting::new(io, handshake, config);
    while !matches!(greeting.next().await?, GatewayEvent::Active(_)) {}
    let Greeting {
        io,
        handshake,
        input,
        outbox,
        ..
    } = greeting;
    let connection = handshake.into_connection(now()).unwrap();
    let key = Some(ResumeKey::for_test([7; 32]));
    Ok(LinkDriver::start(
        io, input, outbox, connection, key, config,
    ))
}

const REQUEST: &[u8] = b"a request";
const ANSWER: usize = 600;

/// Answers each request with [`ANSWER`] bytes; how it goes is the caller's business.
async fn serve(io: Faulty, config: LinkConfig) -> (usize, usize) {
    let Ok((link, mut driver)) = gateway(io, &config).await else {
        return (0, 0);
    };
    let accept = async {
        while let Some(mut incoming) = link.accept().await {
            let mut request = Vec::new();
            let read = incoming.stream.read_to_end(&mut request).await;
            if read.is_ok() {
                assert_eq!(
                    request, REQUEST,
                    "a request that was cut short looked whole"
                );
                let answer: Vec<u8> = (0..ANSWER).map(|n| n.to_le_bytes()[0]).collect();
                if incoming.stream.write_all(&answer).await.is_ok() {
                    let _ = incoming.stream.shutdown().await;
                }
            }
        }
    };
    let run = poll_fn(|cx| driver.poll(cx));
    let ((), reason) = tokio::join!(accept, run);
    let _ = reason;
    match &driver.io {
        Carrier::First(io) => (io.read, io.written),
        _ => panic!("another connection"),
    }
}

/// One call; `Ok` only if the whole answer came.
async fn call(link: &Link) -> io::Result<()> {
    let mut stream = link
        .open(header(), Bytes::from_static(REQUEST))
        .await
        .map_err(io::Error::other)?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert_eq!(
        answer.len(),
        ANSWER,
        "an answer that was cut short looked whole"
    );
    assert!(
        answer
            .iter()
            .enumerate()
            .all(|(n, byte)| *byte == n.to_le_bytes()[0])
    );
    Ok(())
}

/// Runs one call over a faulty connection. Answers whether it succeeded, how far the gateway's reads and writes
/// came, and how long (in virtual time) it took until both sides had ended.
async fn run(fault: Fault) -> (bool, (usize, usize), Duration) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let faulty = Faulty {
        io: far,
        fault,
        read: 0,
        written: 0,
    };
    let start = Instant::now();
    let mut sides = JoinSet::new();
    sides.spawn(serve(faulty, config()));
    let config = config();
    let mut succeeded = false;
    if let Ok((link, driver)) = edge(near, &config).await {
        let mut drivers = JoinSet::new();
        drivers.spawn(driver.run());
        succeeded = call(&link).await.is_ok();
        drop(link); // the last handle: the link closes
        drivers.join_next().await.unwrap().unwrap();
    }
    let moved = sides.join_next().await.unwrap().unwrap();
    (succeeded, moved, start.elapsed())
}

/// Silence, stall and close deadlines together.
const LONGEST: Duration = Duration::from_secs(15 + 4 + 5);

#[tokio::test(start_paused = true)]
async fn nothing_hangs_or_looks_whole_whatever_fails_at_whichever_byte() {
    let (succeeded, (read, written), _) = run(Fault::None).await;
    assert!(
        succeeded && read > 100 && written > ANSWER,
        "{read} read, {written} written"
    );
    let mut outcomes = BTreeSet::new();
    for at in 0..=read.max(written) {
        for fault in [
            Fault::EofAt(at),
            Fault::ReadErrorAt(at),
            Fault::WriteErrorAt(at),
            Fault::StallAt(at),
            Fault::WriteZeroAt(at),
            Fault::SilenceAt(at),
            Fault::FlushErrorAt(at),
            Fault::FlushStallAt(at),
        ] {
            let hung = timeout(10 * LONGEST, run(fault)).await;
            let (succeeded, _, took) = hung.unwrap_or_else(|_| panic!("{fault:?} hangs"));
            assert!(took <= LONGEST, "{fault:?} took {took:?}");
            outcomes.insert(succeeded);
        }
    }
    assert_eq!(
        outcomes.len(),
        2,
        "some calls fail, and some were over before the fault"
    );
}

#[tokio::test(start_paused = true)]
async fn one_byte_at_a_time_is_enough() {
    let (succeeded, _, _) = run(Fault::Dribble).await;
    assert!(succeeded);
}

#[tokio::test(start_paused = true)]
async fn short_and_late_reads_writes_and_flushes_are_enough() {
    for seed in 0..300 {
        let run = timeout(LONGEST, run(Fault::Ragged(seed))).await;
        let (succeeded, _, took) = run.unwrap_or_else(|_| panic!("seed {seed} hangs"));
        assert!(succeeded && took < Duration::from_secs(1), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_fails_or_never_comes_keeps_nobody() {
    for fault in [Fault::ShutdownError, Fault::ShutdownStall] {
        let (succeeded, _, took) = run(fault).await;
        assert!(succeeded && took <= Duration::from_secs(5), "{fault:?}");
    }
}

/// A connection that counts what it is asked to do.
struct Counting {
    io: DuplexStream,
    writes: usize,
    flushes: usize,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        Pin::new(&mut self.io).poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Counting {
    fn new(io: DuplexStream) -> Self {
        Self {
            io,
            writes: 0,
            flushes: 0,
        }
    }

    /// Writes and flushes since the last time.
    fn counted(&mut self) -> (usize, usize) {
        (
            std::mem::take(&mut self.writes),
            std::mem::take(&mut self.flushes),
        )
    }
}

struct Side {
    link: Link,
    driver: LinkDriver<Counting>,
}

impl Side {
    /// One poll of the driver; what it asked of the connection.
    async fn turn(&mut self) -> (usize, usize) {
        poll_fn(|cx| {
            assert!(self.driver.poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        match &mut self.driver.io {
            Carrier::First(io) => io.counted(),
            _ => panic!("another connection"),
        }
    }
}

/// Two sides whose drivers are polled by hand.
async fn by_hand() -> (Side, Side) {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let config = config();
    let (gateway, mut edge) = tokio::join!(gateway(Counting::new(near), &config), async {
        let (link, driver) = edge(Counting::new(far), &config).await.unwrap();
        let mut edge = Side { link, driver };
        edge.turn().await;
        edge
    });
    let (link, driver) = gateway.unwrap();
    let mut gateway = Side { link, driver };
    for _ in 0..3 {
        gateway.turn().await;
        edge.turn().await;
    }
    (gateway, edge)
}

fn header() -> OpenHeader {
    OpenHeader::new(StreamKind::Http, RouteName::default_route())
}

#[tokio::test]
async fn a_call_is_one_write_each_way() {
    let (mut gateway, mut edge) = by_hand().await;
    let mut near = edge.link.open(header(), Bytes::new()).await.unwrap();
    near.write_all(b"head, ").await.unwrap();
    near.write_all(b"body").await.unwrap();
    near.flush().await.unwrap();
    near.finish().unwrap();
    assert_eq!(edge.turn().await, (1, 1));
    gateway.turn().await;
    let mut far = gateway.link.accept().await.unwrap().stream;
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "head, body");
    assert_eq!(far.read_chunk().await.unwrap(), None);
    far.write_all(b"answer's head").await.unwrap();
    far.write_chunk(Bytes::from(vec![7; 5000])).await.unwrap();
    far.finish().unwrap();
    assert_eq!(gateway.turn().await, (1, 1));
    edge.turn().await;
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 13 + 5000);
    assert_eq!(edge.link.live_streams() + gateway.link.live_streams(), 0);
}

#[tokio::test]
async fn calls_that_are_ready_together_leave_in_one_write() {
    let (mut gateway, mut edge) = by_hand().await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let mut call = edge
            .link
            .open(header(), Bytes::from_static(b"request"))
            .await
            .unwrap();
        call.finish().unwrap();
        calls.push(call);
    }
    assert_eq!(edge.turn().await, (1, 1));
    gateway.turn().await;
    for _ in &calls {
        let mut far = gateway.link.accept().await.unwrap().stream;
        while far.read_chunk().await.unwrap().is_some() {}
        far.write_all(b"answer").await.unwrap();
        far.finish().unwrap();
    }
    assert_eq!(gateway.turn().await, (1, 1));
    edge.turn().await;
    for call in &mut calls {
        assert_eq!(call.read_chunk().await.unwrap().unwrap(), "answer");
        assert_eq!(call.read_chunk().await.unwrap(), None);
    }
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_readable_batch_wakes_its_reader_once() {
    let (mut gateway, mut edge) = by_hand().await;
    let mut near = edge
        .link
        .open(header(), Bytes::from_static(b"!"))
        .await
        .unwrap();
    edge.turn().await;
    gateway.turn().await;
    let mut far = gateway.link.accept().await.unwrap().stream;
    far.read_chunk().await.unwrap();
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut buffer = [0; 4];
    let mut buffer = ReadBuf::new(&mut buffer);
    let read = Pin::new(&mut far).poll_read(&mut Context::from_waker(&waker), &mut buffer);
    assert!(read.is_pending());
    for _ in 0..30 {
        near.write_chunk(Bytes::from(vec![0; 1500])).await.unwrap();
        edge.turn().await; // 30 writes, 30 frames
    }
    gateway.turn().await;
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
}
