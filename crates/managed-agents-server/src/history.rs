//! The history of a session, as those who decide read it: all of it, at one position.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use managed_agents_api::{Event, EventBody, RawJson, SessionAgent};
use managed_agents_loop::Ledger;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::environment;
use crate::shared::Shared;
use crate::store::{EventRecord, NewEvent, SessionRecord, SessionStatus, StoreError};

/// A history at one position.
pub(crate) struct History {
    /// Number of its newest event.
    pub(crate) position: u64,
    /// What was processed in the order in which it was, then what is queued.
    pub(crate) events: Vec<Event>,
    /// What follows from it.
    pub(crate) ledger: Ledger,
    _memory: OwnedSemaphorePermit,
}

impl History {
    /// Reads all events of a session.
    pub(crate) async fn read(shared: &Shared, session: &SessionRecord) -> Result<Self, StoreError> {
        let memory = shared.histories.take(session.bytes).await;
        let mut rows = HashMap::new();
        let mut position = 0;
        loop {
            let page = shared.store.events_after(session.id, position, PAGE_BYTES);
            let page = page.await?;
            for row in page.rows {
                position = position.max(row.seq);
                // One that was taken up between two pages is met twice: the later is it.
                rows.insert(row.id, row);
            }
            if !page.more {
                break;
            }
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|row| (row.processed_at.is_none(), row.seq));
        let events = rows.iter().map(event_of).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            position,
            ledger: Ledger::of(&events),
            events,
            _memory: memory,
        })
    }

    /// `now`, or the time of the newest event where that is later: times go the way that the
    /// history goes, whoever was faster and whatever the clock does.
    pub(crate) fn not_before(&self, now: Timestamp) -> Timestamp {
        let newest = self.events.iter().rev().find_map(Event::processed_at);
        newest.map_or(now, |newest| newest.max(now))
    }

    /// The event of this id.
    pub(crate) fn event(&self, id: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.id() == id)
    }
}

/// A bound on what many histories, or many bodies, take at once; whoever comes later waits.
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new(mebibytes: u32) -> Self {
        let permits = usize::try_from(mebibytes).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(
            permits.min(Semaphore::MAX_PERMITS),
        )))
    }

    /// Waits until `bytes` more are allowed. One that is larger than all is let in alone.
    pub(crate) async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        let wanted = u32::try_from(bytes >> 20)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let permits = wanted.min(MEMORY_MEBIBYTES);
        Arc::clone(&self.0)
            .acquire_many_owned(permits)
            .await
            .expect("the semaphore is never closed")
    }
}

/// The event of a row, as it is served.
pub(crate) fn event_of(row: &EventRecord) -> Result<Event, StoreError> {
    let raw = RawJson::from_text(row.body.clone());
    let event = raw.and_then(|raw| Event::stamp(&raw, &row.id.to_string(), row.processed_at));
    event.map_err(|source| StoreError::Corrupt {
        column: "body",
        source: source.into(),
    })
}

/// An event that this server writes, processed at once.
pub(crate) fn written(body: &EventBody) -> Result<NewEvent, StoreError> {
    let raw = RawJson::of(body).map_err(|source| StoreError::Failed(source.into()))?;
    Ok(NewEvent {
        id: environment::event_id(environment::now()),
        kind: body.kind().to_owned(),
        processed: true,
        answers: None,
        body: raw.as_str().to_owned(),
    })
}

/// The agent of a session.
pub(crate) fn agent_of(session: &SessionRecord) -> Result<SessionAgent, StoreError> {
    serde_json::from_str(&session.agent).map_err(|source| StoreError::Corrupt {
        column: "agent",
        source: source.into(),
    })
}

/// What a session does, by its history.
pub(crate) fn status_of(ledger: &Ledger) -> SessionStatus {
    let status = ledger.status();
    SessionStatus::ALL
        .into_iter()
        .find(|known| known.as_str() == status.as_str())
        .unwrap_or(SessionStatus::Idle)
}

/// Bytes that are read at once.
const PAGE_BYTES: u64 = 4 << 20;

/// Mebibytes of all histories that are being read, and of all bodies that come in: the largest
/// history is as large. Raising it lets clients with long histories take more memory at once.
pub(crate) const MEMORY_MEBIBYTES: u32 = 256;
