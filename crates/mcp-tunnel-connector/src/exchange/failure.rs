//! The gateway's own failures, in words that a caller can act on.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use mcp_messages::{FailureCode, Hop, RequestId};

use super::head::HeadError;
use crate::upstream::SendError;
use crate::upstream::dial::DialError;

/// A call that no MCP server answered.
///
/// The status is 502, 503 or 504: clients read 400, 401, 404 and 405 as words of the MCP server. The text names the
/// hop and the cure, but no address: callers need not know the private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    hop: Hop,
    code: FailureCode,
    what: &'static str,
    cure: &'static str,
}

impl Failure {
    /// What the edge sent is no call; it reaches nobody.
    pub(super) const fn head(error: HeadError) -> Self {
        let what = match error {
            HeadError::Target => "the gateway got a request whose target is not a path",
            HeadError::Version => "the gateway got a request that is not HTTP/1.1",
            HeadError::Repeated { .. } => {
                "the gateway got a request whose Host or Authorization is not there exactly once"
            }
            HeadError::TransferEncoding => {
                "the gateway got a body with a transfer coding other than chunked"
            }
        };
        Self::gateway(
            FailureCode::Broken,
            what,
            "send a plain HTTP request; if it was one, the edge is at fault",
        )
    }

    pub(super) const fn no_route() -> Self {
        Self::gateway(
            FailureCode::NoRoute,
            "the gateway has no MCP server by that name",
            "correct the name in the URL, or start the gateway with --mcp-server NAME=HOST:PORT",
        )
    }

    pub(super) const fn not_exposed() -> Self {
        Self::gateway(
            FailureCode::NoRoute,
            "the gateway exposes one path of the MCP server, and not this one",
            "use the path that --mcp-server names, or start the gateway without a path",
        )
    }

    pub(super) const fn switched_protocols() -> Self {
        Self::server(
            FailureCode::BadAnswer,
            "the MCP server switched protocols unasked",
            "see what listens on its port; mcp-tunnel-gateway check tells",
        )
    }

    /// No head came from the server in time.
    pub(super) const fn late() -> Self {
        Self::server(
            FailureCode::TimedOut,
            "the MCP server did not begin its answer in time",
            "see what it is busy with, or let it answer as an event stream",
        )
    }

    pub(super) fn send(error: &SendError) -> Self {
        match error {
            SendError::Dial(error) => Self::dial(error),
            SendError::NoAnswer { source } if source.is_parse_too_large() => Self::server(
                FailureCode::BadAnswer,
                "the head of the MCP server's answer is larger than the gateway takes",
                "let it send at most 64 KiB of header fields, and 100 of them",
            ),
            SendError::NoAnswer { .. } => Self::server(
                FailureCode::Broken,
                "the MCP server ended the connection without an HTTP/1.1 answer",
                "see its log; mcp-tunnel-gateway check tells whether it speaks HTTP/1.1",
            ),
        }
    }

    const fn dial(error: &DialError) -> Self {
        match error {
            DialError::Resolve { .. } | DialError::NoAddress => Self::server(
                FailureCode::Unreachable,
                "the MCP server's name does not resolve where the gateway runs",
                "correct the name in --mcp-server, or the DNS there",
            ),
            DialError::Forbidden(_) => Self::gateway(
                FailureCode::ForbiddenAddress,
                "the MCP server's address is one that the gateway does not dial",
                "mcp-tunnel-gateway check names the address and what is allowed",
            ),
            DialError::Connect(_) => Self::server(
                FailureCode::Unreachable,
                "the MCP server does not accept connections",
                "start it, or correct the address in --mcp-server",
            ),
            DialError::NoTlsName | DialError::Tls { .. } => Self::server(
                FailureCode::Unreachable,
                "the MCP server's TLS does not work, or its certificate is not trusted",
                "name its CA by --mcp-server-ca, or use http://",
            ),
            DialError::TimedOut { .. } => Self::server(
                FailureCode::TimedOut,
                "the MCP server cannot be reached in time",
                "see whether a firewall drops what the gateway sends",
            ),
        }
    }

    const fn gateway(code: FailureCode, what: &'static str, cure: &'static str) -> Self {
        Self {
            hop: Hop::Gateway,
            code,
            what,
            cure,
        }
    }

    const fn server(code: FailureCode, what: &'static str, cure: &'static str) -> Self {
        Self {
            hop: Hop::Server,
            code,
            what,
            cure,
        }
    }

    /// The failure in one word, for logs and metrics.
    pub(super) const fn name(self) -> &'static str {
        self.code.name()
    }

    /// The answer to the call with this id.
    pub(super) fn response(self, id: Option<RequestId>) -> Response<Full<Bytes>> {
        let body =
            mcp_messages::Failure::new(self.hop, self.code, self.what, self.cure).with_id(id);
        let mut response = Response::new(Full::new(Bytes::from(body.to_json())));
        *response.status_mut() =
            StatusCode::from_u16(body.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(RETRY_AFTER.as_secs()),
        );
        headers.insert(FAILURE_FIELD, HeaderValue::from_static(self.name()));
        response
    }
}

/// Tells the edge that the answer is the gateway's own, and which failure it is.
const FAILURE_FIELD: HeaderName = HeaderName::from_static("mcp-tunnel-failure");

/// Time to restart a server; clients that heed it do not add load meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(5);
