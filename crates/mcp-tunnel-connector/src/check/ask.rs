//! One question to an MCP server: a POST on a connection of its own, and the JSON-RPC answer out of JSON or events.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcp_messages::SseReader;
use mcp_messages::probe::Outgoing;
use tokio::time::timeout;

use crate::server::Target;
use crate::upstream::dial::{DialError, Dialler};

/// What came back for a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// One JSON-RPC message; empty if there was none.
    pub(super) body: Vec<u8>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no HTTP/1.1 answer")]
    Http(#[from] hyper::Error),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

/// Asks at `path`; `session` is what an earlier answer gave.
pub(super) async fn ask(
    dialler: &Dialler,
    target: &Target,
    path: &str,
    question: Outgoing,
    session: Option<&HeaderValue>,
) -> Result<Answer, AskError> {
    let mut request = Request::post(path).header(header::HOST, target.host_header());
    for (name, value) in question.headers {
        request = request.header(name, value);
    }
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    let request = request
        .body(Full::new(Bytes::from(question.body)))
        .expect("a plain path and known fields");
    let exchange = async {
        let io = dialler.dial(target).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = read_message(&parts.headers, body).await?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        beside(connection, answer).await
    };
    timeout(DEADLINE, exchange)
        .await
        .unwrap_or(Err(AskError::Late))
}

/// What a port speaks that gave no HTTP/1.1 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Grpc,
    H2c,
    Unknown,
}

/// Tries HTTP/2 without TLS, and a call of the gRPC health service on it.
pub(super) async fn recognise(dialler: &Dialler, target: &Target) -> Speaks {
    let probe = async {
        let io = dialler.dial(target).await.ok()?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .ok()?;
        let request = Request::post(format!("{}/grpc.health.v1.Health/Check", target.origin()))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            // A message of no bytes, with its length before it.
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .ok()?;
        let response = beside(connection, sender.send_request(request))
            .await
            .ok()?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        Some(if grpc { Speaks::Grpc } else { Speaks::H2c })
    };
    timeout(DEADLINE, probe)
        .await
        .ok()
        .flatten()
        .unwrap_or(Speaks::Unknown)
}

/// The output of `work`, while the connection that it needs is driven; both are dropped then.
async fn beside<T>(connection: impl Future, work: impl Future<Output = T>) -> T {
    let (mut connection, mut work) = (std::pin::pin!(connection), std::pin::pin!(work));
    tokio::select! {
        biased;
        output = &mut work => output,
        // A connection that has ended tells the work why.
        _ = &mut connection => work.await,
    }
}

async fn read_message(headers: &HeaderMap, mut body: Incoming) -> Result<Vec<u8>, AskError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or(&[][..], HeaderValue::as_bytes);
    let mut events = kind
        .starts_with(b"text/event-stream")
        .then(|| SseReader::new(MAX_ANSWER));
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        match &mut events {
            Some(reader) => {
                reader.feed(data).map_err(|_| AskError::TooLong)?;
                // A stream may begin with an event that only gives it an id.
                while let Some(event) = reader.next_event() {
                    if !event.data.is_empty() {
                        return Ok(event.data.into_bytes());
                    }
                }
            }
            None if bytes.len() + data.len() > MAX_ANSWER => return Err(AskError::TooLong),
            None => bytes.extend_from_slice(data),
        }
    }
    Ok(bytes)
}

const DEADLINE: Duration = Duration::from_secs(10);

/// Tool lists of a few hundred kilobytes exist.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
