//! An edge that does what a test says, and the token for it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use mcp_tunnel_auth::{
    AccessSnapshot, Approval, DomainLabel, DomainName, GatewayKey, HostName, LinkCredential,
    MasterKey, TokenAccess, TokenId, TunnelAccess, TunnelId, TunnelToken, WorkspaceId,
};
use mcp_tunnel_connector::{Connector, ConnectorConfig, McpServer, ServerConfig, ServerSet};
use mcp_tunnel_proto::{OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::local_ca::LocalCa;
use mcp_tunnel_transport::{CloseReason, Incoming, Link, LinkConfig, Stream, accept, tls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const DOMAIN: &str = "tunnel.localhost";

/// One authority for all tests of the program.
pub(crate) fn ca() -> &'static LocalCa {
    static CA: OnceLock<LocalCa> = OnceLock::new();
    CA.get_or_init(|| LocalCa::generate(DOMAIN, SystemTime::now()).unwrap())
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn certificate() -> Arc<Always> {
    let leaf = ca().issue(SystemTime::now()).unwrap();
    Arc::new(Always(leaf.certified_key().unwrap()))
}

pub(crate) struct Edge {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub(crate) address: SocketAddr,
    pub(crate) drivers: JoinSet<CloseReason>,
}

impl Edge {
    pub(crate) async fn bind() -> Self {
        Self::bind_to("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn bind_to(address: SocketAddr) -> Self {
        Self::bind_with(address, tls::server_config(certificate()).unwrap()).await
    }

    /// The same authority's TLS for a web server, such as an MCP server.
    pub(crate) async fn bind_web() -> Self {
        Self::bind_web_with(&[]).await
    }

    /// The same, of a server that insists on one of these protocols; without any it passes the wish over.
    pub(crate) async fn bind_web_with(protocols: &[&[u8]]) -> Self {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(certificate());
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self::bind_with("127.0.0.1:0".parse().unwrap(), Arc::new(tls)).await
    }

    async fn bind_with(address: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            listener,
            acceptor: TlsAcceptor::from(tls),
            address,
            drivers: JoinSet::new(),
        }
    }

    pub(crate) async fn handshake(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (socket, _) = self.listener.accept().await.unwrap();
        self.acceptor.accept(socket).await
    }

    /// The next gateway, with the key that it proves.
    pub(crate) async fn incoming(&self) -> Incoming<TcpStream> {
        let tls = self.handshake().await.unwrap();
        let incoming = accept(tls, &LinkConfig::default()).await.unwrap();
        let credential = LinkCredential::decode(incoming.credential()).unwrap();
        assert_eq!(
            credential.identity().fingerprint(),
            key().public_key().fingerprint()
        );
        incoming
    }

    /// A connection to it under its own name, as a gateway or whoever poses as one makes it.
    pub(crate) async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let config = tls::client_config(tls::Trust::PinnedCa(ca().pin())).unwrap();
        let name = format!("edge.{DOMAIN}").try_into().unwrap();
        let socket = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        connector.connect(name, socket).await.unwrap()
    }

    pub(crate) async fn admit(&mut self) -> Link {
        let (link, driver) = self.incoming().await.admit().unwrap();
        self.drivers.spawn(driver.run());
        link
    }
}

pub(crate) fn key() -> GatewayKey {
    GatewayKey::from_bytes([9; 32])
}

pub(crate) fn token(edge: SocketAddr) -> TunnelToken {
    let token_id = TokenId::new(1_764_000_000_000, &[3; 10]);
    let host = HostName::parse(&edge.ip().to_string()).unwrap();
    TunnelToken::new(
        TunnelId::new(1_764_000_000_000, &[2; 10]),
        DomainLabel::parse("k3v9d2xq").unwrap(),
        DomainName::parse(DOMAIN).unwrap(),
        token_id,
        MasterKey::from_bytes([1; 32]).token_seed(&token_id),
        (host, edge.port()),
    )
    .with_ca_pin(ca().pin())
}

/// What the console lets in: every gateway that holds the token.
pub(crate) fn snapshot(token: &TunnelToken) -> AccessSnapshot {
    let workspace = WorkspaceId::parse("home").unwrap();
    let mut tunnel = TunnelAccess::new(token.tunnel_id, workspace, token.label.clone());
    tunnel.approval = Approval::Auto;
    let public = MasterKey::from_bytes([1; 32]).token_public_key(&token.token_id);
    tunnel.tokens = vec![TokenAccess::new(token.token_id, public)];
    AccessSnapshot::new(1, 0, vec![tunnel], vec![]).unwrap()
}

pub(crate) fn servers(texts: &[&str]) -> ServerConfig {
    let servers: Vec<McpServer> = texts.iter().map(|text| text.parse().unwrap()).collect();
    ServerConfig::new(ServerSet::new(servers).unwrap())
}

pub(crate) fn config(edge: SocketAddr, server: SocketAddr) -> ConnectorConfig {
    ConnectorConfig::new(token(edge), key(), servers(&[&server.to_string()]))
}

pub(crate) fn connector(edge: &Edge, server: SocketAddr) -> Connector {
    Connector::new(config(edge.address, server)).unwrap()
}

pub(crate) const CALL: &str =
    "POST /mcp HTTP/1.1\r\nhost: k3v9d2xq.tunnel.localhost\r\ncontent-length: 2\r\n\r\n{}";

/// Opens a call and sends it whole.
pub(crate) async fn open(link: &Link, kind: StreamKind, call: &str) -> Stream {
    let header = OpenHeader::new(kind, RouteName::parse("").unwrap());
    link.open(header, Bytes::from(call.to_owned()))
        .await
        .unwrap()
}

/// The same, with more said about the call.
pub(crate) async fn open_as(
    link: &Link,
    call: &str,
    about: impl FnOnce(&mut OpenHeader),
) -> Stream {
    let mut header = OpenHeader::new(StreamKind::Http, RouteName::parse("").unwrap());
    about(&mut header);
    let first = Bytes::from(call.to_owned());
    link.open(header, first).await.unwrap()
}

/// The whole answer to a call, or how it broke off.
pub(crate) async fn answer(mut stream: Stream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.map(|_| text)
}

pub(crate) async fn finish(stream: &mut Stream) {
    stream.shutdown().await.unwrap();
}
