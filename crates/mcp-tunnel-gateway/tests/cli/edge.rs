//! An edge that treats every gateway the same way, made of the transport alone.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use mcp_tunnel_auth::{
    DomainLabel, DomainName, HostName, MasterKey, TokenId, TunnelId, TunnelToken,
};
use mcp_tunnel_proto::{Refusal, RefusalCode};
use mcp_tunnel_transport::local_ca::LocalCa;
use mcp_tunnel_transport::{LinkConfig, accept, tls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DOMAIN: &str = "tunnel.localhost";

/// What the edge does with a gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Admit,
    Pend,
    Refuse,
}

pub(crate) struct Edge {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub(crate) address: SocketAddr,
}

impl Edge {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leaf = ca().issue(SystemTime::now()).unwrap();
        let tls = tls::server_config(Arc::new(Always(leaf.certified_key().unwrap()))).unwrap();
        Self {
            listener,
            acceptor: TlsAcceptor::from(tls),
            address,
        }
    }

    /// Serves one gateway after another while the test's work goes on.
    pub(crate) async fn beside<T>(&self, verdict: Verdict, work: impl Future<Output = T>) -> T {
        let serve = Box::pin(async {
            loop {
                self.serve(verdict).await;
            }
        });
        tokio::select! {
            output = work => output,
            () = serve => unreachable!(),
        }
    }

    async fn serve(&self, verdict: Verdict) {
        let (socket, _) = self.listener.accept().await.unwrap();
        let tls = self.acceptor.accept(socket).await.unwrap();
        let incoming = accept(tls, &LinkConfig::default()).await.unwrap();
        match verdict {
            Verdict::Admit => {
                let (_link, driver) = incoming.admit().unwrap();
                driver.run().await;
            }
            Verdict::Pend => {
                incoming.pend("K7QM-2F9D").closed().await;
            }
            Verdict::Refuse => {
                incoming
                    .refuse(Refusal::new(RefusalCode::RETIRED, "this token was rotated"))
                    .await
            }
        }
    }
}

/// One authority for all tests of the program.
fn ca() -> &'static LocalCa {
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

/// A tunnel token for an edge at this address.
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
