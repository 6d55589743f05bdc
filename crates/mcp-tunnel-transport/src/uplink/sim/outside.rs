//! The world as a simulated uplink meets it.

use std::net::{Ipv4Addr, SocketAddr};

use super::net::{Network, Socket};
use crate::{Target, UplinkConfig, dial::DialError};

pub(in crate::uplink) type Connection = Socket;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

pub(in crate::uplink) async fn connect(
    _target: &Target,
    config: &UplinkConfig,
) -> Result<(Connection, SocketAddr), DialError> {
    // Nothing here is a socket that has options.
    let _ = config.tcp();
    let connected = Network::current().connect(config.connect_timeout()).await;
    let failed = |source| DialError::Connect {
        address: ADDRESS,
        tried: 1,
        source,
    };
    connected.map(|socket| (socket, ADDRESS)).map_err(failed)
}

pub(in crate::uplink) fn random() -> u64 {
    Network::current().rng().below(u64::MAX)
}
