//! Where a request wants to go, read from its head alone.

use http::Method;
use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use mcp_tunnel_auth::{DomainLabel, DomainName, HostName, PublicHost, RouteName, TunnelId};

/// A destination as the caller spelled it. Nothing in it has been looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) tunnel: TunnelName,
    pub(crate) route: RouteName,
    /// Path and query for the server behind the route, in origin form.
    pub(crate) path: String,
    /// The authority that the caller used, lower case, with its port.
    pub(crate) authority: String,
}

/// How the caller names the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TunnelName {
    /// By its label in a host name.
    Label(DomainLabel),
    /// By its id in a path, where one origin serves many tunnels.
    Id(TunnelId),
}

/// Reads the address, or `None` when the request names none that this edge could serve.
///
/// Host forms under `domain` are `ROUTE--TUNNEL`, `ROUTE.TUNNEL` and the bare `TUNNEL`; any other host, the domain
/// itself and `edge_name` included, takes the path form only.
pub(crate) fn read(parts: &Parts, domain: &DomainName, edge_name: &HostName) -> Option<Address> {
    let authority = authority(parts)?;
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if parts.method == Method::CONNECT || !path.starts_with('/') {
        return None; // asterisk and authority form
    }
    let host = host_of(&authority);
    let public = if host == edge_name.as_str() {
        None
    } else {
        public_host(&host, domain)
    };
    if let Some(PublicHost { route, label, .. }) = public {
        let route = route.unwrap_or_default();
        return Some(Address {
            tunnel: TunnelName::Label(label),
            route,
            path: path.to_owned(),
            authority,
        });
    }
    let (id, route, rest) = split_path(path)?;
    Some(Address {
        tunnel: TunnelName::Id(TunnelId::parse(id).ok()?),
        route: RouteName::parse(route).ok()?,
        path: rest,
        authority,
    })
}

fn public_host(host: &str, domain: &DomainName) -> Option<PublicHost> {
    if let Some(public) = PublicHost::parse(host, domain) {
        return Some(public);
    }
    let (route, rest) = host.split_once('.')?;
    let bare = PublicHost::parse(rest, domain).filter(|public| public.route.is_none())?;
    Some(PublicHost::new(
        Some(RouteName::parse(route).ok()?),
        bare.label,
    ))
}

/// The one authority that the request names: two different ones are a smuggling attempt, and none is of no use.
pub(crate) fn authority(parts: &Parts) -> Option<String> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().ok()?.to_ascii_lowercase()),
        (Some(_), Some(_)) => return None,
    };
    let target = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().to_ascii_lowercase());
    let authority = match (target, header) {
        (Some(target), Some(header)) if target != header => return None,
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) => return None,
    };
    let well_formed = !authority.contains('@') && authority.parse::<Authority>().is_ok();
    (well_formed && !host_of(&authority).is_empty()).then_some(authority)
}

