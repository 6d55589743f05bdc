//! Reports of every hop.

use mcp_diagnostics::report::{Colour, Report, Status};
use mcp_tunnel_auth::LinkCredential;
use mcp_tunnel_connector::check::{check, check_servers, exposed_servers};
use mcp_tunnel_proto::{Refusal, RefusalCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::edge::{Edge, config, servers};
use crate::server::{Server, json, reserved};

#[track_caller]
fn line(report: &Report, hop: &str, status: Status, part: &str) {
    let table = report.table(Colour::Never);
    let line = report
        .lines()
        .iter()
        .find(|line| line.hop == hop)
        .unwrap_or_else(|| panic!("no {hop} in\n{table}"));
    assert_eq!(line.status, status, "{hop} in\n{table}");
    assert!(line.text.contains(part), "{hop} in\n{table}");
    assert!(
        status != Status::Fail || line.cure.is_some(),
        "no cure for {hop}"
    );
}

/// The report on one server that is given as text.
async fn report_on(server: &str) -> Report {
    let mut report = Report::new();
    report.extend(check_servers(&servers(&[server])).await.unwrap());
    report
}

fn modern(request: &str) -> String {
    if request.contains("server/discover") {
        json(
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2025-11-25","2026-07-28"],"capabilities":{},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"notes","version":"3"}}}}"#,
        )
    } else {
        json(
            r#"{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","tools":[{"name":"a"},{"name":"b"}]}}"#,
        )
    }
}

fn legacy(request: &str) -> String {
    if request.contains("server/discover") {
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n".to_owned()
    } else if request.contains("\"initialize\"") {
        let event = "id: 0\ndata:\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"serverInfo\":{\"name\":\"old\",\"version\":\"1\"}}}\n\n";
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nmcp-session-id: s1\r\ncontent-length: {}\r\n\r\n{event}",
            event.len()
        )
    } else if request.contains("notifications/initialized") {
        assert!(request.contains("mcp-session-id: s1"), "{request}");
        "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned()
    } else if request.contains("cursor") {
        json(r#"{"jsonrpc":"2.0","id":4,"result":{"tools":[{"name":"b"},{"name":"c"}]}}"#)
    } else {
        json(r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"a"}],"nextCursor":"2"}}"#)
    }
}

#[tokio::test]
async fn a_working_path_is_ok_line_by_line() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    let config = config(edge.address, server.address);
    let serve = async {
        let incoming = edge.incoming().await;
        let credential = LinkCredential::decode(incoming.credential()).unwrap();
        assert_eq!(
            credential.announcement().routes(),
            [],
            "a check never attracts calls"
        );
        let (_link, driver) = incoming.admit().unwrap();
        let ended = driver.run().await;
        assert!(ended.is_deliberate(), "{ended}");
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = check(&config) => report.unwrap(),
        () = serve => unreachable!(),
        () = server.answer_all(modern) => unreachable!(),
    };
    for (hop, part) in [
        ("token", "tnl_"),
        ("key", "SHA256:"),
        ("dns", "127.0.0.1"),
        ("tcp", "connected to 127.0.0.1:"),
        ("tls", "certificate of edge.tunnel.localhost trusted"),
        ("credential", "accepted"),
        ("approval", "approved"),
        ("mcp address", "allowed"),
        ("mcp", "notes 3 at /mcp, MCP 2026-07-28 (modern), 2 tools"),
    ] {
        line(&report, hop, Status::Ok, part);
    }
    assert_eq!(report.exit_code(), 0);
    assert!(
        report
            .lines()
            .iter()
            .filter(|line| line.ms.is_some())
            .count()
            >= 6
    );
}

#[tokio::test]
async fn a_pending_key_is_a_warning_with_the_command_that_approves() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    let config = config(edge.address, server.address);
    let serve = async {
        edge.incoming().await.pend("K7QM-2F9D").closed().await;
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = check(&config) => report.unwrap(),
        () = serve => unreachable!(),
        () = server.answer_all(modern) => unreachable!(),
    };
    line(&report, "approval", Status::Warn, "K7QM-2F9D");
    assert!(
        report
            .table(Colour::Never)
            .to_string()
            .contains("mcp-cloud connection approve K7QM-2F9D")
    );
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test]
async fn a_refused_credential_is_3_and_an_edge_that_is_down_is_4() {
    let (edge, (_down, nowhere)) = (Edge::bind().await, reserved());
    let to_nowhere = |edge| config(edge, nowhere);
    let config = to_nowhere(edge.address);
    let refuse = async {
        edge.incoming()
            .await
            .refuse(Refusal::new(RefusalCode::TUNNEL, ""))
            .await;
        std::future::pending::<()>().await;
    };
    let report = tokio::select! { report = check(&config) => report.unwrap(), () = refuse => unreachable!() };
    line(
        &report,
        "credential",
        Status::Fail,
        "tunnel unknown or archived",
    );
    line(&report, "approval", Status::Skip, "refused");
    line(&report, "mcp", Status::Fail, "Connection refused");
    assert_eq!(report.exit_code(), 3);

    let (_down, no_edge) = reserved();
    let report = check(&to_nowhere(no_edge)).await.unwrap();
    line(&report, "tcp", Status::Fail, "Connection refused");
    line(&report, "tls", Status::Skip, "no connection");
    assert_eq!(report.exit_code(), 4);
}

