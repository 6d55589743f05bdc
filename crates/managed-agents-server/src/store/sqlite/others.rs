//! Other processes with the same file: what they commit is noticed.
//!
//! SQLite tells a connection, by `data_version`, that another one has committed. Whatever this process writes goes through
//! one connection, so that what that one has not written itself somebody else has.

use std::time::Duration;

use sqlx::Row as _;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::{SqliteStore, failed};
use crate::failure::chain;
use crate::store::StoreError;

/// Wakes everybody after another process has committed, for ever: which rows it wrote is not known, and one look too
/// many costs a query.
pub(super) async fn follow(store: &SqliteStore) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        tick.tick().await;
        match version(store).await {
            Ok(found) if seen == Some(found) => {}
            Ok(found) => {
                seen = Some(found);
                store.changes.announce_all();
            }
            Err(error) => debug!(error = chain(&error), "other processes were not looked at"),
        }
    }
}

/// A number that is another one once somebody else has committed.
pub(super) async fn version(store: &SqliteStore) -> Result<i64, StoreError> {
    let _turn = store.turn().await?;
    let row = sqlx::query("PRAGMA data_version")
        .fetch_one(&store.writer)
        .await
        .map_err(failed)?;
    row.try_get(0).map_err(failed)
}

/// How late the commits of another process are noticed; each look costs a query.
const LOOK_EVERY: Duration = Duration::from_millis(200);
