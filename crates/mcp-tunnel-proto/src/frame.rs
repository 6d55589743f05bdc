//! Frames: the 8-byte header, every type, encoding and decoding.
//!
//! ```text
//!  0       1               3                                       8
//!  +-------+---------------+---------------------------------------+---------------
//!  | type  | length (BE)   | stream id (BE, 40 bits)               | payload ...
//!  +-------+---------------+---------------------------------------+---------------
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    Admission, CloseCode, Hello, OpenHeader, ResetCode, Resume, StreamId, Violation,
    hello::MAX_TEXT, wire,
};

/// Length of every frame header, in bytes.
pub const HEADER: usize = 8;

/// Most bytes of one DATA payload that a scheduler sends before it looks at the next stream: with its header it fills
/// one TLS record, so that records and frames of bulk begin and end together.
pub const QUANTUM: usize = 16 * 1024 - HEADER;

/// The frame types of version 1. Bit 7: may be ignored. Bit 6: session frame.
pub mod kind {
    /// Bit of a type that says "skip me if you do not know me".
    pub const IGNORABLE: u8 = 0x80;
    /// Bit of a type that says "I am counted and retained until acknowledged".
    pub const SESSION: u8 = 0x40;

    /// First frame of each side.
    pub const HELLO: u8 = 0x01;
    /// The edge's verdict.
    pub const ADMISSION: u8 = 0x02;
    /// Goes on with an earlier session.
    pub const RESUME: u8 = 0x03;
    /// Session bytes received.
    pub const ACK: u8 = 0x04;
    /// Asks for PONG.
    pub const PING: u8 = 0x05;
    /// Answers PING.
    pub const PONG: u8 = 0x06;
    /// Raises the session's limit.
    pub const SESSION_CREDIT: u8 = 0x07;
    /// Raises one stream's limit.
    pub const STREAM_CREDIT: u8 = 0x08;
    /// Raises the number of streams.
    pub const STREAMS_CREDIT: u8 = 0x09;
    /// Ends the session.
    pub const CLOSE: u8 = 0x0a;

    /// Opens a stream.
    pub const OPEN: u8 = 0x40;
    /// Opens a stream and ends the opener's direction.
    pub const OPEN_FIN: u8 = 0x41;
    /// Payload.
    pub const DATA: u8 = 0x42;
    /// Payload, and the end of its direction.
    pub const DATA_FIN: u8 = 0x43;
    /// Aborts the sender's direction.
    pub const RESET: u8 = 0x44;
    /// Asks the peer to abort its direction.
    pub const STOP: u8 = 0x45;
    /// No new streams.
    pub const GOAWAY: u8 = 0x46;
}

/// GOAWAY: no new streams, and which were still processed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoAway {
    /// The receiver's streams that are or will be processed.
    pub last: LastStream,
    /// Why.
    pub code: CloseCode,
    /// How long running streams may take; zero on the wire means "not said".
    pub drain_millis: u32,
    /// For people; at most 256 bytes.
    pub text: String,
}

impl GoAway {
    /// A GOAWAY with neither a drain time nor a text.
    #[must_use]
    pub const fn new(last: LastStream, code: CloseCode) -> Self {
        Self {
            last,
            code,
            drain_millis: 0,
            text: String::new(),
        }
    }
}

/// The last stream that a GOAWAY promises to process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum LastStream {
    /// No stream at all.
    Nothing,
    /// Streams up to this one.
    UpTo(StreamId),
    /// First phase: whatever arrives until the second.
    Any,
}

impl LastStream {
    /// Whether a stream with this id is refused.
    #[must_use]
    pub fn refuses(self, id: StreamId) -> bool {
        match self {
            Self::Nothing => true,
            Self::UpTo(last) => id > last,
            Self::Any => false,
        }
    }

    const fn as_u64(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::UpTo(id) => id.as_u64(),
            Self::Any => u64::MAX,
        }
    }

    fn from_u64(raw: u64) -> Result<Self, Violation> {
        match raw {
            0 => Ok(Self::Nothing),
            u64::MAX => Ok(Self::Any),
            other => StreamId::new(other).map(Self::UpTo).ok_or(Violation::Range),
        }
    }
}

