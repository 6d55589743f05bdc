//! Fixture servers, hostile peers and drivers of third-party software for the tests.
//!
//! Nothing here is published, and only this package's own tests use it. Every wait has a deadline,
//! every child process dies with its handle, and every port is chosen by the system.

#![forbid(unsafe_code)]

pub mod caller;
pub mod conformance;
pub mod drivers;
pub mod fixture;
pub mod load;
pub mod network;
pub mod process;
pub mod recorder;
pub mod relay;
pub mod rmcp_client;
pub mod soak;
pub mod stack;
pub mod tools;
pub mod upstream;
pub mod wire;
