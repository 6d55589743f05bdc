//! The toolset over real processes that nothing isolates.
#![expect(clippy::unwrap_used, reason = "a test")]

mod local;
mod shell;
