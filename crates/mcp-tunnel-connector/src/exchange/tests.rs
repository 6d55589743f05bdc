//! Calls over an in-memory stream, judged at a server that records raw bytes.

mod hostile;
mod starved;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;
use crate::server::ServerSet;
use crate::test_support::{dialler, server_at};

/// One call from the edge's point of view.
struct Edge {
    stream: DuplexStream,
    give_up: Option<oneshot::Sender<()>>,
    served: JoinSet<Result<(), Broken<DuplexStream>>>,
}

impl Edge {
    fn open(upstreams: &Arc<Upstreams>, route: &str) -> Self {
        Self::open_with(upstreams, route, Duration::from_secs(60), 64 * 1024)
    }

    fn open_with(
        upstreams: &Arc<Upstreams>,
        route: &str,
        deadline: Duration,
        buffer: usize,
    ) -> Self {
        let (stream, gateway) = tokio::io::duplex(buffer);
        let (give_up, given_up) = oneshot::channel::<()>();
        let upstreams = Arc::clone(upstreams);
        let call = Call {
            route: route.to_owned(),
            deadline,
            trace: None,
        };
        let mut served = JoinSet::new();
        served.spawn(async move {
            let aborted = async {
                given_up
                    .await
                    .unwrap_or_else(|_| unreachable!("kept by the test"))
            };
            serve(gateway, call, &upstreams, aborted).await
        });
        Self {
            stream,
            give_up: Some(give_up),
            served,
        }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn read_until(&mut self, end: &str) -> String {
        read_until(&mut self.stream, end).await
    }

    /// The whole answer, up to the end of the stream.
    async fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn served(&mut self) -> Result<(), Broken<DuplexStream>> {
        self.served.join_next().await.unwrap().unwrap()
    }
}

/// A server that shows what reached it, byte by byte.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn upstreams(&self) -> Arc<Upstreams> {
        let servers = ServerSet::new(vec![server_at(self.address)]).unwrap();
        Arc::new(Upstreams::new(&servers, &dialler()))
    }

    async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Whether a connection waits to be accepted; it would, since connecting comes before every answer.
    async fn was_dialled(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.listener.accept() => true,
            () = tokio::task::yield_now() => false,
        }
    }
}

async fn read_until<IO: AsyncRead + Unpin>(io: &mut IO, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let byte = io.read_u8().await;
        bytes.push(
            byte.unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(&bytes))),
        );
    }
    String::from_utf8(bytes).unwrap()
}

/// What is left on a connection that the peer gives up, however it does.
async fn drained(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ended = socket.read_to_end(&mut bytes).await;
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    bytes
}

const CALL: &str = "POST /mcp HTTP/1.1\r\nhost: mcp--t.example\r\ncontent-length: 38\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"m\"}\n";

#[tokio::test]
async fn a_call_reaches_the_server_and_its_answer_comes_back_unchanged() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    let seen = read_until(&mut socket, "}\n").await;
    let address = server.address;
    assert_eq!(seen, CALL.replace("mcp--t.example", &address.to_string()));
    socket
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\nX-Own: 1\r\ncontent-length: 2\r\n\r\nhi",
        )
        .await
        .unwrap();
    let answer = edge.answer().await;
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\nx-own: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
    );
    edge.served().await.unwrap();
}

