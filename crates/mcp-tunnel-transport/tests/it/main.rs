//! Tests of the transport from outside, one module a subject, in one program.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic anywhere")]

mod admission;
mod cancel;
mod common;
mod cut;
mod dial;
mod links;
mod local_ca;
mod resume;
mod streams;
mod tls;
mod uplink;
