//! What the tests of this crate share: a local authority and TLS over memory.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use mcp_tunnel_transport::{
    local_ca::LocalCa,
    tls::{self, Trust},
};
use rustls::{
    ClientConfig, ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;
use tokio::io::DuplexStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const DOMAIN: &str = "tunnel.localhost";

pub(crate) type ClientTls = client::TlsStream<DuplexStream>;
pub(crate) type ServerTls = server::TlsStream<DuplexStream>;

/// One authority for all tests of a program.
pub(crate) fn ca() -> &'static LocalCa {
    static CA: OnceLock<LocalCa> = OnceLock::new();
    CA.get_or_init(new_ca)
}

pub(crate) fn new_ca() -> LocalCa {
    LocalCa::generate(DOMAIN, SystemTime::now()).expect("an authority")
}

/// Answers every name with one certificate, as the edge does.
#[derive(Debug)]
pub(crate) struct Always(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

pub(crate) fn resolver(ca: &LocalCa) -> Arc<dyn ResolvesServerCert> {
    let leaf = ca.issue(SystemTime::now()).expect("a leaf");
    Arc::new(Always(leaf.certified_key().expect("a key")))
}

pub(crate) fn server_config(ca: &LocalCa) -> Arc<ServerConfig> {
    tls::server_config(resolver(ca)).expect("a configuration")
}

pub(crate) fn client_config() -> Arc<ClientConfig> {
    tls::client_config(Trust::PinnedCa(ca().pin())).expect("a configuration")
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A handshake over memory; both outcomes.
pub(crate) async fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> (std::io::Result<ClientTls>, std::io::Result<ServerTls>) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    tokio::join!(
        TlsConnector::from(client).connect(name, near),
        TlsAcceptor::from(server).accept(far),
    )
}

/// A TLS connection over memory as a link has it.
pub(crate) async fn tls_pair() -> (ClientTls, ServerTls) {
    let (client, server) = handshake(
        client_config(),
        server_config(ca()),
        "edge.tunnel.localhost",
    )
    .await;
    (
        client.expect("the client's side"),
        server.expect("the server's side"),
    )
}
