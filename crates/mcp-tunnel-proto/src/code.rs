//! The numbers that say why: resets, closes, refusals and what the peer did wrong.

use std::fmt;

/// Defines a 32-bit wire code: a newtype with named values and an application range.
macro_rules! wire_code {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $value:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(u32);

        impl $name {
            $($(#[$vdoc])* pub const $value: Self = Self($number);)*

            /// The code with this number.
            #[must_use]
            pub const fn from_u32(raw: u32) -> Self {
                Self(raw)
            }

            /// A code whose meaning the application defines: `0x8000_0000` and above.
            #[must_use]
            pub const fn application(raw: u32) -> Self {
                Self(raw | 0x8000_0000)
            }

            /// The number itself.
            #[must_use]
            pub const fn as_u32(self) -> u32 {
                self.0
            }

            /// The code's name, where this crate defines one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }
    };
}

wire_code! {
    /// Why one direction of a stream was aborted.
    ResetCode {
        /// Nothing went wrong; the rest is not needed.
        NO_ERROR = 0x00, "no error";
        /// Whoever asked has gone away.
        CANCELLED = 0x01, "cancelled";
        /// Not processed at all: safe to replay on another link.
        REFUSED = 0x02, "refused";
        /// A fault of this implementation or of the application on it.
        INTERNAL = 0x03, "internal error";
        /// The stream's deadline passed.
        DEADLINE = 0x04, "deadline passed";
        /// Too much to do at the moment.
        OVERLOADED = 0x05, "overloaded";
        /// The private server could not be reached.
        UNREACHABLE = 0x06, "unreachable";
        /// This kind of stream is not served here.
        UNSUPPORTED = 0x07, "unsupported kind";
        /// No such route here.
        UNKNOWN_ROUTE = 0x08, "unknown route";
        /// Policy forbids it.
        FORBIDDEN = 0x09, "forbidden";
        /// The bytes on the stream made no sense to the application.
        MALFORMED = 0x0a, "malformed";
    }
}

wire_code! {
    /// Why a link is going away or was closed.
    CloseCode {
        /// A clean end.
        NO_ERROR = 0x00, "no error";
        /// A fault of this implementation.
        INTERNAL = 0x01, "internal error";
        /// The process is shutting down; another may take over.
        SHUTDOWN = 0x02, "shutting down";
        /// The credential was rotated, revoked or archived.
        WITHDRAWN = 0x03, "credential withdrawn";
        /// An operator cut the link.
        DISCONNECTED = 0x04, "disconnected by an operator";
        /// Another link of the same session took its place.
        REPLACED = 0x05, "replaced";
        /// Nothing was heard for too long.
        SILENCE = 0x06, "silence";
        /// Too much to do at the moment.
        OVERLOADED = 0x07, "overloaded";
        /// Ids are used up; a new session is needed.
        IDS_EXHAUSTED = 0x08, "stream ids used up";
        /// No version in common.
        VERSION = 0x10, "no common version";
        /// A frame longer than allowed.
        FRAME_SIZE = 0x11, "frame size";
        /// A payload that does not parse.
        FRAME_FORMAT = 0x12, "frame format";
        /// A frame of unknown type that may not be ignored.
        UNKNOWN_FRAME = 0x13, "unknown frame";
        /// A frame that this phase, side or feature set does not allow.
        UNEXPECTED_FRAME = 0x14, "unexpected frame";
        /// A stream id that is zero, not zero, or of the wrong parity.
        STREAM_ID = 0x15, "stream id";
        /// A frame that the stream's state does not allow.
        STREAM_STATE = 0x16, "stream state";
        /// More streams than allowed.
        STREAM_LIMIT = 0x17, "stream limit";
        /// More payload than a stream's credit.
        STREAM_CREDIT = 0x18, "stream credit";
        /// More bytes than the session's credit.
        SESSION_CREDIT = 0x19, "session credit";
        /// A credit, position or count out of range.
        RANGE = 0x1a, "number out of range";
        /// More than one warning, or a GOAWAY after the final one.
        GOAWAY = 0x1b, "goaway repeated";
        /// A position in ACK or RESUME that cannot be.
        POSITION = 0x1c, "impossible position";
        /// Both ends claim to be the same side.
        SIDE = 0x1d, "same side";
        /// Too many resets and stops.
        FLOOD_RESETS = 0x20, "too many resets";
        /// Too many pings.
        FLOOD_PINGS = 0x21, "too many pings";
        /// Too many frames of unknown types.
        FLOOD_UNKNOWN = 0x22, "too many unknown frames";
        /// Too many credit updates that grant next to nothing.
        FLOOD_CREDITS = 0x23, "too many credit updates";
        /// Too many frames for streams that are closed.
        FLOOD_CLOSED = 0x24, "too many frames for closed streams";
        /// Too many small data frames.
        FLOOD_SMALL = 0x25, "too many small frames";
        /// Too many opens.
        FLOOD_OPENS = 0x26, "too many opens";
        /// Too many resumes.
        FLOOD_RESUMES = 0x27, "too many resumes";
        /// Too many admissions.
        FLOOD_ADMISSIONS = 0x28, "too many admissions";
    }
}

wire_code! {
    /// Why the edge refused a link.
    RefusalCode {
        /// The credential is malformed or its proof does not hold.
        CREDENTIAL = 0x01, "credential invalid";
        /// The token was rotated or revoked.
        RETIRED = 0x02, "credential retired";
        /// The tunnel is unknown or archived.
        TUNNEL = 0x03, "tunnel unknown or archived";
        /// An operator refused this gateway.
        REFUSED = 0x04, "gateway refused";
        /// The proof is for another TLS connection: something in between ends TLS.
        INTERCEPTED = 0x05, "tls intercepted";
        /// Too many links or gateways waiting.
        OVERLOADED = 0x06, "overloaded";
        /// The edge cannot judge now.
        UNAVAILABLE = 0x07, "unavailable";
        /// The session to resume is unknown, expired or fenced off; start a new one.
        SESSION = 0x08, "session unknown";
        /// The announcement asks for something not allowed here.
        ANNOUNCEMENT = 0x09, "announcement refused";
    }
}

impl RefusalCode {
    /// Whether trying again without a change by a person is pointless.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::CREDENTIAL
                | Self::RETIRED
                | Self::TUNNEL
                | Self::REFUSED
                | Self::INTERCEPTED
                | Self::ANNOUNCEMENT
        )
    }
}

