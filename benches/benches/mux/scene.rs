//! Two threads, a TLS connection between them, and calls over it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use mcp_tunnel_transport::{
    ReadAhead,
    dial::TcpOptions,
    local_ca::LocalCa,
    tls::{self, Trust},
};
use rustls::sign::SingleCertAndKey;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What every peer's TLS runs over: the same, so that only what is above it differs.
pub(crate) type Socket = ReadAhead<TcpStream>;
pub(crate) type ClientIo = client::TlsStream<Socket>;
pub(crate) type ServerIo = server::TlsStream<Socket>;

/// One way to carry calls over a connection.
pub(crate) trait Mux: 'static {
    const NAME: &'static str;
    /// The caller's end; its tasks end with it.
    type Client: Clone + Send + Sync + 'static;

    /// Answers calls until the connection ends.
    fn serve(io: ServerIo) -> impl Future<Output = ()> + Send;

    /// The caller's end; `tasks` owns what must run in the background.
    fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> impl Future<Output = Self::Client> + Send;

    /// One call: sends `request`, reads the reply to its end, answers its length.
    fn call(client: &Self::Client, request: Bytes) -> impl Future<Output = usize> + Send;
}

/// A connected pair, ready to be measured.
pub(crate) struct Scene<M: Mux> {
    runtime: Runtime,
    client: M::Client,
    /// Of both ends.
    threads: Vec<PathBuf>,
    _tasks: JoinSet<()>,
    _server: JoinHandle<()>,
}

impl<M: Mux> Scene<M> {
    pub(crate) fn set() -> Self {
        let ca = LocalCa::generate("bench.localhost", SystemTime::now()).expect("an authority");
        let (address, far, server) = serve::<M>(&ca);
        let runtime = runtime();
        let mut tasks = JoinSet::new();
        let client = runtime.block_on(async {
            let config = tls::client_config(Trust::PinnedCa(ca.pin())).expect("a configuration");
            let socket = TcpStream::connect(address).await.expect("a connection");
            TcpOptions::default().apply(&socket).expect("an option");
            let name = "localhost".try_into().expect("a name");
            let io = TlsConnector::from(config)
                .connect(name, ReadAhead::new(socket))
                .await
                .expect("TLS");
            M::connect(io, &mut tasks).await
        });
        Self {
            runtime,
            client,
            threads: vec![counter(), far],
            _tasks: tasks,
            _server: server,
        }
    }

    /// Makes `calls` calls, `at_once` at a time, and says how long they took.
    pub(crate) fn play(
        &self,
        calls: usize,
        at_once: usize,
        request: usize,
        reply: usize,
    ) -> Duration {
        let request = encode(request, reply);
        let client = &self.client;
        self.runtime.block_on(async {
            let clock = Clock::start(&self.threads);
            let mut callers = JoinSet::new();
            for caller in 0..at_once {
                let share = calls / at_once + usize::from(caller < calls % at_once);
                let (client, request) = (client.clone(), request.clone());
                callers.spawn(async move {
                    for _ in 0..share {
                        assert_eq!(M::call(&client, request.clone()).await, reply);
                    }
                });
            }
            while let Some(done) = callers.join_next().await {
                done.expect("a caller");
            }
            clock.elapsed(&self.threads)
        })
    }
}

/// What a round costs: time on the wall, or with `MUX_CLOCK=cpu` the processor time of both ends together, which means
/// something on a busy machine too.
enum Clock {
    Wall(Instant),
    Cpu(Duration),
}

impl Clock {
    fn start(threads: &[PathBuf]) -> Self {
        if std::env::var("MUX_CLOCK").is_ok_and(|clock| clock == "cpu") {
            Self::Cpu(cpu_time(threads))
        } else {
            Self::Wall(Instant::now())
        }
    }

    fn elapsed(&self, threads: &[PathBuf]) -> Duration {
        match self {
            Self::Wall(start) => start.elapsed(),
            Self::Cpu(start) => cpu_time(threads) - *start,
        }
    }
}

/// Where the kernel counts the processor time of the calling thread.
fn counter() -> PathBuf {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
    Path::new("/proc").join(thread).join("schedstat")
}

fn cpu_time(threads: &[PathBuf]) -> Duration {
    let nanos = threads.iter().map(|counter| {
        let text = std::fs::read_to_string(counter).expect("a running thread");
        let first = text
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok());
        first.unwrap_or(0_u64)
    });
    Duration::from_nanos(nanos.sum())
}

/// A request of `length` bytes that asks for `reply` bytes.
fn encode(length: usize, reply: usize) -> Bytes {
    let mut request = BytesMut::zeroed(length);
    request.as_mut().put_u64(reply as u64);
    request.freeze()
}

/// The length that a request asks for.
pub(crate) fn reply_length(request: &[u8]) -> usize {
    let length = request.first_chunk().copied().map(u64::from_be_bytes);
    usize::try_from(length.unwrap_or(0)).expect("a length")
}

/// The next piece, at most 64 KiB, of a reply of which `left` bytes are left.
pub(crate) fn piece(left: usize) -> Bytes {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    Bytes::from_static(&ZEROS).slice(..left.min(ZEROS.len()))
}

fn serve<M: Mux>(ca: &LocalCa) -> (SocketAddr, PathBuf, JoinHandle<()>) {
    let leaf = ca.issue(SystemTime::now()).expect("a leaf");
    let key = leaf.certified_key().expect("a key");
    let config =
        tls::server_config(Arc::new(SingleCertAndKey::from(key))).expect("a configuration");
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
            let address = listener.local_addr().expect("an address");
            tell.send((address, counter())).expect("a listener");
            let (socket, _) = listener.accept().await.expect("a connection");
            TcpOptions::default().apply(&socket).expect("an option");
            let io = TlsAcceptor::from(config)
                .accept(ReadAhead::new(socket))
                .await
                .expect("TLS");
            M::serve(io).await;
        });
    });
    let (address, counter) = told.recv().expect("an address");
    (address, counter, thread)
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
