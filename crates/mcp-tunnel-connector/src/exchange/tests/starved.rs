//! A call whose turns end at any step, as the runtime ends those of a task that has done much.

use std::future::{pending, poll_fn};
use std::pin::pin;

use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::*;

/// Does `work` with so much less of what the runtime lets a task do in one turn.
async fn starved<T>(less: usize, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        for _ in 0..less {
            let _ = pin!(consume_budget()).poll(cx);
        }
        work.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn a_turn_that_ends_at_any_step_loses_no_wake_up() {
    let server = Server::bind().await;
    let upstreams = server.upstreams();
    for less in 90..128 {
        let (mut edge, gateway) = tokio::io::duplex(64 * 1024);
        let (call, upstreams) = (call(), Arc::clone(&upstreams));
        let mut served = JoinSet::new();
        served
            .spawn(async move { starved(less, serve(gateway, call, &upstreams, pending())).await });
        let exchange = async {
            edge.write_all(CALL.as_bytes()).await.unwrap();
            let mut socket = server.accept().await;
            read_until(&mut socket, "}\n").await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhi";
            socket.write_all(head).await.unwrap();
            read_until(&mut edge, "hi").await;
            socket.write_all(b"ho").await.unwrap();
            read_until(&mut edge, "ho").await;
        };
        let stood = timeout(Duration::from_secs(20), exchange).await;
        assert!(
            stood.is_ok(),
            "a turn shorter by {less} is never gone on with"
        );
        served.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn call() -> Call {
    Call {
        route: String::new(),
        deadline: Duration::from_secs(60),
        trace: None,
    }
}
