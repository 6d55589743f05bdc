//! The suite that every sandbox executor must pass.
//!
//! ```text
//!   Suite::new(&executor) ──> functional cases   what callers rely on
//!        .with_host(&host)    escape cases       what a hostile command must not do
//!        .run().await ──────> Outcome            passed, failed, not observable, skipped: counted
//! ```
//!
//! A provider runs it with one call:
//!
//! ```
//! # use mcp_sandbox_executor::Executor;
//! # async fn example(executor: &dyn Executor) {
//! use mcp_sandbox_conformance::Suite;
//!
//! let outcome = Suite::new(executor).run().await;
//! print!("{outcome}");
//! assert!(outcome.passed());
//! # }
//! ```
//!
//! Every escape case is judged by its effect as far as a [`HostView`] can see it
//! from outside: a secret that did not appear, a listener that was not reached, a
//! process that still lives. Without one those cases count as *not observable*,
//! never as passed. Where it is safe the same attempt also runs on the host
//! itself, as a control: an attempt that does nothing there proves nothing.
//!
//! A case that a backend's [`Capabilities`] rule out is *skipped*, with the
//! reason; how many may be is up to the caller to assert.
//!
//! What it does not do: it needs `sh` inside, and `python3` for attempts that are
//! single system calls; it never touches the network beyond the host's loopback.
#![forbid(unsafe_code)]

mod case;
mod cases;
mod host;
mod outcome;
mod probe;

use std::time::Duration;

use mcp_sandbox_executor::{Capabilities, Executor, SandboxSpec};

use crate::case::Context;
pub use crate::host::{ControlOutput, HostView, LocalHost};
pub use crate::outcome::{CaseOutcome, Outcome, Verdict};

/// A case that takes longer has failed.
const CASE_TIME: Duration = Duration::from_secs(30);

/// The suite, bound to an executor.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "executors need not be Debug")]
pub struct Suite<'a> {
    executor: &'a dyn Executor,
    host: Option<&'a dyn HostView>,
    only: Option<&'a str>,
    escapes: bool,
}

impl<'a> Suite<'a> {
    /// All cases, judged from inside only.
    pub fn new(executor: &'a dyn Executor) -> Self {
        Self {
            executor,
            host: None,
            only: None,
            escapes: true,
        }
    }

    /// Judges effects by what the host sees.
    #[must_use]
    pub fn with_host(mut self, host: &'a dyn HostView) -> Self {
        self.host = Some(host);
        self
    }

    /// Runs only the cases whose id or title contains `text`.
    #[must_use]
    pub fn only(mut self, text: &'a str) -> Self {
        self.only = Some(text);
        self
    }

    /// Leaves the escape cases out: for executors that isolate nothing and say so.
    #[must_use]
    pub fn functional_only(mut self) -> Self {
        self.escapes = false;
        self
    }

    /// Runs the cases one after the other.
    ///
    /// # Cancel safety
    /// Sandboxes of the running case may be left behind when the future is dropped.
    pub async fn run(self) -> Outcome {
        let capabilities = self.executor.capabilities();
        let context = Context::new(self.executor, self.host, capabilities);
        let mut outcome = Outcome::default();
        for case in cases::all() {
            let wanted = self
                .only
                .is_none_or(|text| case.id.contains(text) || case.title.contains(text));
            if wanted && (self.escapes || !case.escape) {
                outcome.push(case.run(&context, CASE_TIME).await);
            }
        }
        outcome
    }
}

/// What the suite starts every sandbox from.
fn spec() -> SandboxSpec {
    SandboxSpec::new().with_label("made-by", "conformance")
}

/// A short name of a capability's absence, for skip messages.
fn lacks(what: &str, capabilities: &Capabilities) -> String {
    format!("{} has no {what}", capabilities.backend)
}
