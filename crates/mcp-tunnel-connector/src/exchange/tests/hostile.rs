//! What an edge that means harm gets past the gateway: nothing that a server could read in two ways.

use super::*;

/// Sends raw bytes as a hostile edge, ends the half, and says what the server saw and the edge got.
async fn hostile(bytes: &str) -> (Option<String>, String) {
    let server = Server::bind().await;
    let mut edge = Edge::open(&server.upstreams(), "");
    edge.send(bytes).await;
    edge.stream.shutdown().await.unwrap();
    let exchange = async {
        let mut answer = Vec::new();
        let _ = edge.stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let judge = async {
        let mut socket = server.accept().await;
        let mut seen = Vec::new();
        while !complete(&seen) && matches!(socket.read_buf(&mut seen).await, Ok(1..)) {}
        let _ = socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
        seen.extend(drained(socket).await);
        String::from_utf8(seen).unwrap()
    };
    let (mut exchange, mut judge) = (std::pin::pin!(exchange), std::pin::pin!(judge));
    tokio::select! {
        answer = &mut exchange => (stalls_or(judge).await, answer),
        seen = &mut judge => (Some(seen), exchange.await),
    }
}

/// Whether the bytes are at least one whole request.
fn complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    match head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
    {
        Some(length) => body.len() >= length,
        None => !head.contains("chunked") || body.ends_with("0\r\n\r\n"),
    }
}

#[track_caller]
fn check_refused((seen, answer): (Option<String>, String), status: &str) {
    assert_eq!(seen, None, "reached the server; {answer}");
    assert_eq!(answer.get(9..12), Some(status), "{answer}");
}

#[tokio::test]
async fn a_length_and_a_coding_together_become_one_framing() {
    let smuggled = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /admin HTTP/1.1\r\nhost: h\r\n\r\n";
    let (seen, answer) = hostile(smuggled).await;
    if let Some(seen) = seen {
        assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
        assert!(!seen.contains("admin"), "{seen}");
        let framings = ["content-length:", "chunked"].map(|framing| seen.matches(framing).count());
        assert!(framings.iter().sum::<usize>() <= 1, "{seen}");
    } else {
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}

#[tokio::test]
async fn differing_lengths_never_reach_the_server() {
    check_refused(
        hostile(
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        )
        .await,
        "400",
    );
    check_refused(
        hostile("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4, 5\r\n\r\nabcde").await,
        "400",
    );
    check_refused(
        hostile("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +4\r\n\r\nabcd").await,
        "400",
    );
}

#[tokio::test]
async fn obsolete_folding_and_bare_line_ends_never_reach_the_server() {
    check_refused(
        hostile("POST / HTTP/1.1\r\nhost: h\r\nx-a: b\r\n  folded: c\r\ncontent-length: 0\r\n\r\n")
            .await,
        "400",
    );
    check_refused(
        hostile("POST / HTTP/1.1\r\nhost: h\r\nx-a : b\r\ncontent-length: 0\r\n\r\n").await,
        "400",
    );
}

#[tokio::test]
async fn repeated_host_or_authorization_never_reaches_the_server() {
    check_refused(
        hostile("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await,
        "502",
    );
    check_refused(
        hostile("GET / HTTP/1.1\r\nhost: a\r\nauthorization: x\r\nauthorization: y\r\n\r\n").await,
        "502",
    );
    check_refused(hostile("GET / HTTP/1.1\r\n\r\n").await, "502");
}

#[tokio::test]
async fn targets_that_name_another_host_never_reach_the_server() {
    check_refused(
        hostile("GET http://169.254.169.254/latest HTTP/1.1\r\nhost: a\r\n\r\n").await,
        "502",
    );
    check_refused(
        hostile("CONNECT internal:22 HTTP/1.1\r\nhost: a\r\n\r\n").await,
        "502",
    );
    check_refused(
        hostile("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await,
        "502",
    );
    check_refused(hostile("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await, "502");
}

#[tokio::test]
async fn an_unusual_coding_never_reaches_the_server() {
    let coded = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    check_refused(hostile(coded).await, "502");
    check_refused(
        hostile("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n").await,
        "400",
    );
}

#[tokio::test]
async fn an_upgrade_is_not_passed_on() {
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n";
    let (seen, answer) = hostile(upgrade).await;
    let seen = seen.unwrap().to_ascii_lowercase();
    assert!(
        !seen.contains("upgrade") && !seen.contains("h2c") && !seen.contains("http2-settings"),
        "{seen}"
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn connection_cannot_take_a_forwarded_field_away() {
    let (seen, _) = hostile("GET / HTTP/1.1\r\nhost: a\r\nconnection: x-forwarded-for\r\nx-forwarded-for: 192.0.2.1\r\n\r\n").await;
    assert!(seen.unwrap().contains("x-forwarded-for: 192.0.2.1\r\n"));
}

#[tokio::test]
async fn trailers_are_dropped() {
    let trailers = "POST / HTTP/1.1\r\nhost: a\r\ntrailer: authorization\r\ntransfer-encoding: chunked\r\n\r\n\
        1\r\nx\r\n0\r\nauthorization: Bearer late\r\n\r\n";
    let (seen, _) = hostile(trailers).await;
    let seen = seen.unwrap().to_ascii_lowercase();
    assert!(
        !seen.contains("late") && !seen.contains("trailer"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_second_request_on_a_stream_is_never_read() {
    let (seen, answer) =
        hostile("GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!seen.unwrap().contains("two"));
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}
