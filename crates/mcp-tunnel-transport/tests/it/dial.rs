//! Reaching an edge step by step, as a check does.

use std::time::Duration;

use mcp_tunnel_transport::{
    Exporter, Target,
    dial::{self, DialError, TcpOptions},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use crate::common::{ca, client_config, server_config};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

async fn listener() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = Target::new("edge.tunnel.localhost", port).unwrap();
    (listener, target)
}

#[tokio::test]
async fn a_name_below_localhost_leads_to_a_secured_connection() {
    let (listener, target) = listener().await;
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(server_config(ca()))
            .accept(socket)
            .await
            .unwrap()
    };
    let dial = async {
        let addresses = dial::resolve(target.address(), SECOND).await.unwrap();
        assert_eq!(addresses.len(), 2); // nobody listens on ::1
        let options = TcpOptions::default();
        let socket = dial::connect(&addresses, &options, SECOND).await.unwrap();
        dial::secure(socket, &target, &client_config(), SECOND)
            .await
            .unwrap()
    };
    let (server, (_client, exporter)) = tokio::join!(serve, dial);
    assert_eq!(Exporter::of(server.get_ref().1).unwrap(), exporter);
}

#[tokio::test]
async fn a_mute_listener_is_given_up() {
    let (listener, target) = listener().await;
    let addresses = [listener.local_addr().unwrap()];
    let socket = dial::connect(&addresses, &TcpOptions::default(), SECOND)
        .await
        .unwrap();
    let error = dial::secure(socket, &target, &client_config(), 20 * MS)
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::TimedOut { after, .. } if after == 20 * MS),
        "{error}"
    );
}

#[tokio::test]
async fn a_dropped_handshake_closes_its_socket() {
    let (listener, target) = listener().await;
    let addresses = [listener.local_addr().unwrap()];
    let socket = dial::connect(&addresses, &TcpOptions::default(), SECOND)
        .await
        .unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let (mut hello, config) = (vec![0; 16 * 1024], client_config());
    tokio::select! {
        _ = dial::secure(socket, &target, &config, SECOND) => panic!("nobody answered"),
        read = accepted.read(&mut hello) => assert!(read.unwrap() > 0),
    }
    let end = accepted.read_to_end(&mut Vec::new()).await;
    assert!(end.is_ok());
}

#[tokio::test]
async fn what_is_not_tls_is_named_so() {
    let (listener, target) = listener().await;
    let addresses = [listener.local_addr().unwrap()];
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        socket
    };
    let dial = async {
        let socket = dial::connect(&addresses, &TcpOptions::default(), SECOND)
            .await
            .unwrap();
        dial::secure(socket, &target, &client_config(), SECOND)
            .await
            .unwrap_err()
    };
    let (_socket, error) = tokio::join!(serve, dial);
    assert!(matches!(error, DialError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let address = "no-such-host.invalid:443".parse().unwrap();
    let error = dial::resolve(&address, 10 * SECOND).await.unwrap_err();
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );
}
