//! A link of `mcp-tunnel-transport` with its defaults.

use bytes::Bytes;
use mcp_tunnel_proto::{OpenHeader, RouteName, StreamKind};
use mcp_tunnel_transport::{Answer, Link, LinkConfig, Offer, Stream, accept};
use tokio::task::JoinSet;

use crate::scene::{ClientIo, Mux, ServerIo, piece, reply_length};

pub(crate) struct Ours;

impl Mux for Ours {
    const NAME: &'static str = "mcp-tunnel";
    type Client = Link;

    async fn serve(io: ServerIo) {
        let incoming = accept(io, &LinkConfig::default()).await.expect("a hello");
        let (link, driver) = incoming.admit().expect("a link");
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            let _ended = driver.run().await;
        });
        while let Some(incoming) = link.accept().await {
            tasks.spawn(answer(incoming.stream));
            while tasks.try_join_next().is_some() {}
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Self::Client {
        let offer = Offer::new(io, Bytes::new(), &LinkConfig::default()).expect("an offer");
        let Answer::Active { link, driver } = offer.answer().await.expect("an answer") else {
            panic!("not admitted");
        };
        tasks.spawn(async {
            let _ended = driver.run().await;
        });
        link
    }

    async fn call(client: &Self::Client, request: Bytes) -> usize {
        let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        let mut stream = client.open(header, request).await.expect("a stream");
        stream.finish().expect("a finish");
        let mut received = 0;
        while let Some(chunk) = stream.read_chunk().await.expect("a read") {
            received += chunk.len();
        }
        received
    }
}

async fn answer(mut stream: Stream) {
    let mut length = None;
    while let Some(chunk) = stream.read_chunk().await.expect("a request") {
        length.get_or_insert_with(|| reply_length(&chunk));
    }
    let mut left = length.expect("a length");
    while left > 0 {
        let piece = piece(left);
        left -= piece.len();
        stream.write_chunk(piece).await.expect("a write");
    }
    stream.finish().expect("a finish");
}
