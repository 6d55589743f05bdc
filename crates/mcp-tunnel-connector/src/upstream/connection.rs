//! One connection to an MCP server. It has no task of its own: whoever waits for its answer drives it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;

use super::dial::UpstreamIo;
use super::quick_ack::Acks;
use crate::exchange::RequestBody;

/// A connection; dropping it closes the socket at once.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    /// hyper's end of it; `None` once it is over.
    driver: Option<Driver>,
    acks: Acks,
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

impl Connection {
    pub(crate) async fn new(mut io: UpstreamIo) -> hyper::Result<Self> {
        let acks = io.acks();
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(TokioIo::new(io))
            .await?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
            acks,
        })
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// hyper gives the request back if no byte of it was written.
    ///
    /// # Cancel safety
    /// A dropped future leaves the connection in the middle of an exchange: drop it too.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.acks.forget();
        // What is polled without a waker must not wait for the runtime to give this task another turn.
        let answer = unconstrained(self.sender.try_send_request(request));
        let mut answer = std::pin::pin!(answer);
        let (driver, acks) = (&mut self.driver, &self.acks);
        poll_fn(|cx| drive_until(driver, acks, cx, |cx| answer.as_mut().poll(cx))).await
    }

    /// The next frame of an answer of this connection.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        drive_until(&mut self.driver, &self.acks, cx, |cx| {
            Pin::new(&mut *body).poll_frame(cx)
        })
    }

    /// Whether the next request may go out: the connection is open, and done with the one before.
    pub(crate) fn is_ready(&mut self) -> bool {
        let mut now = Context::from_waker(Waker::noop());
        drive(&mut self.driver, &mut now);
        matches!(self.sender.poll_ready(&mut now), Poll::Ready(Ok(())))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("open", &self.driver.is_some())
            .finish_non_exhaustive()
    }
}

/// What `next` has, after as much of hyper's work as it takes.
///
/// Only hyper's work gives it anything, and that is done here: it is polled without a waker, so that the work does not
/// wake the very task that does it.
fn drive_until<T>(
    driver: &mut Option<Driver>,
    acks: &Acks,
    cx: &mut Context<'_>,
    mut next: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut silent = Context::from_waker(Waker::noop());
    if let Poll::Ready(ready) = next(&mut silent) {
        return Poll::Ready(ready);
    }
    drive(driver, cx);
    if let Poll::Ready(ready) = next(&mut silent) {
        return Poll::Ready(ready);
    }
    // Something came, and it was not all: the server may hold back the rest until that is acknowledged.
    if acks.ask() {
        drive(driver, cx);
    }
    match driver {
        Some(_) => next(&mut silent),
        None => next(cx),
    }
}

/// Lets hyper work. How it ends is told by the answer; an idle connection's end is no news.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(working) = driver
        && working.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// Most bytes read ahead on one connection, and the longest head of an answer.
const READ_BUFFER: usize = 64 * 1024;
