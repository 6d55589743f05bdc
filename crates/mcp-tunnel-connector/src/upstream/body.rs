//! The body of an MCP server's answer, and the connection that it holds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Upstream;
use super::connection::Connection;

/// An answer's body; its end gives the connection back, its failure or drop closes it.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    held: Option<(Arc<Upstream>, Connection)>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, upstream: Arc<Upstream>, connection: Connection) -> Self {
        let mut body = Self {
            incoming,
            held: Some((upstream, connection)),
        };
        body.release_at_end();
        body
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some((upstream, connection)) = self.held.take() {
            upstream.check_in(connection);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        loop {
            let frame = match &mut this.held {
                Some((_, connection)) => connection.poll_frame(cx, &mut this.incoming),
                None => Pin::new(&mut this.incoming).poll_frame(cx),
            };
            match ready!(frame) {
                Some(Ok(frame)) if frame.is_data() => {
                    this.release_at_end();
                    return Poll::Ready(Some(Ok(frame)));
                }
                // Trailers belong to this hop.
                Some(Ok(_)) => {}
                // Whoever reads drops the body now, and the connection with it.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.release();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
