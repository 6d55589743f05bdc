//! A private certificate authority that can vouch for one tunnel domain and for loopback, and for nothing else.
//!
//! It is what lets a first run need no certificates: the edge makes one, keeps its PEM, and its tunnel tokens pin
//! [`LocalCa::pin`]. Whoever adds it to a trust store trusts it for that domain only, because the constraint is
//! critical in the certificate and enforced by OpenSSL, rustls and Node alike.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration, time::SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _,
};
use secrecy::{ExposeSecret as _, SecretString};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer as _, X509Certificate},
};

use crate::tls;

/// The label under the domain that names the edge itself; no tunnel may have it.
pub const EDGE_LABEL: &str = "edge";

/// Validity of the authority's certificate; a renewal keeps key and pin.
const CA_VALIDITY: Duration = days(3650);
/// Validity of a leaf: short enough to be replaced in practice, long enough to survive a long stop.
const LEAF_VALIDITY: Duration = days(90);
/// How far certificates are dated back, for peers whose clocks are slow.
const BACKDATE: Duration = days(1);

/// A certificate authority for one tunnel domain and loopback.
///
/// Its certificate and key are the caller's to store, as PEM; `Debug` shows neither.
pub struct LocalCa {
    domain: DnsName<'static>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
}

/// A server certificate of a [`LocalCa`], with its key and chain.
///
/// Covers `edge.DOMAIN`, `*.DOMAIN`, `DOMAIN`, `localhost`, `127.0.0.1` and `::1`. The chain ends in the authority
/// itself, as [`Trust::PinnedCa`](crate::tls::Trust::PinnedCa) needs.
pub struct LocalLeaf {
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    key: KeyPair,
    validity: Validity,
}

/// Why a local authority could not be made, loaded or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalCaError {
    /// The domain is not a DNS name.
    #[error("the tunnel domain is not a DNS name")]
    Domain,
    /// The stored certificate is not readable.
    #[error("the authority's certificate is not readable")]
    Certificate,
    /// The stored key is not readable, or not one of P-256.
    #[error("the authority's key is not readable")]
    Key,
    /// The stored key belongs to another certificate.
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,
    /// The stored certificate does not permit this tunnel domain (which was probably changed).
    #[error("the authority's certificate does not cover this tunnel domain")]
    OtherDomain,
    /// Making a key or a certificate went wrong.
    #[error("making a certificate")]
    Issue(#[source] rcgen::Error),
    /// The time is out of any certificate's range.
    #[error("the time is out of range for a certificate")]
    Time,
}

