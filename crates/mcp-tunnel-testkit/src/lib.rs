//! Fixture servers, hostile peers and drivers of third-party software for the tests.
//!
//! Nothing here is published, and only this package's own tests use it.

#![forbid(unsafe_code)]

pub mod fixture;
