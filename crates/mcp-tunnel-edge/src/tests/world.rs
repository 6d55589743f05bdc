//! An edge, a console's rows, and gateways that dial in, all in memory.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use mcp_tunnel_auth::{
    AccessSnapshot, Announcement, CallerKey, CallerKeyAccess, CallerKeyId, ConnectionId,
    DomainLabel, DomainName, GatewayAccess, GatewayKey, GatewayState, HostName, LinkCredential,
    MasterKey, RouteName, TokenAccess, TokenId, TokenState, TunnelAccess, TunnelId, TunnelToken,
    WorkspaceId,
};
use mcp_tunnel_transport::Exporter;
use mcp_tunnel_transport::local_ca::LocalCa;
use mcp_tunnel_transport::tls::{Trust, client_config, server_config};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_service::Service;

use super::gateway::{Gateway, gateway};
use crate::{Edge, EdgeConfig, IngressBody, PeerInfo};

pub(super) const DOMAIN: &str = "tunnel.example";
pub(super) const PEER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    4_000,
);

/// Of virtual time mostly: longer than every deadline of the edge.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

/// What a test changes and publishes again.
pub(super) struct World {
    pub(super) edge: Edge,
    pub(super) tunnels: Vec<TunnelAccess>,
    pub(super) keys: Vec<CallerKeyAccess>,
    pub(super) tasks: JoinSet<()>,
    /// The machine that gateways announce.
    pub(super) host: &'static str,
    number: u64,
    master: MasterKey,
    ca: LocalCa,
    links: Arc<ServerConfig>,
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

pub(super) fn config() -> EdgeConfig {
    EdgeConfig::new(DomainName::parse(DOMAIN).unwrap())
}

pub(super) fn tunnel_id(number: u8) -> TunnelId {
    TunnelId::new(1, &[number; 10])
}

pub(super) fn token_id(number: u8) -> TokenId {
    TokenId::new(1, &[number; 10])
}

pub(super) fn caller_key(number: u8) -> CallerKey {
    CallerKey::from_entropy([number; 32])
}

pub(super) fn bearer(key: &CallerKey) -> String {
    format!("Bearer {}", key.encode().expose_secret())
}

impl World {
    /// One tunnel, `demo`, with one token and one caller key (number 1); nobody is approved.
    pub(super) fn new(config: EdgeConfig) -> Self {
        let master = MasterKey::from_bytes([9; 32]);
        let ca = LocalCa::generate(DOMAIN, SystemTime::now()).unwrap();
        let certificate = ca
            .issue(SystemTime::now())
            .unwrap()
            .certified_key()
            .unwrap();
        let mut world = Self {
            edge: Edge::new(config),
            tunnels: Vec::new(),
            keys: Vec::new(),
            tasks: JoinSet::new(),
            host: "test",
            number: 0,
            master,
            ca,
            links: server_config(Arc::new(OneCertificate(certificate))).unwrap(),
        };
        world.add_tunnel(1, "demo");
        world.add_key(1);
        world.publish();
        world
    }

    pub(super) fn add_tunnel(&mut self, number: u8, label: &str) -> &mut TunnelAccess {
        let label = DomainLabel::parse(label).unwrap();
        let mut tunnel = TunnelAccess::new(tunnel_id(number), workspace(), label);
        let token = token_id(number);
        tunnel.tokens.push(TokenAccess::new(
            token,
            self.master.token_public_key(&token),
        ));
        self.tunnels.push(tunnel);
        self.tunnels.last_mut().unwrap()
    }

    pub(super) fn add_key(&mut self, number: u8) -> &mut CallerKeyAccess {
        let id = CallerKeyId::new(1, &[number; 10]);
        self.keys.push(CallerKeyAccess::new(
            id,
            caller_key(number).hash(),
            workspace(),
        ));
        self.keys.last_mut().unwrap()
    }

