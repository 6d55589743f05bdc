//! Every public future of this crate, dropped at each of its await points: nothing is lost, stuck or leaked.
//! `cargo xtask tidy` compares the names behind CANCEL with the public async functions.

use std::time::Duration;

use mcp_diagnostics::report::Report;
use mcp_tunnel_connector::check::{check, check_servers};
use mcp_tunnel_connector::{Connector, Event};
use mcp_tunnel_proto::StreamKind;
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::cut::Cut;
use crate::edge::{CALL, Edge, answer, config, connector, finish, open, servers};
use crate::server::{Server, json};

// The one helper for futures that are dropped half-way; a crate for it would be larger than it.
#[path = "../../../mcp-tunnel-transport/tests/it/cut.rs"]
mod cut;

const SOON: Duration = Duration::from_secs(120);

fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(timeout(SOON, work));
    async { work.await.expect("it is stuck") }
}

/// The edge's part: a link, a call on it, and the whole answer.
async fn call(edge: &mut Edge, server: &Server) {
    let link = edge.admit().await;
    let mut stream = open(&link, StreamKind::Http, CALL).await;
    finish(&mut stream).await;
    let serve = async {
        let (mut socket, _) = server.request().await;
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        socket.write_all(response).await.unwrap();
        socket
    };
    let (text, _socket) = tokio::join!(answer(stream), serve);
    assert!(text.unwrap().ends_with("\r\n\r\nhi"));
}

/// CANCEL: `Connector::next_event`
#[tokio::test]
async fn a_connector_whose_events_are_dropped_each_time_serves_and_stops() {
    Cut::everywhere(async |cut| {
        let (mut edge, server) = (Edge::bind().await, Server::bind().await);
        let mut connector = connector(&edge, server.address);
        let mut cuts = 0;
        let mut called = Box::pin(call(&mut edge, &server));
        let mut draining = false;
        soon(async {
            loop {
                let event = tokio::select! {
                    biased;
                    () = &mut called, if !draining => {
                        connector.drain();
                        draining = true;
                        continue;
                    }
                    event = cut.apply(connector.next_event()) => event,
                };
                match event {
                    None => {
                        cuts += 1;
                        yield_now().await;
                    }
                    Some(Event::Stopped) => return,
                    Some(_) => {}
                }
            }
        })
        .await;
        cuts == 0
    })
    .await;
}

/// CANCEL: `Connector::run`
#[tokio::test]
async fn a_dropped_run_is_no_harm_and_can_be_begun_again() {
    Cut::everywhere(async |cut| {
        let (mut edge, server) = (Edge::bind().await, Server::bind().await);
        let mut connector: Connector = connector(&edge, server.address);
        let stop = CancellationToken::new();
        let run = async {
            let whole = cut.apply(connector.run(stop.clone())).await.is_some();
            if !whole {
                connector.run(stop.clone()).await;
            }
            whole
        };
        let called = async {
            call(&mut edge, &server).await;
            stop.cancel();
        };
        let (whole, ()) = soon(async { tokio::join!(run, called) }).await;
        whole
    })
    .await;
}

/// CANCEL: `check`
#[tokio::test]
async fn a_dropped_check_closes_its_link() {
    let (edge, server) = (Edge::bind().await, Server::bind().await);
    Cut::everywhere(async |cut| {
        let config = config(edge.address, server.address);
        let serve = async {
            loop {
                let Ok(tls) = edge.handshake().await else {
                    continue;
                };
                let link = mcp_tunnel_transport::LinkConfig::default();
                let Ok(incoming) = mcp_tunnel_transport::accept(tls, &link).await else {
                    continue;
                };
                let Ok((_link, driver)) = incoming.admit() else {
                    continue;
                };
                soon(driver.run()).await;
            }
        };
        let answers = server.answer_all(|_| json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        let checked = soon(async {
            tokio::select! {
                checked = cut.apply(check(&config)) => checked,
                () = async { tokio::join!(serve, answers); } => unreachable!(),
            }
        });
        checked.await.map(Result::unwrap).is_some()
    })
    .await;
}

/// CANCEL: `check_servers`
#[tokio::test]
async fn a_dropped_check_of_servers_lets_go_of_them() {
    let server = Server::bind().await;
    let config = servers(&[&server.address.to_string()]);
    Cut::everywhere(async |cut| {
        let answers = server.answer_all(|_| json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        let checked = soon(async {
            tokio::select! {
                checked = cut.apply(check_servers(&config)) => checked,
                () = answers => unreachable!(),
            }
        });
        let lines = checked.await.map(Result::unwrap);
        let whole = lines.is_some();
        let mut report = Report::new();
        report.extend(lines.unwrap_or_default());
        assert!(!whole || !report.lines().is_empty());
        whole
    })
    .await;
}
