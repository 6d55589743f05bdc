use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    date_time_ymd,
};

use super::*;

fn authority() -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2031, 1, 1);
    params
}

fn signed(params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> String {
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn pem(change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = authority();
    change(&mut params);
    signed(&params, &PKCS_ECDSA_P256_SHA256)
}

fn now() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

#[track_caller]
fn check(text: &str, expect: CertificateError) {
    assert_eq!(judge(text, now()).unwrap_err(), expect);
}

#[test]
fn an_authority_is_taken_with_its_fingerprint_and_end() {
    let text = pem(|_| ());
    let judged = judge(&text, now()).unwrap();
    assert_eq!(judged.pem, text);
    assert_eq!(judged.fingerprint.len(), 64);
    assert_eq!(
        judged.expires_at,
        Some("2031-01-01T00:00:00Z".parse().unwrap())
    );
    assert!(judge(&signed(&authority(), &PKCS_ECDSA_P384_SHA384), now()).is_ok());
}

#[test]
fn one_without_an_end_says_so() {
    let never = pem(|params| {
        params.not_after = date_time_ymd(9999, 12, 31).replace_time(
            date_time_ymd(2026, 1, 1)
                .time()
                .replace_hour(23)
                .unwrap()
                .replace_minute(59)
                .unwrap()
                .replace_second(59)
                .unwrap(),
        );
    });
    assert_eq!(judge(&never, now()).unwrap().expires_at, None);
}

#[test]
fn what_is_not_one_certificate_is_named() {
    let one = pem(|_| ());
    check("", CertificateError::NotPem);
    check("hello", CertificateError::NotPem);
    check(
        &one.replace("CERTIFICATE", "X509 CRL"),
        CertificateError::NotPem,
    );
    check(&format!("{one}{one}"), CertificateError::Several);
    check(
        &format!("{one}{}", " ".repeat(PEM_MOST_BYTES)),
        CertificateError::TooLong,
    );
    let key = KeyPair::generate().unwrap().serialize_pem();
    check(&format!("{one}{key}"), CertificateError::PrivateKey);
    let cut: String = one
        .lines()
        .filter(|line| !line.starts_with("MII"))
        .map(|l| format!("{l}\n"))
        .collect();
    check(&cut, CertificateError::Malformed);
}

#[test]
fn what_is_no_authority_is_named() {
    check(
        &pem(|params| params.is_ca = IsCa::NoCa),
        CertificateError::NotCa,
    );
    check(
        &pem(|params| params.is_ca = IsCa::ExplicitNoCa),
        CertificateError::NotCa,
    );
    check(
        &pem(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        CertificateError::NoCertSign,
    );
    check(
        &pem(|params| params.key_usages.clear()),
        CertificateError::NoCertSign,
    );
}

#[test]
fn basic_constraints_must_be_critical() {
    let lax = pem(|params| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]),
            CustomExtension::from_oid_content(&[2, 5, 29, 14], vec![4, 1, 7]),
        ];
    });
    check(&lax, CertificateError::NotCa);
}

#[test]
fn a_key_identifier_must_be_there() {
    let mut basic = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    basic.set_criticality(true);
    let without = pem(|params| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![basic];
    });
    check(&without, CertificateError::NoKeyIdentifier);
}

#[test]
fn validity_is_judged_at_the_given_time() {
    let text = pem(|_| ());
    let at = |time: &str| judge(&text, time.parse().unwrap()).map(|_| ());
    assert_eq!(
        at("2025-12-31T23:59:59Z"),
        Err(CertificateError::NotYetValid)
    );
    assert_eq!(at("2026-01-01T00:00:00Z"), Ok(()));
    assert_eq!(at("2031-01-01T00:00:01Z"), Err(CertificateError::Expired));
}

#[test]
fn keys_and_signatures_have_a_floor() {
    check(
        &signed(&authority(), &PKCS_ED25519),
        CertificateError::WeakKey,
    );
    check(RSA_1024_SHA256, CertificateError::WeakKey);
    check(RSA_2048_SHA1, CertificateError::WeakSignature);
    assert!(judge(RSA_2048_SHA256, now()).is_ok());
    assert!(judge(RSA_2048_PSS_SHA256, now()).is_ok());
}

