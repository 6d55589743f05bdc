//! A plain streaming HTTP proxy that records the requests which pass, to prove what a client did.

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, task::JoinSet};

/// The largest request body that passes, bytes.
const BODY_LIMIT: usize = 16 << 20;

/// One request and how it was answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// GET, POST, DELETE …
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The headers that the client sent.
    pub headers: HeaderMap,
    /// `method` of the JSON-RPC message in the body, if there is one.
    pub rpc_method: Option<String>,
    /// The status that went back.
    pub status: StatusCode,
}

/// A recording proxy on a loopback port of its own.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    record: Arc<Mutex<Vec<Recorded>>>,
    _task: JoinSet<()>,
}

#[derive(Clone)]
struct Forward {
    client: reqwest::Client,
    origin: String,
    record: Arc<Mutex<Vec<Recorded>>>,
}

impl Recorder {
    /// Starts to forward to `origin` (scheme, host and port) with `client`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(client: reqwest::Client, origin: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let record = Arc::<Mutex<Vec<Recorded>>>::default();
        let forward = Forward {
            client,
            origin: origin.trim_end_matches('/').to_owned(),
            record: Arc::clone(&record),
        };
        let router = Router::new().fallback(pass).with_state(forward);
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Ends when the recorder is dropped; the listener does not fail on loopback.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            record,
            _task: task,
        })
    }

    /// The same URL, but through this proxy.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What passed so far.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn pass(State(forward): State<Forward>, request: Request) -> Response {
    match forward.pass(request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

impl Forward {
    async fn pass(&self, request: Request) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let body = http_body_util::Limited::new(body, BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .to_bytes();
        let message: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let rpc_method =
            message.and_then(|message| Some(message.get("method")?.as_str()?.to_owned()));
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut headers = parts.headers.clone();
        headers.remove(header::HOST);
        headers.remove(header::CONNECTION);
        let answer = self
            .client
            .request(parts.method.clone(), format!("{}{target}", self.origin))
            .headers(headers)
            .body(body)
            .send()
            .await?;
        let recorded = Recorded {
            method: parts.method,
            target: target.to_owned(),
            headers: parts.headers,
            rpc_method,
            status: answer.status(),
        };
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(recorded);
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
            headers.remove(header::TRANSFER_ENCODING);
        }
        Ok(response.body(Body::from_stream(answer.bytes_stream()))?)
    }
}
