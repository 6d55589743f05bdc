//! Events of sessions.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::{EventId, SessionId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{number, optional_time, required, to_json};
use super::{SqliteStore, Transaction, failed, run, sessions, work};
use crate::store::{
    ATTEMPTS_MOST, Append, Appended, Authority, BYTES_MOST, EVENTS_MOST, EventListing, EventRecord,
    Listed, NewEvent, Refusal, SessionRecord, SessionStatus, StoreError, Topic, Writer,
};

/// The end of a history: number of its newest event, bytes of all.
#[derive(Clone, Copy, Default)]
pub(super) struct End {
    position: u64,
    bytes: u64,
}

impl End {
    /// Whether a history may grow to here.
    pub(super) fn fits(self) -> Result<(), StoreError> {
        if self.position > EVENTS_MOST || self.bytes > BYTES_MOST {
            return Err(Refusal::TooManyEvents { most: EVENTS_MOST }.into());
        }
        Ok(())
    }
}

pub(super) async fn append(store: &SqliteStore, append: Append) -> Result<Appended, StoreError> {
    let mut transaction = store.begin().await?;
    let (record, now) = match &append.writer {
        Writer::Client(acting) => (
            sessions::open(&mut transaction, acting, append.session).await?,
            acting.now,
        ),
        Writer::Loop { now } => (
            sessions::existing(&mut transaction, append.session).await?,
            *now,
        ),
    };
    if record.status == SessionStatus::Terminated {
        return Err(Refusal::SessionEnded.into());
    }
    if record.position != append.position {
        return Err(StoreError::Moved);
    }
    let mut end = end_of(&mut transaction, append.session).await?;
    let mut written = Vec::new();
    for event in &append.taken_up {
        written.push(take_up(&mut transaction, append.session, &mut end, *event, now).await?);
    }
    for event in &append.events {
        written.push(push(&mut transaction, append.session, &mut end, event, now).await?);
    }
    end.fits()?;
    set_usage(&mut transaction, append.session, &append.events).await?;
    set_end(&mut transaction, append.session, end).await?;
    set_state(&mut transaction, &append, &record, now).await?;
    let queued = queue(&mut transaction, &append, &record, now).await?;
    let mut topics = vec![Topic::Session(append.session)];
    topics.extend(queued.then_some(Topic::Queue(record.environment)));
    topics.extend(append.due.map(|_| Topic::Loop));
    store.commit(transaction, &topics).await?;
    let position = end.position;
    Ok(Appended {
        position,
        events: written,
    })
}

/// Writes events behind the newest one.
pub(super) async fn add(
    transaction: &mut Transaction,
    session: SessionId,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut end = end_of(transaction, session).await?;
    for event in events {
        push(transaction, session, &mut end, event, now).await?;
    }
    end.fits()?;
    set_end(transaction, session, end).await
}

/// Writes the event that ends a session, however full its history is.
pub(super) async fn add_last(
    transaction: &mut Transaction,
    session: SessionId,
    event: &NewEvent,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut end = end_of(transaction, session).await?;
    push(transaction, session, &mut end, event, now).await?;
    set_end(transaction, session, end).await
}

