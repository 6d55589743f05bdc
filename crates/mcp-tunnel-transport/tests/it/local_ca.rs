//! The local authority: stored and loaded, bound to its domain, accepted by OpenSSL and Node.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use crate::common::{DOMAIN, ca, server_config};
use mcp_tunnel_transport::local_ca::{LocalCa, LocalCaError};
use secrecy::ExposeSecret as _;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn what_is_stored_loads_again() {
    let loaded = LocalCa::load(DOMAIN, ca().certificate_pem(), &ca().key_pem()).unwrap();
    assert_eq!(loaded.pin(), ca().pin());
    assert_eq!(loaded.certificate(), ca().certificate());
    let leaf = loaded.issue(SystemTime::now()).unwrap();
    assert_eq!(leaf.chain()[1], *ca().certificate());
}

#[test]
fn a_lost_certificate_is_made_again_over_its_key() {
    let now = SystemTime::now();
    let again = LocalCa::from_key(DOMAIN, &ca().key_pem(), now).unwrap();
    assert_eq!(again.pin(), ca().pin());
    assert_ne!(again.certificate_pem(), ca().certificate_pem());
    // What it vouches for is good under the old certificate too, wherever that one is trusted.
    let leaf = again.issue(now).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca().certificate().clone()).unwrap();
    let parsed = rustls::server::ParsedCertificate::try_from(&leaf.chain()[0]).unwrap();
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &roots,
        &[],
        rustls_pki_types::UnixTime::now(),
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .all,
    )
    .unwrap();
    let nonsense = "nonsense".to_owned().into();
    assert!(matches!(
        LocalCa::from_key(DOMAIN, &nonsense, now),
        Err(LocalCaError::Key)
    ));
    assert!(matches!(
        LocalCa::from_key("not a name", &ca().key_pem(), now),
        Err(LocalCaError::Domain)
    ));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let other = crate::common::new_ca();
    let refusal =
        |domain, pem, key: &LocalCa| LocalCa::load(domain, pem, &key.key_pem()).unwrap_err();
    let pem = ca().certificate_pem();
    assert!(matches!(
        refusal("example.com", pem, ca()),
        LocalCaError::OtherDomain
    ));
    assert!(matches!(
        refusal(DOMAIN, pem, &other),
        LocalCaError::KeyMismatch
    ));
    assert!(matches!(
        refusal(DOMAIN, "nonsense", ca()),
        LocalCaError::Certificate
    ));
    assert!(matches!(
        refusal("not a name", pem, ca()),
        LocalCaError::Domain
    ));
    let key = "nonsense".to_owned().into();
    let error = LocalCa::load(DOMAIN, pem, &key).unwrap_err();
    assert!(matches!(error, LocalCaError::Key));
    assert!(matches!(
        ca().issue_for("example.com", SystemTime::now()),
        Err(LocalCaError::OtherDomain)
    ));
    assert!(matches!(
        ca().issue_for("eviltunnel.localhost", SystemTime::now()),
        Err(LocalCaError::OtherDomain)
    ));
}

#[test]
fn renewal_is_due_after_two_thirds() {
    let now = SystemTime::now();
    let leaf = ca().issue(now).unwrap();
    assert!(!leaf.renewal_due(now + 55 * DAY));
    assert!(leaf.renewal_due(now + 61 * DAY));
    assert!(!ca().renewal_due(now + 2000 * DAY));
    assert!(ca().renewal_due(now + 2500 * DAY));
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let late = SystemTime::now() + 3640 * DAY;
    let leaf = ca().issue(late).unwrap();
    assert!(leaf.renewal_at() < SystemTime::now() + 3651 * DAY);
}

#[test]
fn neither_debug_text_shows_a_key() {
    let leaf = ca().issue(SystemTime::now()).unwrap();
    let texts = format!("{:?} {leaf:?} {:?}", ca(), ca().key_pem());
    for line in ca()
        .key_pem()
        .expose_secret()
        .lines()
        .chain(leaf.key_pem().expose_secret().lines())
    {
        assert!(line.is_empty() || !texts.contains(line));
    }
}

#[test]
fn openssl_accepts_the_chain_and_enforces_the_constraint() {
    if !available("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let leaf = ca().issue(SystemTime::now()).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("ca.pem"), ca().certificate_pem()).unwrap();
    fs::write(path("leaf.pem"), leaf.chain_pem()).unwrap();
    let verify = |leaf: &str, name: &str| {
        let arguments = [
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            name,
        ];
        let files = ["-CAfile", &path("ca.pem"), &path(leaf)];
        Command::new("openssl")
            .args(arguments)
            .args(files)
            .output()
            .unwrap()
    };
    for name in [
        "edge.tunnel.localhost",
        "mcp--abcd.tunnel.localhost",
        "localhost",
    ] {
        let output = verify("leaf.pem", name);
        assert!(output.status.success(), "{name}: {output:?}");
    }
    fs::write(path("forged.pem"), forged("edge.example.com")).unwrap();
    let output = verify("forged.pem", "edge.example.com");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("permitted subtree violation"),
        "{said}"
    );
}

#[tokio::test]
async fn node_accepts_the_chain_and_enforces_the_constraint() {
    if !available("node") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("ca.pem");
    fs::write(&pem, ca().certificate_pem()).unwrap();
    for name in [
        "edge.tunnel.localhost",
        "mcp--abcd.tunnel.localhost",
        "localhost",
    ] {
        assert_eq!(node_handshake(&pem, name).await, "authorized\n", "{name}");
    }
    assert_eq!(
        node_handshake(&pem, "example.com").await,
        "ERR_TLS_CERT_ALTNAME_INVALID\n"
    );
}

/// Lets Node connect to a listener with our leaf, asking for `name`; answers what it printed.
async fn node_handshake(ca_pem: &Path, name: &str) -> String {
    const SCRIPT: &str = "
        const [ca, port, servername] = process.argv.slice(1);
        const options = { ca: require('fs').readFileSync(ca), host: '127.0.0.1', port, servername, ALPNProtocols: ['mcp-tunnel/1'] };
        const socket = require('tls').connect(options, () => { console.log('authorized'); socket.destroy(); });
        socket.on('error', error => console.log(error.code));
    ";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let child = Command::new("node")
        .args(["-e", SCRIPT, ca_pem.to_str().unwrap(), &port, name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let _ = tokio_rustls::TlsAcceptor::from(server_config(ca()))
        .accept(socket)
        .await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output())
        .await
        .unwrap();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// A certificate for a name that the authority may not vouch for, signed with its key all the same.
fn forged(name: &str) -> String {
    let key = rcgen::KeyPair::from_pem(ca().key_pem().expose_secret()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(ca().certificate(), key).unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_after = (SystemTime::now() + 10 * DAY).into();
    params.use_authority_key_identifier_extension = true;
    params
        .signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer)
        .unwrap()
        .pem()
}

fn available(program: &str) -> bool {
    let found = Command::new(program)
        .arg(if program == "node" {
            "--version"
        } else {
            "version"
        })
        .output();
    found.is_ok()
}
