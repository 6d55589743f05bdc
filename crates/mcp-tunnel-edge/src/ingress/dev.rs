//! The development ingress: loopback only, no caller key, one fixed destination.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use mcp_tunnel_auth::{
    AccessSnapshot, IdError, NameError, RouteName, TunnelId, carries_own_credential,
};
use tower_service::Service;

use super::address::{authority, host_of};
use super::{IngressFuture, PeerInfo, Turned, answer};
use crate::Shared;
use crate::calls::{Admittance, Grant};
use crate::exchange::answer::IngressBody;
use crate::exchange::headers::{Cookies, PROBE};
use crate::exchange::upload::Upload;
use crate::exchange::{Admitted, BoxError, trace};
use crate::failure::Failure;

/// Where a development ingress leads: `ROUTE`, `TUNNEL_ID/ROUTE`, or by default the only tunnel's only route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DevTarget {
    /// `None` for the only tunnel that there is.
    pub tunnel: Option<TunnelId>,
    /// `None` for the only route that the tunnel's gateways announce.
    pub route: Option<RouteName>,
}

/// The text is no `[TUNNEL_ID/]ROUTE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DevTargetError {
    /// The part before the slash is no tunnel id.
    #[error("the part before the slash is no tunnel id")]
    Tunnel(#[source] IdError),
    /// The route is no valid name.
    #[error("the route is no valid name")]
    Route(#[source] NameError),
}

impl FromStr for DevTarget {
    type Err = DevTargetError;

    fn from_str(text: &str) -> Result<Self, DevTargetError> {
        let (tunnel, route) = match text.split_once('/') {
            Some((tunnel, route)) => (
                Some(TunnelId::parse(tunnel).map_err(DevTargetError::Tunnel)?),
                route,
            ),
            None => (None, text),
        };
        Ok(Self {
            tunnel,
            route: Some(RouteName::parse(route).map_err(DevTargetError::Route)?),
        })
    }
}

/// An ingress for development and for test suites that know only `http://localhost:PORT/mcp`.
///
/// It asks for no caller key, so whoever serves it must bind loopback only. It refuses a `Host` or `Origin` that is
/// not loopback, and a peer that is not, so that no web page reaches through it into the tunnel (DNS rebinding).
#[derive(Clone)]
pub struct DevIngress {
    shared: Arc<Shared>,
    target: DevTarget,
}

impl fmt::Debug for DevIngress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevIngress")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl DevIngress {
    pub(crate) fn new(shared: Arc<Shared>, target: DevTarget) -> Self {
        Self { shared, target }
    }

    fn admit(&self, parts: &Parts) -> Result<Admitted, Turned> {
        let peer = parts.extensions.get::<PeerInfo>();
        if peer.is_some_and(|peer| !peer.address.ip().to_canonical().is_loopback()) {
            return Err(Turned::Refused("dev_peer"));
        }
        let authority = authority(parts).filter(|authority| is_loopback_host(&host_of(authority)));
        let authority = authority.ok_or(Turned::Misdirected)?;
        if let Some(origin) = foreign_origin(&parts.headers) {
            return Err(Turned::ForeignOrigin(origin));
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        if parts.method == Method::CONNECT
            || !path.starts_with('/')
            || carries_own_credential(path.as_bytes())
        {
            return Err(Turned::Refused("target"));
        }
        let target = path.parse().map_err(|_| Turned::Refused("target"))?;
        let snapshot = self
            .shared
            .access
            .fresh()
            .ok_or(Turned::Failed(Failure::NoAccessNews))?;
        let (tunnel, route) = self.destination(&snapshot).map_err(Turned::Failed)?;
        if let Some(peer) = peer {
            peer.proven();
        }
        Ok(Admitted {
            grant: Grant {
                tunnel,
                route,
                by: Admittance::Dev,
            },
            number: snapshot.number(),
            target,
            authority,
            scheme: peer.map_or("http", |peer| peer.scheme),
            peer: peer.map(|peer| peer.address.ip()),
            cookies: Cookies::Pass,
            probe: parts.headers.get(PROBE).is_some_and(|value| value == "1"),
            trace: trace::of(&parts.headers),
        })
    }

    fn destination(&self, snapshot: &AccessSnapshot) -> Result<(TunnelId, RouteName), Failure> {
        let mut tunnels = snapshot.tunnels().map(|tunnel| tunnel.id);
        let tunnel = match (self.target.tunnel, tunnels.next(), tunnels.next()) {
            (Some(named), ..) => named,
            (None, Some(only), None) => only,
            (None, None, _) => return Err(Failure::GatewayAbsent),
            (None, Some(_), Some(_)) => return Err(Failure::Ambiguous),
        };
        if snapshot.tunnel_by_id(&tunnel).is_none() {
            return Err(Failure::GatewayAbsent);
        }
        if let Some(route) = &self.target.route {
            return Ok((tunnel, route.clone()));
        }
        let mut routes = self.shared.links.routes(&tunnel).into_iter();
        match (routes.next(), routes.next()) {
            (Some(only), None) => Ok((tunnel, only)),
            (None, _) => Ok((tunnel, RouteName::default())),
            (Some(_), Some(_)) => Err(Failure::Ambiguous),
        }
    }
}

impl<B> Service<Request<B>> for DevIngress
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<IngressBody>;
    type Error = Infallible;
    type Future = IngressFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> IngressFuture {
        let (parts, body) = request.into_parts();
        let admitted = self.admit(&parts);
        answer(Arc::clone(&self.shared), admitted, parts, Upload::new(body))
    }
}

