//! Callers and strangers who do not keep to the protocol, judged at the private server.

use crate::{with_fixture, with_upstream};
use anyhow::Result;
use mcp_tunnel_testkit::{
    caller::Caller,
    stack::{Gateway, SOON, Stack},
    tools,
    upstream::{Exchange, Upstream, script},
    wire::{send_dev, send_https},
};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};

/// A request that nobody let in: it must never arrive.
const SMUGGLED: &str = "POST /smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";

/// One hostile request: request line (`TARGET` is replaced), headers, body.
struct Hostile {
    name: &'static str,
    line: &'static str,
    headers: &'static str,
    body: &'static str,
}

const HOSTILE: &[Hostile] = &[
    hostile(
        "CL and TE",
        "POST TARGET HTTP/1.1",
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "0\r\n\r\n",
    ),
    hostile(
        "TE and CL",
        "POST TARGET HTTP/1.1",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    hostile(
        "two lengths",
        "POST TARGET HTTP/1.1",
        "content-length: 0\r\ncontent-length: 70\r\n",
        "",
    ),
    hostile(
        "list of lengths",
        "POST TARGET HTTP/1.1",
        "content-length: 0, 70\r\n",
        "",
    ),
    hostile(
        "signed length",
        "POST TARGET HTTP/1.1",
        "content-length: +0\r\n",
        "",
    ),
    hostile(
        "odd coding",
        "POST TARGET HTTP/1.1",
        "transfer-encoding: xchunked\r\n",
        "0\r\n\r\n",
    ),
    hostile(
        "coding not last",
        "POST TARGET HTTP/1.1",
        "transfer-encoding: chunked, identity\r\n",
        "0\r\n\r\n",
    ),
    hostile(
        "blank before colon",
        "POST TARGET HTTP/1.1",
        "transfer-encoding : chunked\r\n",
        "0\r\n\r\n",
    ),
    hostile(
        "huge chunk",
        "POST TARGET HTTP/1.1",
        "transfer-encoding: chunked\r\n",
        "FFFFFFFFFFFFFFFF1\r\nx\r\n0\r\n\r\n",
    ),
    hostile(
        "two hosts",
        "POST TARGET HTTP/1.1",
        "host: evil.example\r\ncontent-length: 0\r\n",
        "",
    ),
    hostile(
        "folded header",
        "POST TARGET HTTP/1.1",
        "x-a: 1\r\n content-length: 70\r\ncontent-length: 0\r\n",
        "",
    ),
    hostile(
        "foreign absolute form",
        "POST http://evil.example/mcp HTTP/1.1",
        "content-length: 0\r\n",
        "",
    ),
    hostile(
        "authority form",
        "CONNECT evil.example:80 HTTP/1.1",
        "content-length: 0\r\n",
        "",
    ),
    hostile(
        "h2c upgrade",
        "POST TARGET HTTP/1.1",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\ncontent-length: 0\r\n",
        "",
    ),
    hostile(
        "websocket upgrade",
        "GET TARGET HTTP/1.1",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "",
    ),
    hostile(
        "trailers",
        "POST TARGET HTTP/1.1",
        "transfer-encoding: chunked\r\ntrailer: authorization\r\n",
        "0\r\nauthorization: smuggled\r\nhost: smuggled\r\n\r\n",
    ),
    hostile(
        "nominated headers",
        "POST TARGET HTTP/1.1",
        "connection: host, x-forwarded-for, mcp-tunnel-authorization, content-length\r\nx-forwarded-for: 192.0.2.9\r\ncontent-length: 0\r\n",
        "",
    ),
    hostile(
        "HTTP/1.0",
        "POST TARGET HTTP/1.0",
        "content-length: 0\r\nconnection: keep-alive\r\n",
        "",
    ),
    hostile("HTTP/2 preface", "PRI * HTTP/2.0", "", "SM\r\n\r\n"),
];

const fn hostile(
    name: &'static str,
    line: &'static str,
    headers: &'static str,
    body: &'static str,
) -> Hostile {
    Hostile {
        name,
        line,
        headers,
        body,
    }
}

impl Hostile {
    fn bytes(&self, target: &str, host: &str, key: &str) -> Vec<u8> {
        let (line, headers, body) = (self.line.replace("TARGET", target), self.headers, self.body);
        format!(
            "{line}\r\nhost: {host}\r\nmcp-tunnel-authorization: {key}\r\n{headers}\r\n{body}{SMUGGLED}"
        )
        .into_bytes()
    }
}

#[tokio::test]
async fn nothing_is_smuggled_past_the_https_ingress() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let stack = with_upstream(&upstream).await?;
    let target = format!("/t/{}/mcp/mcp", stack.tunnel.id);
    let host = stack.cloud.addresses().ingress.to_string();
    let key = stack.caller_header().1;
    for hostile in HOSTILE {
        let before = upstream.exchanges().len();
        let answer = send_https(&stack.cloud, &hostile.bytes(&target, &host, &key)).await?;
        let arrived = upstream.exchanges().split_off(before);
        judge(hostile.name, &arrived, &upstream, &answer);
    }
    Caller::https(&stack, "mcp")?
        .call("echo", serde_json::json!({}))
        .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_odd_passes_the_development_ingress() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let stack = with_upstream(&upstream).await?;
    let host = stack.cloud.addresses().dev[0].to_string();
    for hostile in HOSTILE {
        let before = upstream.exchanges().len();
        let answer = send_dev(&stack.cloud, &hostile.bytes("/mcp", &host, "none")).await?;
        let mut arrived = upstream.exchanges().split_off(before);
        // A second request of the same caller is just that here: nobody needs to be let in. It
        // must still have been read as one of its own, and its host is not a loopback name.
        arrived.retain(|one| !one.head().starts_with("POST /smuggled HTTP/1.1\r\n"));
        judge(hostile.name, &arrived, &upstream, &answer);
    }
    Ok(())
}

