//! Forgetting what is over: rows that nobody reads any more do not stay for ever.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::environment;
use crate::failure::chain;
use crate::shared::Shared;

/// Forgets, batch by batch, for ever.
pub(crate) async fn run(shared: &Shared) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut audit_at = Instant::now();
    loop {
        tick.tick().await;
        if Instant::now() >= audit_at {
            forget_audit(shared).await;
            audit_at = Instant::now() + AUDIT_EVERY;
        }
        let before = environment::now().saturating_sub(shared.config.ended_kept);
        let before = before.unwrap_or(Timestamp::MIN);
        loop {
            match shared.store.forget_ended(before, BATCH).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    warn!(error = chain(&error), "what is over was not forgotten");
                    break;
                }
            }
        }
    }
}

async fn forget_audit(shared: &Shared) {
    let before = environment::now().saturating_sub(shared.config.audit_kept);
    let before = before.unwrap_or(Timestamp::MIN);
    if let Err(error) = shared.store.forget_audit(before).await {
        warn!(error = chain(&error), "old audit rows were not forgotten");
    }
}

/// How soon the rest of a long history follows its session.
const EVERY: Duration = Duration::from_secs(10);

const AUDIT_EVERY: Duration = Duration::from_secs(3600);

/// Rows that go at once: requests that write wait for them.
const BATCH: u32 = 500;
