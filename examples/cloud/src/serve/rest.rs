//! HTTP for the routers of console and sessions: plain on loopback, TLS elsewhere.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use mcp_tunnel_edge::{Gate, GateConfig, Role};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::debug;

use crate::failure::Failure;

/// Serves the connections of the REST listener.
pub(super) struct Rest {
    router: Router,
    tls: Option<TlsAcceptor>,
    gate: Gate,
}

impl Rest {
    pub(super) fn plain(router: Router) -> Self {
        Self {
            router,
            tls: None,
            gate: Gate::new(
                GateConfig::default()
                    .set_callers_total(CONNECTIONS_MOST)
                    .set_callers_per_source(CONNECTIONS_MOST),
            ),
        }
    }

    pub(super) fn tls(
        router: Router,
        certificates: Arc<dyn ResolvesServerCert>,
    ) -> Result<Self, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Failure::internal)?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            gate: Gate::new(
                GateConfig::default()
                    .set_callers_total(CONNECTIONS_MOST)
                    .set_callers_per_source(CONNECTIONS_OF_A_SOURCE),
            ),
            tls: Some(TlsAcceptor::from(Arc::new(config))),
            ..Self::plain(router)
        })
    }

    /// One connection, to its end; where its source or all sources have too many, it is
    /// closed at once.
    pub(super) async fn serve(
        &self,
        socket: TcpStream,
        remote: SocketAddr,
        stop: CancellationToken,
    ) {
        // Held for as long as the connection is.
        let Ok(_place) = self.gate.admit(Role::Caller, remote.ip()) else {
            return;
        };
        let Some(tls) = &self.tls else {
            return self.serve_http(socket, remote, stop).await;
        };
        match timeout(HEAD_TIME, tls.accept(socket)).await {
            Ok(Ok(stream)) => self.serve_http(stream, remote, stop).await,
            Ok(Err(error)) => debug!(%error, %remote, "the TLS handshake failed"),
            Err(_) => debug!(%remote, "the TLS handshake took too long"),
        }
    }

    async fn serve_http<IO>(&self, io: IO, remote: SocketAddr, stop: CancellationToken)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(remote));
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        let done = tokio::select! {
            done = connection.as_mut() => done,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // Whoever takes no answer, or sends no request to its end, does not hold up the end of the program.
                match timeout(STOP_TIME, connection).await {
                    Ok(done) => done,
                    Err(_) => return debug!(%remote, "a request was cut off at the stop"),
                }
            }
        };
        if let Err(error) = done {
            debug!(%error, %remote, "a connection of the REST API broke");
        }
    }
}

/// Connections at once: a worker has about two for each session that it serves, an
/// application one for each that it follows. Each costs at most [`BUFFER_BYTES`] and a body.
const CONNECTIONS_MOST: usize = 4096;

/// Connections at once of one address that is not of this host, so that no other one
/// locks an administrator out.
const CONNECTIONS_OF_A_SOURCE: usize = 1024;

/// Longest that a handshake or a request's head may take, and that a connection may idle.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// What runs when the program is asked to stop gets this long: longer than the console gives a request.
const STOP_TIME: Duration = Duration::from_secs(35);

const BUFFER_BYTES: usize = 32 * 1024;
