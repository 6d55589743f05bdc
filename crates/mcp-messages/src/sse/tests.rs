use proptest::prelude::*;

use super::*;

fn after(bytes: &[u8]) -> bool {
    let mut scanner = SseScanner::new();
    scanner.feed(bytes);
    scanner.is_between_events()
}

#[track_caller]
fn check(bytes: &[u8], expect: bool) {
    assert_eq!(after(bytes), expect, "{}", bytes.escape_ascii());
}

#[test]
fn between_events_in_each_kind_of_line_end() {
    check(b"", true);
    for end in ["\n", "\r\n"] {
        let lines = |text: &str| text.replace('\n', end).into_bytes();
        check(&lines("data: 1\n\n"), true);
        check(&lines("data: 1\n"), false);
        check(&lines("data: 1"), false);
        check(&lines("d"), false);
        check(&lines("id: 1\nretry: 3\ndata:\n\n"), true);
        check(&lines(": ping\n"), true);
        check(&lines(": ping\n\n"), true);
        check(&lines(": pi"), false);
        check(&lines("data: 1\n: note\n"), false);
        check(&lines("data: 1\n: note\n\n"), true);
        check(&lines("\n"), true);
        check(&lines("\n\n\n"), true);
    }
}

#[test]
fn a_cr_waits_for_its_lf_unless_the_stream_has_bare_crs() {
    check(b"data: 1\r\n\r", false);
    check(b"data: 1\r\n\r\n", true);
    check(b"data: 1\r\r", true);
    check(b"data: 1\rdata: 2\r", false);
    check(b"\r", false);
    check(b"\r\r", true);
    check(b"data: 1\r\n\r\ndata: 2\r\n\r", false);
}

#[test]
fn a_byte_order_mark_is_no_field() {
    check(b"\xef", false);
    check(b"\xef\xbb", false);
    check(b"\xef\xbb\xbf", true);
    check(b"\xef\xbb\xbf: ping\n", true);
    check(b"\xef\xbb\xbfdata: 1\n\n", true);
    check(b"\xef\xbb\xbe\n", false);
    check(b"\xefx\n", false);
    check(b"\xef\n", false);
    check(b"\n\xef\xbb\xbf", false);
}

/// The same question by cutting the whole stream into lines.
fn model(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if [&b"\xef"[..], b"\xef\xbb"].contains(&bytes) {
        return false;
    }
    let (mut in_event, mut lines, mut crlf, mut bare, mut rest) = (false, 0, false, false, bytes);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = &rest[..end];
        let pair = rest[end..].starts_with(b"\r\n");
        if rest[end] == b'\r' && end + 1 < rest.len() {
            (crlf, bare) = (pair, !pair);
        }
        in_event = match line.first() {
            None => false,
            Some(b':') => in_event,
            Some(_) => true,
        };
        lines += 1;
        rest = &rest[end + 1 + usize::from(pair)..];
    }
    let cut = bytes.last() == Some(&b'\r') && lines > 0 && (crlf || !bare);
    rest.is_empty() && !in_event && !cut
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"\r\n"[..]),
        Just(&b":"[..]),
        Just(&b"data"[..]),
        Just(&b": "[..]),
        Just(&b"id: 7"[..]),
        Just(&b"\xef\xbb\xbf"[..]),
        Just(&b"\xef"[..]),
        Just(&b"x"[..]),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_answer_as_the_model(bytes in stream(), cuts in proptest::collection::vec(0_usize..40, 0..6)) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut scanner = SseScanner::new();
        let mut from = 0;
        for cut in cuts {
            scanner.feed(&bytes[from..cut]);
            prop_assert_eq!(scanner.is_between_events(), model(&bytes[..cut]), "{}", bytes[..cut].escape_ascii());
            from = cut;
        }
    }

    #[test]
    fn a_comment_put_in_where_it_may_changes_no_event(bytes in stream()) {
        let whole = events(&bytes, 1);
        // At the very start a comment would move a byte order mark away from it.
        let first = usize::from(bytes.starts_with(b"\xef"));
        for at in (first..=bytes.len()).filter(|at| after(&bytes[..*at])) {
            let with = [&bytes[..at], b": ping\n\n", &bytes[at..]].concat();
            prop_assert_eq!(&whole, &events(&with, 7), "{}", at);
        }
    }

    #[test]
    fn any_chunking_gives_the_same_events(bytes in stream(), size in 1_usize..9) {
        prop_assert_eq!(events(&bytes, size), events(&bytes, bytes.len().max(1)));
    }
}

fn events(bytes: &[u8], size: usize) -> Vec<SseEvent> {
    let mut reader = SseReader::new(1024);
    for chunk in bytes.chunks(size) {
        reader.feed(chunk).unwrap();
    }
    std::iter::from_fn(|| reader.next_event()).collect()
}

#[test]
fn events_are_read_as_servers_write_them() {
    // Lines as three servers end and order them.
    for bytes in [
        "id: 1\nretry: 3000\ndata: \n\nevent: message\ndata: {\"a\":1}\n\n",
        "id: 1\r\ndata: \r\n\r\n: ping\r\n\r\nevent: message\r\ndata: {\"a\":1}\r\n\r\n",
        "\u{feff}data:\nid: 1\n\n:\n\nevent:message\ndata:{\"a\":1}\n\n",
    ] {
        let events = events(bytes.as_bytes(), 5);
        assert_eq!(events.len(), 2, "{bytes:?}");
        assert_eq!(
            (events[0].data.as_str(), events[0].id.as_deref()),
            ("", Some("1"))
        );
        assert_eq!(
            (events[1].data.as_str(), events[1].event.as_str()),
            ("{\"a\":1}", "message")
        );
    }
    assert_eq!(events(b"data: a\ndata: b\n\n", 1)[0].data, "a\nb");
    assert_eq!(events(b"event: x\n\ndata: unfinished\n", 1), []);
}

#[test]
fn a_long_event_is_refused_and_many_short_ones_are_not() {
    let mut reader = SseReader::new(16);
    for _ in 0..100 {
        reader.feed(b"data: 0123456\n\n").unwrap();
    }
    assert_eq!(
        reader.feed(b"data: 01234567890\n").unwrap_err(),
        EventTooLong { limit: 16 }
    );
}