/// Counts the writes of a stream; each becomes a frame of its own.
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_short_answer_leaves_in_one_write_although_it_was_chunked() {
    let server = Server::bind().await;
    let (mut edge, gateway) = tokio::io::duplex(64 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let gateway = Counting {
        stream: gateway,
        writes: Arc::clone(&writes),
    };
    let upstreams = server.upstreams();
    let call = Call {
        route: String::new(),
        deadline: Duration::from_secs(60),
        trace: None,
    };
    let serve = Box::pin(serve(gateway, call, &upstreams, std::future::pending()));
    let exchange = async {
        edge.write_all(CALL.as_bytes()).await.unwrap();
        let mut socket = server.accept().await;
        read_until(&mut socket, "}\n").await;
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        socket.write_all(chunked).await.unwrap();
        let mut answer = String::new();
        edge.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (served, answer) = tokio::join!(serve, exchange);
    assert!(served.is_ok());
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
    );
    assert_eq!(writes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn events_are_passed_on_one_by_one() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send("GET /mcp HTTP/1.1\r\nhost: h\r\naccept: text/event-stream\r\n\r\n")
        .await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "\r\n\r\n").await;
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let head = edge.read_until("\r\n\r\n").await;
    assert!(head.contains("text/event-stream"), "{head}");
    for event in ["a", "b", "c"] {
        socket
            .write_all(format!("9\r\ndata: {event}\n\n\r\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(
            edge.read_until("\n\n\r\n").await,
            format!("9\r\ndata: {event}\n\n\r\n")
        );
    }
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "mcp");
    edge.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let mut socket = server.accept().await;
    for part in ["one", "two"] {
        edge.send(format!("3\r\n{part}\r\n")).await;
        read_until(&mut socket, &format!("3\r\n{part}\r\n")).await;
    }
    edge.send("0\r\n\r\n").await;
    assert_eq!(read_until(&mut socket, "0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_body_that_the_edge_cuts_short_is_no_whole_request() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nbegin")
        .await;
    let mut socket = server.accept().await;
    let seen = read_until(&mut socket, "begin").await;
    assert!(seen.contains("content-length: 100"), "{seen}");
    edge.stream.shutdown().await.unwrap();
    assert_eq!(drained(socket).await, b"");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_a_clean_end() {
    for framing in [
        "content-length: 100\r\n\r\nbegin",
        "transfer-encoding: chunked\r\n\r\n5\r\nbegin\r\n",
    ] {
        let server = Server::bind().await;
        let mut edge = Edge::open(&server.upstreams(), "");
        edge.send(CALL).await;
        let mut socket = server.accept().await;
        read_until(&mut socket, "}\n").await;
        socket
            .write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes())
            .await
            .unwrap();
        edge.read_until("begin").await;
        drop(socket);
        let Err(Broken::Failed { io, .. }) = edge.served().await else {
            panic!("{framing} ended cleanly")
        };
        drop(io);
        let mut rest = String::new();
        edge.stream.read_to_string(&mut rest).await.unwrap();
        assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    }
}

#[tokio::test]
async fn giving_up_closes_the_servers_connection_at_once() {
    // While the server thinks, and in the middle of its answer.
    for begun in [false, true] {
        let server = Server::bind().await;
        let mut edge = Edge::open(&server.upstreams(), "");
        edge.send(CALL).await;
        edge.stream.shutdown().await.unwrap();
        let mut socket = server.accept().await;
        read_until(&mut socket, "}\n").await;
        if begun {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
                .await
                .unwrap();
            edge.read_until("1\r\nx\r\n").await;
        }
        edge.give_up.take().unwrap().send(()).unwrap();
        assert!(matches!(edge.served().await, Err(Broken::Aborted)));
        assert_eq!(drained(socket).await, b"");
    }
}

#[tokio::test]
async fn the_end_of_the_edges_half_is_not_giving_up() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(CALL).await;
    edge.stream.shutdown().await.unwrap();
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    socket
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    assert!(edge.answer().await.starts_with("HTTP/1.1 204"));
    edge.served().await.unwrap();
}

#[tokio::test]
async fn dropping_a_call_closes_the_servers_connection() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    edge.served.abort_all();
    assert_eq!(drained(socket).await, b"");
}

#[tokio::test]
async fn a_server_that_does_not_begin_in_time_is_504() {
    let server = Server::bind().await;
    let mut edge = Edge::open_with(&server.upstreams(), "", Duration::from_secs(30), 64 * 1024);
    let began = Instant::now();
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    // Not before: time that jumps does not wait for sockets.
    tokio::time::pause();
    let answer = edge.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 504") && answer.contains("retry-after: "),
        "{answer}"
    );
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!(drained(socket).await, b"");
}

