//! One exchange over a stream whose far end is played by the test.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::calls::{Admittance, Calls};

/// What the exchange does to its stream, apart from reading.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Write(String),
    Fin,
    Drop,
}

type Acts = Arc<Mutex<Vec<Act>>>;

struct Recorded {
    stream: DuplexStream,
    acts: Acts,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.acts.lock().unwrap().push(Act::Drop);
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &written {
            let text = String::from_utf8_lossy(&buf[..*len]).into_owned();
            self.acts.lock().unwrap().push(Act::Write(text));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.acts.lock().unwrap().push(Act::Fin);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn stream() -> (Recorded, DuplexStream, Acts) {
    let (near, far) = duplex(256 * 1024);
    let acts = Acts::default();
    (
        Recorded {
            stream: near,
            acts: Arc::clone(&acts),
        },
        far,
        acts,
    )
}

fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/mcp");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn full(text: &'static str) -> Upload {
    Upload::new(Full::new(Bytes::from_static(text.as_bytes())))
}

fn nothing() -> Upload {
    Upload::new(Empty::<Bytes>::new())
}

/// A body fed by hand.
fn fed() -> (
    mpsc::Sender<Frame<Bytes>>,
    impl http_body::Body<Data = Bytes, Error = io::Error>,
) {
    let (tx, mut rx) = mpsc::channel::<Frame<Bytes>>(8);
    let frames = futures_util::stream::poll_fn(move |cx| {
        rx.poll_recv(cx).map(|frame| frame.map(Ok::<_, io::Error>))
    });
    (tx, StreamBody::new(frames))
}

fn body_of(begun: Begun) -> IngressBody {
    let grant = Grant {
        tunnel: mcp_tunnel_auth::TunnelId::new(1, &[0; 10]),
        route: RouteName::default(),
        by: Admittance::Dev,
    };
    let call = Calls::new(1).enter(grant).unwrap();
    IngressBody::relayed(Answer::new(begun.body, begun.connection, call, None))
}

/// Begins an exchange whose far end answers as soon as it has heard something.
async fn begin_with(
    near: Recorded,
    mut far: DuplexStream,
    head: Parts,
    upload: &Upload,
    answer: &str,
    then: Then,
) -> (Result<Begun, BeginError>, Option<DuplexStream>) {
    let answered = async {
        let mut heard = [0; 1024];
        assert!(far.read(&mut heard).await.unwrap() > 0);
        far.write_all(answer.as_bytes()).await.unwrap();
        (then == Then::Stay).then_some(far)
    };
    tokio::join!(begin(near, head, upload), answered)
}

/// What the far end does after its answer.
#[derive(PartialEq, Eq)]
enum Then {
    Stay,
    Leave,
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_without_body_ends_with_its_head() {
    let (near, far, acts) = stream();
    let answer = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

    let (begun, _far) = begin_with(
        near,
        far,
        head("GET", &[("host", "a")]),
        &nothing(),
        answer,
        Then::Stay,
    )
    .await;
    let begun = begun.unwrap();
    assert_eq!(begun.head.status, 202);
    // The answer is over: hyper has closed in order, and nobody needs to poll again.
    assert!(begun.connection.is_none());
    let text = "GET /mcp HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(
        *acts.lock().unwrap(),
        [Act::Write(text.into()), Act::Fin, Act::Drop]
    );
}

#[tokio::test]
async fn head_and_short_body_leave_in_one_write_that_ends_the_stream() {
    let (near, far, acts) = stream();
    let upload = full(r#"{"id":1}"#);
    upload.gather().await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let head = head("POST", &[("host", "a"), ("content-length", "8")]);
    let (begun, _far) = begin_with(near, far, head, &upload, answer, Then::Stay).await;
    let begun = begun.unwrap();
    let text = "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n{\"id\":1}";
    assert_eq!(*acts.lock().unwrap(), [Act::Write(text.into()), Act::Fin]);
    assert_eq!(body_of(begun).collect().await.unwrap().to_bytes(), "hi");
}

#[tokio::test]
async fn a_streamed_body_flushes_each_part_and_ends_with_its_last() {
    let (near, mut far, acts) = stream();
    let (tx, body) = fed();
    let upload = Upload::new(body);
    let exchange = begin(near, head("POST", &[("host", "a")]), &upload);
    let mut exchange = std::pin::pin!(exchange);
    let mut advance = async || {
        tokio::select! { biased; _ = exchange.as_mut() => panic!("no answer yet"), () = settle() => {} }
    };
    advance().await;
    let mut seen = [0; 1024];
    let len = far.read(&mut seen).await.unwrap();
    assert!(String::from_utf8_lossy(&seen[..len]).ends_with("transfer-encoding: chunked\r\n\r\n"));
    tx.send(Frame::data(Bytes::from_static(b"abc")))
        .await
        .unwrap();
    advance().await;
    let len = far.read(&mut seen).await.unwrap();
    assert_eq!(&seen[..len], b"3\r\nabc\r\n");
    assert!(!acts.lock().unwrap().contains(&Act::Fin));
    drop(tx);
    advance().await;
    let len = far.read(&mut seen).await.unwrap();
    assert_eq!(&seen[..len], b"0\r\n\r\n");
    assert_eq!(*acts.lock().unwrap().last().unwrap(), Act::Fin);
}

#[tokio::test]
async fn a_caller_that_goes_away_in_mid_upload_is_no_clean_end() {
    let (near, _far, acts) = stream();
    let (tx, body) = fed();
    let upload = Upload::new(body);
    {
        let exchange = begin(near, head("POST", &[("host", "a")]), &upload);
        tokio::select! { biased; _ = exchange => panic!("no answer"), () = settle() => {} }
    }
    drop(tx);
    let acts = acts.lock().unwrap();
    assert!(
        !acts.contains(&Act::Fin) && acts.ends_with(&[Act::Drop]),
        "{acts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_no_clean_end() {
    for gathered in [false, true] {
        let (near, _far, acts) = stream();
        let broken = futures_util::stream::iter([
            Ok(Frame::data(Bytes::from_static(b"abc"))),
            Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        ]);
        let upload = Upload::new(StreamBody::new(broken));
        if gathered {
            upload.gather().await;
        }
        let begun = begin(near, head("POST", &[("host", "a")]), &upload);
        let ended = tokio::time::timeout(Duration::from_secs(60), begun).await;
        let ended = ended.expect("no answer is waited for");
        assert!(
            matches!(ended.err(), Some(BeginError::Upload)),
            "{gathered}"
        );
        assert!(!acts.lock().unwrap().contains(&Act::Fin), "{gathered}");
    }
}

#[tokio::test]
async fn a_body_of_known_length_ends_with_its_last_byte() {
    // As over HTTP/2, where the end comes in a frame of its own, after the bytes that were announced.
    let (near, mut far, acts) = stream();
    let (tx, body) = fed();
    let upload = Upload::new(Limited(Box::pin(body), 3));
    tx.send(Frame::data(Bytes::from_static(b"abc")))
        .await
        .unwrap();
    let head = head("POST", &[("host", "a"), ("content-length", "3")]);
    let exchange = begin(near, head, &upload);
    tokio::select! { biased; _ = exchange => panic!("no answer yet"), () = settle() => {} }
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    assert!(heard.ends_with("\r\n\r\nabc"), "{heard}");
    let acts = acts.lock().unwrap();
    assert!(acts.ends_with(&[Act::Fin, Act::Drop]), "{acts:?}");
}

/// A body that knows its length.
struct Limited<B>(Pin<Box<B>>, u64);

impl<B: http_body::Body<Data = Bytes, Error = io::Error>> http_body::Body for Limited<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.as_mut().poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_upload_is_over() {
    let (near, far, acts) = stream();
    let (tx, body) = fed();
    let upload = Upload::new(body);
    let answer = "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig";

    let (begun, _far) = begin_with(
        near,
        far,
        head("POST", &[("host", "a")]),
        &upload,
        answer,
        Then::Stay,
    )
    .await;
    let begun = begun.unwrap();
    assert_eq!(body_of(begun).collect().await.unwrap().to_bytes(), "big");
    drop(tx);
    assert!(!acts.lock().unwrap().contains(&Act::Fin));
}

#[track_caller]
fn is_broken(collected: Result<http_body_util::Collected<Bytes>, BoxError>) {
    let error = collected.expect_err("the answer was cut");
    assert!(
        matches!(
            error.downcast_ref(),
            Some(answer::AnswerError::BrokenOff(_))
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_cut_answer_is_an_error_however_it_is_framed() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
    ] {
        let (near, far, _) = stream();

        let (begun, _far) = begin_with(
            near,
            far,
            head("GET", &[("host", "a")]),
            &nothing(),
            answer,
            Then::Leave,
        )
        .await;
        let begun = begun.unwrap();
        is_broken(body_of(begun).collect().await);
    }
}

#[tokio::test]
async fn whole_answers_pass_unchanged() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nx-trailer: 1\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef",
    ] {
        let (near, far, _) = stream();

        let (begun, _far) = begin_with(
            near,
            far,
            head("GET", &[("host", "a")]),
            &nothing(),
            answer,
            Then::Stay,
        )
        .await;
        let begun = begun.unwrap();
        let collected = body_of(begun).collect().await.unwrap();
        assert!(collected.trailers().is_none());
        assert_eq!(collected.to_bytes(), "abcdef");
    }
}

#[tokio::test]
async fn what_is_no_http_is_named_so() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(80_000));
    for answer in [
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 2",
        &long,
    ] {
        let (near, far, _) = stream();
        let head = head("GET", &[("host", "a")]);
        let (ended, _) = begin_with(near, far, head, &nothing(), answer, Then::Leave).await;
        assert!(
            matches!(ended.err(), Some(BeginError::Answer(_))),
            "{answer:.40}"
        );
    }
}

