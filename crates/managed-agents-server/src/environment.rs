//! The one place where this crate reads the clock and draws randomness.

use jiff::Timestamp;
use mcp_tunnel_auth::{EventId, WorkId, encode_id};

/// Now, in whole milliseconds: what rows and answers hold.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

pub(crate) fn unix_ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

pub(crate) fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// An id of a kind that has no type of its own.
pub(crate) fn id(prefix: &str, at: Timestamp) -> String {
    encode_id(prefix, unix_ms(at), &entropy())
}

pub(crate) fn event_id(at: Timestamp) -> EventId {
    EventId::new(unix_ms(at), &entropy())
}

pub(crate) fn work_id(at: Timestamp) -> WorkId {
    WorkId::new(unix_ms(at), &entropy())
}
