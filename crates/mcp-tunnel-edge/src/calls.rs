//! The calls that are under way, so that each can be judged again and cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use mcp_tunnel_auth::{AccessSnapshot, CallerGrant, CallerKey, RouteName, TunnelId};
use mcp_tunnel_transport::Stream;
use tokio::sync::Notify;

use crate::exchange::severable::Severer;
use crate::measures::CallMeasures;

/// What a call was admitted for; judged again with every new snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) tunnel: TunnelId,
    pub(crate) route: RouteName,
    pub(crate) by: Admittance,
}

impl Grant {
    /// Whether the call would be admitted now.
    pub(crate) fn holds(&self, snapshot: &AccessSnapshot, now_ms: u64) -> bool {
        let tunnel = snapshot.tunnel_by_id(&self.tunnel);
        match &self.by {
            Admittance::Key(key) => {
                let granted = snapshot.authorise_caller(Some(key), tunnel, &self.route, now_ms);
                granted.is_ok()
            }
            Admittance::Upstream => {
                let granted = snapshot.authorise_caller(None, tunnel, &self.route, now_ms);
                matches!(granted, Ok(CallerGrant::Upstream))
            }
            Admittance::Dev => tunnel.is_some(),
        }
    }
}

/// On what ground a call was let in.
#[derive(Debug, Clone)]
pub(crate) enum Admittance {
    /// It showed a caller key.
    Key(Arc<CallerKey>),
    /// The tunnel leaves it to the server who may call.
    Upstream,
    /// It came over a development ingress, which only loopback reaches.
    Dev,
}

/// Every call between its admission and the end of its answer. Bounded by `max`: the table holds one entry a call.
#[derive(Debug)]
pub(crate) struct Calls {
    table: Mutex<Table>,
    emptied: Notify,
    max: usize,
    pub(crate) measures: CallMeasures,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: HashMap<u64, Arc<Entry>>,
}

/// One call, for those who may cut it.
#[derive(Debug)]
struct Entry {
    grant: Grant,
    state: Mutex<CutState>,
}

impl Calls {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            emptied: Notify::new(),
            max,
            measures: CallMeasures::new(),
        })
    }

    /// Enters a call; `None` when there are as many as the edge takes.
    pub(crate) fn enter(self: &Arc<Self>, grant: Grant) -> Option<LiveCall> {
        let mut table = lock(&self.table);
        if table.live.len() >= self.max {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let entry = Arc::new(Entry {
            grant,
            state: Mutex::default(),
        });
        table.live.insert(id, Arc::clone(&entry));
        self.measures.began();
        Some(LiveCall {
            calls: Arc::clone(self),
            id,
            entry,
        })
    }

    /// Cuts every call for which `keep` does not hold; returns how many. Judges outside of the lock, so that new calls
    /// do not wait for it.
    pub(crate) fn retain(&self, keep: impl Fn(&Grant) -> bool) -> usize {
        let mut doomed: Vec<Arc<Entry>> = lock(&self.table).live.values().cloned().collect();
        doomed.retain(|entry| !keep(&entry.grant));
        doomed.iter().for_each(|entry| entry.cut());
        doomed.len()
    }

    /// Waits until no call is left. Cancel safe.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.live() == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(crate) fn live(&self) -> usize {
        lock(&self.table).live.len()
    }
}

/// One call under way; leaves the table when dropped.
#[derive(Debug)]
pub(crate) struct LiveCall {
    calls: Arc<Calls>,
    id: u64,
    entry: Arc<Entry>,
}

impl LiveCall {
    pub(crate) fn measures(&self) -> &CallMeasures {
        &self.calls.measures
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.entry.grant
    }

    /// Names the stream that ends when the call is cut, whether or not anybody polls the call then.
    pub(crate) fn severed_by(&self, severer: Severer<Stream>) {
        match &mut *lock(&self.entry.state) {
            CutState::Cut => severer.sever(),
            CutState::Running(running) => running.severer = Some(severer),
        }
    }

    /// Ready once the call has been cut. Only one task may wait at a time: the one that owns the call.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut *lock(&self.entry.state) {
            CutState::Cut => Poll::Ready(()),
            CutState::Running(Running { waker, .. }) => {
                if waker
                    .as_ref()
                    .is_none_or(|waker| !waker.will_wake(cx.waker()))
                {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for LiveCall {
    fn drop(&mut self) {
        let mut table = lock(&self.calls.table);
        table.live.remove(&self.id);
        if table.live.is_empty() {
            self.calls.emptied.notify_waiters();
        }
        self.calls.measures.ended();
    }
}

#[derive(Debug)]
enum CutState {
    Running(Running),
    Cut,
}

#[derive(Debug, Default)]
struct Running {
    waker: Option<Waker>,
    severer: Option<Severer<Stream>>,
}

impl Default for CutState {
    fn default() -> Self {
        Self::Running(Running::default())
    }
}

impl Entry {
    fn cut(&self) {
        let before = std::mem::replace(&mut *lock(&self.state), CutState::Cut);
        if let CutState::Running(Running { waker, severer }) = before {
            severer.iter().for_each(Severer::sever);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// A poisoned lock means that a panic interrupted straight-line code here; the table is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
