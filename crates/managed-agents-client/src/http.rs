//! One request: headers, deadline, retries, errors.

use crate::config::{self, BuildError, ClientConfig};
use crate::error::{ApiError, ClientError};
use managed_agents_api::headers;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url};
use rustls::RootCertStore;
use secrecy::ExposeSecret as _;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a read is tried in all.
const TRIES: u32 = 3;

/// First pause between two tries; doubles each time.
const PAUSE: Duration = Duration::from_millis(250);

/// Longest pause that a server may ask for; a longer one is reported instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes: a page of 1,000 objects has room.
const ANSWER_BYTES: usize = 8 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    timeout: Duration,
}

impl Http {
    pub(crate) fn new(config: ClientConfig) -> Result<Self, BuildError> {
        let base = config::base(&config.base_url)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&config)?)
            .default_headers(fixed_headers(&config)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent(concat!("managed-agents-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(BuildError::Http)?;
        Ok(Self {
            client,
            base,
            timeout: config.timeout,
        })
    }

    /// Reads; tried again where that may help.
    pub(crate) async fn read<T, Q>(&self, path: &[&str], query: &Q) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
        Q: Serialize + ?Sized,
    {
        let query = serde_json::to_value(query).unwrap_or_default();
        let mut url = self.url(path)?;
        for (name, value) in query.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            url.query_pairs_mut().append_pair(name, &text);
        }
        self.within(async {
            let mut pause = PAUSE;
            for _ in 1..TRIES {
                match self.once(self.client.get(url.clone())).await {
                    Err(error) if is_transient(&error) => {
                        sleep(asked_pause(&error).unwrap_or(pause)).await;
                        pause *= 2;
                    }
                    done => return done,
                }
            }
            self.once(self.client.get(url)).await
        })
        .await
    }

    /// Writes; sent once.
    pub(crate) async fn write<T, B>(&self, path: &[&str], body: &B) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
        B: Serialize + ?Sized,
    {
        let request = self
            .client
            .request(Method::POST, self.url(path)?)
            .json(body);
        self.within(self.once(request)).await
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = || ClientError::TimedOut {
            host: self.host(),
            after: self.timeout,
        };
        timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn once<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let broken = |source| ClientError::Connection {
            host: self.host(),
            source,
        };
        let response = request.send().await.map_err(broken)?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let body = bounded(response).await.map_err(broken)?;
        if !status.is_success() {
            return Err(ApiError::read(status.as_u16(), retry_after, &body).into());
        }
        serde_json::from_slice(&body).map_err(|source| ClientError::Answer {
            host: self.host(),
            source,
        })
    }

    /// The base URL with one segment of the path per part.
    fn url(&self, path: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            for part in path {
                // Segments of dots would be folded away and reach another route.
                if part.is_empty() || part.bytes().all(|byte| byte == b'.') {
                    return Err(ClientError::Identifier((*part).to_owned()));
                }
                segments.push(part);
            }
        }
        Ok(url)
    }

    fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// Reads a body up to [`ANSWER_BYTES`]; what is longer is cut, and then is no JSON.
async fn bounded(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            break;
        }
    }
    Ok(body)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

fn is_transient(error: &ClientError) -> bool {
    match error {
        ClientError::Connection { .. } => true,
        ClientError::Api(refusal) => {
            let soon = refusal
                .retry_after
                .is_none_or(|pause| pause <= LONGEST_PAUSE);
            soon && (refusal.status == 429 || refusal.status >= 500)
        }
        ClientError::TimedOut { .. } | ClientError::Answer { .. } | ClientError::Identifier(_) => {
            false
        }
    }
}

fn asked_pause(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Api(refusal) => refusal.retry_after,
        _ => None,
    }
}

fn fixed_headers(config: &ClientConfig) -> Result<HeaderMap, BuildError> {
    let mut credential = HeaderValue::from_str(config.credential.expose_secret())
        .map_err(|_| BuildError::Credential)?;
    credential.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (HeaderName::from_static(headers::API_KEY), credential),
        (
            HeaderName::from_static(headers::VERSION),
            HeaderValue::from_static(headers::VERSIONS[0]),
        ),
        (
            HeaderName::from_static(headers::BETA),
            HeaderValue::from_static(headers::BETA_TUNNELS),
        ),
    ]))
}

fn tls(config: &ClientConfig) -> Result<rustls::ClientConfig, BuildError> {
    let mut roots = RootCertStore::empty();
    if config.roots.is_empty() {
        let system = rustls_native_certs::load_native_certs();
        // System stores often hold a few certificates that no parser accepts.
        roots.add_parsable_certificates(system.certs);
    }
    for root in &config.roots {
        roots.add(root.clone()).map_err(BuildError::Root)?;
    }
    if roots.is_empty() && config.base_url.starts_with("https") {
        return Err(BuildError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder
        .map_err(BuildError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
