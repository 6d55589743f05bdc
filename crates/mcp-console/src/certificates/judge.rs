//! Which certificates are taken.

use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::ParsedExtension;
use x509_parser::nom::Finish as _;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_HASH_SHA1, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSASSAPSS,
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// What is kept of a certificate that is taken.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) pem: String,
    pub(super) fingerprint: String,
    pub(super) expires_at: Option<Timestamp>,
}

/// Why a text is no CA certificate that a tunnel may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateError {
    /// More than [`PEM_MOST_BYTES`].
    #[error("at most {PEM_MOST_BYTES} bytes: give one certificate, without its chain")]
    TooLong,
    /// It holds a private key.
    #[error(
        "it holds a private key, which nobody else should see: replace that key, and give only the certificate"
    )]
    PrivateKey,
    /// It has no PEM block.
    #[error("no PEM certificate: it starts with -----BEGIN CERTIFICATE-----")]
    NotPem,
    /// It has more than one PEM block.
    #[error("exactly one certificate is expected, without its chain")]
    Several,
    /// It is not DER, or has something behind.
    #[error("the certificate is damaged")]
    Malformed,
    /// Basic constraints are missing, not critical, or say that it is no CA.
    #[error("not a CA certificate: basicConstraints must be critical and say CA:TRUE")]
    NotCa,
    /// The subject key identifier is missing.
    #[error("it has no subjectKeyIdentifier")]
    NoKeyIdentifier,
    /// Key usage is missing or without `keyCertSign`.
    #[error("its keyUsage lacks keyCertSign")]
    NoCertSign,
    /// Its validity has not begun.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its validity is over.
    #[error("it has expired")]
    Expired,
    /// Its key is neither RSA nor ECDSA, or too small.
    #[error("its key must be RSA of at least 2048 bits, or ECDSA on P-256, P-384 or P-521")]
    WeakKey,
    /// Its signature uses a hash below SHA-256, or no known algorithm.
    #[error("its signature must be RSA or ECDSA with SHA-256 or better")]
    WeakSignature,
}

/// Longest text of a certificate: the vendor's limit.
pub(super) const PEM_MOST_BYTES: usize = 8192;

pub(super) fn judge(text: &str, now: Timestamp) -> Result<Judged, CertificateError> {
    if text.len() > PEM_MOST_BYTES {
        return Err(CertificateError::TooLong);
    }
    if text.contains("PRIVATE KEY-----") {
        return Err(CertificateError::PrivateKey);
    }
    let pem = only_block(text)?;
    let (rest, certificate) = X509Certificate::from_der(&pem.contents)
        .finish()
        .map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    check_extensions(&certificate)?;
    check_validity(&certificate, now)?;
    check_key(&certificate)?;
    check_signature(&certificate)?;
    Ok(Judged {
        pem: text.to_owned(),
        fingerprint: hex(&Sha256::digest(&pem.contents)),
        expires_at: expiry(&certificate),
    })
}

fn only_block(text: &str) -> Result<Pem, CertificateError> {
    let mut blocks = Pem::iter_from_buffer(text.as_bytes());
    let pem = blocks
        .next()
        .ok_or(CertificateError::NotPem)?
        .map_err(|_| CertificateError::NotPem)?;
    if pem.label != "CERTIFICATE" {
        return Err(CertificateError::NotPem);
    }
    if blocks.next().is_some() {
        return Err(CertificateError::Several);
    }
    Ok(pem)
}

fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints.is_some_and(|constraints| constraints.critical && constraints.value.ca) {
        return Err(CertificateError::NotCa);
    }
    let usage = certificate.key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(CertificateError::NoCertSign);
    }
    let identifies =
        |parsed: &ParsedExtension<'_>| matches!(parsed, ParsedExtension::SubjectKeyIdentifier(_));
    if !certificate
        .extensions()
        .iter()
        .any(|extension| identifies(extension.parsed_extension()))
    {
        return Err(CertificateError::NoKeyIdentifier);
    }
    Ok(())
}

fn check_validity(
    certificate: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(), CertificateError> {
    let now = ASN1Time::from_timestamp(now.as_second()).map_err(|_| CertificateError::Malformed)?;
    let validity = certificate.validity();
    if now < validity.not_before {
        return Err(CertificateError::NotYetValid);
    }
    if now > validity.not_after {
        return Err(CertificateError::Expired);
    }
    Ok(())
}

fn check_key(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let key = certificate.public_key();
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    let strong = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => rsa_bits(rsa.modulus) >= 2048,
        Ok(PublicKey::EC(_)) => curve.is_some_and(|curve| {
            [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521].contains(&curve)
        }),
        _ => false,
    };
    if strong {
        Ok(())
    } else {
        Err(CertificateError::WeakKey)
    }
}

/// Bits from the first that is set: a modulus may be written with zeros before it.
fn rsa_bits(modulus: &[u8]) -> usize {
    let significant = modulus.iter().skip_while(|byte| **byte == 0);
    let first = significant
        .clone()
        .next()
        .map_or(8, |byte| byte.leading_zeros());
    (significant.count() * 8).saturating_sub(first as usize)
}

fn check_signature(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    const STRONG: [Oid<'static>; 6] = [
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
    ];
    let algorithm = &certificate.signature_algorithm;
    let strong = if algorithm.algorithm == OID_PKCS1_RSASSAPSS {
        matches!(
            SignatureAlgorithm::try_from(algorithm),
            // An absent hash is SHA-1 by default.
            Ok(SignatureAlgorithm::RSASSA_PSS(parameters))
                if *parameters.hash_algorithm_oid() != OID_HASH_SHA1
        )
    } else {
        STRONG.contains(&algorithm.algorithm)
    };
    if strong {
        Ok(())
    } else {
        Err(CertificateError::WeakSignature)
    }
}

/// RFC 5280, 4.1.2.5: the last second of the year 9999 stands for "never".
fn expiry(certificate: &X509Certificate<'_>) -> Option<Timestamp> {
    const NEVER: i64 = 253_402_300_799;
    let second = certificate.validity().not_after.timestamp();
    (second != NEVER)
        .then(|| Timestamp::from_second(second).ok())
        .flatten()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
