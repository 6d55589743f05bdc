//! Reads an event stream, however it is cut.

use std::collections::VecDeque;
use std::mem;

use crate::{ErrorEnvelope, Event, RawJson};

/// Reads frames out of the bytes of a stream.
///
/// Lines end with LF, CRLF or CR; an empty line ends a frame; a line that starts with
/// a colon is a comment; a byte order mark before the first line is skipped. Holds at
/// most `max_bytes` of one unfinished frame, and the finished ones of the bytes fed
/// last until they are taken.
///
/// ```
/// use managed_agents_api::sse::{Message, Reader};
///
/// let mut reader = Reader::new(1 << 20);
/// reader.feed(b"event: agent.thinking\r\ndata: {\"type\":\"agent.th")?;
/// assert!(reader.next_frame().is_none());
/// reader.feed(b"inking\",\"id\":\"sevt_1\"}\r\n\r\n: a comment\n\n")?;
/// let frame = reader.next_frame().ok_or("a frame")?;
/// let Message::Event(event) = frame.message()? else { unreachable!() };
/// assert_eq!(event.id(), "sevt_1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reader {
    max_bytes: usize,
    /// Bytes of the unfinished frame: those of finished lines and of the open one.
    held: usize,
    line: Vec<u8>,
    after_cr: bool,
    at_start: bool,
    frame: Frame,
    has_data: bool,
    ready: VecDeque<Frame>,
}

/// One frame of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// What its `event:` line says; empty where there is none.
    pub event: Vec<u8>,
    /// Its data, lines joined by LF.
    pub data: Vec<u8>,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the three kinds that a stream has")]
pub enum Message {
    /// An event.
    Event(Event),
    /// Nothing: the stream lives.
    Ping,
    /// The stream ends, for this reason.
    Error(ErrorEnvelope),
}

/// A frame longer than the reader may hold. The stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the stream is longer than {max_bytes} bytes")]
#[non_exhaustive]
pub struct FrameTooLong {
    /// The bound.
    pub max_bytes: usize,
}

/// A frame that says nothing readable. The stream can be read on.
#[derive(Debug, thiserror::Error)]
#[error("a frame of the stream holds no event")]
#[non_exhaustive]
pub struct FrameError {
    /// What the parser said.
    #[from]
    source: serde_json::Error,
}

impl Reader {
    /// At the start of a stream; a frame of more than `max_bytes` is refused.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            held: 0,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            frame: Frame::default(),
            has_data: false,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`FrameTooLong`]; frames that were finished before can still be taken.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), FrameTooLong> {
        let mut rest = chunk;
        loop {
            if self.after_cr && !rest.is_empty() {
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                self.after_cr = false;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, tail) = rest.split_at(end.unwrap_or(rest.len()));
            self.held = self.held.saturating_add(part.len());
            if self.held > self.max_bytes {
                return Err(FrameTooLong {
                    max_bytes: self.max_bytes,
                });
            }
            self.line.extend_from_slice(part);
            let Some((ending, tail)) = tail.split_first() else {
                return Ok(());
            };
            self.after_cr = *ending == b'\r';
            self.end_line();
            rest = tail;
        }
    }

    /// Takes the next finished frame.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let mut text = line.as_slice();
        if mem::take(&mut self.at_start) {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        if text.is_empty() {
            self.end_frame();
        } else {
            let colon = text.iter().position(|byte| *byte == b':');
            let (field, value) = text.split_at(colon.unwrap_or(text.len()));
            let value = value.strip_prefix(b":").unwrap_or(value);
            self.take(field, value.strip_prefix(b" ").unwrap_or(value));
        }
        // Its memory serves the next line.
        self.line = line;
        self.line.clear();
    }

    fn take(&mut self, field: &[u8], value: &[u8]) {
        match field {
            b"data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.frame.data.push(b'\n');
                }
                self.frame.data.extend_from_slice(value);
            }
            b"event" => self.frame.event = value.to_vec(),
            _ => {}
        }
        // The end of a line counts as well, so that endless short ones meet the bound.
        self.held = self.held.saturating_add(1);
    }

    fn end_frame(&mut self) {
        self.held = 0;
        let frame = mem::take(&mut self.frame);
        if mem::take(&mut self.has_data) {
            self.ready.push_back(frame);
        }
    }
}

impl Frame {
    /// What it says. Without an `event:` line it is an event as well.
    ///
    /// # Errors
    /// The data is no event, or no error where it says that it is one.
    pub fn message(self) -> Result<Message, FrameError> {
        match self.event.as_slice() {
            b"ping" => Ok(Message::Ping),
            b"error" => Ok(Message::Error(serde_json::from_slice(&self.data)?)),
            _ => {
                let raw: RawJson = serde_json::from_slice(&self.data)?;
                Ok(Message::Event(Event::parse(raw)?))
            }
        }
    }
}

#[cfg(test)]
mod tests;
