//! Frames and session state of the MCP tunnel protocol, without IO.
//!
//! An MCP tunnel is one outbound connection from a gateway inside a private network to an edge in the cloud. This
//! crate is everything that is said on it: many streams over one link, with flow control, half-close, resets,
//! priorities, liveness and an orderly end. `SPEC.md` beside this crate fixes every byte and numbers every MUST;
//! `vectors/` holds examples for other implementations.
//!
//! ```text
//!                   your socket                                 your application
//!                        │                                             │
//!     bytes in ──────────┼──► handle_input ──┐                ┌── open, accept by event
//!     bytes out ◄────────┼─── poll_transmit ─┤   Connection   ├── send_stream: write, finish, reset
//!     now ───────────────┼──► handle_timeout ┤                ├── recv_stream: read, stop
//!     next alarm ◄───────┼─── poll_timeout ──┘                └── poll_event: Readable, Reset, GoAway ...
//! ```
//!
//! It is sans-IO: bytes and the time go in, frames and events come out. It runs under tokio, under plain threads,
//! in a simulation, in a browser. A link begins with a [`GatewayHandshake`] or an [`EdgeHandshake`], which
//! become a [`Connection`] once the edge has admitted the gateway.
//!
//! # A working pair
//!
//! ```
//! use std::{sync::Arc, time::Instant};
//! use bytes::{Buf, Bytes, BytesMut};
//! use mcp_tunnel_proto::{
//!     Config, EdgeHandshake, Event, GatewayHandshake, OpenHeader, RouteName, StreamKind, Transmit,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (now, config) = (Instant::now(), Arc::new(Config::default()));
//! // The socket of this example: moves what one end has to send to the other.
//! let carry = |out: &mut Transmit| BytesMut::from(out.copy_to_bytes(out.remaining()));
//! let mut out = Transmit::new(64 * 1024);
//!
//! // HELLO each way, then the edge admits.
//! let credential = Bytes::from_static(b"proof of who I am");
//! let mut gateway = GatewayHandshake::new(now, Arc::clone(&config), credential, "example")?;
//! let mut edge = EdgeHandshake::new(now, Arc::clone(&config), "example")?;
//! gateway.poll_transmit(now, &mut out);
//! let hello = edge.handle_input(now, &mut carry(&mut out))?.ok_or("no hello")?;
//! assert_eq!(hello.credential, "proof of who I am");
//! let mut edge = edge.admit(now, config, &mut out).map_err(|_| "not ready")?;
//! let mut input = carry(&mut out);
//! while gateway.handle_input(now, &mut input)?.is_some() {}
//! let mut gateway = gateway.into_connection(now).map_err(|_| "not admitted")?;
//!
//! // The edge opens a stream: head, first payload and end are one frame.
//! let header = OpenHeader::new(StreamKind::Http, RouteName::parse("files")?);
//! let id = edge.open(header, &mut Bytes::from_static(b"ping"))?;
//! edge.send_stream(id).ok_or("gone")?.finish()?;
//! edge.poll_transmit(now, &mut out);
//! gateway.handle_input(now, &mut carry(&mut out))?;
//!
//! // The gateway learns of it, reads, and answers.
//! assert!(matches!(gateway.poll_event(), Some(Event::Opened { .. })));
//! let request = gateway.recv_stream(id).ok_or("gone")?.read(1024)?;
//! assert_eq!(request, Some(Bytes::from_static(b"ping")));
//! gateway.send_stream(id).ok_or("gone")?.write(&mut Bytes::from_static(b"pong"))?;
//! gateway.send_stream(id).ok_or("gone")?.finish()?;
//! gateway.poll_transmit(now, &mut out);
//! edge.handle_input(now, &mut carry(&mut out))?;
//! let answer = edge.recv_stream(id).ok_or("gone")?.read(1024)?;
//! assert_eq!(answer, Some(Bytes::from_static(b"pong")));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `codec` | no | `FrameCodec`, a tokio-util `Encoder` and `Decoder` of single frames, for tools |
//!
//! # What it does not do
//!
//! - No sockets, TLS, tasks, timers or clocks: `mcp-tunnel-transport` does that on tokio and rustls.
//! - It reads no credential: HELLO carries one as opaque bytes, and whoever accepts the link judges it.
//! - It knows nothing of HTTP or MCP: a stream is bytes with a [`StreamKind`] and a [`RouteName`].
//! - It resumes sessions ([`Connection::detach`], [`Connection::attach`]) and carries the proofs that this takes, but
//!   neither makes nor checks them: `mcp-tunnel-transport` does. No default offers [`Features::RESUME`].
#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm
)]

mod code;
#[cfg(feature = "codec")]
mod codec;
mod config;
mod connection;
mod frame;
mod handshake;
mod hello;
mod open;
mod slab;
mod stream_id;
mod transmit;
mod wire;

#[cfg(test)]
mod tests;

#[cfg(feature = "codec")]
pub use self::codec::{CodecError, FrameCodec};
pub use self::{
    code::{CloseCode, RefusalCode, ResetCode, Violation},
    config::Config,
    connection::{
        Connection, ConnectionError, Event, OpenError, Position, ReadError, RecvStream,
        ResumeError, SendStream, WriteError,
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
