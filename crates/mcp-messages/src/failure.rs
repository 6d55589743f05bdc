//! Failures of the tunnel itself, in the shape of a JSON-RPC error, so that every client shows the message.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::request_id::RequestId;

/// Where a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hop {
    /// At the edge, before it entered the tunnel.
    Edge,
    /// Between edge and gateway.
    Tunnel,
    /// At the gateway.
    Gateway,
    /// Between gateway and private server, or at the server.
    Server,
}

/// What went wrong, with its HTTP status and its JSON-RPC code.
///
/// The codes lie outside -32768 to -32000, which belong to JSON-RPC and MCP; none of the statuses makes a client log
/// in (401), forget a session (404) or change its protocol revision (400, 404, 405).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCode {
    /// No gateway of the tunnel is connected. 503.
    Offline,
    /// A limit is reached; later may do. 503.
    Overloaded,
    /// The edge has had no news from its console for too long. 503.
    Stale,
    /// The gateway stops, or the edge does. 503.
    Draining,
    /// The gateway serves no such route. 502.
    NoRoute,
    /// The private server does not answer at its address. 502.
    Unreachable,
    /// The private server's address may not be dialled. 502.
    ForbiddenAddress,
    /// The connection ended before an answer began. 502.
    Broken,
    /// The answer is no HTTP that can be passed on. 502.
    BadAnswer,
    /// No answer in time. 504.
    TimedOut,
    /// The caller is not let in. 403.
    Refused,
    /// The host name is none of this ingress. 421.
    Misdirected,
}

impl FailureCode {
    /// The HTTP status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Offline | Self::Overloaded | Self::Stale | Self::Draining => 503,
            Self::NoRoute
            | Self::Unreachable
            | Self::ForbiddenAddress
            | Self::Broken
            | Self::BadAnswer => 502,
            Self::TimedOut => 504,
            Self::Refused => 403,
            Self::Misdirected => 421,
        }
    }

    /// The code in the JSON-RPC error.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Offline => -31001,
            Self::Overloaded => -31002,
            Self::Stale => -31003,
            Self::Draining => -31004,
            Self::NoRoute => -31010,
            Self::Unreachable => -31011,
            Self::ForbiddenAddress => -31012,
            Self::Broken => -31013,
            Self::BadAnswer => -31014,
            Self::TimedOut => -31020,
            Self::Refused => -31030,
            Self::Misdirected => -31031,
        }
    }

    /// Its name in `error.data.kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Overloaded => "overloaded",
            Self::Stale => "stale",
            Self::Draining => "draining",
            Self::NoRoute => "no_route",
            Self::Unreachable => "unreachable",
            Self::ForbiddenAddress => "forbidden_address",
            Self::Broken => "broken",
            Self::BadAnswer => "bad_answer",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Misdirected => "misdirected",
        }
    }
}

/// The body of a failed call.
///
/// ```
/// use mcp_messages::{Failure, FailureCode, Hop, RequestId};
/// let failure = Failure::new(Hop::Edge, FailureCode::Offline, "no gateway of this tunnel is connected", "start mcp-tunnel-gateway")
///     .with_id(RequestId::parse("7"));
/// assert_eq!(
///     String::from_utf8(failure.to_json()).unwrap(),
///     r#"{"jsonrpc":"2.0","id":7,"error":{"code":-31001,"message":"no gateway of this tunnel is connected; start mcp-tunnel-gateway","data":{"kind":"offline","hop":"edge","cure":"start mcp-tunnel-gateway"}}}"#
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Where.
    pub hop: Hop,
    /// What, for programs.
    pub code: FailureCode,
    /// What, for people: lower case, no full stop.
    pub message: Cow<'static, str>,
    /// What to do about it; may be empty.
    pub cure: Cow<'static, str>,
    /// The request's id, if it is known.
    pub id: Option<RequestId>,
}

impl Failure {
    /// A failure of a request whose id is not known.
    #[must_use]
    pub fn new(
        hop: Hop,
        code: FailureCode,
        message: impl Into<Cow<'static, str>>,
        cure: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            hop,
            code,
            message: message.into(),
            cure: cure.into(),
            id: None,
        }
    }

    /// Says which request failed.
    #[must_use]
    pub fn with_id(mut self, id: Option<RequestId>) -> Self {
        self.id = id;
        self
    }

    /// The HTTP status to answer with.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// The body, `application/json`. The message names the cure too, since clients show nothing else.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let message = if self.cure.is_empty() {
            Cow::Borrowed(self.message.as_ref())
        } else {
            Cow::Owned(format!("{}; {}", self.message, self.cure))
        };
        let error = ErrorObject {
            code: self.code.code(),
            message: &message,
            data: ErrorData {
                kind: self.code.name(),
                hop: self.hop,
                cure: &self.cure,
            },
        };
        let id = self
            .id
            .as_ref()
            .and_then(|id| serde_json::from_str(id.as_json()).ok());
        serde_json::to_vec(&ErrorResponse {
            jsonrpc: "2.0",
            id,
            error,
        })
        .unwrap_or_default()
    }
}

#[derive(Serialize)]
struct ErrorResponse<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    data: ErrorData<'a>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    kind: &'static str,
    hop: Hop,
    cure: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    const ALL: [FailureCode; 12] = [
        FailureCode::Offline,
        FailureCode::Overloaded,
        FailureCode::Stale,
        FailureCode::Draining,
        FailureCode::NoRoute,
        FailureCode::Unreachable,
        FailureCode::ForbiddenAddress,
        FailureCode::Broken,
        FailureCode::BadAnswer,
        FailureCode::TimedOut,
        FailureCode::Refused,
        FailureCode::Misdirected,
    ];

    #[test]
    fn no_failure_speaks_for_the_protocol() {
        let mut codes: Vec<_> = ALL.map(FailureCode::code).into();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
        for failure in ALL {
            assert!(!(-32768..=-32000).contains(&failure.code()));
            assert!([502, 503, 504, 403, 421].contains(&failure.status()));
        }
    }

    #[test]
    fn every_body_is_an_error_response_with_the_requests_id() {
        for id in ["7", "\"a\\\"b\"", "1.0", "18446744073709551616", "-0"] {
            let failure = Failure::new(Hop::Server, FailureCode::Broken, "it broke \"here\"", "")
                .with_id(RequestId::parse(id))
                .to_json();
            let message = Message::parse(&failure).unwrap();
            assert!(
                matches!(message, Message::Error { id: Some(echoed), .. } if echoed.as_json() == id),
                "{message:?}"
            );
        }
        let unknown = Failure::new(Hop::Edge, FailureCode::Refused, "no", "").to_json();
        assert!(matches!(
            Message::parse(&unknown).unwrap(),
            Message::Error { id: None, .. }
        ));
    }
}
