//! The last steps of a connection, so that what was said last arrives.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{outbox::Outbox, timer::now};

/// How far the end of a connection has come.
///
/// A socket closed with unread bytes in it sends a reset, which may overtake and destroy a farewell that the peer
/// has not read yet. Hence: say everything, shut down our direction, and read until the peer does the same. The
/// caller puts a deadline on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Writing,
    ShuttingDown,
    Lingering,
}

impl Ending {
    pub(crate) fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        outbox: &mut Outbox,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Writing => {
                    ready!(outbox.poll_drain(io, cx, now()))?;
                    *self = Self::ShuttingDown;
                }
                Self::ShuttingDown => {
                    ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
                    *self = Self::Lingering;
                }
                Self::Lingering => {
                    let mut spill = [0; 4096];
                    let mut spill = ReadBuf::new(&mut spill);
                    ready!(Pin::new(&mut *io).poll_read(cx, &mut spill))?;
                    if spill.filled().is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

/// All of it, as a future.
pub(crate) async fn end<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    outbox: &mut Outbox,
) -> io::Result<()> {
    let mut ending = Ending::Writing;
    poll_fn(|cx| ending.poll(io, outbox, cx)).await
}
