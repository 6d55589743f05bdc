//! rust-yamux with its automatic windows, driven by one task per connection as its documentation shows.

use std::{future::poll_fn, io, task::Poll};

use bytes::Bytes;
use futures_util::AsyncWriteExt as _;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Config, Connection, Mode, Stream};

use super::STREAMS;
use crate::{
    conduit::{Conduit, Mux, Received},
    scene::{ClientIo, ServerIo},
};

/// The yamux crate.
pub struct Yamux;

fn config() -> Config {
    let mut config = Config::default();
    // Twice as many: closed ones count for a while.
    config.set_max_num_streams(2 * STREAMS);
    config
}

impl Mux for Yamux {
    const NAME: &'static str = "yamux";
    type Client = mpsc::Sender<oneshot::Sender<Stream>>;
    type Near = Compat<Stream>;
    type Far = Compat<Stream>;

    async fn serve(io: ServerIo, mut taken: impl FnMut(Self::Far) + Send) {
        let mut connection = Connection::new(io.compat(), config(), Mode::Server);
        while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
            taken(stream.compat());
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Self::Client {
        let mut connection = Connection::new(io.compat(), config(), Mode::Client);
        let (opener, mut orders) = mpsc::channel::<oneshot::Sender<Stream>>(64);
        tasks.spawn(async move {
            let mut order = None;
            poll_fn(|cx| {
                loop {
                    if order.is_none() {
                        match orders.poll_recv(cx) {
                            Poll::Ready(None) => return Poll::Ready(()),
                            Poll::Ready(taken) => order = taken,
                            Poll::Pending => {}
                        }
                    }
                    if order.is_some()
                        && let Poll::Ready(stream) = connection.poll_new_outbound(cx)
                    {
                        let order = order.take().expect("an order");
                        let _ = order.send(stream.expect("a stream"));
                        continue;
                    }
                    return match connection.poll_next_inbound(cx) {
                        Poll::Ready(_ended) => Poll::Ready(()),
                        Poll::Pending => Poll::Pending,
                    };
                }
            })
            .await;
        });
        opener
    }

    async fn open(client: &Self::Client, first: Bytes, last: bool) -> io::Result<Self::Near> {
        let (order, stream) = oneshot::channel();
        client.send(order).await.map_err(io::Error::other)?;
        let mut stream = stream.await.map_err(io::Error::other)?.compat();
        stream.send(first, last).await?;
        Ok(stream)
    }
}

impl Conduit for Compat<Stream> {
    async fn send(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        self.get_mut().write_all(&piece).await?;
        if last {
            self.get_mut().close().await?;
        }
        Ok(())
    }

    async fn recv(&mut self) -> io::Result<Received> {
        super::read(self).await
    }
}
