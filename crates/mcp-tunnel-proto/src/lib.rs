//! Frames and session state of the MCP tunnel protocol, without IO.
#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm
)]

mod code;
mod config;
mod connection;
mod frame;
mod handshake;
mod hello;
mod open;
mod stream_id;
mod transmit;
mod wire;

#[cfg(test)]
mod tests;

pub use self::{
    code::{CloseCode, RefusalCode, ResetCode, Violation},
    config::Config,
    connection::{
        Connection, ConnectionError, Event, OpenError, ReadError, RecvStream, SendStream,
        WriteError,
    },
    frame::{EncodeError, Frame, GoAway, HEADER, LastStream, QUANTUM, decode, kind},
    handshake::{Agreed, EdgeHandshake, GatewayEvent, GatewayHandshake},
    hello::{
        Activation, Admission, Features, Hello, Limits, MAX_APPROVAL_CODE, MAX_CREDENTIAL,
        MAX_HELLO, MAX_TEXT, MIN_MAX_FRAME, Refusal, Resumable, Resume, ResumeClaim, SessionId,
        VERSION,
    },
    open::{
        MAX_OPEN_HEAD, OpenHeader, RouteName, RouteNameError, StreamKind, TraceContext, Urgency,
    },
    stream_id::{Side, StreamId},
    transmit::Transmit,
};
