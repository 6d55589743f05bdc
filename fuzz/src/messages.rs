//! Envelopes, ids and event streams of `mcp-messages`.

use mcp_messages::{Body, Message, RequestId, RequestIdFinder, SseReader, SseScanner};

/// A body; where it is one request, the finder and the parser agree on its id.
pub(crate) fn envelope(bytes: &[u8]) {
    let Ok(body) = Body::parse(bytes) else {
        return;
    };
    for message in body.messages() {
        let _ = message.peek();
    }
    if let Body::Single(message @ Message::Request { id, .. }) = &body {
        let mut finder = RequestIdFinder::new(bytes.len());
        finder.feed(bytes);
        let found = finder.id().map(RequestId::as_json);
        if let Some(repeated) = RequestId::of(*id) {
            assert_eq!(found, Some(repeated.as_json()), "{message:?}");
        }
    }
}

/// The first bytes of a body; the first byte says how they are cut.
pub(crate) fn request_id(bytes: &[u8]) {
    let Some((size, body)) = bytes.split_first() else {
        return;
    };
    let find = |size: usize| {
        let mut finder = RequestIdFinder::new(512);
        body.chunks(size).for_each(|chunk| finder.feed(chunk));
        finder.id().cloned()
    };
    assert_eq!(find(usize::from(*size).max(1)), find(1));
}

/// An event stream; the first byte says how it is cut.
pub(crate) fn sse(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else {
        return;
    };
    let read = |size: usize| {
        let mut scanner = SseScanner::new();
        let mut reader = SseReader::new(256);
        let mut events = Vec::new();
        for chunk in stream.chunks(size) {
            scanner.feed(chunk);
            if reader.feed(chunk).is_err() {
                return (scanner.is_between_events(), None);
            }
            events.extend(std::iter::from_fn(|| reader.next_event()));
        }
        (scanner.is_between_events(), Some(events))
    };
    let whole = read(stream.len().max(1));
    let cut = read(usize::from(*size).max(1));
    assert!(whole == cut || whole.1.is_none(), "{whole:?} {cut:?}");
}
