//! TLS with nothing above it: one call at a time, the ceiling for `bulk/1`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Mutex,
    task::JoinSet,
};

use crate::{
    SMALL_REQUEST,
    scene::{ClientIo, Mux, ServerIo, piece, reply_length},
};

pub(crate) struct Raw;

impl Mux for Raw {
    const NAME: &'static str = "tls";
    type Client = Arc<Mutex<ClientIo>>;

    async fn serve(mut io: ServerIo) {
        let mut request = [0; SMALL_REQUEST];
        while io.read_exact(&mut request).await.is_ok() {
            let mut left = reply_length(&request);
            while left > 0 {
                let piece = piece(left);
                io.write_all(&piece).await.expect("a write");
                left -= piece.len();
            }
            io.flush().await.expect("a flush");
        }
    }

    async fn connect(io: ClientIo, _tasks: &mut JoinSet<()>) -> Self::Client {
        Arc::new(Mutex::new(io))
    }

    async fn call(client: &Self::Client, request: Bytes) -> usize {
        let mut io = client.lock().await;
        io.write_all(&request).await.expect("a write");
        io.flush().await.expect("a flush");
        let (mut buffer, length) = (vec![0; 64 * 1024], reply_length(&request));
        let mut received = 0;
        while received < length {
            received += io.read(&mut buffer).await.expect("a read");
        }
        received
    }
}
