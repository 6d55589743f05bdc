//! Which headers pass, and which are the edge's own business.
//!
//! Towards the server: hop-by-hop headers go, also those that `Connection` names; what a caller says about who
//! forwarded it is replaced by what the edge knows; nothing of ours and no credential of ours travels. Towards the
//! caller: hop-by-hop headers go again, and what a server behind one name must not say about other names.

use std::net::IpAddr;

use http::header::{
    ALT_SVC, CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_tunnel_auth::carries_own_credential;

/// Prefix of every header that only edge and gateway speak.
pub(crate) const OWN_PREFIX: &str = "mcp-tunnel-";
/// Asks for `Server-Timing` per hop.
pub(crate) const PROBE: HeaderName = HeaderName::from_static("mcp-tunnel-probe");
/// Carries a caller key beside an `Authorization` meant for the server.
pub(crate) const TUNNEL_AUTHORIZATION: HeaderName =
    HeaderName::from_static("mcp-tunnel-authorization");
/// What each hop took.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

const FORWARDED_PREFIX: &str = "x-forwarded-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Hop-by-hop whether or not `Connection` names them (RFC 9110, 7.6.1). `Expect` is answered by the edge itself.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// What the edge says about a caller in place of what the caller says.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding<'a> {
    pub(crate) authority: &'a str,
    pub(crate) scheme: &'static str,
    pub(crate) peer: Option<IpAddr>,
    /// The path form shares one origin between tunnels, hence no cookie may pass.
    pub(crate) cookies: Cookies,
    pub(crate) probe: bool,
}

/// Whether cookies pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookies {
    /// Host form: they belong to this host.
    Pass,
    /// Path form: they would reach other tunnels.
    Drop,
}

/// Whether the body's framing is one that ends at the edge. A coding below `chunked` would travel on unnamed, since the
/// field is of one hop.
pub(crate) fn has_plain_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.all(|coding| {
        coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    })
}

/// Turns a caller's headers into those that travel to the gateway.
pub(crate) fn towards_server(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    remove_hop_by_hop(headers);
    remove_where(headers, |name, value| {
        let name = name.as_str();
        name.starts_with(OWN_PREFIX)
            || name.starts_with(FORWARDED_PREFIX)
            || carries_own_credential(value.as_bytes())
    });
    headers.remove(FORWARDED);
    if forwarding.cookies == Cookies::Drop {
        headers.remove(COOKIE);
    }
    if forwarding.probe {
        headers.insert(PROBE, HeaderValue::from_static("1"));
    }
    insert_forwarding(headers, forwarding);
}

fn insert_forwarding(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    if let Ok(authority) = HeaderValue::from_str(forwarding.authority) {
        headers.insert(HOST, authority.clone());
        headers.insert(FORWARDED_HOST, authority);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(forwarding.scheme));
    let Forwarding {
        authority, scheme, ..
    } = forwarding;
    let forwarded = match forwarding.peer.map(|peer| peer.to_canonical()) {
        Some(peer) => {
            if let Ok(address) = HeaderValue::from_str(&peer.to_string()) {
                headers.insert(FORWARDED_FOR, address);
            }
            match peer {
                IpAddr::V4(v4) => format!("for={v4};host=\"{authority}\";proto={scheme}"),
                IpAddr::V6(v6) => format!("for=\"[{v6}]\";host=\"{authority}\";proto={scheme}"),
            }
        }
        None => format!("host=\"{authority}\";proto={scheme}"),
    };
    if let Ok(value) = HeaderValue::from_str(&forwarded) {
        headers.insert(FORWARDED, value);
    }
}

/// Turns a server's headers into those that the caller sees. `host` is the name that the caller used.
pub(crate) fn towards_caller(headers: &mut HeaderMap, host: &str, cookies: Cookies) {
    remove_hop_by_hop(headers);
    remove_where(headers, |name, value| {
        name.as_str().starts_with(OWN_PREFIX)
            || name == ALT_SVC
            || (name == SET_COOKIE && (cookies == Cookies::Drop || is_wide(value.as_bytes(), host)))
    });
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Removes the values, not whole names, for which `drop` holds. Nothing is allocated when none is.
fn remove_where(headers: &mut HeaderMap, drop: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    let mut names: Vec<HeaderName> = Vec::new();
    for (name, value) in headers.iter() {
        if drop(name, value) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    for name in names {
        let kept: Vec<HeaderValue> = headers
            .get_all(&name)
            .iter()
            .filter(|value| !drop(&name, value))
            .cloned()
            .collect();
        headers.remove(&name);
        for value in kept {
            headers.append(name.clone(), value);
        }
    }
}

/// Whether a cookie would be sent to other hosts than `host`, or to hosts below it.
fn is_wide(cookie: &[u8], host: &str) -> bool {
    cookie.split(|byte| *byte == b';').skip(1).any(|attribute| {
        let mut halves = attribute.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        let value = halves.next().unwrap_or_default().trim_ascii();
        let value = value.strip_prefix(b".").unwrap_or(value);
        // `Domain=host` would still reach the hosts below it; only a name with `--` has none of its own.
        let own = value.eq_ignore_ascii_case(host.as_bytes()) && host.contains("--");
        name.eq_ignore_ascii_case(b"domain") && !value.is_empty() && !own
    })
}

#[cfg(test)]
mod tests;