/// One frame, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// First frame of each side.
    Hello(Box<Hello>),
    /// The edge's verdict.
    Admission(Box<Admission>),
    /// Goes on with an earlier session.
    Resume(Resume),
    /// Session bytes received.
    Ack(u64),
    /// Asks for PONG with the same number.
    Ping(u64),
    /// Answers PING.
    Pong(u64),
    /// Session limit: encoded bytes, counted from the session's start.
    SessionCredit(u64),
    /// Stream limit: payload bytes, counted from the stream's start.
    StreamCredit {
        /// The stream.
        id: StreamId,
        /// The limit.
        limit: u64,
    },
    /// Streams that may be opened, counted from the session's start.
    StreamsCredit(u64),
    /// Ends the session.
    Close {
        /// Why.
        code: CloseCode,
        /// For people; at most 256 bytes.
        text: String,
    },
    /// OPEN or OPEN_FIN.
    Open {
        /// The new stream.
        id: StreamId,
        /// What it is.
        header: Box<OpenHeader>,
        /// First payload; may be empty.
        first: Bytes,
        /// Whether the opener's direction ends here.
        fin: bool,
    },
    /// DATA or DATA_FIN.
    Data {
        /// The stream.
        id: StreamId,
        /// Payload; empty only with `fin`.
        payload: Bytes,
        /// Whether the direction ends here.
        fin: bool,
    },
    /// Aborts the sender's direction.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// Asks the peer to abort its direction.
    Stop {
        /// The stream.
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// No new streams.
    GoAway(Box<GoAway>),
    /// A frame of an unknown type that may be ignored; its payload is gone.
    Ignored {
        /// Its type.
        kind: u8,
        /// Its payload's length, in bytes.
        length: u16,
    },
}

/// A frame that cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload would exceed 65,535 bytes, HELLO 4,096 or OPEN's head [`crate::MAX_OPEN_HEAD`].
    #[error("frame too long")]
    TooLong,
    /// An ignored frame has lost its payload.
    #[error("an ignored frame cannot be encoded")]
    Ignored,
}

/// A frame's header, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) length: usize,
    pub(crate) id: u64,
}

impl Head {
    /// The header at the front of `input`, if it is there whole.
    pub(crate) fn peek(mut input: &[u8]) -> Option<Self> {
        let kind = input.try_get_u8().ok()?;
        let length = usize::from(input.try_get_u16().ok()?);
        let id = input.try_get_uint(5).ok()?;
        Some(Self { kind, length, id })
    }

    fn stream(self) -> Result<StreamId, Violation> {
        StreamId::new(self.id).ok_or(Violation::StreamId)
    }
}

/// Writes a header for `length` payload bytes, which the caller bounds by the peer's `max_frame`.
pub(crate) fn put_head(out: &mut impl BufMut, kind: u8, length: usize, id: Option<StreamId>) {
    out.put_u8(kind);
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    out.put_uint(id.map_or(0, StreamId::as_u64), 5);
}

/// FRAME-1: the next whole frame, or `None` until more input is there. Payloads longer than `most` are refused
/// before anything is allocated.
///
/// The payload of DATA and OPEN is a slice of `input`: whoever keeps it keeps all of that buffer. A
/// [`Connection`](crate::Connection) copies small ones.
///
/// # Errors
/// The [`Violation`], after which the input is of no further use.
pub fn decode(input: &mut BytesMut, most: u16) -> Result<Option<Frame>, Violation> {
    let slice = |input: &mut BytesMut, length| input.split_to(length).freeze();
    decode_with(input, most, slice)
}

/// The same; `take` takes so many bytes of payload off the input, which has them.
pub(crate) fn decode_with(
    input: &mut BytesMut,
    most: u16,
    take: impl FnOnce(&mut BytesMut, usize) -> Bytes,
) -> Result<Option<Frame>, Violation> {
    let Some(head) = Head::peek(input) else {
        return Ok(None);
    };
    // FRAME-2: judged by the header alone.
    if head.length > usize::from(most) {
        return Err(Violation::FrameSize);
    }
    if input.len() < HEADER.saturating_add(head.length) {
        return Ok(None);
    }
    input.advance(HEADER);
    match head.kind {
        kind::DATA | kind::DATA_FIN => decode_data(head, input, take).map(Some),
        kind::OPEN | kind::OPEN_FIN => decode_open(head, input, take).map(Some),
        _ => {
            let payload = input.get(..head.length).unwrap_or_default();
            let frame = decode_control(head, payload)?;
            input.advance(head.length);
            Ok(Some(frame))
        }
    }
}

