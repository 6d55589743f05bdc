//! MCP and JSON-RPC messages read without copying.
//!
//! For programs that stand between an MCP client and a server, and for checks that ask a server who it is. Bodies pass
//! unchanged; this crate looks into them and never writes them again.
//!
//! ```text
//!  request body  ──► RequestIdFinder   the id, from the first bytes, for an error answer
//!                ──► Body / Message    request, notification, response, error; batches
//!                       └► peek        params.name, uri, _meta
//!  event stream  ──► SseScanner        may a comment be put in now?
//!                ──► SseReader         the events themselves
//!  failed call   ◄── Failure           JSON-RPC shaped body, status, code, cure
//!  a check       ◄── probe             discover, initialize, list tools; ServerCard, ToolPage
//! ```
//!
//! # Example
//!
//! ```
//! use mcp_messages::{Body, Message};
//!
//! let body = br#"{"jsonrpc":"2.0","id":"a-7","method":"tools/call","params":{"name":"search","arguments":{"q":1e400}}}"#;
//! let Body::Single(message) = Body::parse(body)? else { panic!("one message was sent") };
//! let Message::Request { id, method, .. } = &message else { panic!("it has a method and an id") };
//! assert_eq!((id.as_json(), method.as_ref()), (r#""a-7""#, "tools/call"));
//! assert_eq!(message.peek()?.name.as_deref(), Some("search"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where readers of JSON could disagree, and a policy be talked past, it refuses: a key of the envelope or a key that is
//! looked for may occur once, however it is escaped. Ids stay as they were written. Nothing recurses; nesting beyond
//! [`MAX_DEPTH`] is refused for the sake of who reads next.
//!
//! # What it does not do
//!
//! - It knows no complete type of any MCP revision yet; what it does not know, it keeps as bytes.
//! - It does not validate arguments or results.
//! - It does not limit the size of a body: who reads it into memory does.
//! - It speaks no HTTP, and has no IO and no clock. It builds for `wasm32-unknown-unknown`.
//!
//! It has no cargo features.

#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm
)]

mod envelope;
mod era;
mod failure;
mod peek;
pub mod probe;
mod request_id;
mod sse;

pub use envelope::{Body, EnvelopeError, Id, MAX_DEPTH, Message};
pub use era::{Era, FIRST_MODERN_VERSION, LAST_LEGACY_VERSION, PROTOCOL_VERSION_HEADER};
pub use failure::{Failure, FailureCode, Hop};
pub use peek::{Peek, PeekError};
pub use request_id::{MAX_ID_BYTES, RequestId, RequestIdFinder};
pub use sse::{EventTooLong, SseEvent, SseReader, SseScanner};
