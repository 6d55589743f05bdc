use proptest::prelude::*;

use super::*;

const KEY: &str = "mck_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7";

fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    map
}

fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut list: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    list.sort();
    list
}

fn forwarding(cookies: Cookies) -> Forwarding<'static> {
    Forwarding {
        authority: "mcp--demo.tunnel.example:8443",
        scheme: "https",
        peer: Some("192.0.2.1".parse().unwrap()),
        cookies,
        probe: false,
    }
}

const OURS: [(&str, &str); 5] = [
    (
        "forwarded",
        "for=192.0.2.1;host=\"mcp--demo.tunnel.example:8443\";proto=https",
    ),
    ("host", "mcp--demo.tunnel.example:8443"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-host", "mcp--demo.tunnel.example:8443"),
    ("x-forwarded-proto", "https"),
];

#[track_caller]
fn check_request(headers: &[(&str, &str)], passed: &[(&str, &str)]) {
    let mut map_ = map(headers);
    towards_server(&mut map_, &forwarding(Cookies::Pass));
    let mut expect: Vec<_> = OURS
        .iter()
        .chain(passed)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    expect.sort();
    assert_eq!(list(&map_), expect, "from {headers:?}");
}

#[test]
fn unknown_headers_pass_in_order() {
    let headers = [
        ("mcp-param-x", "1"),
        ("mcp-param-x", "2"),
        ("mcp-session-id", "abc"),
        ("mcp-protocol-version", "2026-07-28"),
        ("last-event-id", "7"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", "Bearer of-the-server"),
        ("cookie", "a=b"),
        ("x-anything", "mck is not a key, nor is mck_short"),
        ("origin", "https://mcp--demo.tunnel.example:8443"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    check_request(&headers, &headers);
}

#[test]
fn hop_by_hop_headers_go() {
    check_request(
        &[
            (
                "connection",
                "keep-alive, Upgrade, HTTP2-Settings, X-Private",
            ),
            ("connection", "x-also"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("expect", "100-continue"),
            ("x-private", "1"),
            ("x-also", "1"),
            ("x-kept", "1"),
        ],
        &[("x-kept", "1")],
    );
}

#[test]
fn what_a_caller_says_about_forwarding_is_replaced() {
    check_request(
        &[
            ("host", "evil.example"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-anything", "x"),
        ],
        &[],
    );
    // Naming ours in `Connection` must not remove them further on.
    check_request(
        &[(
            "connection",
            "x-forwarded-for, x-forwarded-host, host, forwarded",
        )],
        &[],
    );
}

#[test]
fn no_credential_of_ours_travels() {
    check_request(
        &[
            ("mcp-tunnel-authorization", &format!("Bearer {KEY}")),
            ("mcp-tunnel-probe", "1"),
            ("mcp-tunnel-anything", "x"),
            ("authorization", &format!("Bearer {KEY}")),
            ("x-api-key", &KEY.replace("mck_", "mca_")),
            ("cookie", &format!("a=b; key={KEY}")),
            ("x-quoted", &format!("\"{KEY}\"")),
            ("x-list", "kept"),
            ("x-list", &format!("a,{KEY}")),
        ],
        &[("x-list", "kept")],
    );
}

#[test]
fn the_path_form_carries_no_cookies() {
    let mut headers = map(&[("cookie", "a=b")]);
    towards_server(&mut headers, &forwarding(Cookies::Drop));
    assert!(!headers.contains_key("cookie"));
    let mut headers = map(&[("set-cookie", "a=b"), ("x-kept", "1")]);
    towards_caller(&mut headers, "edge.tunnel.example", Cookies::Drop);
    assert_eq!(list(&headers), [("x-kept".to_owned(), "1".to_owned())]);
}

#[test]
fn a_probe_is_said_again_by_the_edge() {
    let mut headers = map(&[("mcp-tunnel-probe", "2"), ("mcp-tunnel-probe", "3")]);
    towards_server(
        &mut headers,
        &Forwarding {
            probe: true,
            ..forwarding(Cookies::Pass)
        },
    );
    assert_eq!(headers.get_all(PROBE).iter().collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_peer_without_an_address_is_not_invented() {
    let mut headers = map(&[("x-forwarded-for", "10.0.0.1")]);
    towards_server(
        &mut headers,
        &Forwarding {
            peer: None,
            ..forwarding(Cookies::Pass)
        },
    );
    assert!(!headers.contains_key("x-forwarded-for"));
    assert_eq!(
        headers["forwarded"],
        "host=\"mcp--demo.tunnel.example:8443\";proto=https"
    );
    let v6 = Forwarding {
        peer: Some("2001:db8::1".parse().unwrap()),
        ..forwarding(Cookies::Pass)
    };
    towards_server(&mut headers, &v6);
    assert_eq!(headers["x-forwarded-for"], "2001:db8::1");
    assert!(
        headers["forwarded"]
            .to_str()
            .unwrap()
            .starts_with("for=\"[2001:db8::1]\";")
    );
}

#[test]
fn what_a_server_may_not_say_is_dropped() {
    let mut headers = map(&[
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("alt-svc", "h3=\":443\""),
        ("mcp-tunnel-anything", "1"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=1; Domain=tunnel.example"),
        (
            "set-cookie",
            "c=1; path=/; DOMAIN = .Tunnel.Example; Secure",
        ),
        ("set-cookie", "d=1; Domain=mcp--demo.tunnel.example"),
        ("set-cookie", "e=1; Domain="),
        ("set-cookie", "domain=evil.example"),
        ("mcp-session-id", "s"),
        ("www-authenticate", "Bearer realm=\"x\""),
        ("content-type", "text/event-stream"),
        ("location", "/elsewhere"),
    ]);
    towards_caller(&mut headers, "mcp--demo.tunnel.example", Cookies::Pass);
    let kept = [
        ("content-type", "text/event-stream"),
        ("location", "/elsewhere"),
        ("mcp-session-id", "s"),
        ("set-cookie", "a=1"),
        ("set-cookie", "d=1; Domain=mcp--demo.tunnel.example"),
        ("set-cookie", "domain=evil.example"),
        ("set-cookie", "e=1; Domain="),
        ("www-authenticate", "Bearer realm=\"x\""),
    ];
    assert_eq!(
        list(&headers),
        kept.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_bare_tunnel_name_may_not_set_cookies_for_its_routes() {
    let mut headers = map(&[("set-cookie", "a=1; Domain=demo.tunnel.example")]);
    towards_caller(&mut headers, "demo.tunnel.example", Cookies::Pass);
    assert!(headers.is_empty());
}

fn any_header() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        Just("connection".to_owned()),
        Just("x-forwarded-for".to_owned()),
        Just("forwarded".to_owned()),
        Just("host".to_owned()),
        Just("te".to_owned()),
        Just("upgrade".to_owned()),
        Just("authorization".to_owned()),
        Just("cookie".to_owned()),
        "mcp-tunnel-[a-z]{1,8}",
        "x-forwarded-[a-z]{1,8}",
        "[a-z][a-z-]{0,12}",
    ];
    let value = prop_oneof![
        Just(format!("Bearer {KEY}")),
        Just(format!("a=b; c=\"{KEY}\"")),
        Just("close, x-forwarded-for, host, forwarded".to_owned()),
        "[ -~]{0,30}",
    ];
    (name, value)
}

proptest! {
    /// Whatever a caller sends, and whatever it names in `Connection`: what travels is free of hop-by-hop headers, of
    /// what is ours, and of foreign words about forwarding.
    #[test]
    fn nothing_forbidden_travels(sent in prop::collection::vec(any_header(), 0..12)) {
        let sent: Vec<_> = sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut headers = map(&sent);
        towards_server(&mut headers, &forwarding(Cookies::Pass));
        for (name, value) in &headers {
            prop_assert!(!HOP_BY_HOP.contains(name) && !name.as_str().starts_with(OWN_PREFIX), "{name}");
            prop_assert!(!carries_own_credential(value.as_bytes()));
            let ours = OURS.iter().find(|(ours, _)| name == ours);
            let about_forwarding = name.as_str().starts_with(FORWARDED_PREFIX) || name == FORWARDED || name == HOST;
            if about_forwarding {
                prop_assert_eq!(ours.map(|(_, value)| *value), value.to_str().ok());
            }
        }
        for (name, value) in OURS {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            prop_assert_eq!(values, [value]);
        }
    }
}