fn decode_data(
    head: Head,
    input: &mut BytesMut,
    take: impl FnOnce(&mut BytesMut, usize) -> Bytes,
) -> Result<Frame, Violation> {
    let fin = head.kind == kind::DATA_FIN;
    // DATA-1: an empty frame that ends nothing is no frame.
    if head.length == 0 && !fin {
        return Err(Violation::EmptyData);
    }
    Ok(Frame::Data {
        id: head.stream()?,
        payload: take(input, head.length),
        fin,
    })
}

fn decode_open(
    head: Head,
    input: &mut BytesMut,
    take: impl FnOnce(&mut BytesMut, usize) -> Bytes,
) -> Result<Frame, Violation> {
    let id = head.stream()?;
    let payload = input.get(..head.length).unwrap_or_default();
    let (header, used) = OpenHeader::decode(payload)?;
    input.advance(used);
    let rest = head.length.saturating_sub(used);
    Ok(Frame::Open {
        id,
        header: Box::new(header),
        first: take(input, rest),
        fin: head.kind == kind::OPEN_FIN,
    })
}

fn decode_control(head: Head, payload: &[u8]) -> Result<Frame, Violation> {
    let link = |frame| {
        // FRAME-4: only frames about a stream name one.
        if head.id == 0 {
            Ok(frame)
        } else {
            Err(Violation::StreamId)
        }
    };
    match head.kind {
        kind::HELLO => link(Frame::Hello(Box::new(Hello::decode(payload)?))),
        kind::ADMISSION => link(Frame::Admission(Box::new(Admission::decode(payload)?))),
        kind::RESUME => link(Frame::Resume(Resume::decode(payload)?)),
        kind::ACK => link(Frame::Ack(only_offset(payload)?)),
        kind::PING => link(Frame::Ping(only_u64(payload)?)),
        kind::PONG => link(Frame::Pong(only_u64(payload)?)),
        kind::SESSION_CREDIT => link(Frame::SessionCredit(only_offset(payload)?)),
        kind::STREAMS_CREDIT => link(Frame::StreamsCredit(only_offset(payload)?)),
        kind::CLOSE => link(decode_close(payload)?),
        kind::GOAWAY => link(decode_goaway(payload)?),
        kind::STREAM_CREDIT => Ok(Frame::StreamCredit {
            id: head.stream()?,
            limit: only_offset(payload)?,
        }),
        kind::RESET => Ok(Frame::Reset {
            id: head.stream()?,
            code: ResetCode::from_u32(only_u32(payload)?),
        }),
        kind::STOP => Ok(Frame::Stop {
            id: head.stream()?,
            code: ResetCode::from_u32(only_u32(payload)?),
        }),
        // FRAME-5: the unknown is skipped or fatal, as its top bit says.
        unknown if unknown & kind::IGNORABLE != 0 => Ok(Frame::Ignored {
            kind: unknown,
            length: u16::try_from(head.length).unwrap_or(u16::MAX),
        }),
        _ => Err(Violation::UnknownFrame),
    }
}

fn only_u32(mut payload: &[u8]) -> Result<u32, Violation> {
    let value = wire::u32(&mut payload)?;
    wire::end(payload)?;
    Ok(value)
}

fn only_u64(mut payload: &[u8]) -> Result<u64, Violation> {
    let value = wire::u64(&mut payload)?;
    wire::end(payload)?;
    Ok(value)
}

fn only_offset(mut payload: &[u8]) -> Result<u64, Violation> {
    let value = wire::offset(&mut payload)?;
    wire::end(payload)?;
    Ok(value)
}

fn decode_close(mut payload: &[u8]) -> Result<Frame, Violation> {
    Ok(Frame::Close {
        code: CloseCode::from_u32(wire::u32(&mut payload)?),
        text: wire::text(payload, MAX_TEXT)?,
    })
}

