//! An HTTP server below HTTP: sends scripted bytes, records the exact bytes it received.

use anyhow::{Context, Result};
use bytes::Bytes;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The largest request that is recorded, bytes.
const REQUEST_LIMIT: usize = 64 << 20;

/// What the server does next on a connection, once a whole request is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Sends these bytes, one write.
    Send(Bytes),
    /// Sends so many bytes of `x`.
    Fill(u64),
    /// Waits.
    Wait(Duration),
    /// Waits until the test opens the gate.
    Gate(CancellationToken),
    /// Waits until the peer closes or resets.
    UntilPeerLeaves,
    /// Closes cleanly.
    Close,
    /// Resets the connection.
    Reset,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The script ran to its end.
    Done,
    /// The peer closed or reset the connection before.
    PeerLeft,
}

/// One request that reached the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// The request, byte for byte as it came.
    pub request: Bytes,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
}

impl Exchange {
    /// The request line and headers as text.
    #[must_use]
    pub fn head(&self) -> String {
        let end = head_length(&self.request).unwrap_or(self.request.len());
        String::from_utf8_lossy(self.request.get(..end).unwrap_or_default()).into_owned()
    }

    /// The bytes after the headers, in whatever coding they came.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let start = head_length(&self.request).unwrap_or(self.request.len());
        self.request.slice(start.min(self.request.len())..)
    }
}

/// A scripted server on a loopback port of its own.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    exchanges: Arc<Exchanges>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Exchanges {
    all: Mutex<Vec<Exchange>>,
    changed: Notify,
}

impl Upstream {
    /// Starts a server that runs `script` for every request it gets.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(
        script: impl Fn(&Exchange) -> Vec<Step> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (exchanges, script) = (Arc::<Exchanges>::default(), Arc::new(script));
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&exchanges);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                connections.spawn(async move {
                    // A broken connection is what many scripts are about; the record says which.
                    let _ = serve(socket, &kept, script.as_ref()).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            exchanges,
            _tasks: tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().clone()
    }

    /// Waits until the record satisfies `wanted`.
    ///
    /// # Errors
    /// The time is over.
    pub async fn wait(
        &self,
        within: Duration,
        wanted: impl Fn(&[Exchange]) -> bool,
    ) -> Result<Vec<Exchange>> {
        let satisfied = async {
            loop {
                let changed = self.exchanges.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let all = self.exchanges();
                if wanted(&all) {
                    return all;
                }
                changed.await;
            }
        };
        timeout(within, satisfied).await.with_context(|| {
            format!(
                "the upstream did not see that within {within:?}: {:?}",
                self.exchanges()
            )
        })
    }
}

impl Exchanges {
    fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, exchange: Exchange) -> usize {
        let mut all = self.lock();
        all.push(exchange);
        let index = all.len() - 1;
        drop(all);
        self.changed.notify_waiters();
        index
    }

    fn end(&self, index: usize, how: Ended) {
        if let Some(exchange) = self.lock().get_mut(index) {
            exchange.ended = Some(how);
        }
        self.changed.notify_waiters();
    }
}

async fn serve(
    mut socket: TcpStream,
    exchanges: &Exchanges,
    script: &(impl Fn(&Exchange) -> Vec<Step> + Sync),
) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut socket, &mut buffer).await? {
        let exchange = Exchange {
            request,
            ended: None,
        };
        let steps = script(&exchange);
        let index = exchanges.begin(exchange);
        let (how, open) = play(&mut socket, steps).await;
        exchanges.end(index, how);
        if !open || how == Ended::PeerLeft {
            break;
        }
    }
    Ok(())
}

/// Runs a script; false if the connection is not to be used again.
async fn play(socket: &mut TcpStream, steps: Vec<Step>) -> (Ended, bool) {
    for step in steps {
        let went = match step {
            Step::Send(bytes) => socket.write_all(&bytes).await.is_ok(),
            Step::Fill(bytes) => fill(socket, bytes).await.is_ok(),
            Step::Wait(time) => unless_peer_leaves(socket, sleep(time)).await,
            Step::Gate(gate) => unless_peer_leaves(socket, gate.cancelled()).await,
            Step::UntilPeerLeaves => unless_peer_leaves(socket, std::future::pending()).await,
            Step::Close => return (Ended::Done, false),
            Step::Reset => {
                let _ = socket.set_zero_linger();
                return (Ended::Done, false);
            }
        };
        if !went {
            return (Ended::PeerLeft, false);
        }
    }
    (Ended::Done, true)
}

async fn fill(socket: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let block = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        socket
            .write_all(block.get(..now).unwrap_or_default())
            .await?;
        left -= now as u64;
    }
    Ok(())
}

/// Waits for `done`; false if the peer closes first.
async fn unless_peer_leaves(socket: &mut TcpStream, done: impl Future<Output = ()>) -> bool {
    let mut byte = [0];
    tokio::select! {
        () = done => true,
        // More bytes instead of an end would be a pipelined request: not kept, these scripts end.
        _ = socket.read(&mut byte) => false,
    }
}

/// Reads one request: head, then a body by length or in chunks.
async fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Bytes>> {
    loop {
        if let Some(length) = request_length(buffer) {
            let rest = buffer.split_off(length);
            let request = std::mem::replace(buffer, rest);
            return Ok(Some(request.into()));
        }
        anyhow::ensure!(buffer.len() < REQUEST_LIMIT, "the request is too large");
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The length of the first whole request in `bytes`.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = head_length(bytes)?;
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
    };
    if value("transfer-encoding:").is_some_and(|coding| coding.contains("chunked")) {
        let end = b"0\r\n\r\n";
        let body = bytes.get(head..)?;
        let last = body.windows(end.len()).position(|window| window == end)?;
        return Some(head + last + end.len());
    }
    let length = value("content-length:").and_then(|length| length.parse().ok());
    let whole = head + length.unwrap_or(0);
    (bytes.len() >= whole).then_some(whole)
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = b"\r\n\r\n";
    bytes
        .windows(end.len())
        .position(|window| window == end)
        .map(|at| at + end.len())
}

/// Scripts that several tests use.
pub mod script {
    use super::{Bytes, Duration, Step};

    /// A JSON answer of known length.
    #[must_use]
    pub fn json(status: &str, body: &str) -> Vec<Step> {
        vec![Step::Send(Bytes::from(format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )))]
    }

    /// Only the head of an answer of `length` bytes.
    #[must_use]
    pub fn head(length: u64) -> Step {
        Step::Send(Bytes::from(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
        )))
    }

    /// An event stream of `count` events, each `gap` after the one before, with a proper end.
    #[must_use]
    pub fn events(count: usize, gap: Duration) -> Vec<Step> {
        let mut steps = vec![event_stream()];
        for number in 0..count {
            steps.push(Step::Wait(gap));
            steps.push(event(&format!("{{\"number\":{number}}}")));
        }
        steps.push(Step::Send(Bytes::from_static(b"0\r\n\r\n")));
        steps
    }

    /// The head of a chunked event stream.
    #[must_use]
    pub fn event_stream() -> Step {
        Step::Send(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        ))
    }

    /// One event, one chunk.
    #[must_use]
    pub fn event(data: &str) -> Step {
        chunk(&format!("event: message\ndata: {data}\n\n"))
    }

    /// Any bytes as one chunk.
    #[must_use]
    pub fn chunk(text: &str) -> Step {
        Step::Send(Bytes::from(format!("{:x}\r\n{text}\r\n", text.len())))
    }
}