fn is_loopback_host(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// An `Origin` that is not loopback, as far as it is text that may be said back.
fn foreign_origin(headers: &HeaderMap) -> Option<String> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let foreign = origins.find(|origin| !is_loopback_origin(origin))?;
    match foreign.to_str() {
        Ok(text) if !carries_own_credential(text.as_bytes()) => Some(text.to_owned()),
        _ => Some(String::new()),
    }
}

fn is_loopback_origin(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let rest = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|authority| is_loopback_host(&host_of(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        for host in [
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "localhost.example",
            "evil.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn loopback_origins() {
        let check = |origin: &str, expect: bool| {
            let headers = HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
            let foreign = (!expect).then(|| origin.to_owned());
            assert_eq!(foreign_origin(&headers), foreign, "{origin}");
        };
        assert_eq!(foreign_origin(&HeaderMap::new()), None);
        check("http://localhost:6274", true);
        check("HTTP://LocalHost", true);
        check("https://[::1]:1", true);
        check("null", false);
        check("", false);
        check("file://localhost", false);
        check("http://evil.example", false);
        check("http://localhost.evil.example:80", false);
        check("http://localhost@evil.example", false);
        let two = [
            (ORIGIN, HeaderValue::from_static("http://localhost")),
            (ORIGIN, HeaderValue::from_static("http://evil.example")),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in two {
            headers.append(name, value);
        }
        assert_eq!(foreign_origin(&headers).unwrap(), "http://evil.example");
    }

    #[test]
    fn targets() {
        let id = "tnl_01katmjg000w3ge1r70w3ge1r7";
        let target: DevTarget = format!("{id}/docs").parse().unwrap();
        assert_eq!(
            (
                target.tunnel.unwrap().to_string(),
                target.route.unwrap().to_string()
            ),
            (id.into(), "docs".into())
        );
        assert_eq!("docs".parse::<DevTarget>().unwrap().tunnel, None);
        assert!(matches!(
            "x/docs".parse::<DevTarget>(),
            Err(DevTargetError::Tunnel(_))
        ));
        assert!(matches!(
            "Docs".parse::<DevTarget>(),
            Err(DevTargetError::Route(_))
        ));
    }
}
