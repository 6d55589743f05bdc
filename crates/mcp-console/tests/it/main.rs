//! The console as its clients, its operators and its edges see it.

mod api;
mod common;
mod decisions;
mod nothing_secret;
mod permissions;