/// At most one request arrived, in the one form that the gateway writes.
#[track_caller]
fn judge(name: &str, arrived: &[Exchange], upstream: &Upstream, answer: &str) {
    assert!(arrived.len() <= 1, "{name}: {arrived:#?}\n{answer}");
    for one in arrived {
        let head = one.head().to_ascii_lowercase();
        let count = |header: &str| head.matches(&format!("\r\n{header}:")).count();
        assert_eq!(count("host"), 1, "{name}: {head}");
        assert!(
            head.contains(&format!("\r\nhost: {}\r\n", upstream.address())),
            "{name}: {head}"
        );
        assert!(
            count("content-length") + count("transfer-encoding") <= 1,
            "{name}: {head}"
        );
        for gone in [
            "upgrade",
            "http2-settings",
            "trailer",
            "mcp-tunnel-authorization",
        ] {
            assert_eq!(count(gone), 0, "{name}: {head}");
        }
        assert!(!head.contains("192.0.2.9"), "{name}: {head}");
        let line = head.lines().next().unwrap_or_default();
        assert!(line.ends_with(" /mcp http/1.1"), "{name}: {line}");
        let whole = String::from_utf8_lossy(&one.request);
        assert!(!whole.contains("smuggled"), "{name}: {whole}");
    }
}

#[tokio::test]
async fn our_credentials_never_travel_to_a_server() -> Result<()> {
    let upstream = Upstream::start(|_| script::json("200 OK", "{}")).await?;
    let stack = with_upstream(&upstream).await?;
    let (ours, key) = (stack.caller_header().1, stack.caller_key.clone());
    let other = "Bearer of-the-server".to_owned();
    for headers in [
        vec![("authorization", &ours)],
        vec![("authorization", &ours), ("authorization", &other)],
        vec![("authorization", &other), ("authorization", &ours)],
        vec![
            ("mcp-tunnel-authorization", &ours),
            ("authorization", &ours),
        ],
        vec![
            ("mcp-tunnel-authorization", &ours),
            ("mcp-tunnel-authorization", &other),
        ],
        vec![("mcp-tunnel-authorization", &ours), ("x-api-key", &key)],
        vec![("mcp-tunnel-authorization", &ours), ("cookie", &key)],
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let caller = Caller::https(&stack, "mcp")?.with_headers(&headers);
        let answer = caller.call("echo", serde_json::json!({})).await?;
        assert!(
            answer.status == 200 || answer.status == 403,
            "{}",
            answer.body
        );
        for one in upstream.exchanges() {
            let authorization = one.head().to_ascii_lowercase().contains("bearer mck_");
            assert!(!authorization, "{headers:?}: {}", one.head());
        }
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_silent_strangers_keep_nobody_out() -> Result<()> {
    const EACH: usize = 5000;
    if rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .is_some_and(|most| most < 16_384)
    {
        tools::skip("10,000 sockets need more file descriptors (`ulimit -n 16384`)");
        return Ok(());
    }
    let (fixture, stack) = with_fixture().await?;
    let mut strangers = Vec::new();
    for index in 0..EACH {
        for address in [
            stack.cloud.addresses().edge,
            stack.cloud.addresses().ingress,
        ] {
            strangers.extend(stranger(index, address).await);
        }
    }
    assert!(
        strangers.len() > EACH,
        "only {} connected at all",
        strangers.len()
    );
    let start = Instant::now();
    Caller::https(&stack, "mcp")?.echo().await?;
    Caller::dev(&stack)?.echo().await?;
    newcomer(&stack, &fixture.address().to_string()).await?;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    Ok(())
}

/// A silent connection from one of 127.0.0.2 to 127.0.0.9, if it is let in at all.
async fn stranger(index: usize, address: std::net::SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    let last = u8::try_from(2 + index % 8).ok()?;
    socket.bind(([127, 0, 0, last], 0).into()).ok()?;
    let connect = tokio::time::timeout(Duration::from_secs(1), socket.connect(address));
    connect.await.ok()?.ok()
}

async fn newcomer(stack: &Stack, server: &str) -> Result<()> {
    let tunnel = stack.cloud.create_tunnel("newcomer").await?;
    let _gateway = Gateway::start(&tunnel.token, &["--mcp-server", server])?;
    stack.cloud.approve(&tunnel).await
}
