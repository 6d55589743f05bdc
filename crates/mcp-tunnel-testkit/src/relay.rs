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
    accepted: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
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
        let accepted = Arc::<AtomicU64>::default();
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&accepted);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(relay(near, target, watched.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            mood,
            accepted,
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

    /// How many connections it accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn relay(near: TcpStream, target: SocketAddr, mut mood: watch::Receiver<Mood>) {
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
        let up = pump(near_read, far_write, mood.clone());
        let down = pump(far_read, near_write, mood.clone());
        tokio::select! {
            () = async { tokio::join!(up, down); } => false,
            () = reached(&mut mood, Mood::Cutting) => true,
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
async fn pump(
    mut from: tcp::ReadHalf<'_>,
    mut to: tcp::WriteHalf<'_>,
    mut mood: watch::Receiver<Mood>,
) {
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
    }
}

/// Waits for a mood; for ever if the relay is gone, since its task is then being dropped.
async fn reached(mood: &mut watch::Receiver<Mood>, wanted: Mood) {
    if mood.wait_for(|now| *now == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
