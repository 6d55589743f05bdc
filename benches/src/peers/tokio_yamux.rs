//! tokio-yamux (of tentacle) with its defaults. A stream whose user writes without reading at the same time, as the bulk
//! loads do, comes to a stop.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{io::AsyncWriteExt, task::JoinSet};
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
    type Near = StreamHandle;
    type Far = StreamHandle;

    async fn serve(io: ServerIo, mut taken: impl FnMut(StreamHandle) + Send) {
        let mut session = Session::new_server(io, Config::default());
        while let Some(Ok(stream)) = session.next().await {
            taken(stream);
        }
    }

    async fn connect(io: ClientIo, tasks: &mut JoinSet<()>) -> Control {
        let mut session = Session::new_client(io, Config::default());
        let control = session.control();
        tasks.spawn(async move { while let Some(Ok(_unexpected)) = session.next().await {} });
        control
    }

    async fn open(client: &Control, first: Bytes, last: bool) -> io::Result<StreamHandle> {
        let opened = client.clone().open_stream().await;
        let mut stream = opened.map_err(io::Error::other)?;
        stream.send(first, last).await?;
        Ok(stream)
    }
}

impl Conduit for StreamHandle {
    async fn send(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        self.write_all(&piece).await?;
        if last {
            AsyncWriteExt::shutdown(self).await?;
        }
        Ok(())
    }

    async fn recv(&mut self) -> io::Result<Received> {
        match super::read(self).await {
            // An end that follows the other direction's is said so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Received::of(&[])),
            received => received,
        }
    }
}
