//! Heads of calls: what is checked, what stays on one hop, what is rewritten.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version, request, response};
use mcp_tunnel_auth::carries_own_credential;
use mcp_tunnel_proto::TraceContext;

use crate::server::{McpServer, is_plain_path};

/// Refuses what an honest edge never sends and a server might read in two ways.
///
/// hyper has judged the framing already: differing lengths, obsolete folding and bad characters do not come this far.
pub(super) fn check(request: &request::Parts) -> Result<(), HeadError> {
    let headers = &request.headers;
    let origin_form = request.uri.authority().is_none() && request.uri.path().starts_with('/');
    if request.method == Method::CONNECT || !origin_form {
        return Err(HeadError::Target);
    }
    if request.version != Version::HTTP_11 {
        return Err(HeadError::Version);
    }
    if headers.get_all(header::HOST).iter().count() != 1 {
        return Err(HeadError::Repeated { field: "Host" });
    }
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(HeadError::Repeated {
            field: "Authorization",
        });
    }
    let coded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if headers.get_all(header::TRANSFER_ENCODING).iter().any(coded) {
        return Err(HeadError::TransferEncoding);
    }
    Ok(())
}

/// Why a head never reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the request target is not a path")]
    Target,
    #[error("the request is not HTTP/1.1")]
    Version,
    #[error("{field} does not appear exactly once")]
    Repeated { field: &'static str },
    #[error("the body has a transfer coding other than chunked")]
    TransferEncoding,
}

/// Whether a server exposes the path that is asked for.
///
/// One without a path of its own exposes all. Any other exposes that path, with or without a final slash, and the
/// documents by which OAuth clients find their authorization server.
pub(super) fn is_exposed(server: &McpServer, method: &Method, uri: &Uri) -> bool {
    let Some(exposed) = server.target().path() else {
        return true;
    };
    let asked = uri.path();
    if trim_slash(asked) == trim_slash(exposed) {
        return true;
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let below = |document: &str| {
        asked
            .strip_prefix(document)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    reads && is_plain_path(asked) && WELL_KNOWN.iter().any(|document| below(document))
}

/// Makes the edge's request one to the server: hop-by-hop and tunnel fields gone, Host and own Origin the server's.
pub(super) fn to_server(request: &mut request::Parts, server: &McpServer) {
    let headers = &mut request.headers;
    remove_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    headers.remove(header::PROXY_AUTHORIZATION);
    remove_tunnel_fields(headers);
    // The edge has taken it out already; a server that saw it could call others of the tunnel.
    if headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| carries_own_credential(value.as_bytes()))
    {
        headers.remove(header::AUTHORIZATION);
    }
    if !server.preserves_host() {
        if is_own_origin(headers) {
            headers.insert(header::ORIGIN, server.target().origin_header());
        }
        headers.insert(header::HOST, server.target().host_header());
    }
}

/// Tells the server the trace that the edge has begun; what a caller says itself has passed already.
pub(super) fn trace(request: &mut request::Parts, trace: Option<TraceContext>) {
    if let Some(trace) = trace
        && !request.headers.contains_key(TRACEPARENT)
        && let Ok(value) = HeaderValue::from_str(&trace.to_string())
    {
        request.headers.insert(TRACEPARENT, value);
    }
}

/// Makes the server's answer one of the gateway: hop-by-hop and tunnel fields gone, those too that Connection names.
pub(super) fn to_edge(response: &mut response::Parts) {
    remove_named_by_connection(&mut response.headers);
    remove_hop_by_hop(&mut response.headers);
    remove_tunnel_fields(&mut response.headers);
    response.version = Version::HTTP_11;
    // Reason phrases and the spelling of names are hyper's own business on each hop.
    response.extensions.clear();
}

/// RFC 9110, 7.6.1. Of requests the edge has removed them: what it sends here is meant for the server, whatever
/// Connection says.
fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for field in &HOP_BY_HOP {
        headers.remove(field);
    }
}

