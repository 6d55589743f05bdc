//! Comments on a silent event stream, so that nothing between here and the caller takes it for dead.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use mcp_messages::SseScanner;
use tokio::time::{Instant, Sleep};

/// Watches an event stream pass and puts comments into its silence, between events only.
#[derive(Debug)]
pub(crate) struct Comments {
    scanner: SseScanner,
    silence: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
    start: Start,
}

/// A byte order mark counts only at the very start of a stream. Once a comment stands there, it would become part of
/// the first event's first field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing has passed yet.
    Untouched,
    /// A comment stands before the first byte; so many bytes of a mark have been held back.
    AfterComment(usize),
    Passed,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
/// A comment and the empty line after it: complete in itself, an event to nobody.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

impl Comments {
    /// `None` for anything but an event stream that can take more bytes.
    pub(crate) fn for_answer(headers: &HeaderMap, silence: Duration) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let plain = headers
            .get(CONTENT_ENCODING)
            .is_none_or(|encoding| encoding == "identity");
        let open = !headers.contains_key(CONTENT_LENGTH);
        (essence.eq_ignore_ascii_case("text/event-stream") && plain && open)
            .then(|| Self::new(silence))
    }

    fn new(silence: Duration) -> Self {
        let now = Instant::now();
        Self {
            scanner: SseScanner::new(),
            silence,
            last: now,
            timer: Box::pin(tokio::time::sleep_until(now + silence)),
            start: Start::Untouched,
        }
    }

    /// Notes what passes, and returns it: unchanged, but for a byte order mark that a comment has overtaken.
    pub(crate) fn pass(&mut self, mut data: Bytes) -> Bytes {
        if data.is_empty() {
            return data;
        }
        self.last = Instant::now();
        if let Start::AfterComment(held) = self.start {
            let rest = BYTE_ORDER_MARK.get(held..).unwrap_or_default();
            let same = data
                .iter()
                .zip(rest)
                .take_while(|(byte, mark)| byte == mark)
                .count();
            if same == rest.len() {
                data = data.slice(same..);
                self.start = Start::Passed;
            } else if same == data.len() {
                self.start = Start::AfterComment(held + same);
                return Bytes::new();
            } else {
                let mark = BYTE_ORDER_MARK.get(..held).unwrap_or_default();
                data = [mark, &data].concat().into();
                self.start = Start::Passed;
            }
        } else {
            self.start = Start::Passed;
        }
        self.scanner.feed(&data);
        data
    }

    /// A comment, once the stream has been silent long enough and stands between two events. A stream that is silent
    /// within an event gets none until the event is complete.
    pub(crate) fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let due = self.last + self.silence;
            if now < due {
                self.timer.as_mut().reset(due);
                continue;
            }
            self.last = now;
            self.timer.as_mut().reset(now + self.silence);
            if self.scanner.is_between_events() && !matches!(self.start, Start::AfterComment(1..)) {
                if self.start == Start::Untouched {
                    self.start = Start::AfterComment(0);
                }
                return Poll::Ready(COMMENT);
            }
        }
    }
}

#[cfg(test)]
mod tests;