    /// Decides about the gateway whose key has this number.
    pub(super) fn decide(&mut self, gateway: u8, state: GatewayState) -> &mut GatewayAccess {
        let fingerprint = GatewayKey::from_bytes([gateway; 32])
            .public_key()
            .fingerprint();
        let gateways = &mut self.tunnels[0].gateways;
        gateways.retain(|gateway| gateway.fingerprint != fingerprint);
        let connection = ConnectionId::new(1, &[gateway; 10]);
        gateways.push(GatewayAccess::new(fingerprint, connection, state));
        gateways.last_mut().unwrap()
    }

    pub(super) fn approve(&mut self, gateway: u8) {
        self.decide(gateway, GatewayState::Approved);
        self.publish();
    }

    pub(super) fn rotate_token(&mut self) {
        for token in &mut self.tunnels[0].tokens {
            token.state = TokenState::Retired;
        }
        let token = token_id(200);
        let access = TokenAccess::new(token, self.master.token_public_key(&token));
        self.tunnels[0].tokens.push(access);
        self.publish();
    }

    pub(super) fn snapshot(&mut self) -> Arc<AccessSnapshot> {
        self.number += 1;
        let (tunnels, keys) = (self.tunnels.clone(), self.keys.clone());
        Arc::new(AccessSnapshot::new(self.number, 0, tunnels, keys).unwrap())
    }

    pub(super) fn publish(&mut self) {
        let snapshot = self.snapshot();
        self.edge.apply(snapshot).unwrap();
    }

    /// A gateway of the first tunnel with the key of this number, serving the route `mcp`.
    pub(super) async fn dial(&mut self, gateway: u8) -> Gateway {
        self.dial_as(gateway, 1, &["mcp"]).await
    }

    pub(super) async fn dial_as(&mut self, key: u8, token: u8, routes: &[&str]) -> Gateway {
        let (tls, exporter) = self.connect().await;
        let credential = self.credential(key, token, routes, &exporter);
        let (gateway, engine) = gateway(tls);
        self.tasks.spawn(engine.run(credential.encode().into()));
        gateway
    }

    /// An approved gateway whose link is up.
    pub(super) async fn active(&mut self, key: u8) -> Gateway {
        self.approve(key);
        let mut gateway = self.dial(key).await;
        gateway.active().await;
        gateway
    }