/// Writes an event behind `end`.
pub(super) async fn push(
    transaction: &mut Transaction,
    session: SessionId,
    end: &mut End,
    event: &NewEvent,
    now: Timestamp,
) -> Result<EventRecord, StoreError> {
    end.position += 1;
    end.bytes += u64::try_from(event.body.len()).unwrap_or(u64::MAX);
    let processed_at = event.processed.then_some(now);
    let insert = sqlx::query(
        "INSERT INTO events (session, seq, id, kind, processed_at, answers, body)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(session.to_string())
    .bind(signed(end.position))
    .bind(event.id.to_string())
    .bind(event.kind.clone())
    .bind(processed_at.map(Timestamp::as_millisecond))
    .bind(event.answers.clone())
    .bind(event.body.clone());
    insert
        .execute(&mut **transaction)
        .await
        .map_err(|error| match &event.answers {
            Some(_) if is_double(&error) => Refusal::OtherResult.into(),
            _ => failed(error),
        })?;
    Ok(EventRecord {
        seq: end.position,
        id: event.id,
        kind: event.kind.clone(),
        processed_at,
        body: event.body.clone(),
    })
}

pub(super) async fn set_end(
    transaction: &mut Transaction,
    session: SessionId,
    end: End,
) -> Result<(), StoreError> {
    let update = sqlx::query("UPDATE sessions SET position = ?, bytes = ? WHERE id = ?")
        .bind(signed(end.position))
        .bind(signed(end.bytes))
        .bind(session.to_string());
    run(transaction, update).await.map(drop)
}

/// A page of a history, cut where it becomes too heavy.
pub(super) async fn page(
    transaction: &mut Transaction,
    session: SessionId,
    listing: &EventListing,
) -> Result<Listed<EventRecord>, StoreError> {
    let (order, beyond) = if listing.descending {
        ("DESC", "<")
    } else {
        ("ASC", ">")
    };
    // Only these words vary; every value is bound. A row of two is compared as one value.
    let text = format!(
        "SELECT seq, OCTET_LENGTH(body) AS weight FROM events
         WHERE session = ?1
             AND (?2 = '[]' OR kind IN (SELECT value FROM json_each(?2)))
             AND (?3 IS NULL OR processed_at >= ?3) AND (?4 IS NULL OR processed_at < ?4)
             AND (?5 IS NULL OR (processed_at IS NULL, seq) {beyond} (?5, ?6))
         ORDER BY processed_at IS NULL {order}, seq {order} LIMIT ?7"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(session.to_string())
        .bind(to_json(&listing.kinds)?)
        .bind(listing.processed.from)
        .bind(listing.processed.until)
        .bind(listing.after.map(|after| after.queued))
        .bind(listing.after.map(|after| signed(after.seq)))
        .bind(i64::from(listing.limit) + 1);
    let rows = query.fetch_all(&mut **transaction).await.map_err(failed)?;
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    read(transaction, session, &rows, limit, listing.bytes).await
}

/// Events with numbers above `after`, by number.
pub(super) async fn behind(
    transaction: &mut Transaction,
    session: SessionId,
    after: u64,
    bytes: u64,
) -> Result<Listed<EventRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, OCTET_LENGTH(body) AS weight FROM events WHERE session = ?1 AND seq > ?2
             AND (kind = 'session.deleted' OR NOT EXISTS
                 (SELECT 1 FROM sessions WHERE id = ?1 AND deleted_at IS NOT NULL))
         ORDER BY seq LIMIT ?3",
    )
    .bind(session.to_string())
    .bind(signed(after))
    .bind(i64::try_from(AT_ONCE + 1).unwrap_or(i64::MAX))
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed)?;
    read(transaction, session, &rows, AT_ONCE, bytes).await
}

/// Reads the events of `rows` until they are too many or too heavy.
async fn read(
    transaction: &mut Transaction,
    session: SessionId,
    rows: &[SqliteRow],
    limit: usize,
    bytes: u64,
) -> Result<Listed<EventRecord>, StoreError> {
    let mut wanted = Vec::new();
    let mut weight = 0;
    for row in rows.iter().take(limit) {
        weight += number(row, "weight")?;
        if weight > bytes && !wanted.is_empty() {
            break;
        }
        wanted.push(number(row, "seq")?);
    }
    // All with one query: one for each would be nine tenths of the time of a long history.
    let found = sqlx::query(
        "SELECT * FROM events WHERE session = ? AND seq IN (SELECT value FROM json_each(?))",
    )
    .bind(session.to_string())
    .bind(to_json(&wanted)?)
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed)?;
    let mut by_number = HashMap::with_capacity(found.len());
    for row in &found {
        let event = event_of(row)?;
        by_number.insert(event.seq, event);
    }
    let page: Vec<_> = wanted
        .iter()
        .filter_map(|seq| by_number.remove(seq))
        .collect();
    let more = page.len() < rows.len();
    Ok(Listed::new(page, more))
}

