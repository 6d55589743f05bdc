//! h2 with windows as large as ours, since its defaults are those of 2015.

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest, server::SendResponse};
use http::{Request, Response};
use tokio::task::JoinSet;

use crate::scene::{ClientIo, Mux, ServerIo, piece, reply_length};

const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

pub(crate) struct H2;

impl Mux for H2 {
    const NAME: &'static str = "h2";
    type Client = SendRequest<Bytes>;

    async fn serve(io: ServerIo) {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(1024)
            .handshake(io)
            .await
            .expect("a handshake");
        let mut answers = JoinSet::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            answers.spawn(answer(request.into_body(), respond));
            while answers.try_join_next().is_some() {}
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Self::Client {
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await
            .expect("a handshake");
        tasks.spawn(async move {
            let _ended = connection.await;
        });
        client
    }

    async fn call(client: &Self::Client, request: Bytes) -> usize {
        let mut client = client.clone().ready().await.expect("a connection");
        let head = Request::post("https://localhost/mcp")
            .body(())
            .expect("a request");
        let (response, mut body) = client.send_request(head, false).expect("a stream");
        body.send_data(request, true).expect("a write");
        read_all(response.await.expect("a response").into_body())
            .await
            .len
    }
}

struct Received {
    len: usize,
    first: Bytes,
}

async fn read_all(mut body: RecvStream) -> Received {
    let mut received = Received {
        len: 0,
        first: Bytes::new(),
    };
    while let Some(data) = body.data().await {
        let data = data.expect("a read");
        let _ = body.flow_control().release_capacity(data.len());
        received.len += data.len();
        if received.first.is_empty() {
            received.first = data;
        }
    }
    received
}

async fn answer(body: RecvStream, mut respond: SendResponse<Bytes>) {
    let mut left = reply_length(&read_all(body).await.first);
    let mut send = respond
        .send_response(Response::new(()), false)
        .expect("a response");
    while left > 0 {
        send.reserve_capacity(piece(left).len());
        let granted = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
        let piece = piece(left.min(granted.expect("a stream").expect("capacity")));
        left -= piece.len();
        send.send_data(piece, left == 0).expect("a write");
    }
}
