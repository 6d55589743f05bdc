//! rust-yamux with its defaults, driven by one task per connection as its documentation shows.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use yamux::{Config, Connection, Mode, Stream};

use crate::scene::{ClientIo, Mux, ServerIo, piece, reply_length};

pub(crate) struct Yamux;

impl Mux for Yamux {
    const NAME: &'static str = "yamux";
    type Client = mpsc::Sender<oneshot::Sender<Stream>>;

    async fn serve(io: ServerIo) {
        let mut connection = Connection::new(io.compat(), Config::default(), Mode::Server);
        let mut answers = JoinSet::new();
        while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
            answers.spawn(answer(stream));
            while answers.try_join_next().is_some() {}
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Self::Client {
        let mut connection = Connection::new(io.compat(), Config::default(), Mode::Client);
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

    async fn call(client: &Self::Client, request: Bytes) -> usize {
        let (order, stream) = oneshot::channel();
        client.send(order).await.expect("a driver");
        let mut stream = stream.await.expect("a stream");
        stream.write_all(&request).await.expect("a write");
        stream.close().await.expect("a close");
        let (mut buffer, mut received) = (vec![0; 64 * 1024], 0);
        loop {
            match stream.read(&mut buffer).await.expect("a read") {
                0 => return received,
                count => received += count,
            }
        }
    }
}

async fn answer(mut stream: Stream) {
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await.expect("a request");
    let mut left = reply_length(&request);
    while left > 0 {
        let piece = piece(left);
        stream.write_all(&piece).await.expect("a write");
        left -= piece.len();
    }
    stream.close().await.expect("a close");
}
