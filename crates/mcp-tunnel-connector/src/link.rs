//! One active link: every stream that the edge opens is one call.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mcp_diagnostics::telemetry::chain;
use mcp_tunnel_proto::{OpenHeader, ResetCode, StreamKind};
use mcp_tunnel_transport::{IncomingStream, Link, RecvStream, SendStream, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinError, JoinSet};
use tracing::field::display;
use tracing::{Instrument, debug, debug_span, error};

use crate::exchange::{self, Broken, Call};
use crate::measures::LinkMeasures;
use crate::upstreams::Upstreams;

/// Where the calls of all links go.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) upstreams: Upstreams,
    pub(crate) answer_deadline: Duration,
    pub(crate) measures: LinkMeasures,
}

/// Serves calls until the link takes no more streams, and then until the last one is done.
///
/// # Cancel safety
///
/// Dropping the future aborts every call.
pub(crate) async fn serve(link: Link, calls: Arc<Calls>) {
    calls.measures.activated();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = running.join_next() => report(ended),
            incoming = link.accept() => {
                let Some(IncomingStream { header, stream, .. }) = incoming else { break };
                let trace = header.trace.map(display);
                let span = debug_span!("call", stream = %stream.id(), route = header.route.as_str(), trace);
                running.spawn(call(header, stream, Arc::clone(&calls)).instrument(span));
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        report(ended);
    }
}

async fn call(header: OpenHeader, mut stream: Stream, calls: Arc<Calls>) {
    if header.kind != StreamKind::Http {
        stream.reset(ResetCode::UNSUPPORTED);
        return;
    }
    let measures = &calls.measures;
    let _running = measures.running();
    let call = Call {
        route: header.route.as_str().to_owned(),
        deadline: header.deadline.map_or(calls.answer_deadline, |asked| {
            asked.min(calls.answer_deadline)
        }),
        trace: header.trace,
    };
    let stream = SharedStream::new(stream);
    let watched = stream.clone();
    match exchange::serve(stream, call, &calls.upstreams, watched.aborted()).await {
        Ok(()) => {}
        Err(Broken::Aborted) => {
            debug!("the edge gave the call up");
            measures.given_up();
        }
        // Writing to a caller that has gone fails before its going is noticed.
        Err(Broken::Failed { io, .. }) if io.is_aborted() => measures.given_up(),
        Err(Broken::Failed { io, source }) => {
            debug!(error = %chain(&source), "call broke off");
            measures.broken_off();
            io.reset(reset_code(&source));
        }
    }
}

fn reset_code(broken: &hyper::Error) -> ResetCode {
    if broken.is_parse() {
        ResetCode::MALFORMED
    } else if broken.is_timeout() {
        ResetCode::DEADLINE
    } else {
        ResetCode::UNREACHABLE
    }
}

/// A stream that hyper reads and writes while its abort is watched, all by one task: the lock is never contended.
#[derive(Debug, Clone)]
struct SharedStream(Arc<Mutex<(SendStream, RecvStream)>>);

impl SharedStream {
    fn new(stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(stream.split())))
    }

    fn reset(&self, code: ResetCode) {
        let (send, recv) = &mut *self.halves();
        send.reset(code);
        recv.stop(code);
    }

    /// Resolves when the edge wants no answer any more, or the link is lost.
    async fn aborted(self) {
        poll_fn(|cx| self.poll_aborted(cx)).await;
    }

    fn is_aborted(&self) -> bool {
        self.poll_aborted(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (send, recv) = &mut *self.halves();
        match recv.poll_reset_received(cx) {
            Poll::Pending => send.poll_stopped(cx).map(drop),
            Poll::Ready(_) => Poll::Ready(()),
        }
    }

    fn halves(&self) -> MutexGuard<'_, (SendStream, RecvStream)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.halves().1).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.halves().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.halves().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.halves().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.halves().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.halves().0.is_write_vectored()
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a call panicked");
    }
}
