//! A TCP relay that can be cut, stalled and slowed, to stand between any two peers.

use anyhow::Result;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
};

/// What the relay does to bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mood {
    /// Passes bytes on.
    Passing,
    /// Keeps every connection open and passes nothing on: a half-open peer.
    Stalled,
    /// Resets every connection, also new ones.
    Cutting,
}

/// A relay on a loopback port of its own in front of another address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    cuts: watch::Sender<u64>,
    accepted: Arc<AtomicU64>,
    meter: Arc<Meter>,
    _tasks: JoinSet<()>,
}

/// Counts bytes, and says when enough have passed for a cut.
#[derive(Debug)]
struct Meter {
    passed: AtomicU64,
    /// A cut is due once so many bytes have passed; `u64::MAX` for never.
    cut_at: AtomicU64,
}

impl Meter {
    /// Notes bytes; true once for each cut that they make due.
    fn pass(&self, bytes: usize) -> bool {
        let passed = self.passed.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let due = self.cut_at.load(Ordering::Relaxed);
        let never = u64::MAX;
        passed >= due
            && self
                .cut_at
                .compare_exchange(due, never, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// What every connection of a relay knows.
#[derive(Debug, Clone)]
struct Orders {
    mood: watch::Receiver<Mood>,
    cuts: watch::Sender<u64>,
    meter: Arc<Meter>,
}

impl Relay {
    /// Starts to relay to `target`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (mood, watched) = watch::channel(Mood::Passing);
        let cuts = watch::Sender::new(0);
        let meter = Arc::new(Meter {
            passed: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
        });
        let orders = Orders {
            mood: watched,
            cuts: cuts.clone(),
            meter: Arc::clone(&meter),
        };
        let accepted = Arc::<AtomicU64>::default();
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&accepted);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(relay(near, target, orders.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            mood,
            cuts,
            accepted,
            meter,
            _tasks: tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens from now on, to old connections too.
    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Resets every connection that there is; new ones pass.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The same, once so many bytes more have passed, both ways together.
    pub fn cut_after(&self, bytes: u64) {
        let at = self.meter.passed.load(Ordering::Relaxed) + bytes;
        self.meter.cut_at.store(at, Ordering::Relaxed);
    }

    /// How many times it cut, by [`cut`](Self::cut) or [`cut_after`](Self::cut_after).
    #[must_use]
    pub fn cuts(&self) -> u64 {
        *self.cuts.borrow()
    }

    /// How many connections it accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn relay(near: TcpStream, target: SocketAddr, orders: Orders) {
    let mut mood = orders.mood.clone();
    let mut cuts = orders.cuts.subscribe();
    let _ = near.set_nodelay(true);
    let far = tokio::select! {
        far = TcpStream::connect(target) => far,
        () = reached(&mut mood, Mood::Cutting) => return reset(&near),
    };
    let Ok(mut far) = far else {
        return reset(&near);
    };
    let _ = far.set_nodelay(true);
    let mut near = near;
    let cut = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let up = pump(near_read, far_write, orders.clone());
        let down = pump(far_read, near_write, orders);
        tokio::select! {
            () = async { tokio::join!(up, down); } => false,
            () = reached(&mut mood, Mood::Cutting) => true,
            _ = cuts.changed() => true,
        }
    };
    if cut {
        reset(&near);
        reset(&far);
    }
}

fn reset(socket: &TcpStream) {
    let _ = socket.set_zero_linger();
}

/// Passes bytes on in one direction until the end, and only while the mood allows.
async fn pump(mut from: tcp::ReadHalf<'_>, mut to: tcp::WriteHalf<'_>, orders: Orders) {
    let Orders {
        mut mood,
        cuts,
        meter,
    } = orders;
    let mut buffer = vec![0; 64 << 10];
    loop {
        reached(&mut mood, Mood::Passing).await;
        let Ok(length) = from.read(&mut buffer).await else {
            return;
        };
        reached(&mut mood, Mood::Passing).await;
        if length == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to
            .write_all(buffer.get(..length).unwrap_or_default())
            .await
            .is_err()
        {
            return;
        }
        if meter.pass(length) {
            cuts.send_modify(|cuts| *cuts += 1);
        }
    }
}

/// Waits for a mood; for ever if the relay is gone, since its task is then being dropped.
async fn reached(mood: &mut watch::Receiver<Mood>, wanted: Mood) {
    if mood.wait_for(|now| *now == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
