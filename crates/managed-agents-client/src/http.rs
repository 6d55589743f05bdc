//! One request, one answer.

use crate::config::{self, BuildError, ClientConfig, Credential};
use crate::error::{ApiError, ClientError};
use managed_agents_api::{Query, headers};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, RequestBuilder, Response, Url};
use rustls::RootCertStore;
use secrecy::{ExposeSecret as _, SecretString};
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

/// Longest answer that is read, in bytes: a page of 1,000 objects has room, or one of 100 events with large results.
/// What a server gains by more is memory of the client, for the time of one call.
const ANSWER_BYTES: usize = 32 << 20;

/// What a request needs beside its path. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    credential: (HeaderName, HeaderValue),
    trace: Option<HeaderValue>,
    timeout: Duration,
}

/// The head of an answer, and its whole body.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Http {
    pub(crate) fn new(config: ClientConfig) -> Result<Self, BuildError> {
        let base = config::base(&config.base_url)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&config)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent(concat!("managed-agents-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(BuildError::Http)?;
        Ok(Self {
            client,
            base,
            credential: credential(&config.credential)?,
            trace: None,
            timeout: config.timeout,
        })
    }

    pub(crate) fn with_bearer(&self, token: &SecretString) -> Result<Self, BuildError> {
        Ok(Self {
            credential: credential(&Credential::Bearer(token.clone()))?,
            ..self.clone()
        })
    }

    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    pub(crate) fn with_trace(&self, trace: u128, span: u64) -> Self {
        let trace = format!("00-{trace:032x}-{span:016x}-01");
        Self {
            trace: HeaderValue::from_str(&trace).ok(),
            ..self.clone()
        }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Reads; tried again where that may help.
    pub(crate) async fn read<T, Q>(&self, path: &[&str], query: &Q) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
        Q: Query,
    {
        let read = async {
            let mut pause = PAUSE;
            for _ in 1..TRIES {
                match self.answer(self.request(Method::GET, path, query)?).await {
                    Err(error) if worth_another_try(&error) => {
                        sleep(asked_pause(&error).unwrap_or(pause)).await;
                        pause *= 2;
                    }
                    done => return done,
                }
            }
            self.answer(self.request(Method::GET, path, query)?).await
        };
        self.parse(&self.within(self.timeout, read).await?.body)
    }

    /// Writes a body; sent once.
    pub(crate) async fn write<T, B>(&self, path: &[&str], body: &B) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
        B: Serialize + ?Sized,
    {
        let request = self.request(Method::POST, path, &())?.json(body);
        self.parse(&self.send(request).await?.body)
    }

    /// Writes without a body; sent once.
    pub(crate) async fn post<T, Q>(&self, path: &[&str], query: &Q) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
        Q: Query,
    {
        // Servers may refuse a POST whose length is not said.
        let request = self
            .request(Method::POST, path, query)?
            .header(CONTENT_LENGTH, 0);
        self.parse(&self.send(request).await?.body)
    }

    /// Deletes; sent once.
    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        path: &[&str],
    ) -> Result<T, ClientError> {
        let request = self.request(Method::DELETE, path, &())?;
        self.parse(&self.send(request).await?.body)
    }

    /// A request with the credential and the fixed headers.
    pub(crate) fn request<Q: Query>(
        &self,
        method: Method,
        path: &[&str],
        query: &Q,
    ) -> Result<RequestBuilder, ClientError> {
        let mut url = self.url(path)?;
        for (name, text) in query.to_pairs() {
            url.query_pairs_mut().append_pair(name, &text);
        }
        let (name, value) = self.credential.clone();
        let mut request = self
            .client
            .request(method, url)
            .header(name, value)
            .header(headers::VERSION, headers::VERSIONS[0]);
        if let Some(beta) = beta(path) {
            request = request.header(headers::BETA, beta);
        }
        if let Some(trace) = &self.trace {
            request = request.header(headers::TRACE, trace);
        }
        Ok(request)
    }

    /// Sends once, within the timeout; a refusal is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        self.within(self.timeout, self.answer(request)).await
    }

    /// Sends once, and leaves the body to the caller; a refusal is an error.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let opened = async {
            let response = request.send().await.map_err(|source| self.broken(source))?;
            if response.status().is_success() {
                return Ok(response);
            }
            Err(self.refusal(response).await)
        };
        self.within(self.timeout, opened).await
    }

    /// Reads a body as JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|source| ClientError::Answer {
            host: self.host(),
            source,
        })
    }

    pub(crate) async fn within<T>(
        &self,
        after: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = || ClientError::TimedOut {
            host: self.host(),
            after,
        };
        timeout(after, work).await.unwrap_or_else(|_| Err(late()))
    }

    pub(crate) fn broken(&self, source: reqwest::Error) -> ClientError {
        ClientError::Connection {
            host: self.host(),
            source,
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let response = request.send().await.map_err(|source| self.broken(source))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let headers = response.headers().clone();
        let body = self.bounded(response).await?;
        Ok(Answer { headers, body })
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        match self.bounded(response).await {
            Ok(body) => ApiError::read(status, &headers, &body).into(),
            Err(error) => error,
        }
    }

    async fn bounded(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|source| self.broken(source))?
        {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(ClientError::TooLong {
                    limit: ANSWER_BYTES,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
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

    pub(crate) fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// The beta that a route belongs to.
fn beta(path: &[&str]) -> Option<&'static str> {
    match path.get(1).copied() {
        Some("agents" | "environments" | "sessions") => Some(headers::BETA_MANAGED_AGENTS),
        Some("skills") => None,
        _ => Some(headers::BETA_TUNNELS),
    }
}

/// How long the server asks to wait.
pub(crate) fn retry_after(answer: &HeaderMap) -> Option<Duration> {
    let number = |name: HeaderName| answer.get(name)?.to_str().ok()?.parse().ok();
    number(HeaderName::from_static(headers::RETRY_AFTER_MS))
        .map(Duration::from_millis)
        .or_else(|| number(RETRY_AFTER).map(Duration::from_secs))
}

fn worth_another_try(error: &ClientError) -> bool {
    let ClientError::Api(refusal) = error else {
        return matches!(error, ClientError::Connection { .. });
    };
    let soon = refusal
        .retry_after
        .is_none_or(|pause| pause <= LONGEST_PAUSE);
    let passing = refusal.status == 429 || refusal.status >= 500;
    soon && refusal.should_retry.unwrap_or(passing)
}

fn asked_pause(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Api(refusal) => refusal.retry_after,
        _ => None,
    }
}

fn credential(credential: &Credential) -> Result<(HeaderName, HeaderValue), BuildError> {
    let (name, mut value) = match credential {
        Credential::ApiKey(key) => (
            HeaderName::from_static(headers::API_KEY),
            HeaderValue::from_str(key.expose_secret()),
        ),
        Credential::Bearer(token) => (
            AUTHORIZATION,
            HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())),
        ),
    };
    if let Ok(value) = &mut value {
        value.set_sensitive(true);
    }
    Ok((name, value.map_err(|_| BuildError::Credential)?))
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
