//! The client against a server that answers what a test wrote down.

use managed_agents_client::{Client, ClientConfig, ClientError};
use secrecy::SecretString;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const KEY: &str = "mca_a-secret-that-no-output-may-show";

/// Answers each connection with the next of `answers`; gives back the request heads it saw.
async fn serve(listener: TcpListener, answers: &[&str]) -> Vec<String> {
    let mut heads = Vec::new();
    for answer in answers {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(
                socket.read_buf(&mut head).await.expect("a request"),
                0,
                "the client hung up"
            );
        }
        heads.push(String::from_utf8_lossy(&head).into_owned());
        socket
            .write_all(answer.as_bytes())
            .await
            .expect("an open connection");
    }
    heads
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\nretry-after: 0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn client() -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = ClientConfig::new(format!("http://{address}"), SecretString::from(KEY));
    (
        Client::new(config.timeout(Duration::from_secs(10))).expect("a client"),
        listener,
    )
}

const TUNNEL: &str = r#"{"type":"tunnel","id":"tnl_1","domain":"a.example","display_name":null,
    "created_at":"2026-11-24T07:00:00Z","archived_at":null}"#;
const BUSY: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"try later"},"request_id":"req_7"}"#;

#[tokio::test]
async fn a_read_is_tried_again_and_a_write_is_not() {
    let (client, listener) = client().await;
    let answers = [
        answer("529 Overloaded", BUSY),
        answer("200 OK", TUNNEL),
        answer("529 Overloaded", BUSY),
    ];
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    let calls = async {
        let tunnel = client
            .tunnels()
            .retrieve("tnl_1")
            .await
            .expect("the second answer");
        assert_eq!(tunnel.id, "tnl_1");
        client
            .tunnels()
            .archive("tnl_1")
            .await
            .expect_err("sent once")
    };
    let (heads, refused) = tokio::join!(serve(listener, &answers), calls);
    assert!(
        heads[0].starts_with("GET /v1/tunnels/tnl_1 HTTP/1.1\r\n"),
        "{}",
        heads[0]
    );
    assert!(
        heads[2].starts_with("POST /v1/tunnels/tnl_1/archive HTTP/1.1\r\n"),
        "{}",
        heads[2]
    );
    assert!(heads.iter().all(|head| head.contains(KEY)));
    let ClientError::Api(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (refused.status, refused.request_id.as_deref()),
        (529, Some("req_7"))
    );
}

#[tokio::test]
async fn a_redirect_is_an_error_and_takes_no_credential_along() {
    let (client, listener) = client().await;
    let away = "HTTP/1.1 307 Away\r\nlocation: http://127.0.0.1:9/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let answers = &[away];
    let (_, refused) = tokio::join!(serve(listener, answers), client.tunnels().create(None));
    let ClientError::Api(refused) = refused.expect_err("a refusal") else {
        panic!("not a refusal")
    };
    assert_eq!(refused.status, 307);
}

#[tokio::test]
async fn identifiers_cannot_leave_their_place_in_the_path() {
    let (client, listener) = client().await;
    let dots = client
        .tunnels()
        .retrieve("..")
        .await
        .expect_err("a segment of dots");
    assert!(matches!(dots, ClientError::Identifier(_)), "{dots:?}");
    let found = answer("200 OK", TUNNEL);
    let answers = &[found.as_str()];
    let (heads, _) = tokio::join!(
        serve(listener, answers),
        client.tunnels().retrieve("../x?y#z")
    );
    assert!(
        heads[0].starts_with("GET /v1/tunnels/..%2Fx%3Fy%23z HTTP/1.1"),
        "{}",
        heads[0]
    );
}

#[tokio::test]
async fn the_credential_is_in_no_debug_output_and_in_no_error() {
    let config = ClientConfig::new("http://127.0.0.1:9", SecretString::from(KEY))
        .timeout(Duration::from_secs(5));
    let shown = format!("{config:?}");
    let client = Client::new(config).expect("a client");
    let error = client
        .tunnels()
        .create(None)
        .await
        .expect_err("nothing listens there");
    for text in [shown, format!("{client:?}"), format!("{error:?}")] {
        assert!(!text.contains("a-secret"), "{text}");
    }
}

#[tokio::test]
async fn the_calls_of_one_piece_of_work_carry_its_trace() {
    let (client, listener) = client().await;
    let client = client.with_trace(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 1);
    let answers = [answer("200 OK", TUNNEL)];
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    let (heads, found) = tokio::join!(
        serve(listener, &answers),
        client.tunnels().retrieve("tnl_1")
    );
    assert_eq!(found.expect("a tunnel").id, "tnl_1");
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01\r\n";
    assert!(heads[0].contains(trace), "{}", heads[0]);
}
