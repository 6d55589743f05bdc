//! TLS as links use it: version 1.3 only, one ALPN name, an exporter, nothing resumed.
//!
//! A link's credential signs the exporter of its own TLS connection, so that a proof copied to another
//! connection, or carried through a TLS proxy, is worth nothing. That holds only where the exporter is unique to
//! one full handshake: hence no TLS 1.2, no early data and no resumption here, and [`Exporter::of`] refuses a
//! connection that broke one of those rules (a listener shared with callers may allow them the rest).

use std::{fmt, sync::Arc};

use mcp_tunnel_proto::{Resume, Side};
use rustls::{
    ClientConfig, CommonState, ConnectionCommon, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, tls13::OkmBlock},
    server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert},
    version::TLS13,
};
use rustls_pki_types::CertificateDer;

mod pinned;

/// The ALPN name of a link.
pub const ALPN: &[u8] = b"mcp-tunnel/1";

/// The exporter label (RFC 8446 section 7.5) of a link's credential.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mcp-tunnel link";

/// The label of what a session is resumed by.
const RESUME_LABEL: &[u8] = b"EXPORTER-mcp-tunnel resume";

/// Which certificates a gateway accepts from its edge.
#[derive(Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Chains to one of the system's roots, as the caller loaded them.
    ///
    /// System stores often hold a few certificates that no parser accepts: those are skipped, and only a list
    /// without a single usable one is an error.
    System(Vec<CertificateDer<'static>>),
    /// Chains to one of these roots, of a file that an operator named: each must be usable.
    Roots(Vec<CertificateDer<'static>>),
    /// Chains to the one authority whose public key has this SHA-256, and to nothing else.
    ///
    /// The digest is taken over the DER of the `SubjectPublicKeyInfo` (see [`spki_sha256`]), so it outlives a
    /// renewal of the authority's certificate with the same key. The edge must send that certificate in its
    /// chain; those of `LocalCa` do.
    PinnedCa([u8; 32]),
}

/// Why TLS could not be configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// The list of roots has no usable certificate.
    #[error("no usable root certificate")]
    NoRoots,
    /// A certificate of the list is not one.
    #[error("root certificate {index} is not usable")]
    Root {
        /// Position in the list, from 0.
        index: usize,
        /// What the parser said.
        source: rustls::Error,
    },
    /// The crypto provider does not offer TLS 1.3.
    #[error("no TLS 1.3 in the crypto provider")]
    Provider(#[source] rustls::Error),
}

/// Why a finished TLS connection cannot carry a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// The handshake has not finished.
    #[error("the TLS handshake has not finished")]
    Unfinished,
    /// The connection is not TLS 1.3.
    #[error("the connection is not TLS 1.3")]
    Version,
    /// The peers did not agree on [`ALPN`].
    #[error("the peer does not speak mcp-tunnel/1")]
    Alpn,
    /// The handshake resumed an earlier one.
    #[error("the TLS session was resumed")]
    Resumed,
    /// The TLS stack gives no exporter.
    #[error("the TLS connection has no exporter")]
    Unavailable,
}

/// 32 bytes that only the two ends of one TLS connection know.
///
/// Not a secret of the long-lived kind, but nobody else's business: `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter([u8; 32]);

impl Exporter {
    #[cfg(test)]
    pub(crate) const fn for_test(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The exporter of a finished connection that may carry a link.
    ///
    /// # Errors
    ///
    /// See [`ExporterError`]: there is no fallback for a connection without one.
    pub fn of<Data>(tls: &ConnectionCommon<Data>) -> Result<Self, ExporterError> {
        check_link(tls)?;
        tls.export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map(Self)
            .map_err(|_| ExporterError::Unavailable)
    }

    /// The bytes, for a signature over them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What only the two ends of a session's first connection know: who has it may go on with the session.
#[derive(Clone)]
pub(crate) struct ResumeKey([u8; 32]);

impl ResumeKey {
    #[cfg(test)]
    pub(crate) const fn for_test(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of the session that begins on this connection.
    pub(crate) fn of<Data>(tls: &ConnectionCommon<Data>) -> Result<Self, ExporterError> {
        tls.export_keying_material([0; 32], RESUME_LABEL, None)
            .map(Self)
            .map_err(|_| ExporterError::Unavailable)
    }

    /// RESUME-3: what `side` says with its position on a new connection with this exporter.
    pub(crate) fn proof(
        &self,
        exporter: &Exporter,
        side: Side,
        epoch: u32,
        position: u64,
    ) -> [u8; 32] {
        let mut message = Vec::with_capacity(45);
        message.extend_from_slice(exporter.as_bytes());
        message.push(match side {
            Side::Gateway => 0,
            Side::Edge => 1,
        });
        message.extend_from_slice(&epoch.to_be_bytes());
        message.extend_from_slice(&position.to_be_bytes());
        hmac_sha256(&self.0, &message)
    }

    /// Whether `side` knows this key, in constant time.
    pub(crate) fn is_proven(&self, exporter: &Exporter, side: Side, said: &Resume) -> bool {
        let expected = self.proof(exporter, side, said.epoch, said.position);
        let differences = expected.iter().zip(&said.proof).map(|(a, b)| a ^ b);
        std::hint::black_box(differences.fold(0, |all, one| all | one)) == 0
    }
}

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeKey(..)")
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(roots) => write!(f, "System({} roots)", roots.len()),
            Self::Roots(roots) => write!(f, "Roots({} roots)", roots.len()),
            Self::PinnedCa(pin) => {
                f.write_str("PinnedCa(")?;
                pin.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(")")
            }
        }
    }
}

