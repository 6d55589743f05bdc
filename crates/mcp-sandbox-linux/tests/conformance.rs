//! The conformance suite: as root, and again as an ordinary user.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

#[path = "support/holdings.rs"]
mod holdings;
#[path = "support/suite.rs"]
mod suite;
#[path = "support/user.rs"]
mod user;

use std::env;

use mcp_sandbox_linux::Tier;

fn main() {
    mcp_sandbox_linux::enter_helper();
    if env::args().any(|argument| argument == "--list") {
        println!("conformance: test");
        return;
    }
    let filter = env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with('-'));
    suite::run_here(filter.as_deref(), &[Tier::T1, Tier::T3]);
}