fn remove_tunnel_fields(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(TUNNEL_PREFIX))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Whether Origin is the public name that Host says, by either scheme: the edge ends TLS. The default port may be
/// written or not, as at the edge.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let (Some(origin), Some(host)) = (headers.get(header::ORIGIN), headers.get(header::HOST))
    else {
        return false;
    };
    let host = host.as_bytes();
    let is_host = |scheme: &[u8], port: &[u8]| {
        let authority = origin.as_bytes().strip_prefix(scheme);
        let plain = |authority| <[u8]>::strip_suffix(authority, port).unwrap_or(authority);
        authority.is_some_and(|authority| plain(authority).eq_ignore_ascii_case(plain(host)))
    };
    is_host(b"https://", b":443") || is_host(b"http://", b":80")
}

fn trim_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// RFC 9110, 7.6.1, and what older software takes for such a field.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const TUNNEL_PREFIX: &str = "mcp-tunnel-";

/// RFC 9728, RFC 8414 and OpenID Connect Discovery; a resource's path may follow each.
const WELL_KNOWN: [&str; 3] = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = Request::post(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn check_head(uri: &str, headers: &[(&str, &str)], expect: Result<(), HeadError>) {
        assert_eq!(check(&parts(uri, headers)), expect, "{uri} {headers:?}");
    }

    #[test]
    fn only_one_reading_of_a_head_is_let_through() {
        let host = ("host", "a.example");
        check_head("/mcp?x=1", &[host], Ok(()));
        check_head("//double/slash", &[host], Ok(()));
        check_head("http://other/mcp", &[host], Err(HeadError::Target));
        check_head("*", &[host], Err(HeadError::Target));
        check_head("other:443", &[host], Err(HeadError::Target));
        check_head("/", &[], Err(HeadError::Repeated { field: "Host" }));
        check_head(
            "/",
            &[host, ("host", "b.example")],
            Err(HeadError::Repeated { field: "Host" }),
        );
        let key = ("authorization", "Bearer a");
        check_head(
            "/",
            &[host, key, key],
            Err(HeadError::Repeated {
                field: "Authorization",
            }),
        );
        check_head("/", &[host, ("transfer-encoding", "Chunked")], Ok(()));
        check_head(
            "/",
            &[host, ("transfer-encoding", "gzip, chunked")],
            Err(HeadError::TransferEncoding),
        );
        let mut old = parts("/", &[host]);
        old.version = Version::HTTP_10;
        assert_eq!(check(&old), Err(HeadError::Version));
    }

    fn rewritten(server: &str, preserve: bool, headers: &[(&str, &str)]) -> HeaderMap {
        let server = server
            .parse::<McpServer>()
            .unwrap()
            .with_preserved_host(preserve);
        let mut parts = parts("/mcp", headers);
        to_server(&mut parts, &server);
        parts.headers
    }

    #[test]
    fn host_and_own_origin_become_the_servers_with_port() {
        let own = [
            ("host", "docs--t.example"),
            ("origin", "https://Docs--t.example"),
        ];
        let headers = rewritten("3000", false, &own);
        assert_eq!(
            (&headers["host"], &headers["origin"]),
            (
                &HeaderValue::from_static("localhost:3000"),
                &HeaderValue::from_static("http://localhost:3000"),
            )
        );
        let headers = rewritten("https://mcp.corp.example", false, &own);
        assert_eq!(headers["origin"], "https://mcp.corp.example");
        let headers = rewritten("3000", true, &own);
        assert_eq!(
            (&headers["host"], &headers["origin"]),
            (
                &HeaderValue::from_static("docs--t.example"),
                &HeaderValue::from_static("https://Docs--t.example"),
            )
        );
    }

    #[test]
    fn the_default_port_makes_no_other_origin() {
        for (host, origin, own) in [
            ("docs--t.example", "https://docs--t.example:443", true),
            ("docs--t.example:443", "https://docs--t.example", true),
            ("localhost:80", "http://localhost", true),
            ("docs--t.example", "https://docs--t.example:80", false),
            ("docs--t.example:8443", "https://docs--t.example", false),
        ] {
            let headers = rewritten("3000", false, &[("host", host), ("origin", origin)]);
            let expect = if own { "http://localhost:3000" } else { origin };
            assert_eq!(headers["origin"], expect, "{origin} at {host}");
        }
    }

    #[test]
    fn what_a_server_says_for_one_hop_ends_there() {
        let mut answer = http::Response::builder()
            .header("connection", "close, X-Hop,, not a name")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("mcp-session-id", "s")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        to_edge(&mut answer);
        let left: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["mcp-session-id"]);
    }

    #[test]
    fn a_foreign_origin_reaches_the_server_as_it_is() {
        for origin in [
            "https://evil.example",
            "https://docs--t.example.evil",
            "https://docs--t.example:8443",
            "null",
        ] {
            let headers = rewritten(
                "3000",
                false,
                &[("host", "docs--t.example"), ("origin", origin)],
            );
            assert_eq!(headers["origin"], origin);
        }
    }

    #[test]
    fn fields_of_the_hop_and_of_the_tunnel_go_and_all_others_pass() {
        let headers = rewritten(
            "3000",
            false,
            &[
                ("host", "h"),
                ("connection", "x-forwarded-for, upgrade"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAAP__"),
                ("te", "trailers"),
                ("trailer", "x-late"),
                ("transfer-encoding", "chunked"),
                ("keep-alive", "timeout=5"),
                ("expect", "100-continue"),
                ("proxy-authorization", "Basic x"),
                ("mcp-tunnel-authorization", "Bearer mck_x"),
                ("mcp-tunnel-probe", "1"),
                ("x-forwarded-for", "192.0.2.1"),
                ("mcp-param-region", "eu"),
                ("authorization", "Bearer upstream"),
            ],
        );
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "authorization",
                "host",
                "mcp-param-region",
                "x-forwarded-for"
            ]
        );
    }

    #[test]
    fn our_own_credentials_never_travel_to_a_server() {
        let key = format!("mck_{}", "0".repeat(52));
        for value in [format!("Bearer {key}"), format!("bearer  {key}"), key] {
            let headers = rewritten("3000", false, &[("host", "h"), ("authorization", &value)]);
            assert!(!headers.contains_key("authorization"), "{value}");
        }
    }

    #[track_caller]
    fn check_exposed(method: Method, uri: &str, expect: bool) {
        let server: McpServer = "http://localhost:3000/v1/mcp".parse().unwrap();
        assert_eq!(
            is_exposed(&server, &method, &uri.parse().unwrap()),
            expect,
            "{method} {uri}"
        );
    }

    #[test]
    fn a_server_with_a_path_exposes_it_and_the_well_known_documents_only() {
        check_exposed(Method::POST, "/v1/mcp", true);
        check_exposed(Method::POST, "/v1/mcp/", true);
        check_exposed(Method::DELETE, "/v1/mcp?session=1", true);
        check_exposed(Method::GET, "/.well-known/oauth-protected-resource", true);
        check_exposed(
            Method::GET,
            "/.well-known/oauth-protected-resource/v1/mcp",
            true,
        );
        check_exposed(
            Method::HEAD,
            "/.well-known/oauth-authorization-server",
            true,
        );
        check_exposed(
            Method::OPTIONS,
            "/.well-known/openid-configuration/tenant",
            true,
        );
        for path in [
            "/",
            "/v1",
            "/v1/mcp/tools",
            "/v1/mcpx",
            "/V1/mcp",
            "//v1/mcp",
            "/v1/mcp//",
            "/v1/mcp/../admin",
            "/v1/mcp;a",
            "/v1/%6dcp",
            "/.well-known/security.txt",
            "/.well-known/oauth-protected-resourcex",
            "/.well-known/oauth-protected-resource/../../admin",
            "/.well-known/oauth-protected-resource/%2e%2e/admin",
            "/.well-known/oauth-protected-resource//admin",
        ] {
            check_exposed(Method::GET, path, false);
        }
        check_exposed(Method::POST, "/.well-known/oauth-protected-resource", false);
    }

    #[test]
    fn a_server_without_a_path_exposes_everything() {
        let server: McpServer = "3000".parse().unwrap();
        assert!(is_exposed(
            &server,
            &Method::PUT,
            &"/any/../thing".parse().unwrap()
        ));
    }
}
