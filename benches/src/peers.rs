//! The multiplexers that are measured, each through its own natural interface, and TLS with nothing above it.

mod h2;
mod ours;
mod raw;
mod tokio_yamux;
mod yamux;

use std::{cell::RefCell, future::poll_fn, io, pin::Pin, task::Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::conduit::{PIECE, Received};

pub use self::{h2::H2, ours::Ours, raw::Raw, tokio_yamux::TokioYamux, yamux::Yamux};

/// How many streams a connection of a peer must carry at once.
const STREAMS: usize = 1024;

thread_local! {
    /// What readers that copy read into: no memory of a conduit's own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// One read, into the thread's scratch buffer.
async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<Received> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Received::of(buf.filled()))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    })
    .await
}