    pub(super) fn links_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.links)
    }

    pub(super) fn callers_tls(&self) -> Arc<ServerConfig> {
        let certificate = self
            .ca
            .issue(SystemTime::now())
            .unwrap()
            .certified_key()
            .unwrap();
        crate::serve::caller_tls(Arc::new(OneCertificate(certificate))).unwrap()
    }

    /// A caller's handshake on a socket.
    pub(super) async fn caller_connects(
        &self,
        near: DuplexStream,
        alpn: &[u8],
    ) -> io::Result<TlsStream<DuplexStream>> {
        let mut client =
            ClientConfig::clone(&*client_config(Trust::PinnedCa(self.ca.pin())).unwrap());
        client.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(format!("mcp--demo.{DOMAIN}")).unwrap();
        TlsConnector::from(Arc::new(client))
            .connect(name, near)
            .await
    }

    /// A client that asks for no protocol in particular.
    pub(super) fn client_without_alpn(&self) -> Arc<ClientConfig> {
        let mut client =
            ClientConfig::clone(&*client_config(Trust::PinnedCa(self.ca.pin())).unwrap());
        client.alpn_protocols.clear();
        Arc::new(client)
    }

    /// A gateway's handshake on a socket.
    pub(super) async fn gateway_handshake(&self, near: DuplexStream) -> TlsStream<DuplexStream> {
        let client = client_config(Trust::PinnedCa(self.ca.pin())).unwrap();
        let name = ServerName::try_from(format!("edge.{DOMAIN}")).unwrap();
        TlsConnector::from(client)
            .connect(name, near)
            .await
            .unwrap()
    }

    /// A gateway of the first tunnel on a socket.
    pub(super) async fn gateway_connects(&mut self, near: DuplexStream, key: u8) -> Gateway {
        let tls = self.gateway_handshake(near).await;
        let exporter = Exporter::of(tls.get_ref().1).unwrap();
        let credential = self.credential(key, 1, &["mcp"], &exporter);
        let (gateway, engine) = gateway(tls);
        self.tasks.spawn(engine.run(credential.encode().into()));
        gateway
    }

    /// A TLS connection that the edge takes for a link's.
    pub(super) async fn connect(&mut self) -> (TlsStream<DuplexStream>, Exporter) {
        let (near, far) = duplex(256 * 1024);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.links));
        let edge = self.edge.clone();
        self.tasks.spawn(async move {
            let tls = acceptor.accept(far).await.unwrap();
            let _ = edge.accept_link(tls, PeerInfo::tls(PEER)).await;
        });
        let tls = self.gateway_handshake(near).await;
        let exporter = Exporter::of(tls.get_ref().1).unwrap();
        (tls, exporter)
    }

    pub(super) fn credential(
        &self,
        key: u8,
        token: u8,
        routes: &[&str],
        exporter: &Exporter,
    ) -> LinkCredential {
        let tunnel = self
            .tunnels
            .iter()
            .find(|tunnel| tunnel.id == tunnel_id(token))
            .unwrap_or(&self.tunnels[0]);
        let domain = DomainName::parse(DOMAIN).unwrap();
        let seed = self.master.token_seed(&token_id(token));
        let edge = (HostName::parse("127.0.0.1").unwrap(), 7844);
        let token = TunnelToken::new(
            tunnel.id,
            tunnel.label.clone(),
            domain,
            token_id(token),
            seed,
            edge,
        );
        let routes = routes
            .iter()
            .map(|route| RouteName::parse(route).unwrap())
            .collect();
        let announcement = Announcement::new("0.1.0", self.host, routes).unwrap();
        let key = GatewayKey::from_bytes([key; 32]);
        LinkCredential::sign(&token, &key, exporter.as_bytes(), announcement)
    }

    /// Calls with a body; the call runs in a task of its own, as a server would run it.
    pub(super) fn call<B>(&mut self, request: Request<B>) -> Call
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<crate::exchange::BoxError>,
    {
        let mut ingress = self.edge.ingress();
        let (tx, rx) = tokio::sync::oneshot::channel();
        let abort = self.tasks.spawn(async move {
            let Ok(response) = ingress.call(request).await;
            let _ = tx.send(response);
        });
        Call {
            response: rx,
            abort,
        }
    }

    /// Whatever the edge answers, to its end.
    pub(super) async fn answer_to<B>(&mut self, request: Request<B>) -> Response<String>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<crate::exchange::BoxError>,
    {
        text(self.call(request).head().await).await.unwrap()
    }
}

/// A call under way.
pub(super) struct Call {
    response: tokio::sync::oneshot::Receiver<Response<IngressBody>>,
    abort: tokio::task::AbortHandle,
}

impl Call {
    pub(super) async fn head(self) -> Response<IngressBody> {
        let answered = timeout(PATIENCE, self.response).await;
        let answered = answered.expect("the call is answered in time");
        answered.expect("the call is answered")
    }

    /// The caller goes away.
    pub(super) fn hang_up(self) {
        self.abort.abort();
    }
}

pub(super) async fn text(
    response: Response<IngressBody>,
) -> Result<Response<String>, crate::exchange::BoxError> {
    let (parts, body) = response.into_parts();
    let collected = timeout(PATIENCE, body.collect()).await;
    let bytes = collected.expect("the answer ends in time")?.to_bytes();
    Ok(Response::from_parts(
        parts,
        String::from_utf8(bytes.to_vec()).unwrap(),
    ))
}

/// A POST with the key of this number to the only tunnel.
pub(super) fn post(key: u8, body: &'static str) -> Request<Full<Bytes>> {
    request(&bearer(&caller_key(key)), body)
}

pub(super) fn request(authorization: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/mcp")
        .header("host", "mcp--demo.tunnel.example")
        .header("mcp-tunnel-authorization", authorization)
        .header("content-length", body.len())
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

fn workspace() -> WorkspaceId {
    WorkspaceId::parse("default").unwrap()
}

pub(super) fn get(key: u8) -> Request<Full<Bytes>> {
    Request::get("/mcp")
        .header("host", "mcp--demo.tunnel.example")
        .header("mcp-tunnel-authorization", bearer(&caller_key(key)))
        .body(Full::default())
        .unwrap()
}
