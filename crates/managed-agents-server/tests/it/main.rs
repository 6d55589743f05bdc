//! The REST API of sessions, from outside.

mod authority;
mod common;
mod events;
mod queue;
mod sessions;
mod streams;
