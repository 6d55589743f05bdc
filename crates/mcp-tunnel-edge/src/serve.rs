//! Serving a connection that a listener has just accepted: TLS, ALPN, and then a link or HTTP.
//!
//! ```text
//! socket ──► Gate ──► ClientHello ──┬─ mcp-tunnel/1 ──► Edge::accept_link
//!                                   └─ h2, http/1.1 ──► hyper ──► Edge::ingress
//! ```
//!
//! One port may serve both, since ALPN tells gateways and callers apart before the handshake is answered. Deadlines
//! run from the accept: a socket that has proved nothing by then is closed without a word.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use mcp_tunnel_transport::ReadAhead;
use mcp_tunnel_transport::tls::wants_link;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::exchange::answer::IngressBody;
use crate::gate::{Gate, GateFull, Role, Ticket};
use crate::ingress::{DevIngress, Ingress, IngressFuture, PeerInfo};
use crate::links::life::LinkError;
use crate::{DevTarget, Edge};

/// Why a connection was not served, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The gate has no place for it.
    #[error("no place for one more unproven socket")]
    Gate(#[from] GateFull),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// Nothing was proved in time.
    #[error("nothing was proved within {after:?}")]
    Unproven {
        /// The deadline of the gate.
        after: Duration,
    },
    /// A caller without ALPN on a listener that takes gateways only.
    #[error("this listener does not take a {}", .0.as_str())]
    Role(Role),
    /// A gateway on a listener that takes callers only, or the reverse; it was told so.
    #[error("the client speaks no protocol of this listener")]
    Protocol,
    /// What ran when the server was told to stop did not end in time.
    #[error("what ran did not end within {after:?}")]
    Stopped {
        /// The drain time of the edge, and a little more.
        after: Duration,
    },
    /// The link of a gateway did not come about.
    #[error("serving a gateway")]
    Link(#[source] LinkError),
    /// HTTP with a caller broke.
    #[error("serving a caller")]
    Http(#[source] hyper::Error),
}

/// Serves connections of one listener. Clones share the edge and the gate.
#[derive(Clone)]
pub struct Server {
    edge: Edge,
    gate: Gate,
    links: Option<Arc<ServerConfig>>,
    callers: Option<Arc<ServerConfig>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("links", &self.links.is_some())
            .field("callers", &self.callers.is_some())
            .finish_non_exhaustive()
    }
}

/// The TLS of a listener for callers: ring, TLS 1.2 and 1.3, `h2` and `http/1.1`.
///
/// # Errors
/// None with this provider; the signature leaves room for others.
pub fn caller_tls(
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Server {
    /// A server that takes neither gateways nor callers yet.
    pub fn new(edge: Edge, gate: Gate) -> Self {
        Self {
            edge,
            gate,
            links: None,
            callers: None,
        }
    }

    /// Takes gateways, with the configuration of [`mcp_tunnel_transport::tls::server_config`].
    #[must_use]
    pub fn with_links(mut self, tls: Arc<ServerConfig>) -> Self {
        self.links = Some(tls);
        self
    }

    /// Takes callers, with the configuration of [`caller_tls`].
    #[must_use]
    pub fn with_callers(mut self, tls: Arc<ServerConfig>) -> Self {
        self.callers = Some(tls);
        self
    }

    /// Serves one connection to its end; on `stop` lets it finish what runs.
    ///
    /// The listener sets `TCP_NODELAY`, and keep-alive and a user timeout against callers that vanish or stop reading:
    /// [`TcpOptions`](mcp_tunnel_transport::dial::TcpOptions) does.
    ///
    /// # Errors
    /// [`ServeError`]: for the listener's log, at a low level, since anybody can cause them.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn serve<IO>(
        &self,
        io: IO,
        remote: SocketAddr,
        stop: CancellationToken,
    ) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Until ALPN tells, a socket on a shared port counts as a caller.
        let first = match self.callers {
            Some(_) => Role::Caller,
            None => Role::Gateway,
        };
        let ticket = self.gate.admit(first, remote.ip())?;
        let after = self.gate.deadline(first);
        let deadline = Instant::now() + after;
        let handshake = timeout_at(deadline, self.handshake(io, &ticket)).await;
        let (role, tls) = handshake.unwrap_or(Err(ServeError::Unproven { after }))?;
        let peer = PeerInfo::tls(remote).with_ticket(ticket.clone());
        if role == Role::Gateway {
            return self
                .edge
                .accept_link(tls, peer)
                .await
                .map_err(ServeError::Link);
        }
        let version = match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Version::Http2,
            _ => Version::Http1,
        };
        let service = WithPeer {
            service: self.edge.ingress(),
            peer,
        };
        let unproven = Unproven {
            ticket,
            deadline,
            after,
        };
        serve_http(tls, version, service, self.bounds(unproven, stop)).await
    }

    /// Looks at what the client asks for, and answers in kind.
    async fn handshake<IO>(
        &self,
        io: IO,
        ticket: &Ticket,
    ) -> Result<(Role, TlsStream<ReadAhead<IO>>), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(io));
        let start = start.await.map_err(ServeError::Tls)?;
        let (role, config) = self.choose(&start.client_hello())?;
        ticket.change_role(role)?;
        let tls = start.into_stream(config).await.map_err(|error| {
            if is_no_common_protocol(&error) {
                ServeError::Protocol
            } else {
                ServeError::Tls(error)
            }
        })?;
        Ok((role, tls))
    }

    /// Whom a client is taken for, and the TLS that answers it. One that asks for what is not served here goes on to
    /// the TLS of the other kind, which ends it by the alert `no_application_protocol` (RFC 7301): so a gateway that
    /// dialled the ingress learns that it did.
    fn choose(&self, hello: &ClientHello<'_>) -> Result<(Role, Arc<ServerConfig>), ServeError> {
        let (role, config) = match (&self.links, &self.callers) {
            (Some(links), _) if wants_link(hello) => (Role::Gateway, links),
            (_, Some(callers)) => (Role::Caller, callers),
            // Without a wish there is no alert to end it by.
            (Some(links), None) if hello.alpn().is_some() => (Role::Gateway, links),
            _ => return Err(ServeError::Role(Role::Caller)),
        };
        Ok((role, Arc::clone(config)))
    }

    /// Serves one connection of a development ingress: plain HTTP/1.1. The listener binds loopback only.
    ///
    /// # Errors
    /// [`ServeError`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn serve_dev<IO>(
        &self,
        io: IO,
        remote: SocketAddr,
        target: DevTarget,
        stop: CancellationToken,
    ) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let ticket = self.gate.admit(Role::Caller, remote.ip())?;
        let after = self.gate.deadline(Role::Caller);
        let peer = PeerInfo::plain(remote).with_ticket(ticket.clone());
        let service = WithPeer {
            service: self.edge.dev_ingress(target),
            peer,
        };
        let unproven = Unproven {
            ticket,
            deadline: Instant::now() + after,
            after,
        };
        serve_http(io, Version::Http1, service, self.bounds(unproven, stop)).await
    }
}

