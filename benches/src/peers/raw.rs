//! TLS with nothing above it: the ceiling of one conduit.

use std::{future::pending, io, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Mutex,
    task::JoinSet,
};

use crate::{
    conduit::{Conduit, Mux, Received},
    scene::{ClientIo, ServerIo},
};

/// tokio-rustls; the first conduit is the connection, and there is no other.
pub struct Raw;

/// The connection itself.
pub struct Connection<IO>(IO);

impl Mux for Raw {
    const NAME: &'static str = "tls";
    type Client = Arc<Mutex<Option<ClientIo>>>;
    type Near = Connection<ClientIo>;
    type Far = Connection<ServerIo>;

    async fn serve(io: ServerIo, mut taken: impl FnMut(Self::Far) + Send) {
        taken(Connection(io));
        pending().await
    }

    async fn connect(io: ClientIo, _tasks: &mut JoinSet<()>) -> Self::Client {
        Arc::new(Mutex::new(Some(io)))
    }

    async fn open(client: &Self::Client, first: Bytes, last: bool) -> io::Result<Self::Near> {
        let io = client.lock().await.take();
        let mut connection = Connection(io.ok_or(io::ErrorKind::AddrInUse)?);
        connection.send(first, last).await?;
        Ok(connection)
    }
}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static> Conduit for Connection<IO> {
    async fn send(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        self.0.write_all(&piece).await?;
        if last {
            self.0.shutdown().await
        } else {
            self.0.flush().await
        }
    }

    async fn recv(&mut self) -> io::Result<Received> {
        super::read(&mut self.0).await
    }
}
