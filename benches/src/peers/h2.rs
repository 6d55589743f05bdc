//! h2 with windows as large as ours, since its defaults are those of 2015.

use std::{future::poll_fn, io};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::{Request, Response};
use tokio::task::JoinSet;

use crate::{
    conduit::{Conduit, Mux, Received},
    scene::{ClientIo, ServerIo},
};

/// In bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const STREAMS: u32 = 1024;

/// h2: a conduit is a request with a body and an answer with one.
pub struct H2;

/// A request and its answer.
pub struct Near {
    send: SendStream<Bytes>,
    answer: Answer,
}

enum Answer {
    Awaited(ResponseFuture),
    Body(RecvStream),
}

/// A request to be answered.
pub struct Far {
    body: RecvStream,
    answer: Reply,
}

enum Reply {
    Due(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
}

impl Mux for H2 {
    const NAME: &'static str = "h2";
    type Client = SendRequest<Bytes>;
    type Near = Near;
    type Far = Far;

    async fn serve(io: ServerIo, mut taken: impl FnMut(Far) + Send) {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS)
            .handshake(io)
            .await
            .expect("a handshake");
        while let Some(Ok((request, respond))) = connection.accept().await {
            taken(Far {
                body: request.into_body(),
                answer: Reply::Due(respond),
            });
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Self::Client {
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS as usize)
            .handshake(io)
            .await
            .expect("a handshake");
        tasks.spawn(async move {
            let _ended = connection.await;
        });
        client
    }

    async fn open(client: &Self::Client, first: Bytes, last: bool) -> io::Result<Near> {
        let mut client = client.clone().ready().await.map_err(io::Error::other)?;
        let head = Request::post("https://localhost/mcp")
            .body(())
            .expect("a request");
        let (answer, mut send) = client.send_request(head, false).map_err(io::Error::other)?;
        put(&mut send, first, last).await?;
        let answer = Answer::Awaited(answer);
        Ok(Near { send, answer })
    }
}

impl Conduit for Near {
    async fn send(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        put(&mut self.send, piece, last).await
    }

    async fn recv(&mut self) -> io::Result<Received> {
        loop {
            match &mut self.answer {
                Answer::Awaited(answer) => {
                    let response = answer.await.map_err(io::Error::other)?;
                    self.answer = Answer::Body(response.into_body());
                }
                Answer::Body(body) => return take(body).await,
            }
        }
    }
}

impl Conduit for Far {
    async fn send(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        loop {
            match &mut self.answer {
                Reply::Due(respond) => {
                    let begun = respond.send_response(Response::new(()), false);
                    self.answer = Reply::Begun(begun.map_err(io::Error::other)?);
                }
                Reply::Begun(send) => return put(send, piece, last).await,
            }
        }
    }

    async fn recv(&mut self) -> io::Result<Received> {
        take(&mut self.body).await
    }
}

async fn put(send: &mut SendStream<Bytes>, mut piece: Bytes, last: bool) -> io::Result<()> {
    if piece.is_empty() {
        return send.send_data(piece, last).map_err(io::Error::other);
    }
    while !piece.is_empty() {
        send.reserve_capacity(piece.len());
        let granted = match send.capacity() {
            0 => poll_fn(|cx| send.poll_capacity(cx))
                .await
                .ok_or(io::ErrorKind::BrokenPipe)?
                .map_err(io::Error::other)?,
            granted => granted,
        };
        let part = piece.split_to(granted.min(piece.len()));
        let end = last && piece.is_empty();
        send.send_data(part, end).map_err(io::Error::other)?;
    }
    Ok(())
}

async fn take(body: &mut RecvStream) -> io::Result<Received> {
    loop {
        let Some(data) = body.data().await else {
            return Ok(Received::of(&[]));
        };
        let data = data.map_err(io::Error::other)?;
        let _ = body.flow_control().release_capacity(data.len());
        // An empty frame is no end.
        if !data.is_empty() {
            return Ok(Received::of(&data));
        }
    }
}
