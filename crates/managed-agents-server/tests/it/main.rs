//! The REST API of sessions, from outside.

mod authority;
mod common;
mod events;
mod killed;
mod queue;
mod sessions;
mod streams;