/// What the peer did wrong. [`Violation::close_code`] is the one table to close codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// HELLO-4: the two version ranges do not meet.
    #[error("no protocol version in common")]
    Version,
    /// HELLO-5: both ends say they are the same side.
    #[error("both ends claim the same side")]
    Side,
    /// HELLO-1: HELLO is longer than 4,096 bytes.
    #[error("hello too long")]
    HelloSize,
    /// FRAME-2: the length field exceeds the limit that was announced.
    #[error("frame longer than announced limit")]
    FrameSize,
    /// FRAME-3: the payload is too short, too long or malformed.
    #[error("malformed frame payload")]
    FrameFormat,
    /// FRAME-5: an unknown frame of the class that may not be ignored.
    #[error("unknown frame type")]
    UnknownFrame,
    /// FRAME-6: a known frame that this phase, side or feature set does not allow.
    #[error("frame not allowed here")]
    UnexpectedFrame,
    /// FRAME-4: id zero where a stream is needed, or the reverse.
    #[error("stream id does not fit the frame")]
    StreamId,
    /// OPEN-1: OPEN with an id of the wrong parity.
    #[error("stream id of the wrong side")]
    StreamParity,
    /// OPEN-2: OPEN with an id that is not greater than all before.
    #[error("stream id used before")]
    StreamReused,
    /// STREAM-1: a frame for a stream that was never opened.
    #[error("stream was never opened")]
    StreamUnopened,
    /// DATA-3: a frame after the end of its direction.
    #[error("frame after the end of its direction")]
    StreamEnded,
    /// STREAM-4: a frame for a stream that closed long ago.
    #[error("stream closed long ago")]
    StreamForgotten,
    /// DATA-1: a DATA without payload that ends nothing.
    #[error("empty data frame")]
    EmptyData,
    /// OPEN-4: more streams than allowed.
    #[error("more streams than allowed")]
    StreamLimit,
    /// CREDIT-2: payload beyond a stream's limit.
    #[error("payload beyond the stream's credit")]
    StreamCredit,
    /// CREDIT-3: bytes beyond the session's limit.
    #[error("bytes beyond the session's credit")]
    SessionCredit,
    /// CREDIT-5: a limit above 2^62 - 1.
    #[error("number out of range")]
    Range,
    /// ACK-2, RESUME-4: a position that was not sent, or inside a frame.
    #[error("impossible position")]
    Position,
    /// GOAWAY-3: more than one warning, or anything after the final GOAWAY.
    #[error("goaway after the final one")]
    GoAwayRepeated,
    /// ABUSE-1: the budget for resets and stops is spent.
    #[error("too many resets")]
    FloodResets,
    /// ABUSE-1: the budget for pings is spent.
    #[error("too many pings")]
    FloodPings,
    /// ABUSE-1: the budget for unknown frames is spent.
    #[error("too many unknown frames")]
    FloodUnknown,
    /// ABUSE-1: the budget for tiny credit updates is spent.
    #[error("too many credit updates")]
    FloodCredits,
    /// ABUSE-1: the budget for frames on closed streams is spent.
    #[error("too many frames for closed streams")]
    FloodClosed,
    /// ABUSE-1: the budget for small data frames is spent.
    #[error("too many small frames")]
    FloodSmall,
    /// ABUSE-1: the budget for opens is spent.
    #[error("too many opens")]
    FloodOpens,
    /// ABUSE-1: the budget for admissions is spent.
    #[error("too many admissions")]
    FloodAdmissions,
}