#[tokio::test]
async fn a_server_that_is_down_is_502_and_the_answer_says_which_hop_and_the_id() {
    // Bound and not listened on: nobody else gets the port meanwhile.
    let down = tokio::net::TcpSocket::new_v4().unwrap();
    down.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = server_at(down.local_addr().unwrap());
    let upstreams = Arc::new(Upstreams::new(
        &ServerSet::new(vec![server]).unwrap(),
        &dialler(),
    ));
    let mut edge = Edge::open(&upstreams, "");
    edge.send(CALL).await;
    let answer = edge.answer().await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("mcp-tunnel-failure: unreachable") && head.contains("application/json"),
        "{head}"
    );
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["id"], 7);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("does not accept connections")
    );
}

#[tokio::test]
async fn an_unknown_route_and_a_hidden_path_are_502() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "other");
    edge.send(CALL).await;
    assert!(edge.answer().await.starts_with("HTTP/1.1 502"));
    let hidden = server_at(server.address).target().to_string() + "/v1";
    let servers = ServerSet::new(vec![hidden.parse().unwrap()]).unwrap();
    let mut edge = Edge::open(&Arc::new(Upstreams::new(&servers, &dialler())), "");
    edge.send(CALL).await;
    assert!(edge.answer().await.starts_with("HTTP/1.1 502"));
    assert!(!server.was_dialled().await);
}

#[tokio::test]
async fn calls_after_one_another_share_a_connection() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    let mut socket = None;
    for _ in 0..3 {
        let mut edge = Edge::open(&upstreams, "");
        edge.send(CALL).await;
        let socket = match &mut socket {
            Some(socket) => socket,
            none => none.insert(server.accept().await),
        };
        read_until(socket, "}\n").await;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await
            .unwrap();
        edge.answer().await;
    }
    assert!(!server.was_dialled().await);
}

