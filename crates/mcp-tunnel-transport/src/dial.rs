//! Reaching an edge: names to addresses, addresses to a socket, a socket to TLS.
//!
//! The [`Uplink`](crate::Uplink) takes these steps by itself; they are public so that a check can take them one by
//! one and name the hop that fails.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    read_ahead::ReadAhead,
    target::{EdgeAddress, EdgeHost, Target},
    tls::{Exporter, ExporterError},
};

mod race;
mod tcp;

pub use tcp::TcpOptions;

/// Addresses of one name that are tried at most; a resolver's answer is not ours to trust without bound.
const MAX_ADDRESSES: usize = 16;

/// Why an edge could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The resolver gave an error.
    #[error("resolving {host}")]
    Resolve {
        /// What was looked up.
        host: EdgeHost,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name exists without an address.
    #[error("{host} has no address")]
    NoAddress {
        /// What was looked up.
        host: EdgeHost,
    },
    /// No address could be connected to.
    #[error("connecting to {address} (the last of {tried} tried)")]
    Connect {
        /// The address that failed last.
        address: SocketAddr,
        /// Addresses tried.
        tried: usize,
        /// Why the last one failed.
        source: io::Error,
    },
    /// The TLS handshake failed: see the source for a certificate that is not trusted.
    #[error("securing the connection to {server_name}")]
    Tls {
        /// The name that the edge had to prove.
        server_name: String,
        /// What TLS said; a `rustls::Error` is inside where the peer was refused.
        source: io::Error,
    },
    /// The peer is a web server, or another listener of the edge's: it knows no [`ALPN`](crate::tls::ALPN) of ours.
    #[error(
        "this is not the edge (it speaks HTTP only): there is no mcp-tunnel/1 for {server_name}"
    )]
    NotAnEdge {
        /// The name that was asked for.
        server_name: String,
    },
    /// TLS came up in a form that cannot carry a link.
    #[error("the connection to the edge cannot carry a link")]
    Exporter(#[from] ExporterError),
    /// A step took longer than it may.
    #[error("nothing from the edge within {after:?} while {step}")]
    TimedOut {
        /// Which step.
        step: &'static str,
        /// Its deadline.
        after: Duration,
    },
}

/// All addresses of an edge, in the order to try them: families alternate, as RFC 8305 has it.
///
/// `localhost` and names below it are loopback without asking a resolver (RFC 6761), and many resolvers would not
/// know the latter.
///
/// # Errors
///
/// [`DialError::Resolve`], [`DialError::NoAddress`] or [`DialError::TimedOut`] after `within`.
///
/// # Cancel safety
///
/// Dropping the future abandons the look-up; a thread of the runtime may still finish it.
pub async fn resolve(
    address: &EdgeAddress,
    within: Duration,
) -> Result<Vec<SocketAddr>, DialError> {
    let port = address.port();
    let name = match address.host() {
        EdgeHost::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
        EdgeHost::Name(name) if is_loopback_name(name) => return Ok(loopback(port)),
        EdgeHost::Name(name) => name.as_str(),
    };
    let host = || address.host().clone();
    let found = within_deadline(
        "resolving its name",
        within,
        tokio::net::lookup_host((name, port)),
    )
    .await?
    .map_err(|source| DialError::Resolve {
        host: host(),
        source,
    })?;
    let addresses = alternate(found.take(MAX_ADDRESSES));
    if addresses.is_empty() {
        return Err(DialError::NoAddress { host: host() });
    }
    Ok(addresses)
}

/// The first of these addresses that answers, with `options` set on the socket.
///
/// A new attempt starts as soon as one fails, or 250 ms after the last start while none has answered; the first to
/// connect wins and the others are dropped.
///
/// # Errors
///
/// [`DialError::Connect`] with the last failure, or [`DialError::TimedOut`] after `within`.
///
/// # Cancel safety
///
/// Dropping the future closes every attempt.
pub async fn connect(
    addresses: &[SocketAddr],
    options: &TcpOptions,
    within: Duration,
) -> Result<TcpStream, DialError> {
    let race = race::first(addresses, TcpStream::connect);
    let (address, socket) = within_deadline("connecting", within, race).await??;
    options
        .apply(&socket)
        .map_err(|source| DialError::Connect {
            address,
            tried: 1,
            source,
        })?;
    Ok(socket)
}

/// TLS over a connection of any kind, with the edge's name verified, ready to carry a link.
///
/// # Errors
///
/// [`DialError::Tls`], [`DialError::NotAnEdge`], [`DialError::Exporter`], or [`DialError::TimedOut`] after `within`.
///
/// # Cancel safety
///
/// Dropping the future closes the socket.
pub async fn secure<IO>(
    socket: IO,
    target: &Target,
    tls: &Arc<ClientConfig>,
    within: Duration,
) -> Result<(TlsStream<ReadAhead<IO>>, Exporter), DialError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let connector = TlsConnector::from(Arc::clone(tls));
    let handshake = connector.connect(target.server_name().clone(), ReadAhead::new(socket));
    let server_name = || target.server_name().to_str().into_owned();
    let stream = within_deadline("securing the connection", within, handshake)
        .await?
        .map_err(|source| match knows_no_links(&source) {
            true => DialError::NotAnEdge {
                server_name: server_name(),
            },
            false => DialError::Tls {
                server_name: server_name(),
                source,
            },
        })?;
    let exporter = Exporter::of(stream.get_ref().1).map_err(|error| match error {
        // A server that passes over names which it does not know, instead of refusing them.
        ExporterError::Alpn => DialError::NotAnEdge {
            server_name: server_name(),
        },
        other => other.into(),
    })?;
    Ok((stream, exporter))
}

/// Whether the peer ended the handshake by `no_application_protocol` (RFC 7301).
fn knows_no_links(error: &io::Error) -> bool {
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref());
    matches!(
        inside,
        Some(rustls::Error::AlertReceived(
            rustls::AlertDescription::NoApplicationProtocol
        ))
    )
}

async fn within_deadline<T>(
    step: &'static str,
    after: Duration,
    work: impl Future<Output = T>,
) -> Result<T, DialError> {
    timeout(after, work)
        .await
        .map_err(|_| DialError::TimedOut { step, after })
}

fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    let addresses = [
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::LOCALHOST),
    ];
    addresses.map(|ip| SocketAddr::new(ip, port)).to_vec()
}

/// Families in turn, beginning with the one that the resolver put first.
fn alternate(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<_> = found.collect();
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_from_the_preferred_one() {
        let found = addresses(&[
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
            "192.0.2.1:1",
            "[2001:db8::3]:1",
        ]);
        let expect = addresses(&[
            "[2001:db8::1]:1",
            "192.0.2.1:1",
            "[2001:db8::2]:1",
            "[2001:db8::3]:1",
        ]);
        assert_eq!(alternate(found.into_iter()), expect);
        let only_v4 = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(alternate(only_v4.clone().into_iter()), only_v4);
    }

    #[tokio::test]
    async fn names_below_localhost_are_loopback() {
        for name in ["localhost:7", "edge.tunnel.localhost:7"] {
            let found = resolve(&name.parse().unwrap(), Duration::from_secs(1)).await;
            assert_eq!(found.unwrap(), addresses(&["[::1]:7", "127.0.0.1:7"]));
        }
    }

    #[tokio::test]
    async fn addresses_need_no_resolver() {
        let found = resolve(&"192.0.2.1:7".parse().unwrap(), Duration::from_secs(1)).await;
        assert_eq!(found.unwrap(), addresses(&["192.0.2.1:7"]));
    }
}
