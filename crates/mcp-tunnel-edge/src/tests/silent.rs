//! Security 12: ten thousand silent sockets, over real TCP, harm nobody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::{World, bearer, caller_key, config};
use crate::serve::Server;
use crate::{Gate, GateConfig, Role};

const SILENT: u64 = 10_000;
const SOURCES: u64 = 8;
/// What one source may hold, by default.
const SHARE: u64 = 1_024;

/// How many silent sockets this process can hold beside what else it needs; says so when it is not all of them.
fn affordable() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The edge's own side of those that it keeps.
    let needed = SILENT + SOURCES * SHARE + 512;
    if limit >= needed {
        return SILENT;
    }
    let fewer = limit.saturating_sub(SOURCES * SHARE + 512).min(SILENT);
    println!(
        "NOTE: the limit of {limit} descriptors allows {fewer} silent sockets instead of {SILENT}"
    );
    fewer
}

async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind((Ipv4Addr::new(127, 0, 0, last), 0).into())
        .unwrap();
    socket.connect(to).await.unwrap()
}

/// A socket from 127.0.0.1, in the form that the world's helpers take.
async fn good(tasks: &mut JoinSet<()>, to: SocketAddr) -> DuplexStream {
    let mut tcp = connect_from(1, to).await;
    let (near, mut far) = duplex(64 * 1024);
    tasks.spawn(async move {
        let _ = copy_bidirectional(&mut tcp, &mut far).await;
    });
    near
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_silent_sockets_harm_nobody_else() {
    let silent = affordable();
    let mut world = World::new(config());
    world.approve(1);
    // Longer than the test: what is held is held throughout.
    let gate = GateConfig::default().set_caller_deadline(Duration::from_secs(600));
    let gate = Gate::new(gate);
    let server = Server::new(world.edge.clone(), gate.clone())
        .with_links(world.links_tls())
        .with_callers(world.callers_tls());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, remote) = listener.accept().await.unwrap();
            let server = server.clone();
            connections
                .spawn(async move { server.serve(tcp, remote, CancellationToken::new()).await });
            while connections.try_join_next().is_some() {}
        }
    });

    let before = good(&mut tasks, to).await;
    let mut gateway = world.gateway_connects(before, 1).await;
    gateway.active().await;
    let before = good(&mut tasks, to).await;
    let mut caller = world.caller_connects(before, b"http/1.1").await.unwrap();
    let mut held = Vec::new();
    for number in 0..silent {
        let last = 2 + u8::try_from(number % SOURCES).unwrap();
        held.push(connect_from(last, to).await);
    }
    // The edge has accepted the last of them once it serves one that came after.
    let after = good(&mut tasks, to).await;
    let mut new_caller = world.caller_connects(after, b"http/1.1").await.unwrap();
    let unproven = gate.unproven(Role::Caller);
    assert!(unproven as u64 <= SHARE * SOURCES + 2, "{unproven}");

    let after = good(&mut tasks, to).await;
    let mut new_gateway = world.gateway_connects(after, 1).await;
    new_gateway.active().await;
    let key = bearer(&caller_key(1));
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: mcp--demo.tunnel.example\r\nauthorization: {key}\r\ncontent-length: 0\r\n\r\n"
    );
    for caller in [&mut caller, &mut new_caller] {
        for _ in 0..20 {
            caller.write_all(request.as_bytes()).await.unwrap();
            let (stream, _) = new_gateway.request().await;
            new_gateway
                .answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                .await;
            let mut answer = vec![0; 1024];
            let len = caller.read(&mut answer).await.unwrap();
            assert!(answer[..len].starts_with(b"HTTP/1.1 200"));
        }
    }
    assert_eq!(held.len() as u64, silent);
}
