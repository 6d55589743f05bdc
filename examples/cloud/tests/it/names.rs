//! The names that the ingress's certificates are good for.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::cloud::{Folder, Running};

/// A handshake as a caller does it, who trusts the local CA and wants `name`.
fn reach(folder: &Folder, cloud: &Running, name: &str) -> io::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(folder.path().join("ca.pem")).expect("the CA");
    roots.add(ca).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
    let ingress = cloud.address("ingress");
    let address = ingress.strip_prefix("https://").expect("a URL");
    let mut socket = TcpStream::connect(address)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(())
}

#[test]
fn both_forms_of_a_servers_name_are_good_and_inventions_are_not() {
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let made = folder.json(&["tunnel", "create", "demo"]);
    let host = made["tunnel"]["domain"]
        .as_str()
        .expect("a name")
        .to_owned();
    for route in ["mcp--", "mcp.", "other.", ""] {
        let name = format!("{route}{host}");
        reach(&folder, &cloud, &name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let (_, domain) = host.split_once('.').expect("a domain");
    for name in [format!("mcp.0000000z.{domain}"), format!("a.mcp.{host}")] {
        let error = reach(&folder, &cloud, &name).expect_err("it is no name of ours");
        // The caller judges; the edge says nothing about which names there are.
        let text = error.to_string();
        assert!(text.contains("not valid for name"), "{name}: {text}");
    }
    let id = made["tunnel"]["id"].as_str().expect("an id");
    folder.json(&["tunnel", "archive", id]);
    let error = reach(&folder, &cloud, &format!("mcp.{host}")).expect_err("it is archived");
    assert!(error.to_string().contains("not valid for name"), "{error}");
}
