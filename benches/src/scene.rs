//! A TLS 1.3 connection with a peer on both ends of it, in one of several places.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::SystemTime,
};

use mcp_tunnel_transport::{
    ReadAhead,
    dial::TcpOptions,
    local_ca::LocalCa,
    tls::{self, Trust},
};
use rustls::{ClientConfig, ServerConfig, sign::SingleCertAndKey};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{
    clock::counter,
    conduit::{Mux, answer},
    pipe::{Length, Pipe, pipe},
};

/// What every peer's TLS runs over: the same, so that only what is above it differs.
pub type Io = ReadAhead<Carrier>;
/// The caller's end.
pub type ClientIo = client::TlsStream<Io>;
/// The server's end.
pub type ServerIo = server::TlsStream<Io>;

/// Where a connection lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Both ends in one thread, a pipe between them.
    Memory,
    /// Loopback TCP, a thread and a single-threaded runtime for each end, as edge and gateway have.
    Loopback,
    /// The same with the socket options that each peer comes with.
    OwnSockets,
    /// Both ends in one thread, a long link between them.
    Link(Length),
    /// Both ends in one thread, a pipe between them that holds no memory.
    Still,
}

/// What carries the bytes.
pub enum Carrier {
    /// A socket.
    Tcp(TcpStream),
    /// tokio's pipe.
    Duplex(DuplexStream),
    /// Ours, with a length.
    Pipe(Pipe),
}

/// The name in the server's certificate.
pub const HOST: &str = "edge.bench.localhost";

/// TLS of both ends, under one authority.
pub struct Tls {
    /// Of the caller.
    pub client: Arc<ClientConfig>,
    /// Of the server.
    pub server: Arc<ServerConfig>,
}

/// As links have it.
pub fn tls() -> &'static Tls {
    static TLS: OnceLock<Tls> = OnceLock::new();
    TLS.get_or_init(|| {
        let ca = LocalCa::generate("bench.localhost", SystemTime::now()).expect("an authority");
        let leaf = ca.issue(SystemTime::now()).expect("a leaf");
        let key = SingleCertAndKey::from(leaf.certified_key().expect("a key"));
        Tls {
            client: tls::client_config(Trust::PinnedCa(ca.pin())).expect("a configuration"),
            server: tls::server_config(Arc::new(key)).expect("a configuration"),
        }
    })
}

/// A peer's connection, ready to be measured. Whatever it is made of goes with it.
pub struct Scene<M: Mux> {
    /// The caller's end.
    pub client: M::Client,
    /// Where the processor time of both ends is counted.
    pub threads: Vec<PathBuf>,
    _tasks: JoinSet<()>,
    runtime: Runtime,
}

impl<M: Mux> Scene<M> {
    /// Connects both ends.
    pub fn set(place: Place) -> Self {
        let runtime = runtime();
        let mut tasks = JoinSet::new();
        let mut threads = vec![counter()];
        let client = runtime.block_on(async {
            if matches!(place, Place::Loopback | Place::OwnSockets) {
                let tuned = place == Place::Loopback || M::TUNED;
                let (address, far) = serve::<M>(tuned);
                threads.push(far);
                let socket = TcpStream::connect(address).await.expect("a connection");
                let io = connect(socket_of(socket, tuned)).await;
                M::connect(io, &mut tasks).await
            } else {
                let (near, far) = in_memory(place).await;
                tasks.spawn(answered::<M>(far));
                M::connect(near, &mut tasks).await
            }
        });
        Self {
            client,
            threads,
            _tasks: tasks,
            runtime,
        }
    }

    /// Runs the caller's part of a load.
    pub fn run<T>(&self, load: impl Future<Output = T>) -> T {
        self.runtime.block_on(load)
    }
}

/// Both ends of a connection in one thread.
pub async fn in_memory(place: Place) -> (ClientIo, ServerIo) {
    let (near, far) = match place {
        Place::Memory | Place::Loopback | Place::OwnSockets => {
            let (near, far) = duplex(256 * 1024);
            (Carrier::Duplex(near), Carrier::Duplex(far))
        }
        Place::Link(length) => pipes(Some(length)),
        Place::Still => pipes(None),
    };
    tokio::join!(connect(near), accept(far))
}

/// A single-threaded runtime.
pub fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn pipes(length: Option<Length>) -> (Carrier, Carrier) {
    let (near, far) = pipe(length);
    (Carrier::Pipe(near), Carrier::Pipe(far))
}

async fn connect(carrier: Carrier) -> ClientIo {
    let name = HOST.try_into().expect("a name");
    TlsConnector::from(Arc::clone(&tls().client))
        .connect(name, ReadAhead::new(carrier))
        .await
        .expect("TLS")
}

async fn accept(carrier: Carrier) -> ServerIo {
    TlsAcceptor::from(Arc::clone(&tls().server))
        .accept(ReadAhead::new(carrier))
        .await
        .expect("TLS")
}

/// `tuned` as links are; else it only waits for nothing.
fn socket_of(socket: TcpStream, tuned: bool) -> Carrier {
    if tuned {
        TcpOptions::default().apply(&socket).expect("an option");
    } else {
        socket.set_nodelay(true).expect("an option");
    }
    Carrier::Tcp(socket)
}

/// A server's end whose conduits are answered.
async fn answered<M: Mux>(io: ServerIo) {
    let mut answers = JoinSet::new();
    M::serve(io, |conduit| {
        answers.spawn(answer(conduit));
        while answers.try_join_next().is_some() {}
    })
    .await;
}

/// The server's thread, which ends with its connection.
fn serve<M: Mux>(tuned: bool) -> (SocketAddr, PathBuf) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
            let address = listener.local_addr().expect("an address");
            tell.send((address, counter())).expect("a listener");
            let (socket, _) = listener.accept().await.expect("a connection");
            answered::<M>(accept(socket_of(socket, tuned)).await).await;
        });
    });
    told.recv().expect("an address")
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Carrier::Tcp($io) => $call,
            Carrier::Duplex($io) => $call,
            Carrier::Pipe($io) => $call,
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Duplex(io) => io.is_write_vectored(),
            Self::Pipe(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
