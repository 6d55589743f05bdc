//! Time and randomness, which nothing else in this crate reads or draws.

use jiff::Timestamp;
use mcp_tunnel_auth::{EventId, WorkId};

pub(crate) use managed_agents_service::{entropy, id, now, unix_ms};

pub(crate) fn event_id(at: Timestamp) -> EventId {
    EventId::new(unix_ms(at), &entropy())
}

pub(crate) fn work_id(at: Timestamp) -> WorkId {
    WorkId::new(unix_ms(at), &entropy())
}