fn decode_goaway(mut payload: &[u8]) -> Result<Frame, Violation> {
    Ok(Frame::GoAway(Box::new(GoAway {
        last: LastStream::from_u64(wire::u64(&mut payload)?)?,
        code: CloseCode::from_u32(wire::u32(&mut payload)?),
        drain_millis: wire::u32(&mut payload)?,
        text: wire::text(payload, MAX_TEXT)?,
    })))
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is then as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = out.len();
        out.put_bytes(0, HEADER);
        let most = self.encode_payload(out);
        let length = out.len().saturating_sub(start).saturating_sub(HEADER);
        let checked = most.and_then(|most| {
            u16::try_from(length)
                .ok()
                .filter(|_| length <= most)
                .ok_or(EncodeError::TooLong)
        });
        match checked {
            Ok(_) => {
                if let Some(mut place) = out.get_mut(start..start.saturating_add(HEADER)) {
                    put_head(&mut place, self.kind(), length, self.stream());
                }
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    /// Writes the payload and says how long it may be.
    fn encode_payload(&self, out: &mut BytesMut) -> Result<usize, EncodeError> {
        let any = usize::from(u16::MAX);
        match self {
            Self::Hello(hello) => {
                hello.encode(out);
                return Ok(crate::MAX_HELLO.saturating_sub(HEADER));
            }
            Self::Admission(admission) => admission.encode(out),
            Self::Resume(resume) => resume.encode(out),
            Self::Ack(number)
            | Self::Ping(number)
            | Self::Pong(number)
            | Self::SessionCredit(number)
            | Self::StreamsCredit(number)
            | Self::StreamCredit { limit: number, .. } => out.put_u64(*number),
            Self::Close { code, text } => {
                out.put_u32(code.as_u32());
                out.put_slice(wire::clip(text, MAX_TEXT).as_bytes());
            }
            Self::Open { header, first, .. } => {
                if header.encoded_len() > crate::MAX_OPEN_HEAD {
                    return Err(EncodeError::TooLong);
                }
                header.encode(out);
                out.put_slice(first);
            }
            Self::Data { payload, .. } => out.put_slice(payload),
            Self::Reset { code, .. } | Self::Stop { code, .. } => out.put_u32(code.as_u32()),
            Self::GoAway(goaway) => {
                out.put_u64(goaway.last.as_u64());
                out.put_u32(goaway.code.as_u32());
                out.put_u32(goaway.drain_millis);
                out.put_slice(wire::clip(&goaway.text, MAX_TEXT).as_bytes());
            }
            Self::Ignored { .. } => return Err(EncodeError::Ignored),
        }
        Ok(any)
    }

    /// The frame's type on the wire.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Admission(_) => kind::ADMISSION,
            Self::Resume(_) => kind::RESUME,
            Self::Ack(_) => kind::ACK,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::SessionCredit(_) => kind::SESSION_CREDIT,
            Self::StreamCredit { .. } => kind::STREAM_CREDIT,
            Self::StreamsCredit(_) => kind::STREAMS_CREDIT,
            Self::Close { .. } => kind::CLOSE,
            Self::Open { fin: false, .. } => kind::OPEN,
            Self::Open { fin: true, .. } => kind::OPEN_FIN,
            Self::Data { fin: false, .. } => kind::DATA,
            Self::Data { fin: true, .. } => kind::DATA_FIN,
            Self::Reset { .. } => kind::RESET,
            Self::Stop { .. } => kind::STOP,
            Self::GoAway(_) => kind::GOAWAY,
            Self::Ignored { kind, .. } => *kind,
        }
    }

    /// The stream it is about, if it is about one.
    #[must_use]
    pub const fn stream(&self) -> Option<StreamId> {
        match self {
            Self::StreamCredit { id, .. }
            | Self::Open { id, .. }
            | Self::Data { id, .. }
            | Self::Reset { id, .. }
            | Self::Stop { id, .. } => Some(*id),
            Self::Hello(_)
            | Self::Admission(_)
            | Self::Resume(_)
            | Self::Ack(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::SessionCredit(_)
            | Self::StreamsCredit(_)
            | Self::Close { .. }
            | Self::GoAway(_)
            | Self::Ignored { .. } => None,
        }
    }
}
