//! The edge's own answers, when a call cannot be relayed.
//!
//! Statuses are protocol signals to MCP clients: 401 starts OAuth, 400, 404 and 405 change the client's protocol era.
//! What goes wrong in a tunnel is therefore only ever 502, 503 or 504, and what is not allowed is one 403 that says
//! nothing. Bodies are shaped as JSON-RPC errors, so that clients show their text.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use mcp_messages::{FailureCode, Hop, RequestIdFinder};
use mcp_tunnel_auth::RouteName;

use crate::exchange::answer::IngressBody;

/// Why a call could not be relayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No snapshot yet, or the last one is too old.
    NoAccessNews,
    /// The edge is stopping.
    Stopping,
    /// As many calls as the edge takes are under way.
    Overloaded,
    /// No gateway of the tunnel is connected.
    GatewayAbsent,
    /// A gateway is connected, but nobody has approved it.
    GatewayPending,
    /// The gateway takes no more streams for now.
    GatewayBusy,
    /// The gateway said that it did not begin with the call.
    StreamRefused,
    /// Gateways are connected; none announces the route.
    NoSuchRoute {
        route: RouteName,
        known: Vec<RouteName>,
    },
    /// The link broke before the answer's head.
    LinkLost,
    /// The gateway aborted the call.
    GatewayAborted,
    /// The gateway says that the server cannot be reached.
    ServerUnreachable { route: RouteName },
    /// What came back is not HTTP.
    BadAnswer,
    /// The body of the request broke off, or came in a coding that does not pass.
    BadRequest,
    /// No head of an answer in time.
    Late { after: Option<Duration> },
    /// A development ingress does not know which tunnel or route is meant.
    Ambiguous,
}

impl Failure {
    fn code(&self) -> FailureCode {
        match self {
            Self::NoAccessNews => FailureCode::Stale,
            Self::Stopping | Self::StreamRefused => FailureCode::Draining,
            Self::Overloaded | Self::GatewayBusy => FailureCode::Overloaded,
            Self::GatewayAbsent | Self::GatewayPending | Self::Ambiguous => FailureCode::Offline,
            Self::NoSuchRoute { .. } => FailureCode::NoRoute,
            Self::LinkLost | Self::GatewayAborted | Self::BadRequest => FailureCode::Broken,
            Self::ServerUnreachable { .. } => FailureCode::Unreachable,
            Self::BadAnswer => FailureCode::BadAnswer,
            Self::Late { .. } => FailureCode::TimedOut,
        }
    }

