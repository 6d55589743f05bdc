//! Snapshots for edges: numbered, whole, published on every change and every minute.
//!
//! ```text
//! handler ── commit ──► publish ──► answer      what was answered is what edges judge by
//! changes() ─────────► publish                  another process, a dropped handler
//! every minute ──────► publish                  so that an edge knows the console lives
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use mcp_tunnel_auth::{
    AccessSnapshot, CallerKeyAccess, GatewayAccess, GatewayState, SnapshotError, TokenAccess,
    TokenState, TunnelAccess, TunnelId,
};
use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::warn;

use crate::environment::unix_ms;
use crate::failure::chain;
use crate::store::{
    AccessRows, CallerKeyRecord, Decision, GatewayRecord, StoreError, TokenRecord, TunnelRecord,
    TunnelStore,
};

/// Publishes snapshots, one after the other.
pub(crate) struct Publisher {
    latest: watch::Sender<Arc<AccessSnapshot>>,
    /// The change of the store that the latest snapshot holds.
    turn: Mutex<Option<u64>>,
}

/// Why no snapshot was published. The one before stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The rows could not be read.
    #[error("reading what edges judge by")]
    Store(#[from] StoreError),
    /// Two rows claim the same name.
    #[error("making a snapshot of the rows")]
    Snapshot(#[from] SnapshotError),
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self {
            latest: watch::Sender::new(Arc::new(AccessSnapshot::empty(0))),
            turn: Mutex::new(None),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<AccessSnapshot>> {
        self.latest.subscribe()
    }

    /// Publishes what the store holds now, unless that was published.
    pub(crate) async fn publish(
        &self,
        store: &dyn TunnelStore,
        now_ms: u64,
    ) -> Result<(), PublishError> {
        let wanted = *store.changes().borrow();
        let mut turn = self.turn.lock().await;
        // Of several changes at once the first build holds all that were committed before it.
        if turn.is_some_and(|published| published >= wanted) {
            return Ok(());
        }
        self.build(&mut turn, store, now_ms, Repeat::Changed).await
    }

    /// Publishes even what was published.
    pub(crate) async fn republish(
        &self,
        store: &dyn TunnelStore,
        now_ms: u64,
    ) -> Result<(), PublishError> {
        let mut turn = self.turn.lock().await;
        self.build(&mut turn, store, now_ms, Repeat::Always).await
    }

    /// Keeps others from publishing, and says which number comes next at the least.
    pub(crate) async fn hold(&self, now_ms: u64) -> (MutexGuard<'_, Option<u64>>, u64) {
        let turn = self.turn.lock().await;
        let next = AccessSnapshot::next_number(self.latest.borrow().number(), now_ms);
        (turn, next)
    }

    async fn build(
        &self,
        turn: &mut Option<u64>,
        store: &dyn TunnelStore,
        now_ms: u64,
        repeat: Repeat,
    ) -> Result<(), PublishError> {
        // Read before the rows: a change in between is published once more, never missed.
        let change = *store.changes().borrow();
        let rows = store.access().await?;
        // A clock that went back, before a new start too, must neither make a snapshot that
        // edges take for an old one, nor close links again that came after a
        // disconnection: numbers go on from what rows name.
        let last = latest_number(&rows).max(self.latest.borrow().number());
        let (tunnels, keys) = access_of(rows);
        let latest = Arc::clone(&self.latest.borrow());
        let number = AccessSnapshot::next_number(last, now_ms);
        let next = AccessSnapshot::new(number, now_ms, tunnels, keys)?;
        if !next.judges_as(&latest) || repeat == Repeat::Always || latest.number() == 0 {
            // Where the disk is full, edges are better off with the news than without.
            if let Err(error) = store.note_snapshot(number).await {
                warn!(
                    error = chain(&error),
                    number, "a snapshot's number was not kept"
                );
            }
            self.latest.send_replace(Arc::new(next));
        }
        *turn = Some(change);
        Ok(())
    }
}

/// The highest number that a snapshot had, as far as rows tell. A disconnection names the
/// number of the snapshot after it, which may not have been made.
fn latest_number(rows: &AccessRows) -> u64 {
    let named = rows.gateways.iter().map(|gateway| gateway.links_from);
    named
        .map(|number| number.saturating_sub(1))
        .max()
        .unwrap_or(0)
        .max(rows.last_snapshot)
}

#[derive(PartialEq, Eq)]
enum Repeat {
    Changed,
    Always,
}

fn access_of(rows: AccessRows) -> (Vec<TunnelAccess>, Vec<CallerKeyAccess>) {
    let mut tunnels: BTreeMap<TunnelId, TunnelAccess> = rows
        .tunnels
        .into_iter()
        .map(|tunnel| (tunnel.id, tunnel_access(tunnel)))
        .collect();
    for token in rows.tokens {
        if let Some(tunnel) = tunnels.get_mut(&token.tunnel)
            && tunnel.tokens.len() < TOKENS_MOST
        {
            tunnel.tokens.push(token_access(&token));
        }
    }
    for gateway in rows.gateways {
        if let Some(tunnel) = tunnels.get_mut(&gateway.tunnel) {
            tunnel.gateways.extend(gateway_access(&gateway));
        }
    }
    let keys = rows
        .caller_keys
        .into_iter()
        .map(caller_key_access)
        .collect();
    (tunnels.into_values().collect(), keys)
}

fn tunnel_access(tunnel: TunnelRecord) -> TunnelAccess {
    let mut access = TunnelAccess::new(tunnel.id, tunnel.workspace, tunnel.label);
    access.approval = tunnel.approval;
    access.caller_auth = tunnel.caller_auth;
    access
}

fn token_access(token: &TokenRecord) -> TokenAccess {
    let mut access = TokenAccess::new(token.token.id, token.token.public_key);
    if token.retired_at.is_some() {
        access.state = TokenState::Retired;
    }
    access
}

fn gateway_access(gateway: &GatewayRecord) -> Option<GatewayAccess> {
    let state = match gateway.decision {
        Decision::Pending => return None,
        Decision::Approved => GatewayState::Approved,
        Decision::Refused => GatewayState::Refused,
    };
    let mut access = GatewayAccess::new(gateway.fingerprint, gateway.id, state);
    access.links_from = gateway.links_from;
    Some(access)
}

fn caller_key_access(key: CallerKeyRecord) -> CallerKeyAccess {
    let mut access = CallerKeyAccess::new(key.id, key.hash, key.workspace);
    access.tunnels = key.tunnels;
    access.routes = key.routes;
    access.expires_at_ms = key.expires_at.map(unix_ms);
    access
}

/// Values of a tunnel's token that edges are told of: the current one and the newest
/// retired ones, which are refused by name; older ones are refused as unknown.
const TOKENS_MOST: usize = 8;

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::store::{SqliteConfig, SqliteStore};

    #[tokio::test]
    async fn changes_that_a_build_held_are_not_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::new(folder.path().join("console.db"));
        let store = SqliteStore::open(&config).await.unwrap();
        let publisher = Publisher::new();
        // Two changes at once: both wait for the turn, and the first build holds both.
        *publisher.turn.lock().await = Some(*store.changes().borrow() + 1);
        publisher.publish(&store, 1).await.unwrap();
        assert_eq!(publisher.latest.borrow().number(), 0, "built again");
        *publisher.turn.lock().await = None;
        publisher.publish(&store, 1).await.unwrap();
        assert_eq!(publisher.latest.borrow().number(), 1);
    }
}
