//! A body whose first bytes are at hand if they had come already.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body, and what was read of it before its head went on.
///
/// hyper writes a head on its own when no body is at hand, and the end of a body on its own when it comes late. Short
/// messages have arrived as a whole by the time that their head was parsed: taking them along makes one write of three.
pub(crate) struct Primed<B: Body> {
    ready: VecDeque<Bytes>,
    rest: Rest<B>,
}

enum Rest<B: Body> {
    Open(B),
    Failed(Option<B::Error>),
    Ended,
}

impl<B> Primed<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Takes what has come of the body, without waiting for more than two turns of the scheduler.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body.
    pub(crate) async fn prime(body: B) -> Self {
        let mut primed = Self {
            ready: VecDeque::new(),
            rest: Rest::Open(body),
        };
        let (mut turns, mut bytes) = (0, 0);
        while turns < TURNS && bytes < ENOUGH && !primed.rest_ended() {
            match poll_fn(|cx| Poll::Ready(primed.rest.poll_data(cx))).await {
                Poll::Ready(Some(Ok(data))) => {
                    bytes += data.len();
                    primed.ready.push_back(data);
                }
                Poll::Ready(Some(Err(error))) => primed.rest = Rest::Failed(Some(error)),
                Poll::Ready(None) => primed.rest = Rest::Ended,
                Poll::Pending => {
                    turns += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        primed
    }

    /// A body of the bytes at hand alone; nothing is copied.
    pub(crate) fn at_hand(&self) -> Self {
        Self {
            ready: self.ready.clone(),
            rest: Rest::Ended,
        }
    }

    fn rest_ended(&self) -> bool {
        match &self.rest {
            Rest::Open(body) => body.is_end_stream(),
            Rest::Failed(_) | Rest::Ended => true,
        }
    }
}

impl<B> Rest<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// The next bytes that are not empty; trailers belong to one hop and are dropped.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        loop {
            let body = match self {
                Self::Open(body) => body,
                Self::Failed(error) => return Poll::Ready(error.take().map(Err)),
                Self::Ended => return Poll::Ready(None),
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    Ok(_) | Err(_) => {}
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<B> Body for Primed<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(data) = this.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        this.rest
            .poll_data(cx)
            .map(|next| next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let failed = matches!(self.rest, Rest::Failed(_));
        self.ready.is_empty() && !failed && self.rest_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let at_hand: u64 = self.ready.iter().map(|data| data.len() as u64).sum();
        match &self.rest {
            Rest::Ended => SizeHint::with_exact(at_hand),
            Rest::Failed(_) => SizeHint::new(),
            Rest::Open(body) => {
                let rest = body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(at_hand));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(at_hand));
                }
                hint
            }
        }
    }
}

/// Sizes only: a body is never logged.
impl<B: Body> fmt::Debug for Primed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Primed")
            .field("chunks_at_hand", &self.ready.len())
            .finish_non_exhaustive()
    }
}

/// Turns of the scheduler that a body gets to arrive: one for the task that reads the socket, one for its end.
const TURNS: usize = 2;

/// With this many bytes at hand a write of its own costs nothing.
const ENOUGH: usize = 16 * 1024;