#[tokio::test]
async fn a_post_is_not_sent_again_once_it_was_written() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    let mut edge = Edge::open(&upstreams, "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    edge.answer().await;

    let mut edge = Edge::open(&upstreams, "");
    edge.send(CALL).await;
    read_until(&mut socket, "}\n").await;
    drop(socket);
    let answer = edge.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("without an HTTP/1.1 answer"),
        "{answer}"
    );
    assert!(!server.was_dialled().await);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_used_again() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    for _ in 0..2 {
        let mut edge = Edge::open(&upstreams, "");
        edge.send(CALL).await;
        let mut socket = server.accept().await;
        read_until(&mut socket, "}\n").await;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        edge.answer().await;
        drop(socket);
        // The gateway's reactor sees the end before the next call begins.
        assert_eq!(stalls_or(std::future::pending::<()>()).await, None);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_the_server_would() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    let mut edge = Edge::open(&upstreams, "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    edge.answer().await;
    tokio::time::pause();
    let idle_since = Instant::now();
    assert_eq!(drained(socket).await, b"");
    assert!(
        idle_since.elapsed() < Duration::from_millis(4_100),
        "{:?}",
        idle_since.elapsed()
    );
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_the_server_back() {
    let server = Server::bind().await;
    let mut edge = Edge::open_with(&server.upstreams(), "", Duration::from_secs(60), 1024);
    edge.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "\r\n\r\n").await;
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        .await
        .unwrap();
    let chunk = [0; 64 * 1024];
    let mut written = 0;
    // Kernel buffers take some megabytes; a gateway that took everything would never stop this loop.
    while let Some(wrote) = stalls_or(socket.write(&chunk)).await {
        written += wrote.unwrap();
        assert!(written < 100_000_000, "nothing holds the server back");
    }
    edge.read_until("\r\n\r\n").await;
}

/// The future's output, or `None` if it is still pending after many turns of the scheduler.
async fn stalls_or<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..1000 {
        tokio::select! {
            biased;
            done = &mut future => return Some(done),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

#[tokio::test]
async fn a_probe_gets_the_time_of_each_hop_and_no_one_else() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    for (probe, timed) in [("mcp-tunnel-probe: 1\r\n", true), ("", false)] {
        let mut edge = Edge::open(&upstreams, "");
        edge.send(format!("GET / HTTP/1.1\r\nhost: h\r\n{probe}\r\n"))
            .await;
        let mut socket = server.accept().await;
        assert!(!read_until(&mut socket, "\r\n\r\n").await.contains("probe"));
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let answer = edge.answer().await;
        assert_eq!(
            answer.contains("server-timing: gateway;dur="),
            timed,
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_server_cannot_pose_as_the_gateway() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    socket
        .write_all(b"HTTP/1.1 502 x\r\nmcp-tunnel-failure: broken\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert!(!edge.answer().await.contains("mcp-tunnel"));
}

#[tokio::test]
async fn a_forbidden_address_is_502_and_never_dialled() {
    for server in [
        "169.254.169.254:80",
        "http://192.0.2.1:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        let servers = ServerSet::new(vec![server.parse().unwrap()]).unwrap();
        let mut edge = Edge::open(&Arc::new(Upstreams::new(&servers, &dialler())), "");
        edge.send(CALL).await;
        let answer = edge.answer().await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(
            answer.contains("mcp-tunnel-failure: forbidden_address"),
            "{answer}"
        );
        assert!(
            !answer.contains("169.254"),
            "callers learn no address: {answer}"
        );
    }
}

#[tokio::test]
async fn localhost_finds_a_server_on_either_family() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(bind).await else {
            continue;
        }; // no IPv6 here
        let port = listener.local_addr().unwrap().port();
        let server = Server {
            address: listener.local_addr().unwrap(),
            listener,
        };
        let servers = ServerSet::new(vec![format!("localhost:{port}").parse().unwrap()]).unwrap();
        let mut edge = Edge::open(&Arc::new(Upstreams::new(&servers, &dialler())), "");
        edge.send(CALL).await;
        let mut socket = server.accept().await;
        let seen = read_until(&mut socket, "}\n").await;
        assert!(
            seen.contains(&format!("host: localhost:{port}\r\n")),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_passed_on_and_not_followed() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    let redirect = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    socket.write_all(redirect.as_bytes()).await.unwrap();
    let answer = edge.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 307") && answer.contains("location: http://169.254.169.254/"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upload_that_is_refused_early_ends_with_that_answer() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nbegin")
        .await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "begin").await;
    socket
        .write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert!(edge.answer().await.starts_with("HTTP/1.1 413"));
    assert_eq!(drained(socket).await, b"");
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502() {
    for nonsense in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let server = Server::bind().await;
        let mut edge = Edge::open(&server.upstreams(), "");
        edge.send(CALL).await;
        let mut socket = server.accept().await;
        read_until(&mut socket, "}\n").await;
        socket.write_all(nonsense.as_bytes()).await.unwrap();
        let answer = edge.answer().await;
        assert!(
            answer.starts_with("HTTP/1.1 502") && answer.contains("\"id\":7"),
            "{nonsense} {answer}"
        );
        assert_eq!(drained(socket).await, b"");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_named() {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(CALL).await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "}\n").await;
    let fields = "x-a: b\r\n".repeat(200);
    let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = edge.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 502")
            && answer.contains("larger than the gateway takes")
            && answer.contains("\"id\":7"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_head_of_an_answer_without_a_body_says_what_the_server_said() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    let mut edge = Edge::open(&upstreams, "");
    edge.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut socket = server.accept().await;
    read_until(&mut socket, "\r\n\r\n").await;
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")
        .await
        .unwrap();
    let answer = edge.answer().await;
    assert!(
        answer.contains("content-length: 1234\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}
