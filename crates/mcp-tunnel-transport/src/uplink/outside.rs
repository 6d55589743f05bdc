//! What an uplink takes from the world: addresses, connections, ways, and chance.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use tokio::net::TcpStream;

use crate::{
    Target, UplinkConfig,
    dial::{self, DialError},
};

pub(super) type Connection = TcpStream;

/// The edge's addresses.
pub(super) async fn resolve(
    target: &Target,
    config: &UplinkConfig,
) -> Result<Vec<SocketAddr>, DialError> {
    dial::resolve(target.address(), config.connect_timeout()).await
}

/// A connection to the first of these addresses that answers.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    config: &UplinkConfig,
) -> Result<(Connection, SocketAddr), DialError> {
    let socket = dial::connect(addresses, config.tcp(), config.connect_timeout()).await?;
    let address = socket.peer_addr().map_err(|source| DialError::Connect {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        tried: addresses.len(),
        source,
    })?;
    Ok((socket, address))
}

/// One attempt at one address, without a deadline of its own.
pub(super) async fn knock(address: SocketAddr, config: UplinkConfig) -> io::Result<Connection> {
    let socket = TcpStream::connect(address).await?;
    config.tcp().apply(&socket)?;
    Ok(socket)
}

/// The address of this machine that a packet to `edge` would carry now; `None` where there is no way. Sends nothing.
pub(super) fn way(edge: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match edge {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(edge).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// For jitter only. Without an entropy source every wait is the longest.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}
