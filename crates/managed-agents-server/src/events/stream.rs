//! Events as they happen.
//!
//! A stream holds the number of the last event that it wrote, and reads on in the store
//! when its client has taken what it was given: a slow reader costs a page of the store,
//! however much happens meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use managed_agents_api::serve::{ApiError, Permission};
use managed_agents_api::{ErrorType, EventType, sse};
use mcp_tunnel_auth::SessionId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::failure::{answer, chain};
use crate::history::event_of;
use crate::hooks::{Caller, Id, Takes};
use crate::keys;
use crate::shared::Shared;
use crate::store::{Authority, Denial, SessionStatus, StoreError, Topic};

pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
    head: Parts,
) -> Result<Response, ApiError> {
    open(shared, Watcher { caller, head }, session).await
}

/// Whoever watches, with what they asked by: a stream lives no longer than their credential.
pub(crate) struct Watcher {
    pub(crate) caller: Caller,
    pub(crate) head: Parts,
}

impl Watcher {
    fn is_operator(&self) -> bool {
        matches!(self.caller.authority, Authority::Operator { .. })
    }
}

/// Begins with what happens after this; its head is sent at once. A worker that comes back to a
/// session that is over meanwhile is told so.
pub(crate) async fn open(
    shared: Arc<Shared>,
    watcher: Watcher,
    session: SessionId,
) -> Result<Response, ApiError> {
    let slot = Streams::enter(&shared, session)?;
    // Subscribed before the position is read: nothing falls in between.
    let events = shared.store.changes().subscribe(Topic::Session(session));
    let record = shared
        .store
        .session(&watcher.caller.acting(), session)
        .await;
    let record = record.map_err(answer::<SessionId>)?;
    let keys = shared
        .store
        .changes()
        .subscribe(Topic::Keys(record.environment));
    // The last event of a session that is over says so.
    let missed = record.status == SessionStatus::Terminated && !watcher.is_operator();
    let stream = Stream {
        shared,
        watcher,
        session,
        position: record.position.saturating_sub(missed.into()),
        events,
        keys,
        ping: Instant::now() + PING_EVERY,
        look: Instant::now() + LOOK_EVERY,
        more: missed,
        ended: false,
        _slot: slot,
    };
    let chunks = stream::unfold(stream, |mut stream| async {
        let chunk = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), stream))
    });
    let head = [(CONTENT_TYPE, sse::MEDIA_TYPE), (CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(chunks)).into_response())
}

struct Stream {
    shared: Arc<Shared>,
    watcher: Watcher,
    session: SessionId,
    position: u64,
    events: watch::Receiver<u64>,
    keys: watch::Receiver<u64>,
    ping: Instant,
    /// When an operator's credential is looked at again.
    look: Instant,
    /// The store has more than the last page.
    more: bool,
    ended: bool,
    _slot: Slot,
}

impl Stream {
    /// The next bytes; `None` where the stream ends: with the session, with the credential,
    /// or where the store cannot be read (clients open another one and list what they missed).
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            if self.watcher.is_operator() && Instant::now() >= self.look {
                if !self.still_admits().await {
                    debug!(session = %self.session, "a stream ends with its credential");
                    return None;
                }
                self.look = Instant::now() + LOOK_EVERY;
            }
            if !self.more {
                tokio::select! {
                    () = sleep_until(self.look), if self.watcher.is_operator() => continue,
                    _ = self.events.changed() => {}
                    _ = self.keys.changed() => {}
                    () = self.shared.closing.cancelled() => return None,
                    () = sleep_until(self.ping) => {
                        self.ping = Instant::now() + PING_EVERY;
                        return self.judge().await.then(|| Bytes::from_static(sse::PING.as_bytes()));
                    }
                }
            }
            match self.page().await {
                Ok(Some(bytes)) => return Some(bytes),
                Ok(None) => {}
                Err(error) => {
                    debug!(error = chain(&error), session = %self.session, "a stream ends");
                    return None;
                }
            }
        }
        None
    }

    /// What happened since the last page.
    async fn page(&mut self) -> Result<Option<Bytes>, StoreError> {
        let page = self
            .shared
            .store
            .events_after(self.session, self.position, PAGE_BYTES);
        let page = page.await?;
        self.more = page.more;
        let mut text = String::new();
        let mut over = None;
        for row in &page.rows {
            self.position = row.seq;
            let event = event_of(row)?;
            text.push_str(&sse::frame(&event));
            // Of a deleted session nothing else can follow; of one that is over, nothing for a worker.
            self.ended |= *event.kind() == EventType::SessionDeleted;
            if *event.kind() == EventType::SessionStatusTerminated && !self.watcher.is_operator() {
                self.ended = true;
                over = Some(sse::frame(&event));
            }
        }
        match self.judged().await {
            Ok(()) => {}
            Err(StoreError::NotFound) if self.ended => {}
            // The claim ended with the session: its holder is told that, and nothing else.
            Err(StoreError::Denied(Denial::ClaimOver)) if over.is_some() => {
                return Ok(over.map(Bytes::from));
            }
            Err(error) => return Err(error),
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }

    /// An API key may be revoked, or lose its permission, without any event of this server.
    async fn still_admits(&self) -> bool {
        let takes = Takes::api(Permission::SessionsRead);
        let Watcher { caller, head } = &self.watcher;
        keys::still_admits(&self.shared, head, caller, takes).await
    }

    async fn judge(&self) -> bool {
        self.judged().await.is_ok()
    }

    /// Whether the credential still reaches the session.
    async fn judged(&self) -> Result<(), StoreError> {
        let acting = self.watcher.caller.acting();
        self.shared
            .store
            .session(&acting, self.session)
            .await
            .map(drop)
    }
}

/// How many streams each session has.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<SessionId, usize>>);

impl Streams {
    /// # Errors
    /// 429 where the session has as many as it may.
    fn enter(shared: &Arc<Shared>, session: SessionId) -> Result<Slot, ApiError> {
        let mut open = shared.streams.lock();
        let count = open.entry(session).or_default();
        if *count >= STREAMS_MOST {
            let error = ApiError::new(
                ErrorType::RateLimit,
                format!("the session has {STREAMS_MOST} open streams, the most it may have"),
            );
            return Err(error.with_retry_after(Duration::from_secs(5)));
        }
        *count += 1;
        drop(open);
        Ok(Slot {
            shared: Arc::clone(shared),
            session,
        })
    }

    /// Straight-line code only under this lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream of a session.
struct Slot {
    shared: Arc<Shared>,
    session: SessionId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.shared.streams.lock();
        if let Some(count) = open.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.session);
            }
        }
    }
}

/// A silent stream is cut by proxies, and by the vendor's SDKs after ten minutes.
const PING_EVERY: Duration = Duration::from_secs(15);

/// A stream outlives its API key by this at most; each look costs a query of whoever keeps the keys.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Bytes that are read for one stream at once: what a reader that stopped reading costs,
/// beside one event that is larger.
const PAGE_BYTES: u64 = 256 << 10;

/// Streams of one session. Its application and its worker have one each.
const STREAMS_MOST: usize = 64;
