//! The certificate that edge, ingress and a public REST API show: the operator's own, or
//! one of the local CA.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use mcp_tunnel_auth::{AccessSnapshot, DomainName, HostName};
use mcp_tunnel_transport::local_ca::{LocalCa, LocalCaError};
use mcp_tunnel_transport::tls::spki_sha256;
use rustls::client::verify_server_name;
use rustls::server::{ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::ServeArgs;
use crate::data::{DataFolder, read_secret};
use crate::failure::Failure;
use crate::out::say;

mod shown;

use shown::Shown;

/// What is shown, and how others come to trust it.
#[derive(Clone)]
pub(crate) struct Certificates {
    shown: Arc<Shown>,
    /// `None` with the operator's own certificate.
    authority: Option<Arc<LocalCa>>,
    /// What tokens pin, and the file that others trust, where the CA is a private one.
    private: Option<([u8; 32], PathBuf)>,
}

impl Certificates {
    pub(super) fn prepare(data: &DataFolder, args: &ServeArgs) -> Result<Self, Failure> {
        match (&args.tls_cert, &args.tls_key) {
            (Some(chain), Some(key)) => Self::own(chain, key),
            _ => Self::local(data, &args.domain),
        }
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.shown) as _
    }

    /// Tunnels of `snapshots` get certificates of their own where they need them.
    pub(super) fn follow(&self, snapshots: watch::Receiver<Arc<AccessSnapshot>>) {
        self.shown.follow(snapshots);
    }

    pub(super) fn ca_pin(&self) -> Option<[u8; 32]> {
        self.private.as_ref().map(|(pin, _)| *pin)
    }

    pub(super) fn private_roots(&self) -> Option<&Path> {
        self.private.as_ref().map(|(_, file)| file.as_path())
    }

    /// The name that gateways verify, where it is not `edge.DOMAIN`.
    pub(super) fn edge_name(
        &self,
        domain: &DomainName,
        public: &HostName,
    ) -> Result<Option<HostName>, Failure> {
        let shown = self.shown.wildcard();
        let leaf = shown.end_entity_cert().map_err(Failure::internal)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(Failure::internal)?;
        let covers = |name: &HostName| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        };
        if covers(&domain.edge()) {
            return Ok(None);
        }
        if covers(public) {
            return Ok(Some(public.clone()));
        }
        Err(Failure::wrong(
            format_args!(
                "the certificate covers neither {} nor {public}",
                domain.edge()
            ),
            "use one for *.DOMAIN, or name the host that it is for with --public-edge",
        ))
    }

    /// Replaces the local CA's certificate in time, until `stop`.
    pub(super) async fn renew(self, stop: CancellationToken) {
        let Some(authority) = &self.authority else {
            return;
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RENEWAL) => {}
            }
            match leaf_of(authority) {
                Ok(leaf) => {
                    self.shown.renew(leaf);
                    info!("the edge's certificate was renewed");
                }
                Err(failure) => warn!(%failure, "the edge's certificate was not renewed"),
            }
        }
    }

    fn own(chain_file: &Path, key_file: &Path) -> Result<Self, Failure> {
        let chain = CertificateDer::pem_file_iter(chain_file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("reading {}", chain_file.display()))
            .map_err(|error| Failure::usage(error, "--tls-cert: PEM, the leaf first"))?;
        if chain.is_empty() {
            return Err(Failure::wrong(
                format_args!("{} holds no certificate", chain_file.display()),
                "--tls-cert: PEM, the leaf first",
            ));
        }
        let wrong_key = |error: anyhow::Error| {
            Failure::usage(
                error.context(format!("reading {}", key_file.display())),
                "--tls-key: the PEM private key of the certificate",
            )
        };
        let key =
            PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong_key(error.into()))?;
        let provider = rustls::crypto::ring::default_provider();
        let shown = CertifiedKey::from_der(chain.clone(), key, &provider)
            .map_err(|error| wrong_key(error.into()))?;
        Ok(Self {
            shown: Arc::new(Shown::new(Arc::new(shown))),
            authority: None,
            private: private_pin(&chain)?.map(|pin| (pin, chain_file.to_owned())),
        })
    }

    fn local(data: &DataFolder, domain: &DomainName) -> Result<Self, Failure> {
        let authority = Arc::new(authority(data, domain)?);
        let shown = Shown::new(leaf_of(&authority)?).with_authority(Arc::clone(&authority));
        Ok(Self {
            shown: Arc::new(shown),
            private: Some((authority.pin(), data.file(CA_CERTIFICATE))),
            authority: Some(authority),
        })
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// The local CA of this folder, made at the first start and renewed over the same key.
fn authority(data: &DataFolder, domain: &DomainName) -> Result<LocalCa, Failure> {
    let now = SystemTime::now();
    let certificate = data.file(CA_CERTIFICATE);
    let Ok(pem) = std::fs::read_to_string(&certificate) else {
        return new_certificate(data, domain, now);
    };
    let key: SecretString = read_secret(&data.file(CA_KEY))?;
    let authority = LocalCa::load(domain.as_str(), &pem, &key).map_err(|error| {
        let cure = match error {
            LocalCaError::OtherDomain => {
                "start with the --domain of before, or with another folder: tokens and \
                 certificates are for one domain"
            }
            _ => "put ca.pem and ca.key back from a copy, or start with another folder",
        };
        Failure::usage(
            anyhow::Error::new(error).context(certificate.display().to_string()),
            cure,
        )
    })?;
    if !authority.renewal_due(now) {
        return Ok(authority);
    }
    let renewed = authority.renew(now).map_err(Failure::internal)?;
    data.write(CA_CERTIFICATE, renewed.certificate_pem(), 0o644)?;
    Ok(renewed)
}

/// The authority of a folder without its certificate. A key that is there stays, whether the certificate was lost or the
/// first start was cut short: tokens pin the key, and a new one would end every one of them.
fn new_certificate(
    data: &DataFolder,
    domain: &DomainName,
    now: SystemTime,
) -> Result<LocalCa, Failure> {
    let (certificate, key_file) = (data.file(CA_CERTIFICATE), data.file(CA_KEY));
    let had_key = key_file.exists();
    let authority = if had_key {
        LocalCa::from_key(domain.as_str(), &read_secret(&key_file)?, now).map_err(|error| {
            Failure::usage(
                anyhow::Error::new(error).context(key_file.display().to_string()),
                "put ca.key back from a copy, or start with another folder",
            )
        })?
    } else {
        let authority = LocalCa::generate(domain.as_str(), now).map_err(Failure::internal)?;
        // The key first: a certificate without its key would not be made again.
        let key = authority.key_pem();
        data.write(CA_KEY, secrecy::ExposeSecret::expose_secret(&key), 0o600)?;
        authority
    };
    data.write(CA_CERTIFICATE, authority.certificate_pem(), 0o644)?;
    if had_key {
        say!(
            "made {} again, of the same key: tokens stay good",
            certificate.display()
        );
    } else {
        say!(
            "made {}: what vouches for the edge; clients trust it",
            certificate.display()
        );
    }
    Ok(authority)
}

fn leaf_of(authority: &LocalCa) -> Result<Arc<CertifiedKey>, Failure> {
    authority
        .issue(SystemTime::now())
        .map_err(Failure::internal)?
        .certified_key()
        .map_err(Failure::internal)
}

/// What tokens pin where the system's roots do not vouch for the chain: its last
/// certificate, which ought to be the CA.
fn private_pin(chain: &[CertificateDer<'static>]) -> Result<Option<[u8; 32]>, Failure> {
    let Some((leaf, rest)) = chain.split_first() else {
        return Ok(None);
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = rustls::crypto::ring::default_provider();
    let public = ParsedCertificate::try_from(leaf).is_ok_and(|leaf| {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &roots,
            rest,
            rustls_pki_types::UnixTime::now(),
            provider.signature_verification_algorithms.all,
        )
        .is_ok()
    });
    match rest.last() {
        _ if public => Ok(None),
        Some(ca) => spki_sha256(ca).map(Some).map_err(Failure::internal),
        None => {
            warn!(
                "the certificate is of a private CA that is not in its file: gateways need --edge-ca"
            );
            Ok(None)
        }
    }
}

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// Leaves last 90 days; a new one a day costs nothing.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);
