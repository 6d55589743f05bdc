//! A hostile network on the runtime's paused clock: connections that are late, slow, cut or swallow everything.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::timer::{Timer, now};

/// Numbers that a seed determines (splitmix64).
pub(super) struct Rng(u64);

impl Rng {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn bytes(&mut self, end: u64) -> usize {
        usize::try_from(self.below(end)).expect("a length")
    }

    pub(super) fn millis(&mut self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}

thread_local! {
    /// The network of the run on this thread.
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// Everything that dials on this thread meets it.
#[derive(Clone)]
pub(super) struct Network {
    rng: Arc<Mutex<Rng>>,
    edge: mpsc::Sender<Socket>,
    start: Instant,
    hostile_until: Instant,
    dialled: Arc<Mutex<u32>>,
}

impl Network {
    /// A network for this thread, and what arrives at the edge.
    pub(super) fn start(seed: u64, hostile: Duration) -> (Self, mpsc::Receiver<Socket>) {
        let (edge, arriving) = mpsc::channel(64);
        let network = Self {
            rng: Arc::new(Mutex::new(Rng(seed))),
            edge,
            start: now(),
            hostile_until: now() + hostile,
            dialled: Arc::default(),
        };
        NETWORK.set(Some(network.clone()));
        (network, arriving)
    }

    pub(super) fn current() -> Self {
        NETWORK
            .with_borrow(Clone::clone)
            .expect("a simulated network")
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap()
    }

    pub(super) fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.start)
    }

    pub(super) fn is_hostile(&self) -> bool {
        now() < self.hostile_until
    }

    pub(super) fn dialled(&self) -> u32 {
        *self.dialled.lock().unwrap()
    }