#[derive(Clone, Copy)]
struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl LocalCa {
    /// A new authority with a new key.
    ///
    /// # Errors
    ///
    /// `domain` is not a DNS name, or there is no randomness.
    pub fn generate(domain: &str, now: SystemTime) -> Result<Self, LocalCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(LocalCaError::Issue)?;
        Self::certify(parse_domain(domain)?, key, now)
    }

    /// The authority that was stored as [`certificate_pem`](Self::certificate_pem) and [`key_pem`](Self::key_pem).
    ///
    /// # Errors
    ///
    /// One of them is not readable, they do not belong together, or the authority is for another domain.
    pub fn load(
        domain: &str,
        certificate_pem: &str,
        key_pem: &SecretString,
    ) -> Result<Self, LocalCaError> {
        let domain = parse_domain(domain)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| LocalCaError::Certificate)?;
        let key = KeyPair::from_pem(key_pem.expose_secret()).map_err(|_| LocalCaError::Key)?;
        let validity = inspect(&certificate, &domain, &key)?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|_| LocalCaError::Certificate)?;
        Ok(Self {
            domain,
            certificate,
            certificate_pem: certificate_pem.to_owned(),
            issuer,
            validity,
        })
    }

    /// The authority of a key whose certificate was lost: a new certificate over it. The pin stays, tokens stay valid.
    ///
    /// # Errors
    ///
    /// The key is not readable, or `domain` is not a DNS name. Which domain the lost certificate was for is not known.
    pub fn from_key(
        domain: &str,
        key_pem: &SecretString,
        now: SystemTime,
    ) -> Result<Self, LocalCaError> {
        let key = KeyPair::from_pem(key_pem.expose_secret()).map_err(|_| LocalCaError::Key)?;
        Self::certify(parse_domain(domain)?, key, now)
    }

    /// A new certificate over the same key: the pin stays, tokens stay valid.
    ///
    /// # Errors
    ///
    /// None that a working authority meets.
    pub fn renew(&self, now: SystemTime) -> Result<Self, LocalCaError> {
        let key =
            KeyPair::try_from(self.issuer.key().serialized_der()).map_err(LocalCaError::Issue)?;
        Self::certify(self.domain.clone(), key, now)
    }

    /// A server certificate with a new key, valid for 90 days, for the names of [`LocalLeaf`].
    ///
    /// # Errors
    ///
    /// There is no randomness.
    pub fn issue(&self, now: SystemTime) -> Result<LocalLeaf, LocalCaError> {
        let domain = self.domain.as_ref();
        let names = [
            format!("{EDGE_LABEL}.{domain}"),
            format!("*.{domain}"),
            domain.to_owned(),
            "localhost".to_owned(),
        ];
        let mut params = CertificateParams::new(names).map_err(LocalCaError::Issue)?;
        for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::from(LOOPBACK_V6)] {
            params.subject_alt_names.push(SanType::IpAddress(ip));
        }
        self.sign(params, now)
    }

    /// The same for one name below the domain, such as `*.TUNNEL.DOMAIN`, which [`issue`](Self::issue) leaves out.
    ///
    /// # Errors
    ///
    /// The name is not one, or not below the domain.
    pub fn issue_for(&self, name: &str, now: SystemTime) -> Result<LocalLeaf, LocalCaError> {
        let below = name
            .strip_suffix(self.domain.as_ref())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if !below {
            return Err(LocalCaError::OtherDomain);
        }
        let params = CertificateParams::new([name.to_owned()]).map_err(LocalCaError::Issue)?;
        self.sign(params, now)
    }

    /// The tunnel domain that this authority may vouch for.
    pub fn domain(&self) -> &str {
        self.domain.as_ref()
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate, PEM: for `--edge-ca`, trust stores, `NODE_EXTRA_CA_CERTS` and [`load`](Self::load).
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS #8 PEM: for a file that only its owner can read.
    pub fn key_pem(&self) -> SecretString {
        SecretString::from(self.issuer.key().serialize_pem())
    }

    /// SHA-256 of the public key: what a token pins.
    pub fn pin(&self) -> [u8; 32] {
        tls::sha256(&self.issuer.key().subject_public_key_info())
    }

    /// Whether two thirds of the certificate's life are over: time for [`renew`](Self::renew).
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        self.validity.renewal_at() <= now
    }

    fn certify(
        domain: DnsName<'static>,
        key: KeyPair,
        now: SystemTime,
    ) -> Result<Self, LocalCaError> {
        let validity = Validity::starting(now, CA_VALIDITY)?;
        let params = ca_params(&domain, &key, validity);
        let certificate = params.self_signed(&key).map_err(LocalCaError::Issue)?;
        Ok(Self {
            domain,
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
            validity,
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        now: SystemTime,
    ) -> Result<LocalLeaf, LocalCaError> {
        // A leaf that outlived its authority would be refused: it ends with it.
        let mut validity = Validity::starting(now, LEAF_VALIDITY)?;
        validity.not_after = validity.not_after.min(self.validity.not_after);
        validity.apply(&mut params);
        params.distinguished_name = common_name("MCP tunnel edge".to_owned());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(LocalCaError::Issue)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(LocalCaError::Issue)?;
        Ok(LocalLeaf {
            chain_pem: certificate.pem() + &self.certificate_pem,
            chain: vec![certificate.into(), self.certificate.clone()],
            key,
            validity,
        })
    }
}

impl LocalLeaf {
    /// The leaf, then the authority.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key, PKCS #8 PEM.
    pub fn key_pem(&self) -> SecretString {
        SecretString::from(self.key.serialize_pem())
    }

    /// Chain and key as rustls wants them, for a `ResolvesServerCert`.
    ///
    /// # Errors
    ///
    /// None: the provider accepts every key that [`LocalCa::issue`] makes.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        CertifiedKey::from_der(self.chain.clone(), key, &tls::provider()).map(Arc::new)
    }

    /// Whether two thirds of its life are over: time to [`issue`](LocalCa::issue) another.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        self.validity.renewal_at() <= now
    }

    /// When it should be replaced.
    pub fn renewal_at(&self) -> SystemTime {
        self.validity.renewal_at()
    }
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCa")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLeaf").finish_non_exhaustive()
    }
}

impl Validity {
    fn starting(now: SystemTime, length: Duration) -> Result<Self, LocalCaError> {
        let not_before = now.checked_sub(BACKDATE).ok_or(LocalCaError::Time)?;
        let not_after = now.checked_add(length).ok_or(LocalCaError::Time)?;
        Ok(Self {
            not_before,
            not_after,
        })
    }

    fn renewal_at(self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before + life.unwrap_or_default() * 2 / 3
    }

    fn apply(self, params: &mut CertificateParams) {
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
    }
}

fn parse_domain(domain: &str) -> Result<DnsName<'static>, LocalCaError> {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    let name = DnsName::try_from(name.to_owned()).map_err(|_| LocalCaError::Domain)?;
    Ok(name.to_lowercase_owned())
}

fn ca_params(domain: &DnsName<'_>, key: &KeyPair, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Part of the key's digest keeps two authorities apart in stores that look them up by subject.
    let digest = tls::sha256(&key.subject_public_key_info());
    let tag: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = common_name(format!("MCP tunnel local CA {tag}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName(domain.as_ref().to_owned()),
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(LOOPBACK_V6, 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    validity.apply(&mut params);
    params
}

fn common_name(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Checks a stored certificate against domain and key; answers its dates.
fn inspect(
    certificate: &CertificateDer<'_>,
    domain: &DnsName<'_>,
    key: &KeyPair,
) -> Result<Validity, LocalCaError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| LocalCaError::Certificate)?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(LocalCaError::KeyMismatch);
    }
    if !permits(&parsed, domain) {
        return Err(LocalCaError::OtherDomain);
    }
    let dates = parsed.validity();
    Ok(Validity {
        not_before: dates.not_before.to_datetime().into(),
        not_after: dates.not_after.to_datetime().into(),
    })
}

fn permits(certificate: &X509Certificate<'_>, domain: &DnsName<'_>) -> bool {
    let mut constraints = certificate.extensions().iter().filter_map(|extension| {
        match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => Some(constraints),
            _ => None,
        }
    });
    let permitted = constraints
        .next()
        .and_then(|c| c.permitted_subtrees.as_ref());
    permitted.is_some_and(|subtrees| {
        subtrees.iter().any(
            |subtree| matches!(subtree.base, GeneralName::DNSName(name) if name == domain.as_ref()),
        )
    })
}

const LOOPBACK_V6: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 60 * 60)
}
