//! Whether the queue can be reached and used, hop by hop.

use mcp_diagnostics::report::Line;

use crate::access::{Queue, Refusal};
use crate::config::WorkerConfig;

/// Exit code where the queue refuses, as of the worker itself.
const EXIT_REFUSED: u8 = 3;
/// Exit code where it cannot be reached.
const EXIT_UNREACHABLE: u8 = 4;

/// Checks the queue end to end, and claims nothing.
///
/// # Cancel safety
/// Cancel safe.
pub async fn check(config: &WorkerConfig) -> Vec<Line> {
    let mut lines = vec![Line::ok(
        "environment",
        format!("{} at {}", config.environment, config.base_url),
    )];
    lines.push(queue(config).await);
    lines
}

async fn queue(config: &WorkerConfig) -> Line {
    let fail =
        |text: String, cure: &'static str, code| Line::fail("queue", text, cure).exit_code(code);
    let queue = match Queue::new(config) {
        Ok(queue) if queue.can_poll() => queue,
        Ok(_) => {
            let cure = "give --environment-key-file, or ANTHROPIC_ENVIRONMENT_KEY";
            return fail("no environment key".to_owned(), cure, 2);
        }
        Err(error) => {
            let text = mcp_diagnostics::telemetry::chain(&error).to_string();
            return fail(text, "correct --base-url or --ca-file", 2);
        }
    };
    let started = tokio::time::Instant::now();
    let line = match queue.stats().await {
        Ok(stats) => {
            let workers = stats
                .workers_polling
                .map_or_else(String::new, |n| format!(", {n} workers polling"));
            let oldest = stats
                .oldest_queued_at
                .map_or_else(String::new, |at| format!(", the oldest since {at}"));
            let text = format!(
                "{} items wait{oldest}, {} handed out{workers}",
                stats.depth, stats.pending
            );
            match (stats.depth, stats.workers_polling) {
                (1.., Some(0)) => Line::warn("queue", text, "start a worker: `mcp-sandbox worker`"),
                _ => Line::ok("queue", text),
            }
        }
        Err(Refusal::Unauthorised(text)) => fail(
            format!("the queue does not take the environment key: {text}"),
            "make a new key for this environment in the console",
            EXIT_REFUSED,
        ),
        Err(Refusal::Final { status, text }) => fail(
            format!("the queue answers {status}: {text}"),
            "compare --environment-id and --base-url with the console",
            EXIT_REFUSED,
        ),
        Err(Refusal::Later { why, .. }) => fail(
            format!("the queue is out of reach: {why}"),
            "check --base-url, the network and --ca-file",
            EXIT_UNREACHABLE,
        ),
    };
    line.took(started.elapsed())
}
