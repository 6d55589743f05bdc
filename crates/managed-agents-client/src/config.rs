//! Where a client calls, with what, and whom it trusts.

use reqwest::Url;
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use std::time::Duration;

/// Settings of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(crate) base_url: String,
    pub(crate) credential: Credential,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) timeout: Duration,
}

/// What a client calls with, and the header that it belongs in.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    ApiKey(SecretString),
    Bearer(SecretString),
}

impl ClientConfig {
    /// A client of the control plane at `base_url` (scheme, host, port; no path needed) with an API key.
    pub fn new(base_url: impl Into<String>, api_key: SecretString) -> Self {
        Self::with(base_url.into(), Credential::ApiKey(api_key))
    }

    /// The same with an environment key, or with the token of one item of work.
    pub fn bearer(base_url: impl Into<String>, token: SecretString) -> Self {
        Self::with(base_url.into(), Credential::Bearer(token))
    }

    fn with(base_url: String, credential: Credential) -> Self {
        Self {
            base_url,
            credential,
            roots: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }

    /// Trusts these authorities, and with at least one given, only these. Without: those of the operating system.
    #[must_use]
    pub fn roots(mut self, roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        self.roots.extend(roots);
        self
    }

    /// Longest time for one call, its retries included. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is not a URL that a request can be made from.
    #[error("base URL {url:?} is not of the form https://HOST[:PORT]")]
    Url {
        /// As it was given.
        url: String,
    },
    /// The credential would travel in the clear.
    #[error(
        "plain HTTP to {host} would show the credential on the network: use https, or a loopback address"
    )]
    PlainHttp {
        /// The host of the URL.
        host: String,
    },
    /// The credential has characters that no header may carry.
    #[error(
        "the credential is not printable ASCII: check that the whole value was copied, without a line break"
    )]
    Credential,
    /// An authority's certificate cannot be used.
    #[error("reading an authority's certificate")]
    Root(#[source] rustls::Error),
    /// The operating system names no usable authority.
    #[error(
        "the operating system has no usable root certificate: install ca-certificates, or name the authority"
    )]
    NoRoots,
    /// TLS could not be set up.
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    /// The HTTP stack could not be set up.
    #[error("setting up HTTP")]
    Http(#[source] reqwest::Error),
}

/// The base of every request: ends with a slash, never plain HTTP beyond loopback.
pub(crate) fn base(url: &str) -> Result<Url, BuildError> {
    let refused = || BuildError::Url {
        url: url.to_owned(),
    };
    let mut base = Url::parse(url).map_err(|_| refused())?;
    let host = base.host_str().ok_or_else(refused)?.to_owned();
    match base.scheme() {
        "https" => {}
        "http" if is_loopback(&host) => {}
        "http" => return Err(BuildError::PlainHttp { host }),
        _ => return Err(refused()),
    }
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<&str, &str>) {
        let found = base(url)
            .map(|base| base.to_string())
            .map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, _) => panic!("{url}: {found:?}"),
        }
    }

    #[test]
    fn credentials_travel_in_the_clear_to_loopback_only() {
        check(
            "https://console.example.com",
            Ok("https://console.example.com/"),
        );
        check(
            "https://example.com/api?x#y",
            Ok("https://example.com/api/"),
        );
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080/"));
        check("http://[::1]:8080/", Ok("http://[::1]:8080/"));
        check("http://localhost:8080", Ok("http://localhost:8080/"));
        check(
            "http://console.example.com",
            Err("plain HTTP to console.example.com"),
        );
        check("http://127.0.0.1.example.com", Err("plain HTTP"));
        check("ftp://localhost", Err("https://HOST"));
        check("console.example.com", Err("https://HOST"));
    }
}
