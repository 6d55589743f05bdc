//! Two ends of a link over a loopback socket: an edge that admits, a supervised gateway that answers.
//!
//! `cargo run -p embed --example transport_pair`
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::{
    Link, LinkConfig, ReadAhead, Stream, Target, Uplink, UplinkConfig, UplinkEvent, accept,
    dial::TcpOptions,
    local_ca::LocalCa,
    tls::{self, Trust},
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
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let ((), answer) = tokio::try_join!(gateway(address, ca.pin()), edge(&ca, listener))?;
    println!("the gateway answered: {answer}");
    Ok(())
}

/// Accepts one gateway, calls it, and sends it away.
async fn edge(ca: &LocalCa, listener: TcpListener) -> Result<String> {
    let certificate = SingleCertAndKey::from(ca.issue(SystemTime::now())?.certified_key()?);
    let acceptor = TlsAcceptor::from(tls::server_config(Arc::new(certificate))?);
    let (socket, _) = listener.accept().await?;
    TcpOptions::default().apply(&socket)?;
    let tls = acceptor.accept(ReadAhead::new(socket)).await?;

    let incoming = accept(tls, &LinkConfig::default()).await?;
    println!("the edge heard {:?}", incoming.credential());
    let (link, driver) = incoming.admit()?;
    let mut drivers = JoinSet::from_iter([driver.run()]);

    let answer = call(&link, "how are you?").await?;
    link.drain(CloseCode::NO_ERROR, Duration::from_secs(1))
        .await;
    drivers.join_next().await.context("no driver")??;
    Ok(answer)
}

async fn call(link: &Link, question: &'static str) -> Result<String> {
    let header = OpenHeader::new(StreamKind::Http, RouteName::parse("mcp")?);
    let mut stream = link
        .open(header, Bytes::from_static(question.as_bytes()))
        .await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Keeps a link to the edge up until the edge lets go of it.
async fn gateway(address: SocketAddr, pin: [u8; 32]) -> Result<()> {
    let target = Target::new("edge.tunnel.localhost", address.port())?;
    let tls = tls::client_config(Trust::PinnedCa(pin))?;
    let mut uplink = Uplink::new(target, UplinkConfig::new(tls));
    let mut streams = JoinSet::new();
    loop {
        match uplink.next().await {
            UplinkEvent::Dialled { exporter, .. } => {
                // A real credential signs the exporter: mcp-tunnel-auth makes one.
                println!("the gateway's link has {exporter:?}");
                uplink.present(Bytes::from_static(b"a gateway"));
            }
            UplinkEvent::Active { link, .. } => {
                streams.spawn(async move {
                    while let Some(incoming) = link.accept().await {
                        serve(incoming.stream).await?;
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
            UplinkEvent::Draining { .. } => uplink.drain(),
            UplinkEvent::Stopped => break,
            UplinkEvent::Lost { reason } => bail!("{:#}", anyhow::Error::from(reason)),
            _ => {}
        }
    }
    while let Some(ended) = streams.join_next().await {
        ended??;
    }
    Ok(())
}

async fn serve(mut stream: Stream) -> std::io::Result<()> {
    let mut question = String::new();
    stream.read_to_string(&mut question).await?;
    let answer = format!("you asked {question:?}, and I am well");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
