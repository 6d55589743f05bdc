//! The REST API of sessions, from outside.

mod authority;
mod common;
mod events;
mod killed;
mod processes;
mod queue;
mod sessions;
mod streams;
