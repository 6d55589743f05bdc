//! tokio-yamux (of tentacle) with its defaults.

use std::{future::poll_fn, io, pin::Pin};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncWrite as _, AsyncWriteExt as _},
    task::JoinSet,
};
use tokio_util::io::poll_read_buf;
use tokio_yamux::{Config, Control, Session, StreamHandle};

use crate::{
    conduit::{Conduit, Mux, Received},
    scene::{ClientIo, ServerIo},
};

/// The tokio-yamux crate.
pub struct TokioYamux;

impl Mux for TokioYamux {
    const NAME: &'static str = "tokio-yamux";
    type Client = Control;
    type Near = Both;
    type Far = Both;

    async fn serve(io: ServerIo, mut taken: impl FnMut(Both) + Send) {
        let mut session = Session::new_server(io, Config::default());
        while let Some(Ok(stream)) = session.next().await {
            taken(Both::of(stream));
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Control {
        let mut session = Session::new_client(io, Config::default());
        let control = session.control();
        tasks.spawn(async move { while let Some(Ok(_unexpected)) = session.next().await {} });
        control
    }

    async fn open(client: &Control, first: Bytes, last: bool) -> io::Result<Both> {
        let opened = client.clone().open_stream().await;
        let mut stream = Both::of(opened.map_err(io::Error::other)?);
        stream.send(first, last).await?;
        Ok(stream)
    }
}

/// A stream that is read while it waits for room: only then does it see that there is some.
pub struct Both {
    stream: StreamHandle,
    ahead: BytesMut,
}

impl Both {
    fn of(stream: StreamHandle) -> Self {
        let ahead = BytesMut::new();
        Self { stream, ahead }
    }

    async fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            let written = Pin::new(&mut self.stream).poll_write(cx, piece);
            if written.is_ready() {
                return written;
            }
            // An end or an error of this direction is not one of the other.
            let _read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.ahead);
            Pin::new(&mut self.stream).poll_write(cx, piece)
        })
        .await
    }
}

impl Conduit for Both {
    async fn send(&mut self, mut piece: Bytes, last: bool) -> io::Result<()> {
        while !piece.is_empty() {
            let written = self.write(&piece).await?;
            piece.advance(written);
        }
        if last {
            self.stream.shutdown().await?;
        }
        Ok(())
    }

    async fn recv(&mut self) -> io::Result<Received> {
        if !self.ahead.is_empty() {
            return Ok(Received::of(&self.ahead.split()));
        }
        match super::read(&mut self.stream).await {
            // An end that follows the other direction's is said so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Received::of(&[])),
            received => received,
        }
    }
}
