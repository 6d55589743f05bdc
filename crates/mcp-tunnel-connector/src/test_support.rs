//! What the tests of several modules share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_dial_guard::Policy;

use crate::server::McpServer;
use crate::upstream::dial::Dialler;

pub(crate) fn dialler() -> Dialler {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Dialler::new(Policy::mcp_server(), Arc::new(tls), Duration::from_secs(10))
}

pub(crate) fn server_at(address: SocketAddr) -> McpServer {
    address.to_string().parse().unwrap()
}