    /// When a client may try again. Those that a person must cure first are given longer.
    fn retry_after(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Stopping
            | Self::LinkLost
            | Self::StreamRefused
            | Self::GatewayBusy
            | Self::BadRequest => 1,
            Self::Overloaded
            | Self::GatewayAborted
            | Self::ServerUnreachable { .. }
            | Self::BadAnswer => 2,
            Self::GatewayAbsent | Self::NoAccessNews | Self::Late { .. } => 5,
            Self::GatewayPending | Self::NoSuchRoute { .. } | Self::Ambiguous => 30,
        })
    }

    fn hop(&self) -> Hop {
        match self {
            Self::NoAccessNews
            | Self::Stopping
            | Self::Overloaded
            | Self::Ambiguous
            | Self::BadRequest => Hop::Edge,
            Self::GatewayAbsent | Self::LinkLost => Hop::Tunnel,
            Self::GatewayPending
            | Self::GatewayBusy
            | Self::StreamRefused
            | Self::NoSuchRoute { .. }
            | Self::GatewayAborted
            | Self::BadAnswer => Hop::Gateway,
            Self::ServerUnreachable { .. } | Self::Late { .. } => Hop::Server,
        }
    }

    /// The label of metrics and logs.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NoAccessNews => "no_access_news",
            Self::Stopping => "stopping",
            Self::Overloaded => "overloaded",
            Self::GatewayAbsent => "gateway_absent",
            Self::GatewayPending => "gateway_pending",
            Self::GatewayBusy => "gateway_busy",
            Self::StreamRefused => "stream_refused",
            Self::NoSuchRoute { .. } => "no_such_route",
            Self::LinkLost => "link_lost",
            Self::GatewayAborted => "gateway_aborted",
            Self::ServerUnreachable { .. } => "server_unreachable",
            Self::BadAnswer => "bad_answer",
            Self::BadRequest => "bad_request",
            Self::Late { .. } => "late",
            Self::Ambiguous => "ambiguous",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NoAccessNews => "the tunnel's edge has no current access list".into(),
            Self::Stopping => "the tunnel's edge is restarting".into(),
            Self::Overloaded => "the tunnel's edge has as many calls under way as it takes".into(),
            Self::GatewayAbsent => "no gateway of this tunnel is connected".into(),
            Self::GatewayPending => {
                "the gateway of this tunnel is connected, but nobody has approved it yet".into()
            }
            Self::GatewayBusy => "the gateway has as many calls under way as it takes".into(),
            Self::StreamRefused => "the gateway did not begin with the call".into(),
            Self::NoSuchRoute { route, .. } => {
                format!("no gateway of this tunnel serves the route {route}")
            }
            Self::LinkLost => "the link to the gateway broke during the call".into(),
            Self::GatewayAborted => "the gateway aborted the call".into(),
            Self::ServerUnreachable { route } => {
                format!(
                    "the MCP server of the route {route} cannot be reached, or broke its answer off"
                )
            }
            Self::BadAnswer => "what came back through the tunnel is not an HTTP answer".into(),
            Self::BadRequest => {
                "the body of the request is not whole, or in a coding that does not pass".into()
            }
            Self::Late { after: Some(after) } => {
                format!("no answer began within {} s", after.as_secs())
            }
            Self::Late { after: None } => "no answer began in time".into(),
            Self::Ambiguous => "it is not clear which tunnel and route is meant".into(),
        }
    }

    fn cure(&self) -> String {
        match self {
            Self::NoAccessNews => {
                "check that the console runs and that the edge can reach it".into()
            }
            Self::Stopping | Self::Overloaded | Self::GatewayBusy | Self::StreamRefused => {
                "try again".into()
            }
            Self::GatewayAbsent => {
                "start mcp-tunnel-gateway next to the MCP server, or see its log".into()
            }
            Self::GatewayPending => {
                "approve the connection in the console, by the code that the gateway prints".into()
            }
            Self::NoSuchRoute { known, .. } => {
                let known: Vec<&str> = known.iter().map(RouteName::as_str).collect();
                format!(
                    "start the gateway with that name in --mcp-server; it serves: {}",
                    known.join(", ")
                )
            }
            Self::LinkLost => {
                "try again; whether the server began with the call is not known".into()
            }
            Self::GatewayAborted | Self::BadAnswer => "see the gateway's log".into(),
            Self::BadRequest => {
                "send it whole, by Content-Length or Transfer-Encoding: chunked alone".into()
            }
            Self::ServerUnreachable { .. } => {
                "see whether it runs, and its log; `mcp-tunnel-gateway check` tells more".into()
            }
            Self::Late { .. } => {
                "check the MCP server; a slow tool should answer with an event stream".into()
            }
            Self::Ambiguous => "name them: --dev-ingress 127.0.0.1:PORT=TUNNEL_ID/ROUTE".into(),
        }
    }
}

impl Failure {
    /// The answer that tells of it; `prefix` is the start of the request's body, for its id.
    pub(crate) fn answer(&self, prefix: &[u8]) -> Response<IngressBody> {
        let mut finder = RequestIdFinder::new(prefix.len());
        finder.feed(prefix);
        let failure =
            mcp_messages::Failure::new(self.hop(), self.code(), self.message(), self.cure())
                .with_id(finder.id().cloned());
        let mut response = own_answer(&failure);
        let retry_after = HeaderValue::from(self.retry_after().as_secs());
        response.headers_mut().insert(RETRY_AFTER, retry_after);
        response
    }
}

