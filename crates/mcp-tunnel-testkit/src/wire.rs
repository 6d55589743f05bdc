//! Bytes to an ingress as no HTTP library would send them.

use crate::stack::Cloud;
use anyhow::{Context, Result};
use rustls::{RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// After so much silence an answer counts as whole.
const SILENCE: Duration = Duration::from_millis(700);
/// An answer longer than this is cut off, bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// Any byte stream.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A TLS client configuration that trusts `ca` only and offers HTTP/1.1.
///
/// # Errors
/// The certificate cannot be read.
pub fn tls_config(ca: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).context("reading the CA")? {
        roots.add(certificate?)?;
    }
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Connects to an address, with TLS if there is a configuration.
///
/// # Errors
/// TCP or TLS fails.
pub async fn connect(
    address: SocketAddr,
    tls: Option<&(Arc<rustls::ClientConfig>, ServerName<'static>)>,
) -> Result<Box<dyn Wire>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(match tls {
        None => Box::new(socket),
        Some((config, name)) => {
            let connector = TlsConnector::from(Arc::clone(config));
            Box::new(connector.connect(name.clone(), socket).await?)
        }
    })
}

/// Sends `bytes` to the HTTPS ingress and returns everything that comes back.
///
/// # Errors
/// No connection is made.
pub async fn send_https(cloud: &Cloud, bytes: &[u8]) -> Result<String> {
    let address = cloud.addresses().ingress;
    let tls = (tls_config(&cloud.ca())?, address.ip().into());
    send(connect(address, Some(&tls)).await?, bytes).await
}

/// Sends `bytes` to a development ingress and returns everything that comes back.
///
/// # Errors
/// No connection is made.
pub async fn send_dev(cloud: &Cloud, bytes: &[u8]) -> Result<String> {
    let address = cloud
        .addresses()
        .dev
        .first()
        .context("no development ingress")?;
    send(connect(*address, None).await?, bytes).await
}

async fn send(mut wire: Box<dyn Wire>, bytes: &[u8]) -> Result<String> {
    // A refusal may close the connection while this still writes.
    let _ = wire.write_all(bytes).await;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_LIMIT {
        match timeout(SILENCE, wire.read_buf(&mut answer)).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
