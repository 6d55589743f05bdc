//! A link of `mcp-tunnel-transport` with its defaults, or one whose session survives its connection.

use std::{io, time::Duration};

use bytes::Bytes;
use mcp_tunnel_proto::{OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::{Answer, Link, LinkConfig, Offer, Stream, accept};
use tokio::task::JoinSet;

use crate::{
    conduit::{Conduit, Mux, Received},
    scene::{ClientIo, ServerIo},
};

/// Ours; `KEPT` if the session is to survive its connection.
pub struct Ours<const KEPT: bool>;

fn config<const KEPT: bool>() -> LinkConfig {
    let keep = if KEPT {
        Duration::from_secs(60)
    } else {
        Duration::ZERO
    };
    LinkConfig::default().set_keep(keep)
}

impl<const KEPT: bool> Mux for Ours<KEPT> {
    const NAME: &'static str = if KEPT {
        "mcp-tunnel, resumable"
    } else {
        "mcp-tunnel"
    };
    const TUNED: bool = true;
    type Client = Link;
    type Near = Stream;
    type Far = Stream;

    async fn serve(io: ServerIo, mut taken: impl FnMut(Stream) + Send) {
        let incoming = accept(io, &config::<KEPT>()).await.expect("a hello");
        let (link, driver) = incoming.admit().expect("a link");
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            let _ended = driver.run().await;
        });
        while let Some(incoming) = link.accept().await {
            taken(incoming.stream);
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Link {
        let offer = Offer::new(io, Bytes::new(), &config::<KEPT>()).expect("an offer");
        let Answer::Active { link, driver } = offer.answer().await.expect("an answer") else {
            panic!("not admitted");
        };
        tasks.spawn(async {
            let _ended = driver.run().await;
        });
        link
    }

    async fn open(client: &Link, first: Bytes, last: bool) -> io::Result<Stream> {
        let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        let opened = client.open(header, first).await;
        let mut stream = opened.map_err(io::Error::other)?;
        if last {
            stream.finish()?;
        }
        Ok(stream)
    }
}

impl Conduit for Stream {
    async fn send(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        if !piece.is_empty() {
            self.write_chunk(piece).await?;
        }
        if last {
            self.finish()?;
        }
        Ok(())
    }

    async fn recv(&mut self) -> io::Result<Received> {
        let chunk = self.read_chunk().await?;
        Ok(Received::of(&chunk.unwrap_or_default()))
    }
}
