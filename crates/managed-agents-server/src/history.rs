//! The history of a session, as those who decide read it: all of it, at one position.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use managed_agents_api::{Event, EventBody, RawJson, SessionAgent};
use managed_agents_loop::Ledger;
use mcp_tunnel_auth::SessionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::environment;
use crate::shared::Shared;
use crate::store::{EventRecord, NewEvent, SessionRecord, SessionStatus, StoreError};

/// A history at one position. Whoever reads that session meanwhile, or next, has the same one and goes on from there.
pub(crate) struct History {
    past: Arc<Past>,
    _memory: Option<OwnedSemaphorePermit>,
}

/// What was read of a history.
#[derive(Clone, Default)]
pub(crate) struct Past {
    /// Number of its newest event.
    pub(crate) position: u64,
    /// What was processed in the order in which it was, then what is queued.
    pub(crate) events: Vec<Event>,
    /// What follows from it.
    pub(crate) ledger: Ledger,
    /// Events that are queued: the last ones.
    queued: usize,
    bytes: u64,
}

impl History {
    /// Reads all events of a session, or those that came since it was last read.
    pub(crate) async fn read(shared: &Shared, session: &SessionRecord) -> Result<Self, StoreError> {
        let memory = shared.memory.take(session.bytes).await;
        let known = shared.histories.of(session.id);
        loop {
            let position = known.position();
            let page = shared.store.events_after(session.id, position, PAGE_BYTES);
            let page = page.await?;
            known.add(&page.rows)?;
            if !page.more {
                break;
            }
        }
        let past = known.past();
        shared.histories.weigh(session.id, past.bytes);
        Ok(Self {
            past,
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

impl Deref for History {
    type Target = Past;

    fn deref(&self) -> &Past {
        &self.past
    }
}

impl Past {
    /// The next event by number. One that was queued is met again where it was taken up.
    fn add(&mut self, row: &EventRecord) -> Result<(), StoreError> {
        let event = event_of(row)?;
        let processed = self.events.len() - self.queued;
        let queued = self.events.get(processed..).unwrap_or_default();
        if let Some(at) = queued.iter().position(|queued| queued.id() == event.id()) {
            self.events.remove(processed + at);
            self.queued -= 1;
        } else {
            self.bytes += u64::try_from(row.body.len()).unwrap_or(u64::MAX);
        }
        self.position = row.seq;
        self.ledger.apply(&event);
        if row.processed_at.is_some() {
            self.events.insert(processed, event);
        } else {
            self.events.push(event);
            self.queued += 1;
        }
        Ok(())
    }
}

/// Histories that were read lately, so that a step costs what is new and not all that was.
#[derive(Default)]
pub(crate) struct Histories(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_session: HashMap<SessionId, Slot>,
    bytes: u64,
    /// Counts uses: the lowest is the oldest.
    uses: u64,
}

#[derive(Default)]
struct Slot {
    known: Arc<Known>,
    /// When it was used last.
    used: u64,
    bytes: u64,
}

/// What is known of one history. Everybody who reads it adds to it what is new; who has the history as it was keeps it
/// so, and only then is it copied.
#[derive(Default)]
struct Known(Mutex<Arc<Past>>);

impl Known {
    fn position(&self) -> u64 {
        self.lock().position
    }

    fn past(&self) -> Arc<Past> {
        Arc::clone(&self.lock())
    }

    /// Adds rows that were read behind a position of this history, where somebody else has not added them meanwhile.
    fn add(&self, rows: &[EventRecord]) -> Result<(), StoreError> {
        let mut past = self.lock();
        for row in rows {
            if row.seq > past.position {
                Arc::make_mut(&mut past).add(row)?;
            }
        }
        Ok(())
    }

    /// Straight-line code only under this lock.
    fn lock(&self) -> MutexGuard<'_, Arc<Past>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Histories {
    /// What is known of a session.
    fn of(&self, session: SessionId) -> Arc<Known> {
        let mut kept = self.lock();
        kept.uses += 1;
        let used = kept.uses;
        let slot = kept.by_session.entry(session).or_default();
        slot.used = used;
        let known = Arc::clone(&slot.known);
        kept.shrink();
        known
    }

    /// Notes what the history of a session weighs now.
    fn weigh(&self, session: SessionId, bytes: u64) {
        let mut kept = self.lock();
        let Some(slot) = kept.by_session.get_mut(&session) else {
            return;
        };
        let before = std::mem::replace(&mut slot.bytes, bytes);
        kept.bytes = kept.bytes - before + bytes;
        // It would push all others out, and itself last.
        if bytes > KEPT_BYTES_MOST {
            kept.remove(session);
        }
        kept.shrink();
    }

    /// Keeps nothing of a session that is deleted.
    pub(crate) fn forget(&self, session: SessionId) {
        self.lock().remove(session);
    }

    /// Straight-line code only under this lock.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn shrink(&mut self) {
        while self.bytes > KEPT_BYTES_MOST || self.by_session.len() > KEPT_MOST {
            let oldest = self.by_session.iter().min_by_key(|(_, slot)| slot.used);
            let Some(oldest) = oldest.map(|(session, _)| *session) else {
                return;
            };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, session: SessionId) {
        if let Some(slot) = self.by_session.remove(&session) {
            self.bytes -= slot.bytes;
        }
    }
}

/// A bound on what many large histories, or many large bodies, take at once; whoever comes
/// later waits. Small ones never wait for large ones: connections bound them.
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new() -> Self {
        let permits = usize::try_from(MEMORY_KIBIBYTES).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Waits until `bytes` more are allowed. One that is larger than all is let in alone.
    pub(crate) async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let wanted = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        let permits = wanted.min(MEMORY_KIBIBYTES);
        let permit = Arc::clone(&self.0).acquire_many_owned(permits).await;
        Some(permit.expect("the semaphore is never closed"))
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

/// Kibibytes of all large histories that are being read, and of all large bodies that come in:
/// 256 MiB, as the largest history has. Raising it lets clients with such take more memory at once.
const MEMORY_KIBIBYTES: u32 = 256 << 10;

/// What counts as small: results of most tools, histories of short sessions.
const SMALL_BYTES: u64 = 256 << 10;

/// What is kept of histories that nobody reads now: the sessions that are busy.
const KEPT_BYTES_MOST: u64 = 32 << 20;
const KEPT_MOST: usize = 512;

#[cfg(test)]
mod tests {
    use mcp_tunnel_auth::EventId;

    use super::*;

    fn row(seq: u64, id: u64, processed: bool) -> EventRecord {
        let event = NewEvent {
            id: EventId::new(id, &[0; 10]),
            kind: "user.message".to_owned(),
            processed,
            answers: None,
            body: r#"{"type":"user.message","content":[]}"#.to_owned(),
        };
        let mut row = EventRecord::unstored(&event, Timestamp::UNIX_EPOCH);
        row.seq = seq;
        row
    }

    #[test]
    fn what_was_queued_moves_to_where_it_is_taken_up() {
        let mut past = Past::default();
        for row in [
            row(1, 1, false),
            row(2, 2, false),
            row(3, 3, true),
            row(4, 1, true),
            row(5, 4, true),
        ] {
            past.add(&row).unwrap();
        }
        let ids: Vec<_> = past.events.iter().map(Event::id).collect();
        let expected = [3, 1, 4, 2].map(|id| EventId::new(id, &[0; 10]).to_string());
        assert_eq!(ids, expected);
        assert_eq!((past.position, past.queued), (5, 1));
    }

    #[test]
    fn whoever_reads_meanwhile_has_the_same_history() {
        let histories = Histories::default();
        let session = SessionId::new(1, &[0; 10]);
        let rows: Vec<_> = (1..4).map(|number| row(number, number, true)).collect();
        histories.of(session).add(&rows[..2]).unwrap();
        let (one, other) = (histories.of(session).past(), histories.of(session).past());
        assert!(Arc::ptr_eq(&one, &other), "it was not read again");
        // Both read what is new, and the second one finds it added.
        histories.of(session).add(&rows[1..]).unwrap();
        histories.of(session).add(&rows[2..]).unwrap();
        assert_eq!(
            (one.position, one.events.len()),
            (2, 2),
            "it stays as it was"
        );
        let newer = histories.of(session).past();
        assert_eq!((newer.position, newer.events.len()), (3, 3));
    }

    #[test]
    fn a_history_that_nobody_has_is_not_copied() {
        let histories = Histories::default();
        let session = SessionId::new(1, &[0; 10]);
        let known = histories.of(session);
        known.add(&[row(1, 1, true)]).unwrap();
        let at = Arc::as_ptr(&known.past());
        known.add(&[row(2, 2, true)]).unwrap();
        assert_eq!(Arc::as_ptr(&known.past()), at);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let histories = Histories::default();
        let session = |number| SessionId::new(number, &[0; 10]);
        let read = |number, bytes| {
            let known = histories.of(session(number));
            known.add(&[row(1, 1, true)]).unwrap();
            histories.weigh(session(number), bytes);
        };
        for number in 0..2000 {
            read(number, 1 << 16);
        }
        assert!(histories.lock().bytes <= KEPT_BYTES_MOST);
        assert_eq!(histories.of(session(0)).position(), 0);
        assert_eq!(histories.of(session(1999)).position(), 1);
        read(1, KEPT_BYTES_MOST + 1);
        assert_eq!(histories.of(session(1)).position(), 0);
        histories.forget(session(1999));
        assert_eq!(histories.of(session(1999)).position(), 0);
        for number in 3000..4000 {
            read(number, 0);
        }
        assert!(histories.lock().by_session.len() <= KEPT_MOST);
        let kept = histories.lock();
        let bytes: u64 = kept.by_session.values().map(|slot| slot.bytes).sum();
        assert_eq!(kept.bytes, bytes);
    }
}
