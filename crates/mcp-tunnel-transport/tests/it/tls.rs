//! TLS as links use it: who is trusted, which versions, what is refused.

use std::sync::Arc;

use crate::common::{ca, handshake, new_ca, provider, resolver, server_config, tls_pair};
use mcp_tunnel_transport::{
    Exporter,
    local_ca::LocalCa,
    tls::{self, ALPN, ExporterError, TlsConfigError, Trust},
};
use rustls::{
    CertificateError, ClientConfig, HandshakeKind, RootCertStore, ServerConfig,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;

const EDGE: &str = "edge.tunnel.localhost";

fn trusting(trust: Trust) -> Arc<ClientConfig> {
    tls::client_config(trust).unwrap()
}

/// A client that trusts our authority, but is not one of ours.
fn foreign_client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[u8],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca().certificate().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// A server that speaks everything, as one shared with callers does.
fn shared_server(alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver(ca()));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

#[track_caller]
fn certificate_error<T>(outcome: std::io::Result<T>) -> CertificateError {
    let error = outcome
        .err()
        .expect("a refusal")
        .into_inner()
        .expect("a source");
    match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_ends_export_the_same_and_connections_differ() {
    let (client, server) = tls_pair().await;
    let ours = Exporter::of(client.get_ref().1).unwrap();
    assert_eq!(ours, Exporter::of(server.get_ref().1).unwrap());
    let (other, _server) = tls_pair().await;
    assert_ne!(ours, Exporter::of(other.get_ref().1).unwrap());
    assert_eq!(format!("{ours:?}"), "Exporter(..)");
}

#[tokio::test]
async fn links_are_never_resumed() {
    let (client, server) = (crate::common::client_config(), server_config(ca()));
    for _ in 0..2 {
        let (near, far) = handshake(Arc::clone(&client), Arc::clone(&server), EDGE).await;
        assert_eq!(
            near.unwrap().get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
        assert_eq!(
            far.unwrap().get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
    }
}

#[tokio::test]
async fn the_pinned_authority_is_accepted_under_every_name_it_covers() {
    let names = [
        EDGE,
        "mcp--a1b2c3d4.tunnel.localhost",
        "tunnel.localhost",
        "localhost",
        "127.0.0.1",
        "::1",
    ];
    for name in names {
        let pinned = trusting(Trust::PinnedCa(ca().pin()));
        let (client, _) = handshake(pinned, server_config(ca()), name).await;
        client.unwrap_or_else(|e| panic!("{name}: {e}"));
        let rooted = trusting(Trust::Roots(vec![ca().certificate().clone()]));
        let (client, _) = handshake(rooted, server_config(ca()), name).await;
        client.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[tokio::test]
async fn another_authority_under_the_same_names_is_refused() {
    let other = new_ca();
    let (client, server) = handshake(
        trusting(Trust::PinnedCa(ca().pin())),
        server_config(&other),
        EDGE,
    )
    .await;
    let error = certificate_error(client);
    assert!(matches!(error, CertificateError::Other(_)), "{error:?}");
    assert!(server.is_err());
    let roots = vec![ca().certificate().clone()];
    let (client, _) = handshake(trusting(Trust::Roots(roots)), server_config(&other), EDGE).await;
    assert_eq!(certificate_error(client), CertificateError::UnknownIssuer);
}

#[tokio::test]
async fn showing_the_pinned_certificate_without_its_key_is_refused() {
    let impostor = new_ca();
    let leaf = impostor.issue(std::time::SystemTime::now()).unwrap();
    let mut key = Arc::unwrap_or_clone(leaf.certified_key().unwrap());
    key.cert = vec![leaf.chain()[0].clone(), ca().certificate().clone()];
    let server = tls::server_config(Arc::new(SingleCertAndKey::from(key))).unwrap();
    let (client, _) = handshake(trusting(Trust::PinnedCa(ca().pin())), server, EDGE).await;
    let error = certificate_error(client);
    assert_eq!(error, CertificateError::UnknownIssuer);
}

#[tokio::test]
async fn the_pin_outlives_a_renewal_of_the_authority() {
    let renewed = ca().renew(std::time::SystemTime::now()).unwrap();
    assert_ne!(renewed.certificate(), ca().certificate());
    let (client, _) = handshake(
        trusting(Trust::PinnedCa(ca().pin())),
        server_config(&renewed),
        EDGE,
    )
    .await;
    client.unwrap();
}

#[tokio::test]
async fn a_name_of_another_domain_is_refused() {
    let pinned = trusting(Trust::PinnedCa(ca().pin()));
    let (client, _) = handshake(pinned, server_config(ca()), "edge.example.com").await;
    let error = certificate_error(client);
    assert!(
        matches!(error, CertificateError::NotValidForNameContext { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_leaf_outside_the_constraint_is_refused() {
    let server = server_config_of(&stolen_authority(), "edge.example.com");
    let pinned = trusting(Trust::PinnedCa(ca().pin()));
    let (client, _) = handshake(pinned, server, "edge.example.com").await;
    let error = certificate_error(client);
    assert!(
        matches!(&error, CertificateError::Other(source)
            if format!("{source:?}").contains("NameConstraintViolation")),
        "{error:?}"
    );
}

#[tokio::test]
async fn tls_1_2_is_refused_by_both_ends() {
    let (client, server) =
        handshake(foreign_client(&[&TLS12], ALPN), server_config(ca()), EDGE).await;
    assert!(client.is_err() && server.is_err());

    let mut old = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver(ca()));
    old.alpn_protocols = vec![ALPN.to_vec()];
    let (client, server) = handshake(crate::common::client_config(), Arc::new(old), EDGE).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_shared_listener_gives_no_exporter_to_tls_1_2_or_another_protocol() {
    let server = shared_server(&[ALPN, b"h2"]);
    let (_client, old) =
        handshake(foreign_client(&[&TLS12], ALPN), Arc::clone(&server), EDGE).await;
    assert_eq!(
        Exporter::of(old.unwrap().get_ref().1),
        Err(ExporterError::Version)
    );
    let (_client, h2) = handshake(foreign_client(&[&TLS13], b"h2"), server, EDGE).await;
    assert_eq!(
        Exporter::of(h2.unwrap().get_ref().1),
        Err(ExporterError::Alpn)
    );
}

#[tokio::test]
async fn a_resumed_connection_gives_no_exporter() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (client, server) = (foreign_client(&[&TLS13], ALPN), shared_server(&[ALPN]));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (near, far) = handshake(Arc::clone(&client), Arc::clone(&server), EDGE).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"!").await.unwrap(); // the ticket travels in front of it
        far.flush().await.unwrap();
        near.read_u8().await.unwrap();
        kinds.push(Exporter::of(far.get_ref().1).map(|_| ()));
    }
    assert_eq!(kinds, [Ok(()), Err(ExporterError::Resumed)]);
}

#[tokio::test]
async fn a_client_without_our_alpn_is_refused_by_a_link_listener() {
    let (client, server) =
        handshake(foreign_client(&[&TLS13], b"h2"), server_config(ca()), EDGE).await;
    assert!(client.is_err() && server.is_err());
}

#[test]
fn lists_of_roots_are_judged() {
    let broken = CertificateDer::from(b"not a certificate".to_vec());
    let good = ca().certificate().clone();
    let system = Trust::System(vec![broken.clone(), good.clone()]);
    assert!(tls::client_config(system).is_ok());
    let none = tls::client_config(Trust::System(vec![broken.clone()]));
    assert!(matches!(none, Err(TlsConfigError::NoRoots)));
    let none = tls::client_config(Trust::Roots(Vec::new()));
    assert!(matches!(none, Err(TlsConfigError::NoRoots)));
    let file = tls::client_config(Trust::Roots(vec![good, broken]));
    assert!(matches!(file, Err(TlsConfigError::Root { index: 1, .. })));
}

/// The authority's key in the hands of somebody who signs what it may not.
fn stolen_authority() -> rcgen::Issuer<'static, rcgen::KeyPair> {
    use secrecy::ExposeSecret as _;
    let key = rcgen::KeyPair::from_pem(ca().key_pem().expose_secret()).unwrap();
    rcgen::Issuer::from_ca_cert_der(ca().certificate(), key).unwrap()
}

fn server_config_of(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str) -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, issuer).unwrap();
    let chain = vec![leaf.der().clone(), ca().certificate().clone()];
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = rustls::sign::CertifiedKey::from_der(chain, key.into(), &provider()).unwrap();
    tls::server_config(Arc::new(SingleCertAndKey::from(key))).unwrap()
}

#[test]
fn a_pin_is_the_digest_of_the_public_key() {
    let ca: &LocalCa = ca();
    assert_eq!(tls::spki_sha256(ca.certificate()).unwrap(), ca.pin());
}
