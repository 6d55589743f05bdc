use http::HeaderValue;
use proptest::prelude::*;
use std::task::Waker;

use super::*;

const SILENCE: Duration = Duration::from_secs(15);

fn headers(list: &[(http::HeaderName, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(_, &'static str)| {
        (
            http::HeaderName::clone(name),
            HeaderValue::from_static(value),
        )
    };
    list.iter().map(pair).collect()
}

#[tokio::test(start_paused = true)]
async fn only_an_open_event_stream_takes_comments() {
    let check = |list: &[_], expect| {
        let comments = Comments::for_answer(&headers(list), SILENCE);
        assert_eq!(comments.is_some(), expect, "{list:?}");
    };
    check(&[(CONTENT_TYPE, "text/event-stream")], true);
    check(&[(CONTENT_TYPE, "Text/Event-Stream; charset=utf-8")], true);
    check(
        &[
            (CONTENT_TYPE, "text/event-stream"),
            (CONTENT_ENCODING, "identity"),
        ],
        true,
    );
    check(
        &[
            (CONTENT_TYPE, "text/event-stream"),
            (CONTENT_ENCODING, "gzip"),
        ],
        false,
    );
    check(
        &[(CONTENT_TYPE, "text/event-stream"), (CONTENT_LENGTH, "10")],
        false,
    );
    check(&[(CONTENT_TYPE, "application/json")], false);
    check(&[], false);
}

#[tokio::test(start_paused = true)]
async fn a_comment_comes_after_each_silence_and_not_within_an_event() {
    let start = Instant::now();
    let mut comments = Comments::new(SILENCE);
    let next = |comments: &mut Comments| {
        let mut cx = Context::from_waker(Waker::noop());
        comments.poll_comment(&mut cx).is_ready()
    };
    assert!(!next(&mut comments));
    for due in [15, 30, 45] {
        std::future::poll_fn(|cx| comments.poll_comment(cx)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(due));
    }
    assert_eq!(comments.pass(Bytes::from_static(b"data: 1\n")), "data: 1\n");
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(!next(&mut comments));
    tokio::time::advance(Duration::from_secs(1)).await;
    comments.pass(Bytes::from_static(b"\n"));
    tokio::time::advance(Duration::from_secs(14)).await;
    assert!(!next(&mut comments));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(next(&mut comments));
}

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_that_a_comment_has_overtaken_is_left_out() {
    for split in 0..=3 {
        let mut comments = Comments::new(SILENCE);
        std::future::poll_fn(|cx| comments.poll_comment(cx)).await;
        let stream = Bytes::from_static(b"\xef\xbb\xbfdata: 1\n\n");
        let passed = [
            comments.pass(stream.slice(..split)),
            comments.pass(stream.slice(split..)),
        ];
        assert_eq!(passed.concat(), b"data: 1\n\n");
    }
    let mut comments = Comments::new(SILENCE);
    std::future::poll_fn(|cx| comments.poll_comment(cx)).await;
    let passed = [
        comments.pass(Bytes::from_static(b"\xef\xbb")),
        comments.pass(Bytes::from_static(b"\xbcdata: 1\n")),
    ];
    assert_eq!(passed.concat(), b"\xef\xbb\xbcdata: 1\n");
}

/// What a client makes of a stream: the fields of each event, as the HTML standard reads them.
fn events(stream: &str) -> Vec<Vec<String>> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let text = stream.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // not ended: not a line yet
    let mut events = Vec::new();
    let mut fields = Vec::new();
    for line in lines {
        if line.is_empty() {
            if !fields.is_empty() {
                events.push(std::mem::take(&mut fields));
            }
        } else if !line.starts_with(':') {
            fields.push(line.to_owned());
        }
    }
    events.push(fields);
    events
}

fn stream() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("data: x"),
        Just("data:"),
        Just(": comment"),
        Just("id: 7"),
        Just("event: \u{e9}"),
        Just("retry"),
        Just(""),
        Just("")
    ];
    let lines = prop::collection::vec(line, 0..12);
    let ends = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (lines, ends, prop::bool::ANY, prop::bool::ANY).prop_map(|(lines, end, mark, cut)| {
        let mut text = if mark {
            "\u{feff}".to_owned()
        } else {
            String::new()
        };
        text.extend(lines.iter().flat_map(|line| [*line, end]));
        if cut {
            text.push_str("data: unfinis");
        }
        text
    })
}

proptest! {
    /// Wherever a stream is cut into chunks, and after whichever of them it falls silent: with the comments in it,
    /// a client reads the same events; and without them, the bytes are the same.
    #[test]
    fn comments_change_no_event(
        stream in stream(),
        cuts in prop::collection::vec((prop::num::usize::ANY, prop::bool::ANY), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let bytes = Bytes::from(stream.clone());
        let mut cuts: Vec<(usize, bool)> =
            cuts.iter().map(|(at, silent)| (at % (bytes.len() + 1), *silent)).collect();
        cuts.push((bytes.len(), true));
        cuts.sort_unstable();
        let (out, inserted) = runtime.block_on(async {
            let mut comments = Comments::new(SILENCE);
            let (mut out, mut at, mut inserted) = (Vec::new(), 0, 0);
            for (cut, silent) in cuts {
                out.extend_from_slice(&comments.pass(bytes.slice(at..cut)));
                at = cut;
                if silent {
                    tokio::time::advance(SILENCE).await;
                    let mut cx = Context::from_waker(Waker::noop());
                    if let Poll::Ready(comment) = comments.poll_comment(&mut cx) {
                        out.extend_from_slice(&comment);
                        inserted += 1;
                    }
                }
            }
            (out, inserted)
        });
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(events(&out), events(&stream));
        let added = out.trim_start_matches('\u{feff}').len() - stream.trim_start_matches('\u{feff}').len();
        prop_assert_eq!(added, inserted * COMMENT.len());
    }
}