/// The gateway's side of a link: TLS 1.3, [`ALPN`], ring, no resumption, no early data.
///
/// # Errors
///
/// A root that is not usable, or none at all.
pub fn client_config(trust: Trust) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsConfigError::Provider)?;
    let mut config = match trust {
        Trust::System(certificates) => builder.with_root_certificates(usable(certificates)?),
        Trust::Roots(certificates) => builder.with_root_certificates(all(certificates)?),
        Trust::PinnedCa(pin) => builder
            .dangerous() // Narrower than the default, not wider: one authority instead of a store.
            .with_custom_certificate_verifier(Arc::new(pinned::PinnedCa::new(pin, provider))),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The edge's side of a link, for a listener that takes gateways only.
///
/// Where callers and gateways share a port, look at the [`ClientHello`] first (with
/// `tokio_rustls::LazyConfigAcceptor`), and use this configuration if [`wants_link`] says so.
///
/// # Errors
///
/// None with the provider of this crate; the signature leaves room for others.
pub fn server_config(
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsConfigError::Provider)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whether a client asks for a link: it offers [`ALPN`], alone or among others.
pub fn wants_link(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut names| names.any(|name| name == ALPN))
}

/// SHA-256 over the DER `SubjectPublicKeyInfo` of a certificate: what [`Trust::PinnedCa`] holds.
///
/// The same as `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum`.
///
/// # Errors
///
/// The bytes are not an X.509 certificate.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<[u8; 32], rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(sha256(&parsed.subject_public_key_info()))
}

/// The one crypto provider of the workspace, always passed, never installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// SHA-256 by the TLS provider, so that no second implementation is linked.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let output = match suite {
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.hash(bytes),
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider.hash(bytes),
    };
    let mut digest = [0; 32];
    digest.copy_from_slice(output.as_ref());
    digest
}

/// HMAC-SHA256 by the TLS provider.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    if let rustls::SupportedCipherSuite::Tls13(suite) =
        rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
    {
        let signed = suite.hkdf_provider.hmac_sign(&OkmBlock::new(key), message);
        tag.copy_from_slice(signed.as_ref());
    }
    tag
}

fn check_link(tls: &CommonState) -> Result<(), ExporterError> {
    if tls.is_handshaking() {
        Err(ExporterError::Unfinished)
    } else if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        Err(ExporterError::Version)
    } else if tls.alpn_protocol() != Some(ALPN) {
        Err(ExporterError::Alpn)
    } else if tls.handshake_kind() == Some(HandshakeKind::Resumed) {
        Err(ExporterError::Resumed)
    } else {
        Ok(())
    }
}

fn usable(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    let (added, _skipped) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsConfigError::NoRoots);
    }
    Ok(roots)
}

fn all(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|source| TlsConfigError::Root { index, source })?;
    }
    if roots.is_empty() {
        return Err(TlsConfigError::NoRoots);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_s_hmac_is_that_of_rfc_4231() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let tag = hmac_sha256(&key, b"what do ya want for nothing?");
        // Its test case 2: HMAC pads keys with zeroes.
        assert_eq!(tag[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
    }

    #[test]
    fn a_proof_is_for_one_connection_side_epoch_and_position() {
        let (key, new) = (ResumeKey([1; 32]), Exporter([2; 32]));
        let said = Resume::new(3, 4, key.proof(&new, Side::Gateway, 3, 4));
        assert!(key.is_proven(&new, Side::Gateway, &said));
        assert!(!key.is_proven(&new, Side::Edge, &said));
        assert!(!key.is_proven(&Exporter([3; 32]), Side::Gateway, &said));
        assert!(!ResumeKey([2; 32]).is_proven(&new, Side::Gateway, &said));
        for other in [Resume::new(4, 4, said.proof), Resume::new(3, 5, said.proof)] {
            assert!(!key.is_proven(&new, Side::Gateway, &other));
        }
    }
}
