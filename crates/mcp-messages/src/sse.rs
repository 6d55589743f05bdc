//! Event streams: where one event ends, and what events say.
//!
//! Lines end with LF, CRLF or CR; an empty line ends an event; a line that starts with a colon is a comment. All of it
//! may be split anywhere.

use std::collections::VecDeque;

/// Follows the bytes of an event stream and knows whether a comment may be put in now.
///
/// Put one in only while [`Self::is_between_events`]: before any event, or after the empty line of one. The bytes
/// themselves are never changed or kept; the state is four bytes.
///
/// ```
/// use mcp_messages::SseScanner;
/// let mut scanner = SseScanner::new();
/// scanner.feed(b"data: 1\n");
/// assert!(!scanner.is_between_events());
/// scanner.feed(b"\n");
/// assert!(scanner.is_between_events());
/// ```
#[derive(Debug, Clone, Default)]
pub struct SseScanner {
    place: Place,
    in_event: bool,
    after_cr: bool,
    line_ends: LineEnds,
    mark: Mark,
}

/// Where in a line the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    LineStart,
    Comment,
    Field,
}

/// What a CR was followed by so far: it decides whether a CR at the end of a chunk ends the line already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LineEnds {
    #[default]
    Unknown,
    CrLf,
    BareCr,
}

/// How much of a byte order mark at the start of the stream was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mark {
    #[default]
    Possible,
    OneByte,
    TwoBytes,
    Over,
}

impl SseScanner {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some((first, tail)) = rest.split_first() {
            self.step(*first);
            rest = if self.place == Place::LineStart {
                tail
            } else {
                skip_line(tail)
            };
        }
    }

    /// Whether the stream stands between two events, so that a comment line disturbs nothing.
    ///
    /// In a stream whose lines end with CRLF (or may yet turn out to), a CR at the very end of what came waits for its LF.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        let cut = self.after_cr && self.line_ends != LineEnds::BareCr;
        let marking = matches!(self.mark, Mark::OneByte | Mark::TwoBytes);
        self.place == Place::LineStart && !self.in_event && !cut && !marking
    }

    fn step(&mut self, byte: u8) {
        if self.mark != Mark::Over && self.is_in_mark(byte) {
            return;
        }
        if self.after_cr {
            self.after_cr = false;
            self.line_ends = if byte == b'\n' {
                LineEnds::CrLf
            } else {
                LineEnds::BareCr
            };
            if byte == b'\n' {
                return;
            }
        }
        match (byte, self.place) {
            (b'\n' | b'\r', place) => {
                self.after_cr = byte == b'\r';
                self.in_event = match place {
                    Place::LineStart => false,
                    Place::Comment => self.in_event,
                    Place::Field => true,
                };
                self.place = Place::LineStart;
            }
            (b':', Place::LineStart) => self.place = Place::Comment,
            (_, Place::LineStart) => self.place = Place::Field,
            (_, Place::Comment | Place::Field) => {}
        }
    }

    /// Takes a byte of the mark. What turns out to be none is the start of a field.
    fn is_in_mark(&mut self, byte: u8) -> bool {
        let (next, inside) = match (self.mark, byte) {
            (Mark::Possible, 0xef) => (Mark::OneByte, true),
            (Mark::OneByte, 0xbb) => (Mark::TwoBytes, true),
            (Mark::TwoBytes, 0xbf) => (Mark::Over, true),
            (Mark::OneByte | Mark::TwoBytes, _) => {
                self.place = Place::Field;
                (Mark::Over, false)
            }
            (Mark::Possible | Mark::Over, _) => (Mark::Over, false),
        };
        self.mark = next;
        inside
    }
}

/// From the middle of a line to its end, the end included in what is returned.
fn skip_line(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))
        .unwrap_or(bytes.len());
    bytes.get(end..).unwrap_or_default()
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SseEvent {
    /// Its type; empty where none was said, which means `message`.
    pub event: String,
    /// Its data, lines joined by LF.
    pub data: String,
    /// The id that it said, if it did.
    pub id: Option<String>,
}

/// Reads events out of a stream, for clients that want their content.
///
/// Holds at most `max_event` bytes of one unfinished event, and the finished ones until they are taken.
#[derive(Debug, Clone)]
pub struct SseReader {
    max_event: usize,
    held: usize,
    line: Vec<u8>,
    after_cr: bool,
    at_start: bool,
    event: SseEvent,
    has_data: bool,
    ready: VecDeque<SseEvent>,
}

/// An event is longer than the reader was told to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {limit} bytes")]
#[non_exhaustive]
pub struct EventTooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

impl SseReader {
    /// At the start of a stream; an event of more than `max_event` bytes is refused.
    #[must_use]
    pub fn new(max_event: usize) -> Self {
        Self {
            max_event,
            held: 0,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            event: SseEvent::default(),
            has_data: false,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`EventTooLong`]; the stream cannot be read on.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), EventTooLong> {
        for byte in chunk {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                _ => {
                    self.held += 1;
                    if self.held > self.max_event {
                        return Err(EventTooLong {
                            limit: self.max_event,
                        });
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(())
    }

    /// Takes the next finished event.
    pub fn next_event(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if std::mem::take(&mut self.at_start) {
            line.trim_start_matches('\u{feff}')
        } else {
            &line
        };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            self.held = 0;
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "event" => self.event.event = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