impl Server {
    /// The edge cuts what still runs at its own deadline; the connection gets a moment more to say so.
    fn bounds(&self, unproven: Unproven, stop: CancellationToken) -> Bounds {
        let drain = self.edge.shared.config.drain + Duration::from_secs(1);
        Bounds {
            unproven,
            stop,
            drain,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// How long a caller may go on without an admitted request.
struct Unproven {
    ticket: Ticket,
    deadline: Instant,
    after: Duration,
}

impl Unproven {
    async fn expired(&self) {
        if timeout_at(self.deadline, self.ticket.until_proven())
            .await
            .is_ok()
        {
            std::future::pending::<()>().await;
        }
    }
}

/// What bounds a connection with a caller.
struct Bounds {
    unproven: Unproven,
    stop: CancellationToken,
    /// How long it may go on after `stop`.
    drain: Duration,
}

impl Bounds {
    /// Runs a connection of hyper's to its end, or to one of the bounds; `finish` tells it to take no more requests.
    async fn serve<C>(self, connection: C, finish: fn(Pin<&mut C>)) -> Result<(), ServeError>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut unproven = pin!(self.unproven.expired());
        let after = self.unproven.after;
        tokio::select! {
            biased;
            done = connection.as_mut() => return done.map_err(ServeError::Http),
            () = unproven.as_mut() => return Err(ServeError::Unproven { after }),
            () = self.stop.cancelled() => finish(connection.as_mut()),
        }
        tokio::select! {
            biased;
            done = connection => done.map_err(ServeError::Http),
            () = unproven => Err(ServeError::Unproven { after }),
            () = sleep(self.drain) => Err(ServeError::Stopped { after: self.drain }),
        }
    }
}

async fn serve_http<IO, S>(
    io: IO,
    version: Version,
    service: WithPeer<S>,
    bounds: Bounds,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: CallerService,
{
    let io = TokioIo::new(io);
    match version {
        Version::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .max_header_size(HEAD_BYTES as usize)
                .max_buf_size(READ_BUFFER)
                .serve_connection(io, service);
            bounds
                .serve(connection, http1::Connection::graceful_shutdown)
                .await
        }
        Version::Http2 => {
            let streams = TaskTracker::new();
            let connection = http2::Builder::new(Streams(streams.clone()))
                .timer(TokioTimer::new())
                .max_header_list_size(HEAD_BYTES)
                .max_concurrent_streams(H2_STREAMS)
                .initial_stream_window_size(H2_STREAM_WINDOW)
                .initial_connection_window_size(H2_CONNECTION_WINDOW)
                .max_send_buf_size(READ_BUFFER)
                .keep_alive_interval(H2_PING)
                .keep_alive_timeout(H2_PING)
                .serve_connection(io, service);
            let done = bounds
                .serve(connection, http2::Connection::graceful_shutdown)
                .await;
            // Their connection is gone, so they end by themselves; nothing outlives this call.
            streams.close();
            streams.wait().await;
            done
        }
    }
}

fn is_no_common_protocol(error: &io::Error) -> bool {
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref());
    matches!(inside, Some(rustls::Error::NoApplicationProtocol))
}

/// An ingress behind a connection.
trait CallerService:
    Service<
        Request<Incoming>,
        Response = Response<IngressBody>,
        Error = Infallible,
        Future = IngressFuture,
    > + Clone
    + Send
    + 'static
{
}

impl CallerService for Ingress {}
impl CallerService for DevIngress {}

/// Tells the ingress whose request it is.
struct WithPeer<S> {
    service: S,
    peer: PeerInfo,
}

impl<S: CallerService> hyper::service::Service<Request<Incoming>> for WithPeer<S> {
    type Response = Response<IngressBody>;
    type Error = Infallible;
    type Future = IngressFuture;

    fn call(&self, mut request: Request<Incoming>) -> IngressFuture {
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request)
    }
}

/// Runs the streams of one HTTP/2 connection. hyper ends each of them when its connection is dropped.
#[derive(Debug, Clone)]
struct Streams(TaskTracker);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// How long a proven caller may be idle between requests, or take for one head.
const IDLE: Duration = Duration::from_secs(75);
/// Of a request's head.
const HEAD_BYTES: u32 = 32 * 1024;
/// Of hyper, per connection; bounds what a slow upload or a slow reader pins.
const READ_BUFFER: usize = 64 * 1024;
/// Calls at once on one HTTP/2 connection.
const H2_STREAMS: u32 = 256;
/// What one call's upload may have on the way: memory that a slow gateway pins.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all calls of a connection.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A caller that answers no ping in this time is gone.
const H2_PING: Duration = Duration::from_secs(20);
