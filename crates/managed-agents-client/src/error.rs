//! What can go wrong with one call.

use crate::http::retry_after;
use managed_agents_api::sse::{FrameError, FrameTooLong};
use managed_agents_api::{ErrorDetails, ErrorEnvelope, ErrorType, headers};
use reqwest::header::HeaderMap;
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
    /// The answer is longer than this client reads: ask for smaller pages.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// A stream was silent for so long that it must be dead.
    #[error("nothing came from {host} for {after:?}")]
    Silent {
        /// Host and port of the base URL.
        host: String,
        /// The bound.
        after: Duration,
    },
    /// A frame of a stream is longer than this client reads. The stream is over.
    #[error(transparent)]
    FrameTooLong(#[from] FrameTooLong),
    /// A frame of a stream says nothing readable. The stream can be read on.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An identifier that cannot be part of a path.
    #[error("{0:?} is not an identifier")]
    Identifier(String),
}

impl ClientError {
    /// Whether the same call may succeed later, by status and by what the server says about it.
    ///
    /// A refusal is passing with `x-should-retry: true`, or without that header on 408, 409, 429 and 5xx. Lost
    /// connections, late and garbled answers pass; long answers and identifiers that are none do not.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Api(refusal) => refusal.is_passing(),
            Self::TooLong { .. } | Self::FrameTooLong(_) | Self::Identifier(_) => false,
            Self::Connection { .. }
            | Self::TimedOut { .. }
            | Self::Answer { .. }
            | Self::Silent { .. }
            | Self::Frame(_) => true,
        }
    }

    /// The refusal, where it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&ApiError> {
        match self {
            Self::Api(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The status of the refusal, where it is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }
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
    /// Whether the server says that trying again helps.
    pub should_retry: Option<bool>,
    /// More for programs: an error code, the state behind a refused heartbeat.
    pub details: Option<Box<ErrorDetails>>,
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
    /// See [`ClientError::is_passing`].
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let by_status = matches!(self.status, 408 | 409 | 429) || self.status >= 500;
        self.should_retry.unwrap_or(by_status)
    }

    /// `error.details.error_code`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.details.as_ref()?.error_code.as_deref()
    }

    /// Reads a refusal; a body that is not an error envelope is reported by its status alone.
    pub(crate) fn read(status: u16, answer: &HeaderMap, body: &[u8]) -> Self {
        let should_retry = answer
            .get(headers::SHOULD_RETRY)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let read = match serde_json::from_slice(body) {
            Ok(envelope) => Self::of(status, envelope),
            Err(_) => Self {
                status,
                kind: ErrorType::Api,
                message: "the server gave no reason".to_owned(),
                request_id: None,
                retry_after: None,
                should_retry: None,
                details: None,
            },
        };
        Self {
            retry_after: retry_after(answer),
            should_retry,
            ..read
        }
    }

    /// What an envelope says.
    pub(crate) fn of(status: u16, envelope: ErrorEnvelope) -> Self {
        Self {
            status,
            kind: envelope.error.kind,
            message: envelope.error.message,
            request_id: envelope.request_id,
            retry_after: None,
            should_retry: None,
            details: envelope.error.details.map(Box::new),
        }
    }
}
