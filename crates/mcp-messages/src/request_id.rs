//! The id of a request, found in the first bytes of its body.
//!
//! A proxy that fails a call says so in a body that repeats the request's id; it neither buffers nor parses the request
//! for that. The finder looks at the bytes as they pass and stops at the id, at its limit, or at anything that is no
//! JSON object.

use std::fmt;

use serde_json::value::RawValue;

use crate::envelope::Id;

/// An id that is repeated in an answer: a JSON string or number, at most 256 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

/// Longest id that is repeated, in bytes of JSON.
///
/// Real ids are numbers or UUIDs. A finder holds so much for a request until it is answered; raised, a caller could make
/// it hold more, and have it sent back.
pub const MAX_ID_BYTES: usize = 256;

impl RequestId {
    /// Takes a JSON string or number.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let starts_well =
            token.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
        let whole = starts_well && token.len() <= MAX_ID_BYTES && is_scalar(token);
        whole.then(|| Self(token.into()))
    }

    /// Keeps the id of a message, unless it is too long to be repeated.
    #[must_use]
    pub fn of(id: Id<'_>) -> Option<Self> {
        Self::parse(id.as_json())
    }

    /// The JSON token.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

fn is_scalar(token: &str) -> bool {
    let text = token.starts_with('"');
    (text && serde_json::from_str::<String>(token).is_ok())
        || (!text
            && serde_json::from_str::<&RawValue>(token)
                .is_ok_and(|raw| raw.get().len() == token.len()))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Looks for the key `id` of the outermost object in the first bytes of a body.
///
/// ```
/// use mcp_messages::RequestIdFinder;
/// let mut finder = RequestIdFinder::new(8192);
/// finder.feed(br#"{"jsonrpc":"2.0","method":"tools/call","params":{"id":1},"i"#);
/// finder.feed(br#"d": "a-7"}"#);
/// assert_eq!(finder.id().unwrap().as_json(), r#""a-7""#);
/// ```
#[derive(Debug, Clone)]
pub struct RequestIdFinder {
    left: usize,
    state: State,
    /// The key or the id that is being read, without more than [`MAX_ID_BYTES`].
    held: Vec<u8>,
}

/// ```text
/// Start ─{─► BeforeKey ─"─► Key ─"─► AfterKey ─:─► BeforeValue ─┬─ another key ──► Value ─,─► BeforeKey
///                                                               └─ id ──► Id ──► Found
/// ```
#[derive(Debug, Clone)]
enum State {
    Start,
    BeforeKey,
    Key {
        escaped: bool,
    },
    AfterKey,
    BeforeValue,
    Value {
        depth: usize,
        quoted: bool,
        escaped: bool,
    },
    Id {
        quoted: bool,
        escaped: bool,
    },
    Found(RequestId),
    Absent,
}

impl RequestIdFinder {
    /// Looks at no more than `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            left: limit,
            state: State::Start,
            held: Vec::new(),
        }
    }

    /// Takes the next bytes of the body; does nothing once it [`is_done`](Self::is_done).
    pub fn feed(&mut self, chunk: &[u8]) {
        for byte in chunk {
            if self.is_done() {
                return;
            }
            self.left -= 1;
            self.step(*byte);
        }
    }

    /// Whether more bytes cannot change the answer.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.left == 0 || matches!(self.state, State::Found(_) | State::Absent)
    }

    /// The id, if it was found.
    #[must_use]
    pub const fn id(&self) -> Option<&RequestId> {
        if let State::Found(id) = &self.state {
            Some(id)
        } else {
            None
        }
    }

    fn step(&mut self, byte: u8) {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.state {
            State::Found(_) | State::Absent => {}
            State::Start | State::BeforeKey | State::AfterKey | State::BeforeValue if blank => {}
            State::Start => {
                self.state = if byte == b'{' {
                    State::BeforeKey
                } else {
                    State::Absent
                }
            }
            State::BeforeKey => match byte {
                b'"' => self.hold(byte, State::Key { escaped: false }),
                b',' => {}
                _ => self.state = State::Absent,
            },
            State::Key { .. } => self.in_key(byte),
            State::AfterKey => {
                self.state = if byte == b':' {
                    State::BeforeValue
                } else {
                    State::Absent
                }
            }
            State::BeforeValue if self.is_id_key() => self.hold(
                byte,
                State::Id {
                    quoted: byte == b'"',
                    escaped: false,
                },
            ),
            State::BeforeValue => {
                self.state = State::Value {
                    depth: 0,
                    quoted: false,
                    escaped: false,
                };
                self.in_value(byte);
            }
            State::Value { .. } => self.in_value(byte),
            State::Id { .. } => self.in_id(byte),
        }
    }

    fn hold(&mut self, byte: u8, state: State) {
        self.held.clear();
        self.held.push(byte);
        self.state = state;
    }

    fn is_id_key(&self) -> bool {
        self.held == b"\"id\""
            || serde_json::from_slice::<String>(&self.held).is_ok_and(|key| key == "id")
    }

    fn in_key(&mut self, byte: u8) {
        let State::Key { escaped } = &mut self.state else {
            return;
        };
        let ends = byte == b'"' && !*escaped;
        *escaped = byte == b'\\' && !*escaped;
        push(&mut self.held, byte);
        if ends {
            self.state = State::AfterKey;
        }
    }

    fn in_value(&mut self, byte: u8) {
        let State::Value {
            depth,
            quoted,
            escaped,
        } = &mut self.state
        else {
            return;
        };
        match byte {
            _ if *escaped => *escaped = false,
            b'\\' if *quoted => *escaped = true,
            b'"' => *quoted = !*quoted,
            _ if *quoted => {}
            b'{' | b'[' => *depth += 1,
            b',' if *depth == 0 => self.state = State::BeforeKey,
            b'}' | b']' if *depth == 0 => self.state = State::Absent,
            b'}' | b']' => *depth -= 1,
            _ => {}
        }
    }

    fn in_id(&mut self, byte: u8) {
        let State::Id { quoted, escaped } = &mut self.state else {
            return;
        };
        let ends = if *quoted {
            byte == b'"' && !*escaped
        } else {
            matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
        };
        *escaped = *quoted && byte == b'\\' && !*escaped;
        if *quoted || !ends {
            push(&mut self.held, byte);
        }
        if ends {
            let id = std::str::from_utf8(&self.held)
                .ok()
                .and_then(RequestId::parse);
            self.state = id.map_or(State::Absent, State::Found);
        }
    }
}

/// One byte more than an id may have tells that it is too long.
fn push(held: &mut Vec<u8>, byte: u8) {
    if held.len() <= MAX_ID_BYTES {
        held.push(byte);
    }
}

#[cfg(test)]
mod tests;