#[tokio::test]
async fn a_web_server_in_place_of_the_edge_is_told_with_the_cure() {
    let server = Server::bind().await;
    let insists: [&[u8]; 2] = [b"h2", b"http/1.1"];
    for web in [Edge::bind_web_with(&insists).await, Edge::bind_web().await] {
        let config = config(web.address, server.address);
        let serve = async {
            // Kept open where the handshake succeeds.
            let _open = web.handshake().await;
            std::future::pending::<()>().await;
        };
        let report = tokio::select! {
            report = check(&config) => report.unwrap(),
            () = serve => unreachable!(),
            () = server.answer_all(modern) => unreachable!(),
        };
        let told = "this is not the edge (it speaks HTTP only)";
        line(&report, "tls", Status::Fail, told);
        let table = report.table(Colour::Never).to_string();
        assert!(table.contains("name the edge's own (--edge)"), "{table}");
        line(&report, "credential", Status::Skip, "no TLS");
        assert_eq!(report.exit_code(), 4);
    }
    // And one that speaks no TLS at all, such as a REST API on loopback.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(plain.local_addr().unwrap(), server.address);
    let serve = async {
        let (mut socket, _) = plain.accept().await.unwrap();
        let _ = socket.read_u8().await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = check(&config) => report.unwrap(),
        () = serve => unreachable!(),
        () = server.answer_all(modern) => unreachable!(),
    };
    let table = report.table(Colour::Never).to_string();
    assert!(table.contains("this address speaks no TLS"), "{table}");
}

#[tokio::test]
async fn a_legacy_server_is_counted_over_all_pages() {
    let server = Server::bind().await;
    let address = server.address.to_string();
    let report = tokio::select! {
        report = report_on(&address) => report,
        () = server.answer_all(legacy) => unreachable!(),
    };
    line(
        &report,
        "mcp",
        Status::Ok,
        "old 1 at /mcp, MCP 2025-06-18 (legacy), 3 tools",
    );
}

#[tokio::test]
async fn a_server_that_wants_a_login_is_alive() {
    let server = Server::bind().await;
    let address = format!("docs={}", server.address);
    let login = |_: &str| {
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n"
            .to_owned()
    };
    let report = tokio::select! { report = report_on(&address) => report, () = server.answer_all(login) => unreachable!() };
    line(
        &report,
        "docs",
        Status::Ok,
        "asks for credentials (401 Unauthorized)",
    );
}

#[tokio::test]
async fn a_web_server_is_told_from_an_mcp_server() {
    let server = Server::bind().await;
    let address = server.address.to_string();
    let page = |_: &str| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
    let report = tokio::select! { report = report_on(&address) => report, () = server.answer_all(page) => unreachable!() };
    line(
        &report,
        "mcp",
        Status::Fail,
        "/mcp answers 404 Not Found to initialize",
    );
    assert_eq!(report.exit_code(), 1);
}

/// Serves HTTP/2 without TLS and nothing else, with this content type.
async fn h2c(listener: TcpListener, kind: &'static str) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let answer = hyper::service::service_fn(move |_| async move {
        let answer = http::Response::builder().header("content-type", kind);
        answer.body(http_body_util::Empty::<bytes::Bytes>::new())
    });
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = serve.serve_connection(TokioIo::new(socket), answer).await;
    }
}

#[tokio::test]
async fn grpc_and_h2c_servers_are_named_as_such() {
    for (kind, part) in [
        ("application/grpc", "this is a gRPC server"),
        ("text/plain", "(h2c) only"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let report = tokio::select! { report = report_on(&address) => report, () = h2c(listener, kind) => unreachable!() };
        line(&report, "mcp", Status::Fail, part);
    }
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let banner = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
            let _ = socket.read_u8().await;
        }
    };
    let report =
        tokio::select! { report = report_on(&address) => report, () = banner => unreachable!() };
    line(&report, "mcp", Status::Fail, "no HTTP/1.1 answer");
}

#[tokio::test]
async fn a_forbidden_address_is_never_dialled() {
    for (server, part) in [
        ("169.254.169.254:80", "169.254.169.254"),
        ("http://[fd00:ec2::254]:80", "fd00:ec2::254"),
        ("http://8.8.8.8", "would not be encrypted"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1"),
    ] {
        let report = report_on(server).await;
        line(&report, "mcp address", Status::Fail, part);
        line(&report, "mcp", Status::Skip, "no address to dial");
    }
}

#[tokio::test]
async fn a_server_that_listens_beyond_loopback_is_warned_about() {
    let server = Server::bind_to("0.0.0.0:0").await;
    let port = server.address.port().to_string();
    let report = tokio::select! { report = report_on(&port) => report, () = server.answer_all(modern) => unreachable!() };
    line(
        &report,
        "mcp listens",
        Status::Warn,
        &format!("0.0.0.0:{port}"),
    );
    line(&report, "mcp", Status::Ok, "notes");
    assert_eq!(report.exit_code(), 0);
    let at_start = exposed_servers(servers(&[&port]).set());
    assert_eq!(at_start.len(), 1);
    assert!(exposed_servers(servers(&[&format!("192.168.7.7:{port}")]).set()).is_empty());
}