#[tokio::test]
async fn an_answer_before_its_request_is_no_answer() {
    let (near, mut far, _) = stream();
    far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let ended = begin(near, head("GET", &[("host", "a")]), &nothing()).await;
    assert!(matches!(ended.err(), Some(BeginError::Answer(_))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stalls_its_own_stream_only() {
    let (near, far, _) = stream();
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let head = head("GET", &[("host", "a")]);
    let (begun, far) = begin_with(near, far, head, &nothing(), answer, Then::Stay).await;
    let (mut body, mut far) = (body_of(begun.unwrap()), far.unwrap());
    // Nobody reads: the far end can write as much as the stream and one read buffer take, and no more.
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    let mut written = 0;
    let patience = Duration::from_secs(1);
    while let Ok(Ok(())) = tokio::time::timeout(patience, far.write_all(chunk.as_bytes())).await {
        written += chunk.len();
    }
    assert!(written <= 256 * 1024 + 64 * 1024, "{written}");
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(!first.is_empty() && first.len() <= 64 * 1024);
}

/// The runtime ends the turn of a task that has done much at any step: nothing may then wait for a wake-up that was left
/// with nobody.
#[tokio::test]
async fn a_turn_that_ends_at_any_step_loses_no_wake_up() {
    for less in 90..128 {
        let (near, mut far, _acts) = stream();
        let mut exchange = JoinSet::new();
        exchange.spawn(async move {
            let upload = full("ping");
            let work = async {
                let head = head("POST", &[("host", "a"), ("content-length", "4")]);
                let begun = begin(near, head, &upload).await.unwrap();
                body_of(begun).collect().await.unwrap().to_bytes()
            };
            starved(less, work).await
        });
        let answered = async {
            let mut heard = Vec::new();
            while !heard.ends_with(b"ping") {
                assert!(far.read_buf(&mut heard).await.unwrap() > 0);
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi";
            far.write_all(answer).await.unwrap();
            settle().await;
            far.write_all(b"ho").await.unwrap();
            exchange.join_next().await.unwrap().unwrap()
        };
        let body = tokio::time::timeout(Duration::from_secs(20), answered).await;
        let body =
            body.unwrap_or_else(|_| panic!("a turn shorter by {less} is never gone on with"));
        assert_eq!(body, "hiho");
    }
}

/// Does `work` with so much less of what the runtime lets a task do in one turn.
async fn starved<T>(less: usize, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        for _ in 0..less {
            let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
        }
        work.as_mut().poll(cx)
    })
    .await
}
