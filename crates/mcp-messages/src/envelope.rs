//! The JSON-RPC envelope, read without copying what it carries.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How deep arrays and objects may nest in a message.
///
/// Deeper ones are refused, since readers behind us recurse; reading here does not. The deepest schemas of real tools
/// nest about 30 levels.
pub const MAX_DEPTH: usize = 128;

/// One message; what it carries is kept as the bytes that came.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "JSON-RPC has these four")]
pub enum Message<'a> {
    /// A call that wants an answer.
    Request {
        /// What the answer repeats.
        id: Id<'a>,
        /// What is called.
        method: Cow<'a, str>,
        /// With what; usually an object.
        params: Option<&'a RawValue>,
    },
    /// A call that wants none.
    Notification {
        /// What is called.
        method: Cow<'a, str>,
        /// With what; usually an object.
        params: Option<&'a RawValue>,
    },
    /// A good answer.
    Response {
        /// Of which request.
        id: Id<'a>,
        /// The answer.
        result: &'a RawValue,
    },
    /// A bad answer.
    Error {
        /// Of which request; missing or `null` where the server could not tell.
        id: Option<Id<'a>>,
        /// Code, message and data.
        error: &'a RawValue,
    },
}

/// What one HTTP body holds.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "an object or an array")]
pub enum Body<'a> {
    /// One message.
    Single(Message<'a>),
    /// At least one message in an array, as revision 2025-03-26 had it.
    Batch(Vec<Message<'a>>),
}

/// The id of a request as it was written: a JSON string or number, never `null`.
///
/// Compared as text: `1` and `1.0` differ, as an answer repeats what the request said.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// The JSON token, with quotes if it is a string.
    #[must_use]
    pub const fn as_json(self) -> &'a str {
        self.0
    }

    fn of(raw: &'a RawValue) -> Option<Self> {
        let token = raw.get();
        token
            .starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
            .then_some(Self(token))
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not UTF-8.
    #[error("the message is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// Not JSON, or a key of the envelope occurs twice: readers would disagree on which one counts.
    #[error("the message is not JSON of the expected shape")]
    Json(#[from] serde_json::Error),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the message nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// `jsonrpc` is not `"2.0"`.
    #[error("the message does not say that it is JSON-RPC 2.0")]
    Version,
    /// The id of a request or of a good answer is neither a string nor a number.
    #[error("the message's id is neither a string nor a number")]
    Id,
    /// Neither request, notification, response nor error, or two of them at once; or no object, or an empty array.
    #[error("the message is neither a request, a notification nor an answer")]
    Shape,
}

impl<'a> Body<'a> {
    /// Reads a body: an object or a non-empty array of objects.
    ///
    /// Looks at every byte once or twice and copies none, except names with escapes. An array takes about 100 bytes of
    /// memory for each message in it; what a body may hold in all is the caller's limit.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let text = checked(bytes)?;
        if !text.trim_ascii_start().starts_with('[') {
            return Message::of(text).map(Self::Single);
        }
        let parts: Vec<&'a RawValue> = serde_json::from_str(text)?;
        if parts.is_empty() {
            return Err(EnvelopeError::Shape);
        }
        parts
            .into_iter()
            .map(|part| Message::of(part.get()))
            .collect::<Result<_, _>>()
            .map(Self::Batch)
    }

    /// The messages in their order.
    #[must_use]
    pub fn messages(&self) -> &[Message<'a>] {
        match self {
            Self::Single(message) => std::slice::from_ref(message),
            Self::Batch(messages) => messages,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads one message; an array is refused.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::of(checked(bytes)?)
    }

    /// The id, if there is one.
    #[must_use]
    pub const fn id(&self) -> Option<Id<'a>> {
        match self {
            Self::Request { id, .. } | Self::Response { id, .. } => Some(*id),
            Self::Error { id, .. } => *id,
            Self::Notification { .. } => None,
        }
    }

    /// The method, if it is a request or a notification.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request { method, .. } | Self::Notification { method, .. } => Some(method),
            Self::Response { .. } | Self::Error { .. } => None,
        }
    }

    /// The parameters, if it is a request or a notification that has some.
    #[must_use]
    pub const fn params(&self) -> Option<&'a RawValue> {
        match self {
            Self::Request { params, .. } | Self::Notification { params, .. } => *params,
            Self::Response { .. } | Self::Error { .. } => None,
        }
    }

    fn of(text: &'a str) -> Result<Self, EnvelopeError> {
        // serde would also fill the envelope from an array, by position.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(EnvelopeError::Shape);
        }
        let envelope: Envelope<'a> = serde_json::from_str(text)?;
        if envelope.jsonrpc.and_then(string).as_deref() != Some("2.0") {
            return Err(EnvelopeError::Version);
        }
        let Envelope {
            id,
            method,
            params,
            result,
            error,
            ..
        } = envelope;
        match (method, result, error) {
            (Some(method), None, None) => {
                let method = string(method).ok_or(EnvelopeError::Shape)?;
                match id {
                    Some(id) => Ok(Self::Request {
                        id: Id::of(id).ok_or(EnvelopeError::Id)?,
                        method,
                        params,
                    }),
                    None => Ok(Self::Notification { method, params }),
                }
            }
            (None, Some(result), None) => {
                let id = id.and_then(Id::of).ok_or(EnvelopeError::Id)?;
                Ok(Self::Response { id, result })
            }
            (None, None, Some(error)) => Ok(Self::Error {
                id: id.and_then(Id::of),
                error,
            }),
            _ => Err(EnvelopeError::Shape),
        }
    }
}

/// Absent and `null` differ here: a request with the id `null` is not a notification.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// The text of a JSON string, borrowed if it has no escapes; `None` for any other value, and for a lone surrogate.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let token = raw.get();
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(token).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn checked(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    let text = std::str::from_utf8(bytes)?;
    if is_deeper_than(text, MAX_DEPTH) {
        Err(EnvelopeError::TooDeep)
    } else {
        Ok(text)
    }
}

/// Whether arrays and objects nest deeper than `limit`. Counts brackets first, which is enough for most messages.
fn is_deeper_than(text: &str, limit: usize) -> bool {
    let opening = text
        .bytes()
        .filter(|byte| matches!(byte, b'{' | b'['))
        .count();
    if opening <= limit {
        return false;
    }
    let (mut depth, mut quoted) = (0_usize, false);
    for part in text.split('"') {
        if quoted {
            // After an odd number of backslashes the quote belongs to the string.
            quoted = part.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
            continue;
        }
        for byte in part.bytes() {
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > limit {
                return true;
            }
        }
        quoted = true;
    }
    false
}

#[cfg(test)]
mod tests;
