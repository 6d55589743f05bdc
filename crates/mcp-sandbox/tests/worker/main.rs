//! The worker as a process, in real sandboxes, against a stand-in of the vendor's platform.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

mod console;
mod container;
mod faults;
mod files;
mod once;
mod operate;
mod platform;
mod program;
mod sdk;
