//! Control plane of agent sessions: agents, environments, work queue, events.
#![forbid(unsafe_code)]

pub mod store;