/// The one answer to whoever may not call, and to whoever names what is not there. It is the same to the byte, echoes
/// nothing, and starts no OAuth.
pub(crate) fn refusal() -> Response<IngressBody> {
    own_answer(&mcp_messages::Failure::new(
        Hop::Edge,
        FailureCode::Refused,
        "there is no such tunnel, or the caller key is missing, wrong, expired or for something else",
        "send a caller key as `Mcp-Tunnel-Authorization: Bearer mck_...`, and check the URL",
    ))
}

/// The development ingress does not go by this name.
pub(crate) fn misdirected() -> Response<IngressBody> {
    own_answer(&mcp_messages::Failure::new(
        Hop::Edge,
        FailureCode::Misdirected,
        "the development ingress answers to loopback names only",
        "call it as localhost",
    ))
}

/// The development ingress does not serve web pages from elsewhere. It asks for no key, so the refusal says why; what
/// a page called is a name that its browser made, and is cut short.
pub(crate) fn foreign_origin(origin: &str) -> Response<IngressBody> {
    let origin: String = origin.chars().take(ORIGIN_CHARS).collect();
    own_answer(&mcp_messages::Failure::new(
        Hop::Edge,
        FailureCode::Refused,
        format!("the development ingress takes no call from a web page of {origin:?}"),
        "open the page from localhost, or leave the Origin header out if no browser sends it",
    ))
}

/// Of an `Origin` that is named in an answer: longer ones are no names of hosts.
const ORIGIN_CHARS: usize = 200;

fn own_answer(failure: &mcp_messages::Failure) -> Response<IngressBody> {
    let mut response = Response::new(IngressBody::own(failure.to_json().into()));
    *response.status_mut() =
        StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn all() -> Vec<Failure> {
        let route = RouteName::default();
        vec![
            Failure::NoAccessNews,
            Failure::Stopping,
            Failure::Overloaded,
            Failure::GatewayAbsent,
            Failure::GatewayPending,
            Failure::GatewayBusy,
            Failure::StreamRefused,
            Failure::NoSuchRoute {
                route: route.clone(),
                known: vec![route.clone()],
            },
            Failure::LinkLost,
            Failure::GatewayAborted,
            Failure::ServerUnreachable { route },
            Failure::BadAnswer,
            Failure::BadRequest,
            Failure::Late {
                after: Some(Duration::from_secs(300)),
            },
            Failure::Late { after: None },
            Failure::Ambiguous,
        ]
    }

    async fn text(response: Response<IngressBody>) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_failure_is_a_server_error_that_says_when_to_come_back_and_what_to_do() {
        for failure in all() {
            let response = failure.answer(br#"{"jsonrpc":"2.0","id":"a-7","method":"tools/call"}"#);
            assert!(
                [502, 503, 504].contains(&response.status().as_u16()),
                "{failure:?}"
            );
            assert_eq!(response.headers()["content-type"], "application/json");
            assert!(
                response.headers()["retry-after"]
                    .to_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
                    > 0
            );
            let text = text(response).await;
            assert!(
                text.contains(r#""id":"a-7""#) && text.contains(r#""hop":""#),
                "{text}"
            );
            assert!(
                text.contains(&failure.cure().replace('"', "\\\"")),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_without_an_id_is_answered_with_none() {
        for prefix in [
            "",
            "[1,2",
            "{\"method\":\"x\"}",
            "\u{0}\u{1}",
            "{\"id\":{}}",
        ] {
            let text = text(Failure::GatewayAbsent.answer(prefix.as_bytes())).await;
            assert!(text.contains(r#""id":null"#), "{prefix}: {text}");
        }
    }

    #[tokio::test]
    async fn a_refusal_starts_no_login_and_changes_no_era() {
        let response = refusal();
        assert_eq!(response.status(), 403);
        assert!(!response.headers().contains_key("www-authenticate"));
        assert!(
            text(response)
                .await
                .starts_with(r#"{"jsonrpc":"2.0","id":null,"error""#)
        );
        assert_eq!(misdirected().status(), 421);
    }
}
