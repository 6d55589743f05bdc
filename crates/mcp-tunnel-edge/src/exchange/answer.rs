//! The body of an answer on its way to the caller.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BoxError;
use super::begin::{Connection, drive};
use super::sse::Comments;
use crate::calls::LiveCall;
use crate::measures::AnswerEnd;

/// What an [`Ingress`](crate::Ingress) answers with: an answer that streams through the tunnel, or one of the edge's
/// own.
///
/// An error of this body means that the answer is incomplete. A server must then break the connection or reset the
/// stream, as hyper does, and not end it cleanly.
#[derive(Debug)]
pub struct IngressBody {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Relayed(Box<Answer>),
}

/// Why an answer breaks off after its head.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Access was withdrawn while the call was under way.
    #[error("access was withdrawn")]
    Withdrawn,
    /// The gateway, its link or the server broke off.
    #[error("the answer broke off in the tunnel")]
    BrokenOff(#[source] hyper::Error),
}

impl IngressBody {
    pub(crate) fn own(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Own((!bytes.is_empty()).then_some(bytes)),
        }
    }

    pub(crate) fn relayed(answer: Answer) -> Self {
        Self {
            kind: Kind::Relayed(Box::new(answer)),
        }
    }
}

impl Body for IngressBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Relayed(answer) => {
                let data = ready!(answer.poll_data(cx));
                Poll::Ready(data.map(|data| data.map(Frame::data).map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Relayed(answer) => answer.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Relayed(answer) => answer.size_hint(),
        }
    }
}

/// An exchange whose answer streams. Polling it is what moves the exchange: a caller that does not read stalls its own
/// stream and nothing else. Dropping it before the end resets the stream, so that the server learns at once.
pub(crate) struct Answer {
    body: Incoming,
    connection: Option<Connection>,
    call: LiveCall,
    comments: Option<Comments>,
    bytes: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Clean,
    Broken,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("bytes", &self.bytes)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Answer {
    pub(crate) fn new(
        body: Incoming,
        connection: Option<Connection>,
        call: LiveCall,
        comments: Option<Comments>,
    ) -> Self {
        Self {
            body,
            connection,
            call,
            comments,
            bytes: 0,
            end: End::Open,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerError>>> {
        if self.end != End::Open {
            return Poll::Ready(None);
        }
        if self.call.poll_cut(cx).is_ready() {
            self.connection = None;
            self.end = End::Broken;
            return Poll::Ready(Some(Err(AnswerError::Withdrawn)));
        }
        match self.poll_exchange(cx) {
            Poll::Ready(next) => Poll::Ready(self.on_next(next, cx)),
            Poll::Pending => {
                let comments = self
                    .comments
                    .as_mut()
                    .map(|comments| comments.poll_comment(cx));
                comments
                    .unwrap_or(Poll::Pending)
                    .map(|comment| Some(Ok(comment)))
            }
        }
    }

    /// The next data of the answer. hyper works whenever the body has nothing, and may then have put something in.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        let mut worked = false;
        // While hyper works here it is all that brings data: it need not wake the very task that drives it.
        let mut silent = Context::from_waker(Waker::noop());
        loop {
            let next = match self.connection {
                Some(_) => Pin::new(&mut self.body).poll_frame(&mut silent),
                None => Pin::new(&mut self.body).poll_frame(cx),
            };
            match next {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers end at the edge, as they do on the way in.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if worked => return Poll::Pending,
                // How the exchange ended is told by the body, in the next round.
                Poll::Pending => worked = drive(&mut self.connection, cx).is_pending(),
            }
        }
    }

    fn on_next(
        &mut self,
        next: Option<Result<Bytes, hyper::Error>>,
        cx: &mut Context<'_>,
    ) -> Option<Result<Bytes, AnswerError>> {
        match next {
            Some(Ok(data)) => {
                self.bytes += data.len() as u64;
                if self.body.is_end_stream() {
                    self.finish(cx);
                }
                Some(Ok(match &mut self.comments {
                    Some(comments) => comments.pass(data),
                    None => data,
                }))
            }
            None => {
                self.finish(cx);
                None
            }
            Some(Err(error)) => {
                self.connection = None;
                self.end = End::Broken;
                Some(Err(AnswerError::BrokenOff(error)))
            }
        }
    }

    /// The answer is complete: hyper may close the stream in order, and nobody will poll again.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let _ = drive(&mut self.connection, cx);
        self.connection = None;
        self.end = End::Clean;
    }

    fn is_end(&self) -> bool {
        self.end == End::Clean || (self.end == End::Open && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.comments {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let end = match self.end {
            End::Clean => AnswerEnd::Complete,
            End::Open if self.body.is_end_stream() => AnswerEnd::Complete,
            End::Open => AnswerEnd::CallerGone,
            End::Broken => AnswerEnd::BrokenOff,
        };
        self.call.measures().answer_ended(end, self.bytes);
    }
}