impl Violation {
    /// The code that closes the link (the table of SPEC.md, section "Violations").
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Version => CloseCode::VERSION,
            Self::Side => CloseCode::SIDE,
            Self::HelloSize | Self::FrameSize => CloseCode::FRAME_SIZE,
            Self::FrameFormat | Self::EmptyData => CloseCode::FRAME_FORMAT,
            Self::UnknownFrame => CloseCode::UNKNOWN_FRAME,
            Self::UnexpectedFrame => CloseCode::UNEXPECTED_FRAME,
            Self::StreamId | Self::StreamParity | Self::StreamReused => CloseCode::STREAM_ID,
            Self::StreamUnopened | Self::StreamEnded | Self::StreamForgotten => {
                CloseCode::STREAM_STATE
            }
            Self::StreamLimit => CloseCode::STREAM_LIMIT,
            Self::StreamCredit => CloseCode::STREAM_CREDIT,
            Self::SessionCredit => CloseCode::SESSION_CREDIT,
            Self::Range => CloseCode::RANGE,
            Self::Position => CloseCode::POSITION,
            Self::GoAwayRepeated => CloseCode::GOAWAY,
            Self::FloodResets => CloseCode::FLOOD_RESETS,
            Self::FloodPings => CloseCode::FLOOD_PINGS,
            Self::FloodUnknown => CloseCode::FLOOD_UNKNOWN,
            Self::FloodCredits => CloseCode::FLOOD_CREDITS,
            Self::FloodClosed => CloseCode::FLOOD_CLOSED,
            Self::FloodSmall => CloseCode::FLOOD_SMALL,
            Self::FloodOpens => CloseCode::FLOOD_OPENS,
            Self::FloodAdmissions => CloseCode::FLOOD_ADMISSIONS,
        }
    }
}
