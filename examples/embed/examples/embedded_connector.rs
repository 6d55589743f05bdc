//! A program of its own that carries a gateway inside: it makes the configuration, listens to the events, and stops it.
//!
//! The edge and the MCP server run in the same process here, so that there is something to see.
//!
//! `cargo run -p embed --example embedded_connector`
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mcp_tunnel_auth::{
    DomainLabel, DomainName, GatewayKey, HostName, LinkCredential, MasterKey, TokenId, TunnelId,
    TunnelToken,
};
use mcp_tunnel_connector::{
    Connector, ConnectorConfig, Event, McpServer, ServerConfig, ServerSet, identity,
};
use mcp_tunnel_proto::{CloseCode, OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::{
    LinkConfig, ReadAhead, accept, dial::TcpOptions, local_ca::LocalCa, tls,
};
use rustls::sign::SingleCertAndKey;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<()> {
    let ca = LocalCa::generate("tunnel.localhost", SystemTime::now())?;
    let edge_listener = TcpListener::bind("127.0.0.1:0").await?;
    let server_listener = TcpListener::bind("127.0.0.1:0").await?;

    // What a user copies from the console, and this machine's own key: a real program keeps it, with
    // `identity::load_or_create`, so that it is approved once.
    let token = token(&ca, edge_listener.local_addr()?)?;
    let key: GatewayKey = identity::ephemeral()?;
    let server: McpServer = format!("notes={}", server_listener.local_addr()?).parse()?;
    let servers = ServerConfig::new(ServerSet::new(vec![server])?);
    let config = ConnectorConfig::new(token, key, servers)
        .with_version("my-agent/7")
        .with_drain_deadline(Duration::from_secs(5));

    let mut background = JoinSet::new();
    background.spawn(mcp_server(server_listener));
    let (answer, ()) = tokio::try_join!(edge(&ca, edge_listener), gateway(config))?;
    println!(
        "the caller got: {}",
        answer.lines().last().unwrap_or_default()
    );
    Ok(())
}

/// All that the embedding program does: drive the connector, say what happens, stop it some day.
async fn gateway(config: ConnectorConfig) -> Result<()> {
    let mut connector = Connector::new(config)?;
    println!("gateway: key {}", connector.fingerprint());
    loop {
        let event = connector.next_event().await;
        println!("gateway: {event}");
        match event {
            // Here the edge has said goodbye; a real program would stop on its own signal.
            Event::Draining { .. } => connector.drain(),
            Event::Stopped => return Ok(()),
            _ => {}
        }
    }
}

/// Admits one gateway, makes one call, and sends the gateway away.
async fn edge(ca: &LocalCa, listener: TcpListener) -> Result<String> {
    let certificate = SingleCertAndKey::from(ca.issue(SystemTime::now())?.certified_key()?);
    let acceptor = TlsAcceptor::from(tls::server_config(Arc::new(certificate))?);
    let (socket, _) = listener.accept().await?;
    TcpOptions::default().apply(&socket)?;
    let tls = acceptor.accept(ReadAhead::new(socket)).await?;
    let incoming = accept(tls, &LinkConfig::default()).await?;
    let announced = LinkCredential::decode(incoming.credential())?
        .announcement()
        .clone();
    println!(
        "edge: {} announces {:?}",
        announced.version(),
        announced.routes()
    );

    let (link, driver) = incoming.admit()?;
    let mut drivers = JoinSet::from_iter([driver.run()]);
    let call =
        "POST /mcp HTTP/1.1\r\nhost: notes--demo.tunnel.localhost\r\ncontent-length: 2\r\n\r\n{}";
    let header = OpenHeader::new(StreamKind::Http, RouteName::parse("notes")?);
    let mut stream = link
        .open(header, Bytes::from_static(call.as_bytes()))
        .await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;

    link.drain(CloseCode::NO_ERROR, Duration::from_secs(1))
        .await;
    drivers
        .join_next()
        .await
        .context("no driver")?
        .context("driver")?;
    Ok(answer)
}

/// Answers every call with the Host that it saw.
async fn mcp_server(listener: TcpListener) -> Result<()> {
    let answer = service_fn(|call: Request<hyper::body::Incoming>| async move {
        let host = call
            .headers()
            .get(header::HOST)
            .map_or(&[][..], |host| host.as_bytes());
        let seen = String::from_utf8_lossy(host);
        let body = format!(r#"{{"jsonrpc":"2.0","id":null,"result":{{"host":"{seen}"}}}}"#);
        Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
    });
    loop {
        let (socket, _) = listener.accept().await?;
        let _gone = http1::Builder::new()
            .serve_connection(TokioIo::new(socket), answer)
            .await;
    }
}

/// What the console would hand out.
fn token(ca: &LocalCa, edge: SocketAddr) -> Result<TunnelToken> {
    let master = MasterKey::from_bytes([7; 32]);
    let token_id = TokenId::new(0, &[1; 10]);
    let token = TunnelToken::new(
        TunnelId::new(0, &[2; 10]),
        DomainLabel::parse("demo")?,
        DomainName::parse("tunnel.localhost")?,
        token_id,
        master.token_seed(&token_id),
        (HostName::parse(&edge.ip().to_string())?, edge.port()),
    );
    Ok(token.with_ca_pin(ca.pin()))
}
