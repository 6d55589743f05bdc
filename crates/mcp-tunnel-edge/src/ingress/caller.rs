//! Who may call: the judgement of one request's head.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;
use mcp_tunnel_auth::{
    AccessSnapshot, CallerGrant, CallerKey, CallerRefusal, carries_own_credential,
};

use super::address::{self, Address, TunnelName};
use super::{PeerInfo, Turned};
use crate::calls::{Admittance, Grant};
use crate::clock::unix_ms;
use crate::exchange::headers::{Cookies, PROBE, TUNNEL_AUTHORIZATION};
use crate::exchange::{Admitted, trace};
use crate::failure::Failure;
use crate::{EdgeConfig, Shared};

/// Judges a request by the snapshot in force. The caller learns nothing from which rule refused it, and every one of
/// them costs the same look-ups.
pub(crate) fn admit(shared: &Shared, parts: &Parts) -> Result<Admitted, Turned> {
    let snapshot = shared.access.fresh();
    let snapshot = snapshot.ok_or(Turned::Failed(Failure::NoAccessNews))?;
    let peer = parts.extensions.get::<PeerInfo>();
    let scheme = peer.map_or("https", |peer| peer.scheme);
    let address = address::read(parts, &shared.config.domain, &shared.config.edge_name);
    let grant = grant(&snapshot, address.as_ref(), &parts.headers).map_err(Turned::Refused)?;
    let address = address.ok_or(Turned::Refused("unknown_tunnel"))?;
    if !is_welcome_origin(&parts.headers, scheme, &address.authority, &shared.config) {
        return Err(Turned::Refused("foreign_origin"));
    }
    // Not in a header, but it would travel all the same.
    if carries_own_credential(address.path.as_bytes()) {
        return Err(Turned::Refused("credential_in_target"));
    }
    let target = address
        .path
        .parse()
        .map_err(|_| Turned::Refused("target"))?;
    if let Some(peer) = peer {
        peer.proven();
    }
    Ok(Admitted {
        grant,
        number: snapshot.number(),
        target,
        authority: address.authority,
        scheme,
        peer: peer.map(|peer| peer.address.ip()),
        cookies: match address.tunnel {
            TunnelName::Label(_) => Cookies::Pass,
            TunnelName::Id(_) => Cookies::Drop,
        },
        probe: parts.headers.get(PROBE).is_some_and(|value| value == "1"),
        trace: trace::of(&parts.headers),
    })
}

/// What the request is admitted for, or the reason why it is not. A request that names nothing is judged like any
/// other, so that it takes as long.
fn grant(
    snapshot: &AccessSnapshot,
    address: Option<&Address>,
    headers: &HeaderMap,
) -> Result<Grant, &'static str> {
    let presented = presented_key(headers);
    let tunnel = address.and_then(|address| match &address.tunnel {
        TunnelName::Label(label) => snapshot.tunnel_by_label(label),
        TunnelName::Id(id) => snapshot.tunnel_by_id(id),
    });
    let route = address
        .map(|address| address.route.clone())
        .unwrap_or_default();
    let key = presented.as_ref().ok().and_then(Option::as_ref);
    let granted = snapshot.authorise_caller(key, tunnel, &route, unix_ms());
    let (granted, presented) = (granted.map_err(reason)?, presented?);
    let tunnel = tunnel.ok_or("unknown_tunnel")?.id;
    let by = match (granted, presented) {
        (CallerGrant::Key(_), Some(key)) => Admittance::Key(Arc::new(key)),
        _ => Admittance::Upstream,
    };
    Ok(Grant { tunnel, route, by })
}

/// The caller key of a request: in a header of ours, or in `Authorization` when that carries one of ours.
///
/// Two values where one belongs are refused, since the next reader might take the other one.
fn presented_key(headers: &HeaderMap) -> Result<Option<CallerKey>, &'static str> {
    let mut ours = headers.get_all(TUNNEL_AUTHORIZATION).iter();
    let mut servers = headers.get_all(AUTHORIZATION).iter();
    let (ours, None, servers, None) = (ours.next(), ours.next(), servers.next(), servers.next())
    else {
        return Err("two_authorizations");
    };
    match (ours, servers) {
        (Some(value), _) | (None, Some(value)) => Ok(CallerKey::from_header(value.as_bytes())),
        (None, None) => Ok(None),
    }
}

/// Whether the request comes from no web page, or from a page of this very origin, or of one that the operator named.
pub(crate) fn is_welcome_origin(
    headers: &HeaderMap,
    scheme: &str,
    authority: &str,
    config: &EdgeConfig,
) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = match (origins.next(), origins.next()) {
        (None, _) => return true,
        (Some(origin), None) => origin.to_str().unwrap_or_default().to_ascii_lowercase(),
        (Some(_), Some(_)) => return false,
    };
    let own = format!("{scheme}://{authority}");
    without_default_port(&origin) == without_default_port(&own)
        || config.allowed_origins.contains(&origin)
}

fn without_default_port(origin: &str) -> &str {
    let default = if origin.starts_with("https:") {
        ":443"
    } else {
        ":80"
    };
    origin.strip_suffix(default).unwrap_or(origin)
}

fn reason(refusal: CallerRefusal) -> &'static str {
    match refusal {
        CallerRefusal::UnknownTunnel => "unknown_tunnel",
        CallerRefusal::Missing => "missing_key",
        CallerRefusal::Unknown => "unknown_key",
        CallerRefusal::Expired => "expired_key",
        CallerRefusal::OutOfScope => "out_of_scope",
        _ => "other",
    }
}