/// The host of an authority that has already been found well-formed: no port, no final dot.
pub(crate) fn host_of(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// `/t/TUNNEL_ID/ROUTE[/REST][?QUERY]`. The first two segments are never percent-decoded.
fn split_path(path_and_query: &str) -> Option<(&str, &str, String)> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let (id, after) = path.strip_prefix("/t/")?.split_once('/')?;
    let (route, rest) = after.split_once('/').unwrap_or((after, ""));
    if id.is_empty() || route.is_empty() {
        return None;
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Some((id, route, format!("/{rest}{query}")))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "tunnel.example";
    const EDGE: &str = "edge.tunnel.example";
    const ID: &str = "tnl_01katmjg000w3ge1r70w3ge1r7";

    fn parts(target: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read_parts(parts: &Parts) -> Option<Address> {
        read(
            parts,
            &DomainName::parse(DOMAIN).unwrap(),
            &HostName::parse(EDGE).unwrap(),
        )
    }

    #[track_caller]
    fn check(host: &str, target: &str, expect: Option<(&str, &str, &str)>) {
        let seen = read_parts(&parts(target, &[host])).map(|address| {
            let tunnel = match address.tunnel {
                TunnelName::Label(label) => label.to_string(),
                TunnelName::Id(id) => id.to_string(),
            };
            (tunnel, address.route.to_string(), address.path)
        });
        let expect = expect
            .map(|(tunnel, route, path)| (tunnel.to_owned(), route.to_owned(), path.to_owned()));
        assert_eq!(seen, expect, "host {host}, target {target}");
    }

    #[test]
    fn host_forms() {
        check(
            "docs--demo.tunnel.example",
            "/mcp",
            Some(("demo", "docs", "/mcp")),
        );
        check(
            "docs.demo.tunnel.example",
            "/mcp?x=1",
            Some(("demo", "docs", "/mcp?x=1")),
        );
        check("demo.tunnel.example", "/mcp", Some(("demo", "mcp", "/mcp")));
        check(
            "DOCS--Demo.Tunnel.Example:8443",
            "/",
            Some(("demo", "docs", "/")),
        );
        check(
            "demo.tunnel.example.",
            "/mcp",
            Some(("demo", "mcp", "/mcp")),
        );
        check(
            "demo.tunnel.example.:443",
            "/mcp",
            Some(("demo", "mcp", "/mcp")),
        );
        check(
            "my-docs--my-demo.tunnel.example",
            "/",
            Some(("my-demo", "my-docs", "/")),
        );
        // The path of a host form belongs to the server, whatever it looks like.
        let path = format!("/t/{ID}/mcp/");
        check("demo.tunnel.example", &path, Some(("demo", "mcp", &path)));
    }

    #[test]
    fn host_forms_that_mean_nothing() {
        for host in [
            "a--b--c.tunnel.example",
            "a.b.c.tunnel.example",
            "a--b.c.tunnel.example",
            "a.b--c.tunnel.example",
            "xn--demo.tunnel.example",
            "xn.demo.tunnel.example",
            "--demo.tunnel.example",
            "docs--.tunnel.example",
            ".tunnel.example",
            "..tunnel.example",
            "tunnel.example",
            "edge.tunnel.example",
            "docs.edge.tunnel.example",
            "eviltunnel.example",
            "demo.tunnel.example.evil.org",
            "user@demo.tunnel.example",
            "",
        ] {
            check(host, "/mcp", None);
        }
    }

    #[test]
    fn path_form_on_any_other_host() {
        for host in ["127.0.0.1:8443", "[::1]:8443", "localhost", EDGE, DOMAIN] {
            check(
                host,
                &format!("/t/{ID}/docs/mcp?a=b"),
                Some((ID, "docs", "/mcp?a=b")),
            );
        }
        check(
            "localhost",
            &format!("/t/{ID}/docs"),
            Some((ID, "docs", "/")),
        );
        check(
            "localhost",
            &format!("/t/{ID}/docs?q"),
            Some((ID, "docs", "/?q")),
        );
        check(
            "localhost",
            &format!("/t/{ID}/docs//x/../y"),
            Some((ID, "docs", "//x/../y")),
        );
        for rest in ["/", "/xn/mcp", "/Docs/mcp", "/d%6fcs/mcp", "//docs"] {
            check("localhost", &format!("/t/{ID}{rest}"), None);
        }
        for target in [
            "/",
            "/t/",
            "/t/tnl_1",
            "/t//docs/mcp",
            "/t/demo/docs/mcp",
            "/mcp",
        ] {
            check("localhost", target, None);
        }
        check("localhost", &format!("/t/{ID}"), None);
    }

    #[test]
    fn one_authority_or_none() {
        let read = |target, hosts: &[&str]| authority(&parts(target, hosts));
        assert_eq!(read("/", &["a.example"]).as_deref(), Some("a.example"));
        assert_eq!(
            read("https://a.example/x", &[]).as_deref(),
            Some("a.example")
        );
        assert_eq!(
            read("https://A.example:1/x", &["a.example:1"]).as_deref(),
            Some("a.example:1")
        );
        assert_eq!(read("https://a.example/x", &["b.example"]), None);
        assert_eq!(read("/", &["a.example", "a.example"]), None);
        assert_eq!(read("/", &["a.example", "b.example"]), None);
        assert_eq!(read("/", &[]), None);
        assert_eq!(read("/", &["a b"]), None);
        assert_eq!(read("/", &["a.example/evil"]), None);
        assert_eq!(read("*", &["a.example"]).as_deref(), Some("a.example"));
        assert_eq!(read_parts(&parts("*", &["demo.tunnel.example"])), None);
        let mut connect = parts("demo.tunnel.example:443", &["demo.tunnel.example:443"]);
        connect.method = Method::CONNECT;
        assert_eq!(read_parts(&connect), None);
    }

    proptest! {
        #[test]
        fn any_head_is_read_without_panic(host in "[!-~]{0,60}", target in "/[!-~]{0,60}") {
            let Ok(target) = target.parse::<http::Uri>() else { return Ok(()) };
            let Ok(host) = HeaderValue::from_str(&host) else { return Ok(()) };
            let request = Request::builder().uri(target).header(HOST, host).body(()).unwrap();
            if let Some(address) = read_parts(&request.into_parts().0) {
                prop_assert!(address.path.starts_with('/'));
                prop_assert!(!address.authority.contains(['@', '/', '"', ' ']));
            }
        }

        #[test]
        fn every_public_host_is_read_back(route in "[a-z]([a-z0-9]{2,20})?", label in "[a-z0-9]{5,20}", port in 1_u16..) {
            for host in [format!("{route}--{label}"), format!("{route}.{label}")] {
                let parts = parts("/mcp", &[&format!("{host}.{DOMAIN}:{port}")]);
                let address = read_parts(&parts).unwrap();
                prop_assert_eq!(address.route.as_str(), &route);
                prop_assert_eq!(address.tunnel, TunnelName::Label(DomainLabel::parse(&label).unwrap()));
            }
        }
    }
}