/// A queued event is processed now, behind everything that was.
async fn take_up(
    transaction: &mut Transaction,
    session: SessionId,
    end: &mut End,
    event: EventId,
    now: Timestamp,
) -> Result<EventRecord, StoreError> {
    end.position += 1;
    let update = sqlx::query(
        "UPDATE events SET seq = ?, processed_at = ?
         WHERE id = ? AND session = ? AND processed_at IS NULL RETURNING *",
    )
    .bind(signed(end.position))
    .bind(now.as_millisecond())
    .bind(event.to_string())
    .bind(session.to_string());
    let row = update
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    event_of(&row.ok_or(StoreError::Moved)?)
}

async fn end_of(transaction: &mut Transaction, session: SessionId) -> Result<End, StoreError> {
    let row = sqlx::query("SELECT position, bytes FROM sessions WHERE id = ?")
        .bind(session.to_string())
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(End {
        position: number(&row, "position")?,
        bytes: number(&row, "bytes")?,
    })
}

/// Keeps the newest word about what the session used.
async fn set_usage(
    transaction: &mut Transaction,
    session: SessionId,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    let said = |event: &&NewEvent| event.kind == "session.usage";
    let Some(usage) = events.iter().rev().find(said) else {
        return Ok(());
    };
    let update = sqlx::query("UPDATE sessions SET usage = ? WHERE id = ?")
        .bind(usage.body.clone())
        .bind(session.to_string());
    run(transaction, update).await.map(drop)
}

/// What the session is after this; a client that writes is progress, and an operator who
/// writes wants it to go on.
async fn set_state(
    transaction: &mut Transaction,
    append: &Append,
    record: &SessionRecord,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (progress, resumed) = match &append.writer {
        Writer::Client(acting) => (true, matches!(acting.authority, Authority::Operator { .. })),
        Writer::Loop { .. } => (false, false),
    };
    let due = append
        .due
        .filter(|_| append.status != SessionStatus::Terminated);
    let update = sqlx::query(
        "UPDATE sessions SET status = ?1, needs_worker = ?2, due_at = ?3, attempts = ?4, held = ?5,
             updated_at = ?6, active_ms = active_ms + COALESCE(MAX(?6 - active_since, 0), 0),
             active_since = IIF(?1 = 'running', ?6, NULL) WHERE id = ?7",
    )
    .bind(append.status.as_str())
    .bind(append.needs_worker)
    .bind(due.map(Timestamp::as_millisecond))
    .bind(if progress { 0 } else { record.attempts })
    .bind(record.held && !resumed)
    .bind(now.as_millisecond())
    .bind(append.session.to_string());
    run(transaction, update).await?;
    if append.status == SessionStatus::Terminated {
        work::end_with_session(transaction, append.session, now).await?;
    }
    Ok(())
}

/// Queues an item where one is needed and there is none.
async fn queue(
    transaction: &mut Transaction,
    append: &Append,
    record: &SessionRecord,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let resumed = matches!(&append.writer, Writer::Client(acting)
        if matches!(acting.authority, Authority::Operator { .. }));
    let wanted = append.needs_worker || append.status == SessionStatus::Running;
    let given_up = record.attempts > ATTEMPTS_MOST && matches!(append.writer, Writer::Loop { .. });
    if !wanted || given_up || (record.held && !resumed) {
        return Ok(false);
    }
    if work::live_of(transaction, append.session).await?.is_some() {
        return Ok(false);
    }
    work::queue_new(
        transaction,
        append.session,
        append.work,
        now,
        SignedDuration::ZERO,
    )
    .await?;
    Ok(true)
}

fn event_of(row: &SqliteRow) -> Result<EventRecord, StoreError> {
    Ok(EventRecord {
        seq: number(row, "seq")?,
        id: required(row, "id")?,
        kind: row.try_get("kind").map_err(failed)?,
        processed_at: optional_time(row, "processed_at")?,
        body: row.try_get("body").map_err(failed)?,
    })
}

fn is_double(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Numbers and sizes of one session stay far below the largest number of SQLite.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Events that a stream or a loop reads at once.
const AT_ONCE: usize = 256;
