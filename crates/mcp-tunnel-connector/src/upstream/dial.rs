//! Dialling an MCP server: resolve, judge, connect, TLS, each with a deadline.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mcp_dial_guard::{Dial, Naming, Policy, Refusal};
use mcp_tunnel_transport::dial::{self as transport, TcpOptions};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::quick_ack::{Acks, QuickAck};
use crate::server::{Scheme, Target};

/// Opens connections to MCP servers; never through a proxy, whatever the environment says.
#[derive(Debug, Clone)]
pub(crate) struct Dialler {
    policy: Policy,
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

impl Dialler {
    /// `deadline` holds for resolving, for connecting and for the TLS handshake, each.
    pub(crate) fn new(policy: Policy, tls: Arc<ClientConfig>, deadline: Duration) -> Self {
        Self {
            policy,
            tls,
            deadline,
        }
    }

    /// A connection to the first permitted address that answers.
    pub(crate) async fn dial(&self, target: &Target) -> Result<UpstreamIo, DialError> {
        let addresses = self.permitted(target).await?;
        let stream = QuickAck::new(self.connect(&addresses).await?);
        match target.scheme() {
            Scheme::Http => Ok(UpstreamIo::Plain(stream)),
            Scheme::Https => self
                .secure(target, stream)
                .await
                .map(|tls| UpstreamIo::Tls(Box::new(tls))),
        }
    }

    /// What the target resolves to, without the addresses that the policy forbids.
    pub(crate) async fn permitted(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let mut forbidden = None;
        let mut permitted = Vec::new();
        for address in self.resolve(target).await? {
            match self.policy.judge(address.ip(), manner(target)) {
                Ok(_) => permitted.push(address),
                Err(refusal) => forbidden = Some(refusal),
            }
        }
        match forbidden {
            Some(refusal) if permitted.is_empty() => Err(DialError::Forbidden(refusal)),
            _ if permitted.is_empty() => Err(DialError::NoAddress),
            _ => Ok(permitted),
        }
    }

    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        if let Some(ip) = target.address() {
            return Ok(vec![SocketAddr::new(ip, target.port())]);
        }
        if target.host().as_str() == "localhost" {
            return Ok(LOOPBACK
                .map(|ip| SocketAddr::new(ip, target.port()))
                .to_vec());
        }
        let lookup = tokio::net::lookup_host((target.host().as_str(), target.port()));
        match timeout(self.deadline, lookup).await {
            Ok(Ok(found)) => Ok(found.take(MAX_ADDRESSES).collect()),
            Ok(Err(source)) => Err(DialError::Resolve { source }),
            Err(_) => Err(DialError::TimedOut {
                step: Step::Resolve,
            }),
        }
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
        // A server that takes its time to read an upload is slow, not dead.
        let options = TcpOptions::default().set_user_timeout(USER_TIMEOUT);
        transport::connect(addresses, &options, self.deadline)
            .await
            .map_err(|error| match error {
                transport::DialError::TimedOut { .. } => DialError::TimedOut {
                    step: Step::Connect,
                },
                error => DialError::Connect(error),
            })
    }

    async fn secure<IO>(&self, target: &Target, stream: IO) -> Result<TlsStream<IO>, DialError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(target.host().as_str().to_owned())
            .map_err(|_| DialError::NoTlsName)?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        match timeout(self.deadline, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(DialError::Tls { source }),
            Err(_) => Err(DialError::TimedOut { step: Step::Tls }),
        }
    }
}

/// How a target is dialled, as far as the policy asks.
fn manner(target: &Target) -> Dial {
    let scheme = match target.scheme() {
        Scheme::Http => mcp_dial_guard::Scheme::Plain,
        Scheme::Https => mcp_dial_guard::Scheme::Tls,
    };
    let naming = if target.address().is_some() {
        Naming::Literal
    } else {
        Naming::Resolved
    };
    Dial::new(scheme, naming)
}

/// Why no connection to an MCP server came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    #[error("resolving the MCP server's name")]
    Resolve {
        #[source]
        source: io::Error,
    },
    #[error("the MCP server's name has no address")]
    NoAddress,
    #[error("the MCP server's address is forbidden")]
    Forbidden(#[source] Refusal),
    #[error(transparent)]
    Connect(transport::DialError),
    #[error("the MCP server's name cannot stand in a certificate")]
    NoTlsName,
    #[error("TLS with the MCP server")]
    Tls {
        #[source]
        source: io::Error,
    },
    #[error("no answer from the MCP server in time, while {step}")]
    TimedOut { step: Step },
}

/// Which step of a dial took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Resolve,
    Connect,
    Tls,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving",
            Self::Connect => "connecting",
            Self::Tls => "shaking hands for TLS",
        })
    }
}

/// A connection to an MCP server.
#[derive(Debug)]
pub(crate) enum UpstreamIo {
    Plain(QuickAck),
    Tls(Box<TlsStream<QuickAck>>),
}

impl UpstreamIo {
    /// See [`QuickAck::acks`].
    pub(crate) fn acks(&mut self) -> Acks {
        match self {
            Self::Plain(io) => io.acks(),
            Self::Tls(io) => io.get_mut().0.acks(),
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }
}

/// Servers bind one or the other, seldom both.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::LOCALHOST),
];

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 8;

/// How long a server may leave sent bytes unacknowledged, or its window shut.
const USER_TIMEOUT: Duration = Duration::from_secs(600);
