//! What can go wrong with one call.

use managed_agents_api::{ErrorEnvelope, ErrorType};
use std::fmt;
use std::time::Duration;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The control plane refused; its own words say why.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No connection, or one that broke.
    #[error("calling {host}: is the server running and reachable?")]
    Connection {
        /// Host and port of the base URL.
        host: String,
        /// What the HTTP stack said.
        source: reqwest::Error,
    },
    /// No answer within [`ClientConfig::timeout`](crate::ClientConfig::timeout). A write may have been carried out.
    #[error("no answer from {host} within {after:?}")]
    TimedOut {
        /// Host and port of the base URL.
        host: String,
        /// The deadline.
        after: Duration,
    },
    /// The answer is not of the expected shape: another kind of server, or a newer one.
    #[error("reading the answer of {host}: is it the address of a control plane?")]
    Answer {
        /// Host and port of the base URL.
        host: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An identifier that cannot be part of a path.
    #[error("{0:?} is not an identifier")]
    Identifier(String),
}

/// A refusal by the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Kind of the error; `api_error` where the body said nothing.
    pub kind: ErrorType,
    /// The server's words, for people.
    pub message: String,
    /// What to quote to whoever runs the server.
    pub request_id: Option<String>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, status {}",
            self.message,
            self.kind.as_str(),
            self.status
        )?;
        match &self.request_id {
            Some(id) => write!(f, ", request {id})"),
            None => f.write_str(")"),
        }
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// Reads a refusal; a body that is not an error envelope is reported by its status alone.
    pub(crate) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorEnvelope>(body) {
            Ok(envelope) => Self {
                status,
                kind: envelope.error.kind,
                message: envelope.error.message,
                request_id: envelope.request_id,
                retry_after,
            },
            Err(_) => Self {
                status,
                kind: ErrorType::Api,
                message: "the server gave no reason".to_owned(),
                request_id: None,
                retry_after,
            },
        }
    }
}
