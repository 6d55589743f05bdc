//! What an uplink takes from the world: a connection, and chance.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::{
    Target, UplinkConfig,
    dial::{self, DialError},
};

pub(super) type Connection = TcpStream;

/// A connection to the first of the edge's addresses that answers.
pub(super) async fn connect(
    target: &Target,
    config: &UplinkConfig,
) -> Result<(Connection, SocketAddr), DialError> {
    let within = config.connect_timeout();
    let addresses = dial::resolve(target.address(), within).await?;
    let socket = dial::connect(&addresses, config.tcp(), within).await?;
    let address = socket.peer_addr().map_err(|source| DialError::Connect {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        tried: addresses.len(),
        source,
    })?;
    Ok((socket, address))
}

/// For jitter only. Without an entropy source every wait is the longest.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}
