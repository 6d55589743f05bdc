//! Sessions.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::{SessionId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::authority::{self, Effect};
use super::row::{corrupt, json, named, number, optional_time, required, time, to_json};
use super::{SqliteStore, Transaction, environments, events, failed, others, retention, run, work};
use crate::store::{
    Acting, Append, Appended, Changes, Due, EnvironmentKind, EventListing, EventRecord, Listed,
    NewEvent, NewSession, Refusal, SessionChange, SessionListing, SessionRecord, SessionStatus,
    SessionStore, SessionWork, StoreError, Topic, WorkState,
};

#[async_trait]
impl SessionStore for SqliteStore {
    async fn create_session(
        &self,
        workspace: &WorkspaceId,
        now: Timestamp,
        new: NewSession,
    ) -> Result<SessionRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let environment = environments::live(&mut transaction, workspace, new.environment).await?;
        if environment.kind == EnvironmentKind::Cloud {
            return Err(Refusal::EnvironmentCloud.into());
        }
        let due = (!new.events.is_empty()).then(|| now.as_millisecond());
        insert(&mut transaction, workspace, now, &new, due).await?;
        let mut end = events::End::default();
        for event in &new.events {
            events::push(&mut transaction, new.id, &mut end, event, now).await?;
        }
        end.fits()?;
        events::set_end(&mut transaction, new.id, end).await?;
        work::queue_new(
            &mut transaction,
            new.id,
            new.work,
            now,
            SignedDuration::ZERO,
        )
        .await?;
        let record = existing(&mut transaction, new.id).await?;
        self.commit(transaction, &[Topic::Queue(new.environment), Topic::Loop])
            .await?;
        Ok(record)
    }

    async fn session(
        &self,
        acting: &Acting,
        session: SessionId,
    ) -> Result<SessionRecord, StoreError> {
        let mut transaction = self.read().await?;
        authority::of_session(&mut transaction, acting, session, Effect::Read).await?;
        existing(&mut transaction, session).await
    }

    async fn sessions(
        &self,
        workspace: &WorkspaceId,
        listing: &SessionListing,
    ) -> Result<Listed<SessionRecord>, StoreError> {
        let (order, beyond) = if listing.ascending {
            ("ASC", ">")
        } else {
            ("DESC", "<")
        };
        // Only these words vary; every value is bound.
        let text = format!(
            "{SELECT} WHERE s.workspace = ?1 AND s.deleted_at IS NULL
                 AND (?2 OR s.archived_at IS NULL)
                 AND (?3 IS NULL OR s.agent_id = ?3) AND (?4 IS NULL OR s.agent_version = ?4)
                 AND (?5 IS NULL OR s.created_at >= ?5) AND (?6 IS NULL OR s.created_at < ?6)
                 AND (?7 = '[]' OR s.status IN (SELECT value FROM json_each(?7)))
                 AND (?8 IS NULL OR s.id {beyond} ?8)
             ORDER BY s.id {order} LIMIT ?9"
        );
        let statuses: Vec<_> = listing.statuses.iter().map(|one| one.as_str()).collect();
        let version = listing
            .agent_version
            .map(|version| i64::try_from(version).unwrap_or(-1));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(workspace.to_string())
            .bind(listing.include_archived)
            .bind(listing.agent.map(|agent| agent.to_string()))
            .bind(version)
            .bind(listing.created.from)
            .bind(listing.created.until)
            .bind(to_json(&statuses)?)
            .bind(listing.after.map(|after| after.to_string()))
            .bind(listing.limit.saturating_add(1))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let rows = rows.iter().map(session_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn update_session(
        &self,
        acting: &Acting,
        session: SessionId,
        change: SessionChange,
        event: NewEvent,
    ) -> Result<SessionRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = open(&mut transaction, acting, session).await?;
        if change.agent.is_some() && record.status == SessionStatus::Running {
            return Err(Refusal::SessionRunning.into());
        }
        let metadata = change.metadata.as_ref().map(to_json).transpose()?;
        let update = sqlx::query(
            "UPDATE sessions SET title = IIF(?1, ?2, title), metadata = COALESCE(?3, metadata),
                 agent = COALESCE(?4, agent), updated_at = ?5 WHERE id = ?6",
        )
        .bind(change.title.is_some())
        .bind(change.title.flatten())
        .bind(metadata)
        .bind(change.agent)
        .bind(acting.now.as_millisecond())
        .bind(session.to_string());
        run(&mut transaction, update).await?;
        events::add(&mut transaction, session, &[event], acting.now).await?;
        let record = existing(&mut transaction, session).await?;
        self.commit(transaction, &[Topic::Session(session)]).await?;
        Ok(record)
    }

    async fn archive_session(
        &self,
        acting: &Acting,
        session: SessionId,
        event: NewEvent,
    ) -> Result<SessionRecord, StoreError> {
        let mut transaction = self.begin().await?;
        authority::of_session(&mut transaction, acting, session, Effect::Write).await?;
        let record = existing(&mut transaction, session).await?;
        if record.archived_at.is_some() {
            return Ok(record);
        }
        events::add_last(&mut transaction, session, &event, acting.now).await?;
        end(&mut transaction, session, acting.now).await?;
        let record = existing(&mut transaction, session).await?;
        let topics = [Topic::Session(session), Topic::Queue(record.environment)];
        self.commit(transaction, &topics).await?;
        Ok(record)
    }

    async fn delete_session(
        &self,
        acting: &Acting,
        session: SessionId,
        event: NewEvent,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        authority::of_session(&mut transaction, acting, session, Effect::Write).await?;
        let record = existing(&mut transaction, session).await?;
        end(&mut transaction, session, acting.now).await?;
        events::add_last(&mut transaction, session, &event, acting.now).await?;
        // What is left says that the id was taken, and nothing that anybody said.
        let update = sqlx::query(
            "UPDATE sessions SET deleted_at = ?, agent = '{}', title = NULL, metadata = '{}',
                 resources = '[]', usage = NULL WHERE id = ?",
        )
        .bind(acting.now.as_millisecond())
        .bind(session.to_string());
        run(&mut transaction, update).await?;
        // All of a short history; a long one goes batch by batch, and is not to be read meanwhile.
        retention::empty(&mut transaction, session, EMPTIED_AT_ONCE).await?;
        let topics = [Topic::Session(session), Topic::Queue(record.environment)];
        self.commit(transaction, &topics).await
    }

    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        events::append(self, append).await
    }

    async fn rest(
        &self,
        session: SessionId,
        position: u64,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let update = sqlx::query("UPDATE sessions SET due_at = ? WHERE id = ? AND position = ?")
            .bind(until.map(Timestamp::as_millisecond))
            .bind(session.to_string())
            .bind(i64::try_from(position).unwrap_or(i64::MAX));
        if run(&mut transaction, update).await?.rows_affected() == 0 {
            return Err(StoreError::Moved);
        }
        self.commit(transaction, &[]).await
    }

    async fn events(
        &self,
        acting: &Acting,
        session: SessionId,
        listing: &EventListing,
    ) -> Result<Listed<EventRecord>, StoreError> {
        let mut transaction = self.read().await?;
        authority::of_session(&mut transaction, acting, session, Effect::Read).await?;
        events::page(&mut transaction, session, listing).await
    }

    async fn events_after(
        &self,
        session: SessionId,
        after: u64,
        bytes: u64,
    ) -> Result<Listed<EventRecord>, StoreError> {
        let mut transaction = self.read().await?;
        events::behind(&mut transaction, session, after, bytes).await
    }

    async fn forget_ended(&self, before: Timestamp, most: u32) -> Result<bool, StoreError> {
        retention::forget(self, before, most).await
    }

    async fn due(&self, now: Timestamp, limit: u32) -> Result<Due, StoreError> {
        let rows = sqlx::query(
            "SELECT workspace, id, due_at FROM sessions WHERE due_at IS NOT NULL
             ORDER BY due_at LIMIT ?",
        )
        .bind(limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let mut due = Due::default();
        for row in &rows {
            let at = time(row, "due_at")?;
            if at > now {
                due.next = Some(at);
                break;
            }
            due.sessions
                .push((required(row, "workspace")?, required(row, "id")?));
        }
        Ok(due)
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    async fn tend(&self) {
        others::follow(self).await;
    }
}

/// A session that may still be changed.
pub(super) async fn open(
    transaction: &mut Transaction,
    acting: &Acting,
    session: SessionId,
) -> Result<SessionRecord, StoreError> {
    authority::of_session(transaction, acting, session, Effect::Write).await?;
    let record = existing(transaction, session).await?;
    if record.status == SessionStatus::Terminated {
        return Err(Refusal::SessionEnded.into());
    }
    Ok(record)
}

pub(super) async fn existing(
    transaction: &mut Transaction,
    session: SessionId,
) -> Result<SessionRecord, StoreError> {
    let text = format!("{SELECT} WHERE s.id = ? AND s.deleted_at IS NULL");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(session.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    session_of(&row.ok_or(StoreError::NotFound)?)
}

async fn insert(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    now: Timestamp,
    new: &NewSession,
    due: Option<i64>,
) -> Result<(), StoreError> {
    let version =
        i64::try_from(new.agent_version).map_err(|error| corrupt("agent_version", error))?;
    let insert = sqlx::query(
        "INSERT INTO sessions
             (id, workspace, environment, thread, agent, agent_id, agent_version, title, metadata,
              resources, status, due_at, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'idle', ?11, ?12, ?12)",
    )
    .bind(new.id.to_string())
    .bind(workspace.to_string())
    .bind(new.environment.to_string())
    .bind(new.thread.to_string())
    .bind(new.agent.clone())
    .bind(new.agent_id.to_string())
    .bind(version)
    .bind(new.title.clone())
    .bind(to_json(&new.metadata)?)
    .bind(new.resources.clone())
    .bind(due)
    .bind(now.as_millisecond());
    run(transaction, insert).await.map(drop)
}

/// Ends a session and its item.
async fn end(
    transaction: &mut Transaction,
    session: SessionId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let update = sqlx::query(
        "UPDATE sessions SET status = 'terminated', needs_worker = 0, due_at = NULL,
             active_ms = active_ms + COALESCE(MAX(?1 - active_since, 0), 0), active_since = NULL,
             archived_at = COALESCE(archived_at, ?1), updated_at = ?1 WHERE id = ?2",
    )
    .bind(now.as_millisecond())
    .bind(session.to_string());
    run(transaction, update).await?;
    work::end_with_session(transaction, session, now).await
}

fn session_of(row: &SqliteRow) -> Result<SessionRecord, StoreError> {
    Ok(SessionRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        environment: required(row, "environment")?,
        thread: required(row, "thread")?,
        agent: row.try_get("agent").map_err(failed)?,
        agent_id: required(row, "agent_id")?,
        agent_version: number(row, "agent_version")?,
        title: row.try_get("title").map_err(failed)?,
        metadata: json(row, "metadata")?,
        resources: row.try_get("resources").map_err(failed)?,
        status: named(row, "status", &SessionStatus::ALL, SessionStatus::as_str)?,
        needs_worker: row.try_get("needs_worker").map_err(failed)?,
        position: number(row, "position")?,
        bytes: number(row, "bytes")?,
        attempts: row.try_get("attempts").map_err(failed)?,
        held: row.try_get("held").map_err(failed)?,
        active_ms: number(row, "active_ms")?,
        active_since: optional_time(row, "active_since")?,
        usage: row.try_get("usage").map_err(failed)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        archived_at: optional_time(row, "archived_at")?,
        work: session_work_of(row)?,
    })
}

fn session_work_of(row: &SqliteRow) -> Result<Option<SessionWork>, StoreError> {
    let id: Option<String> = row.try_get("work_id").map_err(failed)?;
    if id.is_none() {
        return Ok(None);
    }
    Ok(Some(SessionWork {
        id: required(row, "work_id")?,
        state: named(row, "work_state", &WorkState::ALL, WorkState::as_str)?,
        worker: row.try_get("work_worker").map_err(failed)?,
        queued_at: time(row, "work_queued_at")?,
        available_at: time(row, "work_available_at")?,
        stopped_at: optional_time(row, "work_stopped_at")?,
        reason: row.try_get("work_reason").map_err(failed)?,
    }))
}

/// Events that the transaction of a deletion takes away.
const EMPTIED_AT_ONCE: u32 = 1000;

/// The item that is not stopped, else the newest one, is that of the session.
const SELECT: &str = "SELECT s.*, w.id AS work_id, w.state AS work_state, w.worker AS work_worker,
     w.queued_at AS work_queued_at, w.available_at AS work_available_at,
     w.stopped_at AS work_stopped_at,
     (SELECT reason FROM works r WHERE r.session = s.id AND r.reason IS NOT NULL
      ORDER BY r.id DESC LIMIT 1) AS work_reason
 FROM sessions s
 LEFT JOIN works w ON w.id = (SELECT n.id FROM works n WHERE n.session = s.id
                              ORDER BY n.state <> 'stopped' DESC, n.id DESC LIMIT 1)";