    /// A connection, as a socket's `connect`.
    pub(super) async fn connect(&self, within: Duration) -> io::Result<Socket> {
        let (wire, delay, fails) = self.draw();
        match fails {
            Some(after) => {
                sleep(after).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            None if delay > within => {}
            None => sleep(2 * delay).await,
        }
        let wire = Arc::new(Mutex::new(wire));
        let near = Socket::new(Arc::clone(&wire), 0);
        let far = Socket::new(wire, 1);
        let sent = timeout(within, async {
            if delay > within {
                std::future::pending::<()>().await;
            }
            self.edge.send(far).await
        });
        match sent.await {
            Ok(Ok(())) => Ok(near),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A connection's fate; the third value is when it is refused.
    fn draw(&self) -> (Wire, Duration, Option<Duration>) {
        let hostile = self.is_hostile();
        let mut dialled = self.dialled.lock().unwrap();
        // The first carries a session into being; before that there is nothing to lose.
        let first = *dialled == 0;
        *dialled += 1;
        let mut rng = self.rng();
        let delay = match rng.below(4) {
            0 => Duration::ZERO,
            1 | 2 => rng.millis(60),
            _ if hostile && !first => rng.millis(700),
            _ => rng.millis(150),
        };
        let mut fates = [Fate::Good; 2];
        if hostile && rng.chance(85) {
            // TLS and HELLO take about three kilobytes: each of their bytes is worth a cut.
            let early = rng.chance(40);
            let at = rng.bytes(if early { 4000 } else { 60_000 });
            let at = if first { at + 6000 } else { at };
            fates[rng.bytes(2)] = if rng.chance(70) {
                Fate::CutAt(at)
            } else {
                Fate::SwallowAt(at)
            };
        }
        let wire = Wire {
            pipes: fates.map(Pipe::new),
            jitter: if rng.chance(50) {
                delay / 2
            } else {
                Duration::ZERO
            },
            rate: if rng.chance(20) {
                20 + rng.below(100)
            } else {
                100_000
            },
            delay,
            dead: [None; 2],
            ends_with_eof: rng.chance(50),
        };
        if hostile && !first && rng.chance(10) {
            return (wire, Duration::MAX, None);
        }
        let refused = (hostile && !first && rng.chance(10)).then(|| rng.millis(300));
        (wire, delay, refused)
    }
}

/// What becomes of one direction, in bytes that it has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// Nothing more arrives; each end hears of it, or only one.
    CutAt(usize),
    /// Nothing more arrives, and nobody hears of it.
    SwallowAt(usize),
}

struct Pipe {
    fate: Fate,
    carried: usize,
    held: usize,
    flying: VecDeque<(Instant, Vec<u8>)>,
    last: Option<Instant>,
    /// The writing end was shut down or dropped then.
    closed: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(fate: Fate) -> Self {
        Self {
            fate,
            carried: 0,
            held: 0,
            flying: VecDeque::new(),
            last: None,
            closed: None,
            reader: None,
            writer: None,
        }
    }

    fn wake(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

struct Wire {
    pipes: [Pipe; 2],
    delay: Duration,
    jitter: Duration,
    /// Bytes a millisecond.
    rate: u64,
    /// When an end hears that the connection is dead.
    dead: [Option<Instant>; 2],
    ends_with_eof: bool,
}

/// What one end holds in its socket at most.
const BUFFER: usize = 16 * 1024;

/// One end of a connection; its `side` writes to the pipe of that number.
pub(in crate::uplink) struct Socket {
    wire: Arc<Mutex<Wire>>,
    side: usize,
    reads: Timer,
    writes: Timer,
}

impl Socket {
    fn new(wire: Arc<Mutex<Wire>>, side: usize) -> Self {
        Self {
            wire,
            side,
            reads: Timer::default(),
            writes: Timer::default(),
        }
    }

    fn close(&self) {
        let mut wire = self.wire.lock().unwrap();
        let now = now();
        let arrives = now + wire.delay;
        let pipe = &mut wire.pipes[self.side];
        let ended = match pipe.fate {
            Fate::Good => false,
            Fate::CutAt(at) | Fate::SwallowAt(at) => pipe.carried > at,
        };
        if !ended && pipe.closed.is_none() {
            pipe.closed = Some(pipe.last.map_or(arrives, |last| last.max(arrives)));
            Pipe::wake(&mut pipe.reader);
        }
    }
}

impl Wire {
    fn is_dead(&self, side: usize) -> bool {
        self.dead[side].is_some_and(|at| at <= now())
    }

    /// Takes bytes from a writer; says how many.
    fn take(&mut self, side: usize, bytes: &[u8]) -> usize {
        let network = Network::current();
        let mut rng = network.rng();
        let pipe = &mut self.pipes[side];
        let taken = bytes.len().min(BUFFER.saturating_sub(pipe.held));
        if taken == 0 {
            return 0;
        }
        let before = pipe.carried;
        pipe.held += taken;
        pipe.carried += taken;
        let (passes, cut) = match pipe.fate {
            Fate::Good => (taken, false),
            Fate::CutAt(at) | Fate::SwallowAt(at) => {
                let passes = at.saturating_sub(before).min(taken);
                (
                    passes,
                    passes < taken && matches!(pipe.fate, Fate::CutAt(_)),
                )
            }
        };
        let mut rest = &bytes[..passes];
        while !rest.is_empty() {
            let length = if rng.chance(60) {
                rest.len()
            } else {
                1 + rng.bytes(u64::try_from(rest.len()).expect("a length"))
            };
            let (piece, after) = rest.split_at(length);
            let jitter = u64::try_from(self.jitter.as_millis()).expect("milliseconds");
            let arrives = now() + self.delay + rng.millis(jitter + 1);
            let slow = u64::try_from(length).expect("a length") * 1000 / self.rate;
            let last = pipe.last.map_or(arrives, |last| last.max(arrives));
            let last = last + Duration::from_micros(slow);
            pipe.last = Some(last);
            pipe.flying.push_back((last, piece.to_vec()));
            rest = after;
        }
        Pipe::wake(&mut pipe.reader);
        if cut && self.dead == [None; 2] {
            self.dead = [(); 2].map(|()| {
                let after = rng.millis(3000);
                rng.chance(80).then(|| now() + after)
            });
            for pipe in &mut self.pipes {
                Pipe::wake(&mut pipe.reader);
                Pipe::wake(&mut pipe.writer);
            }
        }
        taken
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut wire = this.wire.lock().unwrap();
            let (dead, eof) = (wire.dead[this.side], wire.ends_with_eof);
            let is_dead = wire.is_dead(this.side);
            let pipe = &mut wire.pipes[1 - this.side];
            if let Some((at, piece)) = pipe.flying.front_mut()
                && *at <= now()
            {
                let length = piece.len().min(buf.remaining());
                buf.put_slice(&piece[..length]);
                piece.drain(..length);
                if piece.is_empty() {
                    pipe.flying.pop_front();
                }
                pipe.held -= length;
                Pipe::wake(&mut pipe.writer);
                return Poll::Ready(Ok(()));
            }
            let closed = pipe.closed.filter(|_| pipe.flying.is_empty());
            if closed.is_some_and(|at| at <= now()) || (is_dead && eof) {
                return Poll::Ready(Ok(()));
            }
            if is_dead {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            pipe.reader = Some(cx.waker().clone());
            let next = pipe.flying.front().map(|(at, _)| *at);
            let next = [next, closed, dead].into_iter().flatten().min();
            drop(wire);
            if this.reads.poll(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let mut wire = this.wire.lock().unwrap();
            if wire.is_dead(this.side) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let taken = wire.take(this.side, buf);
            if taken > 0 || buf.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            wire.pipes[this.side].writer = Some(cx.waker().clone());
            let dead = wire.dead[this.side];
            drop(wire);
            if this.writes.poll(cx, dead).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}
