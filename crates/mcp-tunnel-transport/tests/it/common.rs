//! What the tests of this crate share: a local authority and TLS over memory.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use bytes::Bytes;
use mcp_tunnel_proto::{OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::{
    Answer, CloseReason, Link, LinkConfig, Offer, Stream, StreamError, accept,
    local_ca::LocalCa,
    tls::{self, Trust},
};
use rustls::{
    ClientConfig, ServerConfig, crypto::CryptoProvider, server::ResolvesServerCert,
    sign::SingleCertAndKey,
};
use rustls_pki_types::ServerName;
use tokio::{io::DuplexStream, task::JoinSet};
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

pub(crate) fn resolver(ca: &LocalCa) -> Arc<dyn ResolvesServerCert> {
    let leaf = ca.issue(SystemTime::now()).expect("a leaf");
    Arc::new(SingleCertAndKey::from(leaf.certified_key().expect("a key")))
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

/// A link in memory with both drivers running.
pub(crate) struct Pair {
    pub(crate) gateway: Link,
    pub(crate) edge: Link,
    /// Ends with why each side's link ended; aborting it loses the link.
    pub(crate) drivers: JoinSet<CloseReason>,
}

/// A gateway that was admitted, with `config` on both sides.
pub(crate) async fn link_pair(config: &LinkConfig) -> Pair {
    let (gateway, near, edge, far) = Box::pin(link_parts(config)).await;
    let mut drivers = JoinSet::new();
    drivers.spawn(near);
    drivers.spawn(far);
    Pair {
        gateway,
        edge,
        drivers,
    }
}

/// A driver that has begun, or not yet.
pub(crate) type Running = Pin<Box<dyn Future<Output = CloseReason> + Send>>;

/// The same with the drivers in the caller's hand.
pub(crate) async fn link_parts(config: &LinkConfig) -> (Link, Running, Link, Running) {
    let (client, server) = tls_pair().await;
    let offer = Offer::new(client, Bytes::from_static(b"credential"), config).unwrap();
    let mut incoming = std::pin::pin!(accept(server, config));
    let mut answer = std::pin::pin!(offer.answer());
    let incoming = tokio::select! {
        incoming = &mut incoming => incoming.unwrap(),
        answer = &mut answer => panic!("{answer:?}"),
    };
    let (edge, driver) = incoming.admit().unwrap();
    let mut far: Running = Box::pin(driver.run());
    let (gateway, near): (_, Running) = tokio::select! {
        answer = &mut answer => match answer.unwrap() {
            Answer::Active { link, driver } => (link, Box::pin(driver.run())),
            other => panic!("{other:?}"),
        },
        reason = &mut far => panic!("{reason}"),
    };
    (gateway, near, edge, far)
}

impl Pair {
    /// A stream of the edge, and the gateway's end of it.
    pub(crate) async fn stream(&self) -> (Stream, Stream) {
        let ours = self
            .edge
            .open(http(), Bytes::from_static(b"!"))
            .await
            .unwrap();
        let mut theirs = self.gateway.accept().await.unwrap().stream;
        assert_eq!(theirs.read_chunk().await.unwrap().unwrap(), "!");
        (ours, theirs)
    }
}

pub(crate) fn http() -> OpenHeader {
    OpenHeader::new(StreamKind::Http, RouteName::parse("mcp").unwrap())
}

/// What ended the stream that gave this error.
#[track_caller]
pub(crate) fn stream_error<T: std::fmt::Debug>(outcome: std::io::Result<T>) -> StreamError {
    let error = outcome.unwrap_err();
    StreamError::of(&error).cloned().unwrap()
}
