//! A hostile network on the runtime's paused clock: connections that are late, slow, cut or swallow everything.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{sleep, sleep_until},
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
    state: Arc<Mutex<State>>,
}

/// What a network does to connections, apart from what chance has for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// Attempts are refused.
    Refuses,
    /// Connections come about, and are closed before a word.
    Closes,
    /// Nothing arrives any more, SYNs included, and nobody hears of it.
    Swallows,
}

struct State {
    weather: Weather,
    /// One way, on a network that is not left to chance.
    calm: Option<Duration>,
    /// The machine's address in it.
    way: Option<IpAddr>,
    /// What the edge's name leads to. Only the first is the edge's; what is sent to the others is lost.
    addresses: Vec<SocketAddr>,
    dialled: u32,
    dialling: usize,
    most_dialling: usize,
    wires: Vec<Weak<Mutex<Wire>>>,
}

/// One attempt to connect, as long as it is under way.
struct Dialling<'a>(&'a Network);

impl<'a> Dialling<'a> {
    fn begin(network: &'a Network) -> Self {
        let mut state = network.state();
        state.dialled += 1;
        state.dialling += 1;
        state.most_dialling = state.most_dialling.max(state.dialling);
        Self(network)
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.state().dialling -= 1;
    }
}

impl Network {
    /// A network for this thread, and what arrives at the edge.
    pub(super) fn start(seed: u64, hostile: Duration) -> (Self, mpsc::Receiver<Socket>) {
        Self::begin(seed, hostile, None)
    }

    /// One that does nothing by itself but take time.
    pub(super) fn calm(seed: u64, one_way: Duration) -> (Self, mpsc::Receiver<Socket>) {
        Self::begin(seed, Duration::ZERO, Some(one_way))
    }

    fn begin(
        seed: u64,
        hostile: Duration,
        calm: Option<Duration>,
    ) -> (Self, mpsc::Receiver<Socket>) {
        let (edge, arriving) = mpsc::channel(64);
        let network = Self {
            rng: Arc::new(Mutex::new(Rng(seed))),
            edge,
            start: now(),
            hostile_until: now() + hostile,
            state: Arc::new(Mutex::new(State {
                weather: Weather::Fair,
                calm,
                way: Some(Ipv4Addr::LOCALHOST.into()),
                addresses: vec![([127, 0, 0, 1], 1).into()],
                dialled: 0,
                dialling: 0,
                most_dialling: 0,
                wires: Vec::new(),
            })),
        };
        NETWORK.set(Some(network.clone()));
        (network, arriving)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn weather(&self) -> Weather {
        self.state().weather
    }

    /// From now on. What exists is reset, or swallowed for good.
    pub(super) fn turns(&self, weather: Weather) {
        let wires = {
            let mut state = self.state();
            state.weather = weather;
            std::mem::take(&mut state.wires)
        };
        for wire in wires.iter().filter_map(Weak::upgrade) {
            wire.lock().unwrap().meet(weather);
        }
    }

    /// From now on, for new connections.
    pub(super) fn takes(&self, one_way: Duration) {
        self.state().calm = Some(one_way);
    }

    /// The machine is at another place, or at none.
    pub(super) fn moves(&self, way: Option<IpAddr>) {
        self.state().way = way;
    }

    pub(super) fn way(&self) -> Option<IpAddr> {
        self.state().way
    }

    /// The edge is reached at another address from now on.
    pub(super) fn edge_moves(&self, address: SocketAddr) {
        self.state().addresses.insert(0, address);
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.state().addresses.clone()
    }

    /// Attempts that were under way at once, at most.
    pub(super) fn most_dialling(&self) -> usize {
        self.state().most_dialling
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

    /// Whether nothing is left to chance.
    pub(super) fn is_calm(&self) -> bool {
        self.state().calm.is_some()
    }

    pub(super) fn dialled(&self) -> u32 {
        self.state().dialled
    }

    /// A connection, as a socket's `connect`.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<Socket> {
        let _dialling = Dialling::begin(self);
        if self.addresses().first() != Some(&address) {
            std::future::pending().await
        }
        let (wire, delay, fails) = self.draw();
        self.passes_syn().await;
        let weather = self.weather();
        match (weather, fails) {
            (Weather::Refuses, _) => {
                sleep(2 * delay).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            (_, Some(after)) => {
                sleep(after).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            (_, None) if delay == Duration::MAX => std::future::pending().await,
            _ => sleep(2 * delay).await,
        }
        let wire = Arc::new(Mutex::new(wire));
        let near = Socket::new(Arc::clone(&wire), 0);
        let weather = self.weather();
        if weather == Weather::Fair {
            self.state().wires.push(Arc::downgrade(&wire));
            let far = Socket::new(wire, 1);
            let arrived = self.edge.send(far).await;
            arrived.map_err(|_| io::ErrorKind::TimedOut)?;
        } else {
            wire.lock().unwrap().meet(weather);
        }
        Ok(near)
    }

    /// Waits until a SYN comes through: the first goes out at once, the others after a second, three, seven.
    async fn passes_syn(&self) {
        let (mut next, mut gap) = (now(), Duration::from_secs(1));
        while self.weather() == Weather::Swallows {
            next += gap;
            gap *= 2;
            sleep_until(next.into()).await;
        }
    }

    /// A connection's fate; the third value is when it is refused.
    fn draw(&self) -> (Wire, Duration, Option<Duration>) {
        let calm = self.state().calm;
        if let Some(delay) = calm {
            return (Wire::good(delay), delay, None);
        }
        let hostile = self.is_hostile();
        // The first carries a session into being; before that there is nothing to lose.
        let first = self.dialled() == 1;
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
    fn good(delay: Duration) -> Self {
        Self {
            pipes: [Fate::Good; 2].map(Pipe::new),
            delay,
            jitter: Duration::ZERO,
            rate: 100_000,
            dead: [None; 2],
            ends_with_eof: false,
        }
    }

    /// What the weather does to a connection that is there.
    fn meet(&mut self, weather: Weather) {
        match weather {
            Weather::Fair => {}
            Weather::Refuses | Weather::Closes => {
                self.ends_with_eof = weather == Weather::Closes;
                self.dead = [Some(now()); 2];
            }
            Weather::Swallows => {
                for pipe in &mut self.pipes {
                    pipe.fate = Fate::SwallowAt(pipe.carried);
                }
            }
        }
        for pipe in &mut self.pipes {
            Pipe::wake(&mut pipe.reader);
            Pipe::wake(&mut pipe.writer);
        }
    }

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
