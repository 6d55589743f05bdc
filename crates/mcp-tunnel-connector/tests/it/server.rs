//! An MCP server that answers what a test says.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A port that nobody gets while the socket lives: it is bound and not listened on, so that connecting is refused, and
/// whoever asks for it by number may listen on it.
pub(crate) fn reserved() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn bind() -> Self {
        Self::bind_to("127.0.0.1:0").await
    }

    pub(crate) async fn bind_to(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next connection, after one whole request on it.
    pub(crate) async fn request(&self) -> (TcpStream, String) {
        let mut socket = self.listener.accept().await.unwrap().0;
        let request = read_request(&mut socket).await.unwrap();
        (socket, request)
    }

    /// Answers every request, on every connection, with what `answer` makes of it; never returns.
    pub(crate) async fn answer_all(&self, answer: impl Fn(&str) -> String) {
        loop {
            let mut socket = self.listener.accept().await.unwrap().0;
            while let Some(request) = read_request(&mut socket).await {
                if socket.write_all(answer(&request).as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// A head and the body that its length announces; `None` at the end of the connection.
pub(crate) async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes.clone()).unwrap();
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    socket.read_exact(&mut body).await.ok()?;
    bytes.extend(body);
    String::from_utf8(bytes).ok()
}

/// Waits until the peer has given the connection up, however it did.
pub(crate) async fn given_up(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

pub(crate) fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
