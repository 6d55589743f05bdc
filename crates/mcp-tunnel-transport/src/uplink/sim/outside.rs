//! The world as a simulated uplink meets it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::time::timeout;

use super::net::{Network, Socket};
use crate::{Target, UplinkConfig, dial::DialError};

pub(in crate::uplink) type Connection = Socket;

pub(in crate::uplink) async fn resolve(
    target: &Target,
    _config: &UplinkConfig,
) -> Result<Vec<SocketAddr>, DialError> {
    let _ = target.address();
    Ok(Network::current().addresses())
}

pub(in crate::uplink) async fn connect(
    addresses: &[SocketAddr],
    config: &UplinkConfig,
) -> Result<(Connection, SocketAddr), DialError> {
    let address = *addresses.first().expect("an address");
    let network = Network::current();
    let failed = |source| DialError::Connect {
        address,
        tried: 1,
        source,
    };
    match timeout(config.connect_timeout(), network.connect(address)).await {
        Ok(connected) => connected.map(|socket| (socket, address)).map_err(failed),
        Err(_elapsed) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

pub(in crate::uplink) async fn knock(
    address: SocketAddr,
    config: UplinkConfig,
) -> io::Result<Connection> {
    // Nothing here is a socket that has options.
    let _ = config.tcp();
    Network::current().connect(address).await
}

pub(in crate::uplink) fn way(_edge: SocketAddr) -> Option<IpAddr> {
    Network::current().way()
}

pub(in crate::uplink) fn random() -> u64 {
    Network::current().rng().below(u64::MAX)
}
