//! No secret in any log, at the most talkative level. Alone in its file: which callsites are
//! watched is decided once a process, by whichever thread comes first.

#[cfg(test)]
#[expect(dead_code, reason = "one test needs little of it")]
#[path = "it/edge.rs"]
mod edge;
#[cfg(test)]
#[expect(dead_code, reason = "one test needs little of it")]
#[path = "it/server.rs"]
mod server;

use std::io;
use std::sync::{Arc, Mutex};

use mcp_diagnostics::telemetry::{LogFormat, LogLevel, subscriber};
use mcp_tunnel_connector::Event;
use mcp_tunnel_proto::StreamKind;
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;

use crate::edge::{Edge, answer, connector, open, token};
use crate::server::Server;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_secret_is_logged_at_trace() {
    let captured = Captured::default();
    let writer = captured.clone();
    let guard = tracing::subscriber::set_default(subscriber(
        LogLevel::TRACE,
        LogFormat::Text,
        false,
        move || writer.clone(),
    ));

    let (mut edge, server) = (Edge::bind().await, Server::bind().await);
    let mut connector = connector(&edge, server.address);
    let events = async {
        let mut said = String::new();
        loop {
            let event = connector.next_event().await;
            said += &format!("{event} {event:?}\n");
            if matches!(event, Event::Stopped) {
                break said;
            }
            if matches!(event, Event::Lost { .. }) {
                connector.drain();
            }
        }
    };
    let call = async {
        let link = edge.admit().await;
        let call = "POST /mcp?key=hunter2-query HTTP/1.1\r\nhost: h\r\nauthorization: Bearer hunter2-header\r\n\
            mcp-session-id: hunter2-session\r\ncontent-length: 14\r\n\r\n\"hunter2-body\"";
        let stream = open(&link, StreamKind::Http, call).await;
        let (mut socket, request) = server.request().await;
        assert_eq!(request.matches("hunter2").count(), 4);
        let back = "HTTP/1.1 200 OK\r\nset-cookie: hunter2-cookie\r\ncontent-length: 14\r\n\r\n\"hunter2-back\"";
        socket.write_all(back.as_bytes()).await.unwrap();
        assert!(answer(stream).await.unwrap().contains("hunter2-back"));
        // A server that breaks off is the most talked about.
        let stream = open(&link, StreamKind::Http, call).await;
        server::read_request(&mut socket).await.unwrap();
        socket.write_all(b"hunter2-nonsense\r\n\r\n").await.unwrap();
        assert!(answer(stream).await.unwrap().contains("502"));
        edge.drivers.shutdown().await;
    };
    let (said, ()) = tokio::join!(events, call);
    drop(guard);

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap() + &said;
    assert!(log.contains("MCP server answers"), "the log is on: {log}");
    let token = token(edge.address).encode();
    let seed_hex = "09".repeat(32);
    for secret in [
        "hunter2",
        token.expose_secret(),
        &token.expose_secret()[..40],
        &seed_hex,
        "[9, 9, 9",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