// Made with `openssl req -x509 -days 36500`: rcgen makes neither small keys nor SHA-1.
const RSA_1024_SHA256: &str = "\
-----BEGIN CERTIFICATE-----
MIICDDCCAXWgAwIBAgIUa0akkn6MQ2uQoA3uhQ6NfQTh81QwDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQwNzMxMDJaGA8yMTI2MTAzMTA3
MzEwMlowDzENMAsGA1UEAwwEdGVzdDCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkC
gYEA6nUTexspEbRtJyaVhoZ/mxZKiXqK2wy6sohKsey8J3+FmwyqQCGv03JwXrfK
/wq89XV8lC5PVCtYsBddbwSzZT92T2b46N5wwBH7Qe7r3U994l+TonGkmpls+pgS
/W5tRxLx/WYBvD7RdQwu5iPHPI4C4my+q8CJ6IuW46TWU0UCAwEAAaNjMGEwHQYD
VR0OBBYEFE3cgc7MOH4l58/08ZrkOVdf4H3hMB8GA1UdIwQYMBaAFE3cgc7MOH4l
58/08ZrkOVdf4H3hMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMA0G
CSqGSIb3DQEBCwUAA4GBALFCGN8exvurXFlJxCrtFNBpRGK+lUbgBYJWkPCewEMI
UMr8uoiDKq8EHtksP0Avz1rLF+Pzwm1zi84yVluBncPXuPnbnM7020jzelBkorr1
bXrjEF6HyhVPpBHETOh5XiuhRp678gJ1mNNpSZsx+PNt3hXM54SwJhvv5+zwniw7
-----END CERTIFICATE-----
";
const RSA_2048_SHA1: &str = "\
-----BEGIN CERTIFICATE-----
MIIDETCCAfmgAwIBAgIUdK7463lSQlznOmuk91YpAazW/EUwDQYJKoZIhvcNAQEF
BQAwDzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQwNzMxMDJaGA8yMTI2MTAzMTA3
MzEwMlowDzENMAsGA1UEAwwEdGVzdDCCASIwDQYJKoZIhvcNAQEBBQADggEPADCC
AQoCggEBAIEN/1hxXyWvrQaFsXUW5eBsrSFFz081ub5uHVyhlcyTLhoB/Q5iPDUr
PKmJ90fXI6lb/eIjkMcPLj1SWAW7VE8DdOUePLyXLNUa3riHlucQuB14WhhIjrxv
8ZIml0p9vTwEiMOhTRTG3BMo1M4k26GUYa4N96m8OQ4Hl0wmhYm3pEhEuqCNZK5Q
gX6Ywp1lOSHqb9zuUOMwBx7ytgGI5qEtbFX3st8YSAlDjpCxgoJ4Bp4lyLrz3Pv7
xwd6CNsFVDw2Lq1xobcUyEcrvb4m+2dqe/lwq8rdOrAPCj33LRZwdbhRhOEHGOrQ
DgkLEfbeUmoWzW0MtODgVIE5wlZIG+MCAwEAAaNjMGEwHQYDVR0OBBYEFDVAt3DA
4HSV7w/iXeAzQuP90HBBMB8GA1UdIwQYMBaAFDVAt3DA4HSV7w/iXeAzQuP90HBB
MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMA0GCSqGSIb3DQEBBQUA
A4IBAQBdl46r0RC0D1I7HzxeKB6+VUGdEJNUB84P8Rjsw6X8XMixkgcML+sP84fH
rx8ymvnwBaBnKmS66+3WivpSlfxnXjnZaFZNG9kZrC9N6UANBiyI32GrKiRnYdhG
pWKI8h9SS4dXRkdPdC7f+E0WXFK9eEoeBRogosFXqTWa9UhvqBWc37OrWq4Jq5Ce
xbU/mpmMnBDdRQTM0V9t7TV55KOda0DWDmYSlhsAq9tx5lOmBZdDU56tjRls7a+a
PcCIilEo8US2qZ7OQnxGnL1d7UHprsc2aKPqahBHIoa7mbdK98HDj7RvXjvSgUz3
fYGo+djCSuiQUmwRk9Tlg7nfcBeV
-----END CERTIFICATE-----
";
const RSA_2048_SHA256: &str = "\
-----BEGIN CERTIFICATE-----
MIIDETCCAfmgAwIBAgIUL5y+ktC4BWHDCRy3LZ4fpjveDugwDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQwNzMxMDJaGA8yMTI2MTAzMTA3
MzEwMlowDzENMAsGA1UEAwwEdGVzdDCCASIwDQYJKoZIhvcNAQEBBQADggEPADCC
AQoCggEBAMaS8eGOkMXQmfrQQ1q1K1HPNd4rrxzZ0fE5DYyJX7RMHWpBEJM/x8Wx
0b/U67J10+kduclOd0IC50jb92Z92vVOaT+0cq9ei9JTx5Q8W7WHci+LaRBOdt3v
QLJVegFjcAHIyxiAy+XPCfhCsP2ocIK1FXfCnEH1HA1AR7cKfC/ELwZym3+8Poha
spCh9tiucSYZVkeGSNDM1BThTB/NkrAydsmurfLtMYeQJ1awCob4PSiV5VD4WQpa
3jA2WrSt73nQDvXc87dqgdfmWvWUulJEg0kNIE0exWJpVUeXw90tfqDyu7MDBQvV
qV0kaZ7RTGtn8pa5NZ4ja6bSRiihB4sCAwEAAaNjMGEwHQYDVR0OBBYEFJsk4PH2
sQoAcKpGfCAp7TQyAliVMB8GA1UdIwQYMBaAFJsk4PH2sQoAcKpGfCAp7TQyAliV
MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMA0GCSqGSIb3DQEBCwUA
A4IBAQB7FvsV5SRaqdQRq6cLM+Zjbe83xh8FQtBrfk5fAue56WfJr97BeHjW6enD
H9577sn8cKQOWBf3X1zizPVJxa+zPl0wa6YVk4d1xIaLBnhUkH70yHQ3d3epfhjc
ECRY8LuMTwBhlGOtR2FZH66q9FF71WeDFOKZF6uq/5gcDSx6DDbCEKAnTj1GuAAM
aNnDILcZjaw8RknkzFYbQjbKvsMRIoXdiUN8eLR0VIpvKsTM3NLouFXtqW3zKUJk
94fVxY3SQ2Xa9gclUJbt5l9Azp8TFKfO8uxEoqsQwNGsKp6iaWkJ36Hz/64ze31T
nniBG2PLFKnLTVvT7mbMfUNRocIR
-----END CERTIFICATE-----
";
const RSA_2048_PSS_SHA256: &str = "\
-----BEGIN CERTIFICATE-----
MIIDezCCAi6gAwIBAgIUBHdBsmDT/gtTv6G4YmDfTe+QosowQgYJKoZIhvcNAQEK
MDWgDzANBglghkgBZQMEAgEFAKEcMBoGCSqGSIb3DQEBCDANBglghkgBZQMEAgEF
AKIEAgIA3jAPMQ0wCwYDVQQDDAR0ZXN0MCAXDTI2MTEyNDA3MzEwMloYDzIxMjYx
MDMxMDczMTAyWjAPMQ0wCwYDVQQDDAR0ZXN0MIIBIjANBgkqhkiG9w0BAQEFAAOC
AQ8AMIIBCgKCAQEAj8mQHxgpszgW+aJemarauPnZ0CX0GXAPDV+cHSmIu1NYer7d
EVsW9D9fynWRKdWWrhCocqGQ0TMIrmrRCsjHoG3gxGK/69McutcKpGFOKOKJRVPm
ocVh9gS7Xsl9nQnKgHQbGI1FkCGv/YGry8B3k/UFzR79rTEJrwURgjKi3aEhx4sj
VCx3i4ZQIY5po+03Nfn+/I/FzZ8vjjFqle0ANofhIxuRiXoPbTxtzIpAjVuX0aq9
6hkTJfGxDV8pafvrkId9USDmKDARtTuKUhqnG7U5C+dBnpPEIbHycI9VK78VKFln
1is/mjv2lng1MFMyvSK9pzTySGsJxmUFECvgTQIDAQABo2MwYTAdBgNVHQ4EFgQU
ZT/aTOJQ/LsWe1aKa3akTffC3O0wHwYDVR0jBBgwFoAUZT/aTOJQ/LsWe1aKa3ak
TffC3O0wDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAgQwQgYJKoZIhvcN
AQEKMDWgDzANBglghkgBZQMEAgEFAKEcMBoGCSqGSIb3DQEBCDANBglghkgBZQME
AgEFAKIEAgIA3gOCAQEAWavdYW3tBR8JH6Lhpcu98HeujlyYBvKaqBXDweCJpsNf
g4+fyNUqw3xrppm5XZLmiCLQv22y1SF9e/d1/dX/cL19J0m+NPJfpi52d9OvJfMp
HFCYj7PYNl4OErM2IId/GTBWN0AQH8In5jgofgiZv7sZogG1GEwpSyUOL16zBa+m
4uyVz7Q16r3KkOS6l2/lVu2bKD3t3OaD7G3e8w25pplyPjY5evZEztuq+2RUitaN
J7dkBDzHDSs0/lN+kSeeXf4mTnNXr0Nzw9fBrjNpjNlCY4qZn2XHCkjJ5KN+baRd
i8sO6D6n5sTHaxrM6wwTQ3+YKj4bEUo3rr0QYpijlg==
-----END CERTIFICATE-----
";
