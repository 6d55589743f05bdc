//! The HTTP/1.1 exchange on one tunnel stream, up to the answer's head.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::Request;
use http::response::Parts;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use mcp_tunnel_transport::StreamError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::unconstrained;

use super::io::StreamIo;
use super::upload::{Upload, UploadBody};

/// hyper's end of the exchange. It does its work when polled, in the task of the call; dropping it drops the stream.
pub(crate) type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An exchange whose answer has begun.
pub(crate) struct Begun {
    pub(crate) head: Parts,
    pub(crate) body: Incoming,
    /// `None` when it has nothing left to do.
    pub(crate) connection: Option<Connection>,
}

/// Why no answer began.
#[derive(Debug)]
pub(crate) enum BeginError {
    /// The stream was aborted, or its link is gone.
    Stream(StreamError),
    /// What came is not HTTP, or ended too early.
    Answer(hyper::Error),
    /// The caller's own body broke off.
    Upload,
}

/// Sends the request and waits for the head of the answer.
///
/// # Cancel safety
/// Dropping it aborts the exchange: the stream is reset.
pub(crate) async fn begin<S>(
    stream: S,
    head: http::request::Parts,
    upload: &Upload,
) -> Result<Begun, BeginError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = StreamIo::new(stream, upload.clone());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(READ_BUFFER)
        .max_headers(MAX_HEADERS)
        .handshake::<_, UploadBody>(io)
        .await
        .map_err(begin_error)?;
    let mut connection: Option<Connection> = Some(Box::pin(connection));
    // What is polled without a waker must not wait for the runtime to give this task another turn.
    let answer = unconstrained(sender.send_request(Request::from_parts(head, upload.body())));
    let mut answer = std::pin::pin!(answer);
    let mut broken = None;
    let answer = poll_fn(|cx| {
        // Only hyper's work below brings the answer: without a waker it does not wake the very task that does it.
        let mut silent = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut silent) {
                return Poll::Ready(answer);
            }
            match drive(&mut connection, cx) {
                Poll::Ready(Err(error)) => broken = Some(error),
                Poll::Ready(Ok(())) => {}
                // The connection may just have handed the answer over.
                Poll::Pending if connection.is_some() => return answer.as_mut().poll(&mut silent),
                Poll::Pending => return answer.as_mut().poll(cx),
            }
        }
    })
    .await;
    // Nothing more will be asked of it: hyper closes when the answer is over.
    drop(sender);
    let (head, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(error) => return Err(begin_error(broken.unwrap_or(error))),
    };
    let mut begun = Begun {
        head,
        body,
        connection,
    };
    begun.close_if_finished().await;
    Ok(begun)
}

impl Begun {
    /// An answer without a body is over: nobody would poll its exchange again to let it say so.
    async fn close_if_finished(&mut self) {
        if http_body::Body::is_end_stream(&self.body) {
            poll_fn(|cx| Poll::Ready(drive(&mut self.connection, cx).is_ready())).await;
        }
    }
}

/// Lets hyper work; ready when it is done, and `connection` is then `None`.
pub(crate) fn drive(
    connection: &mut Option<Connection>,
    cx: &mut Context<'_>,
) -> Poll<hyper::Result<()>> {
    let Some(working) = connection else {
        return Poll::Pending;
    };
    let done = working.as_mut().poll(cx);
    if done.is_ready() {
        *connection = None;
    }
    done
}

fn begin_error(error: hyper::Error) -> BeginError {
    match stream_error(&error) {
        Some(stream) => BeginError::Stream(stream),
        None if error.is_user() => BeginError::Upload,
        None => BeginError::Answer(error),
    }
}

/// The stream's own error below what hyper made of it.
pub(crate) fn stream_error(error: &(dyn StdError + 'static)) -> Option<StreamError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return StreamError::of(io).cloned();
        }
        next = error.source();
    }
    None
}

/// Bounds what a slow reader pins here, and the head of an answer.
const READ_BUFFER: usize = 64 * 1024;
/// Of an answer; hyper's own default for requests.
const MAX_HEADERS: usize = 100;
