//! A caller's body on its way to the gateway: streamed, with its first bytes in reach.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

use super::BoxError;

/// A caller's body, whatever its type was.
type CallerBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body with its data and errors in one form. What it says about its length and end stays, which the general
/// adapters cannot promise.
struct AnyBody<B>(Pin<Box<B>>);

impl<B> Body for AnyBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        let in_bytes =
            |frame: Frame<B::Data>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        Poll::Ready(frame.map(|frame| frame.map(in_bytes).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The body of one call. The exchange streams it through [`Upload::body`]; the handle itself stays with the call, so
/// that a failure can still name the request's id, and an attempt that took nothing can be made again.
#[derive(Clone)]
pub(crate) struct Upload {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Read from the caller, not yet handed on.
    ready: VecDeque<Bytes>,
    /// The first bytes, kept for the id until the answer's head is there.
    prefix: Vec<Bytes>,
    prefix_len: usize,
    rest: Option<CallerBody>,
    /// How the caller's body broke off, for whoever takes what is ready before it.
    broken: Option<BoxError>,
    touched: bool,
    /// What the exchange has still to take, where the length is known: it may not ask for the end after that.
    left: Option<u64>,
    /// The exchange has been told that nothing more comes.
    told_end: bool,
    progress: Instant,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

impl Upload {
    /// Takes any body that a server hands to its service.
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let rest = (!body.is_end_stream()).then(|| AnyBody(Box::pin(body)).boxed_unsync());
        let state = State {
            ready: VecDeque::new(),
            prefix: Vec::new(),
            prefix_len: 0,
            rest,
            broken: None,
            touched: false,
            left: None,
            told_end: false,
            progress: Instant::now(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Lets a short body become ready before the head goes out, so that both leave in one write. It yields a few
    /// times and never waits: a body that is not there yet is streamed later.
    pub(crate) async fn gather(&self) {
        for _ in 0..GATHER_YIELDS {
            let gathered = poll_fn(|cx| {
                let gathered = self.lock().poll_gather(cx, GATHER_BYTES);
                Poll::Ready(gathered.is_ready())
            });
            if gathered.await {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The first bytes of the body, read from the caller if no exchange has begun to. Gives up after `patience`.
    pub(crate) async fn prefix(&self, patience: Duration) -> Vec<u8> {
        if !self.lock().touched {
            let gathered = poll_fn(|cx| self.lock().poll_gather(cx, PREFIX_BYTES));
            let _ = tokio::time::timeout(patience, gathered).await;
        }
        let mut prefix: Vec<u8> = self.lock().prefix.concat();
        prefix.truncate(PREFIX_BYTES);
        prefix
    }

    /// Lets go of the first bytes: nothing will ask for the id any more.
    pub(crate) fn forget_prefix(&self) {
        let mut state = self.lock();
        state.prefix = Vec::new();
        state.prefix_len = PREFIX_BYTES;
    }

    /// Whether there is nothing in it and nothing will come, so that it can be offered again and again.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        !state.touched && state.is_end()
    }

    /// Whether all of it has come.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.lock();
        let nothing_to_come = state.rest.as_ref().is_none_or(Body::is_end_stream);
        nothing_to_come && state.broken.is_none()
    }

    /// Whether the exchange knows that it has taken everything. Unlike the body's own end, which another task may
    /// reach at any time, this turns true only while the exchange asks, and so before it writes what follows.
    pub(crate) fn is_told_end(&self) -> bool {
        self.lock().told_end
    }

    /// When the caller last sent something.
    pub(crate) fn progress(&self) -> Instant {
        self.lock().progress
    }

    /// The body as one exchange sends it.
    pub(crate) fn body(&self) -> UploadBody {
        let mut state = self.lock();
        state.told_end = false;
        state.left = state.size_hint().exact();
        drop(state);
        UploadBody(self.clone())
    }

    /// A poisoned lock means that the caller's body panicked; what it left is still consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads until `most` bytes are ready, or the body has ended one way or the other.
    fn poll_gather(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        while self.ready_bytes() < most && self.broken.is_none() {
            match ready!(self.poll_rest(cx)) {
                Some(Ok(data)) => self.ready.push_back(data),
                Some(Err(error)) => self.broken = Some(error),
                None => break,
            }
        }
        Poll::Ready(())
    }

    /// The next data of the caller; trailers end here, since they could only smuggle.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            let Some(rest) = &mut self.rest else {
                return Poll::Ready(None);
            };
            let frame = ready!(Pin::new(&mut *rest).poll_frame(cx));
            self.progress = Instant::now();
            match frame {
                None => self.rest = None,
                Some(Err(error)) => {
                    self.rest = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    if rest.is_end_stream() {
                        self.rest = None;
                    }
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.remember(&data);
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }

    fn remember(&mut self, data: &Bytes) {
        if self.prefix_len < PREFIX_BYTES {
            self.prefix_len += data.len();
            self.prefix.push(data.slice(..data.len().min(PREFIX_BYTES)));
        }
    }

    fn ready_bytes(&self) -> usize {
        self.ready.iter().map(Bytes::len).sum()
    }

    /// Exact only for a body that is, or promises to be, whole: hyper would end a request there.
    fn size_hint(&self) -> SizeHint {
        let ready = self.ready_bytes() as u64;
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ready));
        if let Some(upper) = rest.upper().filter(|_| self.broken.is_none()) {
            hint.set_upper(upper.saturating_add(ready));
        }
        hint
    }

    fn is_end(&self) -> bool {
        self.ready.is_empty()
            && self.broken.is_none()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// See [`Upload::body`].
#[derive(Debug)]
pub(crate) struct UploadBody(Upload);

impl Body for UploadBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.0.lock();
        let next = match (state.ready.pop_front(), state.broken.take()) {
            (Some(data), broken) => {
                state.broken = broken;
                Some(Ok(data))
            }
            (None, Some(broken)) => Some(Err(broken)),
            (None, None) => ready!(state.poll_rest(cx)),
        };
        state.touched |= next.is_some();
        match &next {
            Some(Ok(data)) => {
                state.left = state
                    .left
                    .map(|left| left.saturating_sub(data.len() as u64));
                state.told_end |= state.left == Some(0);
            }
            Some(Err(_)) => {}
            None => state.told_end = true,
        }
        Poll::Ready(next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let mut state = self.0.lock();
        state.told_end |= state.is_end();
        state.told_end
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// Enough for hyper's server to read a short body and its end after the head: two polls of its connection.
const GATHER_YIELDS: usize = 3;
/// More than this goes out in several writes in any case.
const GATHER_BYTES: usize = 16 * 1024;
/// The id of a JSON-RPC request is found within this, or it is not echoed.
const PREFIX_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderMap;
    use http_body_util::{Full, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    /// A body fed by hand.
    struct Fed(mpsc::Receiver<Frame<Bytes>>);

    impl Body for Fed {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }

    fn channel() -> (mpsc::Sender<Frame<Bytes>>, Fed) {
        let (tx, rx) = mpsc::channel(8);
        (tx, Fed(rx))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_short_body_is_complete_before_the_head() {
        let upload = Upload::new(Full::new(Bytes::from_static(b"{\"id\":1}")));
        upload.gather().await;
        assert_eq!(upload.body().size_hint().exact(), Some(8));
        assert!(!upload.lock().touched && !upload.is_told_end());
        assert_eq!(
            upload.body().collect().await.unwrap().to_bytes(),
            "{\"id\":1}"
        );
        assert!(upload.lock().touched && upload.is_told_end());
        assert_eq!(upload.prefix(Duration::ZERO).await, b"{\"id\":1}");
    }

    #[tokio::test]
    async fn a_slow_body_delays_nothing_and_arrives_whole() {
        let (tx, body) = channel();
        let upload = Upload::new(body);
        upload.gather().await;
        assert!(!upload.lock().touched);
        tx.send(data("a")).await.unwrap();
        tx.send(data("b")).await.unwrap();
        drop(tx);
        assert_eq!(upload.body().collect().await.unwrap().to_bytes(), "ab");
    }

    #[tokio::test(start_paused = true)]
    async fn the_prefix_waits_no_longer_than_told() {
        let (tx, body) = channel();
        let upload = Upload::new(body);
        let before = Instant::now();
        assert!(upload.prefix(Duration::from_millis(100)).await.is_empty());
        assert_eq!(before.elapsed(), Duration::from_millis(100));
        tx.send(data("{\"id\":7")).await.unwrap();
        assert_eq!(
            upload.prefix(Duration::from_millis(100)).await,
            b"{\"id\":7"
        );
        assert!(!upload.lock().touched);
    }

    #[tokio::test]
    async fn trailers_end_at_the_edge() {
        let (tx, body) = channel();
        tx.send(data("a")).await.unwrap();
        tx.send(Frame::trailers(HeaderMap::new())).await.unwrap();
        drop(tx);
        let upload = Upload::new(body);
        let collected = upload.body().collect().await.unwrap();
        assert!(collected.trailers().is_none());
        assert_eq!(collected.to_bytes(), "a");
    }

    #[tokio::test]
    async fn a_long_body_is_not_gathered_whole() {
        let chunk = Bytes::from(vec![b'x'; 10_000]);
        let frames =
            std::iter::repeat_n(chunk, 100).map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let upload = Upload::new(StreamBody::new(futures_util::stream::iter(frames)));
        upload.gather().await;
        assert_eq!(upload.lock().ready_bytes(), 20_000);
        assert_eq!(upload.prefix(Duration::ZERO).await.len(), PREFIX_BYTES);
        assert_eq!(
            upload.body().collect().await.unwrap().to_bytes().len(),
            1_000_000
        );
    }
}
