//! The toolset over real processes that nothing isolates.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, which say what they have counted"
)]

mod differential;
mod helper;
mod local;
mod shell;
