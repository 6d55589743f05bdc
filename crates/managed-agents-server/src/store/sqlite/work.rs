//! The work queue.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::{EnvironmentId, EventId, SessionId, WorkId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::authority::{self, Effect};
use super::row::{json, named, number, optional, optional_time, required, time, to_json};
use super::{SqliteStore, Transaction, environments, failed, run};
use crate::store::{
    ATTEMPTS_MOST, Acting, Authority, BeatMismatch, Beaten, Claim, Denial, Expected, ItemHome,
    ItemPath, Listed, Listing, Polled, QueueStats, Refusal, StopOrder, StoreError, Topic,
    WorkRecord, WorkState, WorkStore, back_off,
};

#[async_trait]
impl WorkStore for SqliteStore {
    async fn poll(&self, claim: &Claim) -> Result<Polled, StoreError> {
        let mut reading = self.read().await?;
        environments::live(&mut reading, &claim.workspace, claim.environment).await?;
        authority::live_key(&mut reading, claim.key).await?;
        if next_item(&mut reading, claim).await?.is_none() {
            let next = next_time(&mut reading, claim).await?;
            return Ok(Polled::Empty { next });
        }
        drop(reading);
        // An empty poll never writes; what was seen is looked for again by the one writer.
        let mut transaction = self.begin().await?;
        authority::live_key(&mut transaction, claim.key).await?;
        let Some(work) = next_item(&mut transaction, claim).await? else {
            return Ok(Polled::Empty {
                next: next_time(&mut transaction, claim).await?,
            });
        };
        let update = sqlx::query(
            "UPDATE works SET epoch = epoch + 1, reserved_at = ?, claim_key = ?, worker = ?,
                 token_used = 0 WHERE id = ?",
        )
        .bind(claim.now.as_millisecond())
        .bind(claim.key.to_string())
        .bind(claim.worker.clone())
        .bind(work.to_string());
        run(&mut transaction, update).await?;
        let record = existing(&mut transaction, work).await?;
        self.commit(transaction, &[]).await?;
        Ok(Polled::Item(Box::new(record)))
    }

    async fn acknowledge(
        &self,
        acting: &Acting,
        item: ItemPath,
        lease: SignedDuration,
    ) -> Result<WorkRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, acting, item).await?;
        authority::of_item(&mut transaction, acting, &record, Effect::Write).await?;
        if record.state != WorkState::Queued || record.reserved_at.is_none() {
            return Err(refused(&record));
        }
        let update = sqlx::query(
            "UPDATE works SET state = 'starting', acknowledged_at = ?, lease_until = ? WHERE id = ?",
        )
        .bind(acting.now.as_millisecond())
        .bind(after(acting.now, lease))
        .bind(item.work.to_string());
        run(&mut transaction, update).await?;
        let record = existing(&mut transaction, item.work).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn heartbeat(
        &self,
        acting: &Acting,
        item: ItemPath,
        expected: Expected,
        lease: SignedDuration,
    ) -> Result<Beaten, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, acting, item).await?;
        let mismatch = BeatMismatch::new(record.state, record.heartbeat_at);
        match authority::of_item(&mut transaction, acting, &record, Effect::Write).await {
            Err(StoreError::Denied(Denial::ClaimOver)) => return Err(mismatch.into()),
            judged => judged?,
        }
        let extended = match record.state {
            WorkState::Stopping | WorkState::Stopped => false,
            WorkState::Queued => return Err(mismatch.into()),
            WorkState::Starting | WorkState::Active => {
                if !meets(expected, record.heartbeat_at) {
                    return Err(mismatch.into());
                }
                true
            }
        };
        if extended {
            let beat = later(record.heartbeat_at, acting.now);
            let update = sqlx::query(
                "UPDATE works SET state = 'active', started_at = COALESCE(started_at, ?1),
                     heartbeat_at = ?2, lease_until = ?3 WHERE id = ?4",
            )
            .bind(acting.now.as_millisecond())
            .bind(beat)
            .bind(after(acting.now, lease))
            .bind(item.work.to_string());
            run(&mut transaction, update).await?;
        }
        let work = existing(&mut transaction, item.work).await?;
        self.commit(transaction, &[]).await?;
        Ok(Beaten { work, extended })
    }

    async fn stop(
        &self,
        acting: &Acting,
        item: ItemPath,
        stop: StopOrder,
    ) -> Result<WorkRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, acting, item).await?;
        authority::of_item(&mut transaction, acting, &record, Effect::Write).await?;
        if record.state == WorkState::Stopped {
            return Err(refused(&record));
        }
        let by_operator = matches!(acting.authority, Authority::Operator { .. });
        let order = sqlx::query(
            "UPDATE works SET stop_requested_at = COALESCE(stop_requested_at, ?),
                 operator_stop = MAX(operator_stop, ?), reason = COALESCE(?, reason) WHERE id = ?",
        )
        .bind(acting.now.as_millisecond())
        .bind(by_operator)
        .bind(stop.reason)
        .bind(item.work.to_string());
        run(&mut transaction, order).await?;
        if stop.force || record.state == WorkState::Queued {
            finish(&mut transaction, &record, acting.now, stop.successor).await?;
        } else if record.state != WorkState::Stopping {
            let update =
                sqlx::query("UPDATE works SET state = 'stopping', lease_until = ? WHERE id = ?")
                    .bind(after(acting.now, stop.grace))
                    .bind(item.work.to_string());
            run(&mut transaction, update).await?;
        }
        let record = existing(&mut transaction, item.work).await?;
        self.commit(transaction, &[Topic::Queue(item.environment)])
            .await?;
        Ok(record)
    }

    async fn begin_calls(
        &self,
        acting: &Acting,
        item: ItemPath,
        calls: &[EventId],
    ) -> Result<Vec<EventId>, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, acting, item).await?;
        authority::of_session(&mut transaction, acting, record.session, Effect::Write).await?;
        let mut before = Vec::new();
        for call in calls {
            if begin_call(&mut transaction, &record, *call, acting.now).await? {
                before.push(*call);
            }
        }
        self.commit(transaction, &[]).await?;
        Ok(before)
    }

    async fn work(&self, acting: &Acting, item: ItemPath) -> Result<WorkRecord, StoreError> {
        let mut transaction = self.read().await?;
        let record = find(&mut transaction, acting, item).await?;
        authority::of_item(&mut transaction, acting, &record, Effect::Read).await?;
        Ok(record)
    }

    async fn works(
        &self,
        acting: &Acting,
        environment: EnvironmentId,
        listing: &Listing,
    ) -> Result<Listed<WorkRecord>, StoreError> {
        let mut transaction = self.read().await?;
        authority::of_environment(&mut transaction, acting, environment).await?;
        let rows = sqlx::query(
            "SELECT * FROM works WHERE environment = ?1 AND (?2 IS NULL OR id < ?2)
                 AND (?3 OR state <> 'stopped') ORDER BY id DESC LIMIT ?4",
        )
        .bind(environment.to_string())
        .bind(listing.before.clone())
        .bind(listing.include_archived)
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(work_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn update_work(
        &self,
        acting: &Acting,
        item: ItemPath,
        metadata: &BTreeMap<String, Option<String>>,
        most: u32,
    ) -> Result<WorkRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let mut record = find(&mut transaction, acting, item).await?;
        authority::of_item(&mut transaction, acting, &record, Effect::Write).await?;
        for (key, value) in metadata {
            match value {
                Some(value) => record.metadata.insert(key.clone(), value.clone()),
                None => record.metadata.remove(key),
            };
        }
        if record.metadata.len() > usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Refusal::TooMany {
                what: "words about the item",
                most,
            }
            .into());
        }
        let update = sqlx::query("UPDATE works SET metadata = ? WHERE id = ?")
            .bind(to_json(&record.metadata)?)
            .bind(item.work.to_string());
        run(&mut transaction, update).await?;
        self.commit(transaction, &[]).await?;
        Ok(record)
    }

    async fn queue_stats(
        &self,
        acting: &Acting,
        environment: EnvironmentId,
    ) -> Result<QueueStats, StoreError> {
        let mut transaction = self.read().await?;
        authority::of_environment(&mut transaction, acting, environment).await?;
        let row = sqlx::query(
            "SELECT COUNT(*) - COUNT(reserved_at) AS depth, COUNT(reserved_at) AS pending,
                 MIN(queued_at) AS oldest
             FROM works WHERE environment = ? AND state = 'queued'",
        )
        .bind(environment.to_string())
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        Ok(QueueStats {
            depth: number(&row, "depth")?,
            pending: number(&row, "pending")?,
            oldest_queued_at: optional_time(&row, "oldest")?,
        })
    }

    async fn expire(
        &self,
        now: Timestamp,
        successor: WorkId,
    ) -> Result<Option<WorkRecord>, StoreError> {
        let mut reading = self.read().await?;
        if lapsed(&mut reading, now).await?.is_none() {
            return Ok(None);
        }
        drop(reading);
        let mut transaction = self.begin().await?;
        let Some(record) = lapsed(&mut transaction, now).await? else {
            return Ok(None);
        };
        if record.state == WorkState::Stopping {
            finish(&mut transaction, &record, now, successor).await?;
        } else {
            queue_again(&mut transaction, &record, now).await?;
        }
        let record = existing(&mut transaction, record.id).await?;
        let topic = Topic::Queue(record.environment);
        self.commit(transaction, &[topic]).await?;
        Ok(Some(record))
    }

    async fn item_home(&self, work: WorkId) -> Result<Option<ItemHome>, StoreError> {
        let mut transaction = self.read().await?;
        let record = by_id(&mut transaction, work).await?;
        Ok(record.map(|record| ItemHome {
            workspace: record.workspace,
            environment: record.environment,
            session: record.session,
        }))
    }
}

/// Queues an item for a session that has none, unless an operator does not want one.
pub(super) async fn queue_new(
    transaction: &mut Transaction,
    session: SessionId,
    work: WorkId,
    now: Timestamp,
    wait: SignedDuration,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO works
             (id, workspace, environment, session, state, created_at, queued_at, available_at)
         SELECT ?1, workspace, environment, id, 'queued', ?2, ?2, ?3 FROM sessions WHERE id = ?4",
    )
    .bind(work.to_string())
    .bind(now.as_millisecond())
    .bind(after(now, wait))
    .bind(session.to_string());
    run(transaction, insert).await.map(drop)
}

/// Ends the item of a session that ends, whatever calls wait.
pub(super) async fn end_with_session(
    transaction: &mut Transaction,
    session: SessionId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let update = sqlx::query(
        "UPDATE works SET state = 'stopped', stopped_at = ?, lease_until = NULL,
             ended_with_session = 1 WHERE session = ? AND state <> 'stopped'",
    )
    .bind(now.as_millisecond())
    .bind(session.to_string());
    run(transaction, update).await.map(drop)
}

/// The item of a session that is not stopped.
pub(super) async fn live_of(
    transaction: &mut Transaction,
    session: SessionId,
) -> Result<Option<WorkRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM works WHERE session = ? AND state <> 'stopped'")
        .bind(session.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    row.as_ref().map(work_of).transpose()
}

pub(super) async fn by_id(
    transaction: &mut Transaction,
    work: WorkId,
) -> Result<Option<WorkRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM works WHERE id = ?")
        .bind(work.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    row.as_ref().map(work_of).transpose()
}

async fn existing(transaction: &mut Transaction, work: WorkId) -> Result<WorkRecord, StoreError> {
    by_id(transaction, work).await?.ok_or(StoreError::NotFound)
}

async fn find(
    transaction: &mut Transaction,
    acting: &Acting,
    item: ItemPath,
) -> Result<WorkRecord, StoreError> {
    by_id(transaction, item.work)
        .await?
        .filter(|record| record.workspace == acting.workspace)
        .filter(|record| record.environment == item.environment)
        .ok_or(StoreError::NotFound)
}

/// The oldest item that can be handed out.
async fn next_item(
    transaction: &mut Transaction,
    claim: &Claim,
) -> Result<Option<WorkId>, StoreError> {
    let row = sqlx::query(
        "SELECT id FROM works WHERE environment = ?1 AND state = 'queued' AND available_at <= ?2
             AND (reserved_at IS NULL OR reserved_at + ?3 <= ?2) ORDER BY id LIMIT 1",
    )
    .bind(claim.environment.to_string())
    .bind(claim.now.as_millisecond())
    .bind(milliseconds(claim.reclaim))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    row.map(|row| required(&row, "id")).transpose()
}

/// When the first item can be handed out, of a queue that has none for now.
async fn next_time(
    transaction: &mut Transaction,
    claim: &Claim,
) -> Result<Option<Timestamp>, StoreError> {
    let row = sqlx::query(
        "SELECT MIN(MAX(available_at, COALESCE(reserved_at + ?2, 0))) AS next
         FROM works WHERE environment = ?1 AND state = 'queued'",
    )
    .bind(claim.environment.to_string())
    .bind(milliseconds(claim.reclaim))
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed)?;
    optional_time(&row, "next")
}

async fn lapsed(
    transaction: &mut Transaction,
    now: Timestamp,
) -> Result<Option<WorkRecord>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM works WHERE lease_until <= ? ORDER BY lease_until LIMIT 1")
            .bind(now.as_millisecond())
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed)?;
    row.as_ref().map(work_of).transpose()
}

/// Ends an item; another one follows where calls of its session wait for results.
async fn finish(
    transaction: &mut Transaction,
    record: &WorkRecord,
    now: Timestamp,
    successor: WorkId,
) -> Result<(), StoreError> {
    let update = sqlx::query(
        "UPDATE works SET state = 'stopped', stopped_at = ?, lease_until = NULL WHERE id = ?
         RETURNING operator_stop",
    )
    .bind(now.as_millisecond())
    .bind(record.id.to_string());
    let row = update.fetch_one(&mut **transaction).await.map_err(failed)?;
    let operator: bool = row.try_get("operator_stop").map_err(failed)?;
    let count = sqlx::query(
        "UPDATE sessions SET held = ?1, attempts = attempts + (needs_worker AND NOT ?1)
         WHERE id = ?2 RETURNING attempts, needs_worker, status",
    )
    .bind(operator)
    .bind(record.session.to_string());
    let row = count.fetch_one(&mut **transaction).await.map_err(failed)?;
    let attempts: u32 = row.try_get("attempts").map_err(failed)?;
    let needed: bool = row.try_get("needs_worker").map_err(failed)?;
    if operator || !needed || attempts > ATTEMPTS_MOST {
        return Ok(());
    }
    queue_new(
        transaction,
        record.session,
        successor,
        now,
        back_off(attempts),
    )
    .await
}

/// The holder is gone: its token dies with the epoch.
async fn queue_again(
    transaction: &mut Transaction,
    record: &WorkRecord,
    now: Timestamp,
) -> Result<(), StoreError> {
    let count =
        sqlx::query("UPDATE sessions SET attempts = attempts + 1 WHERE id = ? RETURNING attempts")
            .bind(record.session.to_string());
    let row = count.fetch_one(&mut **transaction).await.map_err(failed)?;
    let attempts: u32 = row.try_get("attempts").map_err(failed)?;
    let update = sqlx::query(
        "UPDATE works SET state = 'queued', epoch = epoch + 1, claim_key = NULL, worker = NULL,
             token_used = 0, reserved_at = NULL, acknowledged_at = NULL, heartbeat_at = NULL,
             lease_until = NULL, queued_at = ?, available_at = ? WHERE id = ?",
    )
    .bind(now.as_millisecond())
    .bind(after(now, back_off(attempts)))
    .bind(record.id.to_string());
    run(transaction, update).await.map(drop)
}

/// Notes a call as begun; whether it was begun under another claim.
async fn begin_call(
    transaction: &mut Transaction,
    record: &WorkRecord,
    call: EventId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let known = sqlx::query(
        "SELECT 1 FROM events WHERE id = ? AND session = ?
             AND kind IN ('agent.tool_use', 'agent.custom_tool_use')",
    )
    .bind(call.to_string())
    .bind(record.session.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    if known.is_none() {
        return Err(Refusal::NoSuchCall.into());
    }
    let epoch = i64::try_from(record.epoch).unwrap_or(i64::MAX);
    let insert = sqlx::query(
        "INSERT INTO begun (session, call, work, epoch, at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(record.session.to_string())
    .bind(call.to_string())
    .bind(record.id.to_string())
    .bind(epoch)
    .bind(now.as_millisecond());
    if run(transaction, insert).await?.rows_affected() == 1 {
        return Ok(false);
    }
    let other = sqlx::query(
        "SELECT 1 FROM begun WHERE session = ? AND call = ? AND (work <> ? OR epoch <> ?)",
    )
    .bind(record.session.to_string())
    .bind(call.to_string())
    .bind(record.id.to_string())
    .bind(epoch)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(other.is_some())
}

fn work_of(row: &SqliteRow) -> Result<WorkRecord, StoreError> {
    Ok(WorkRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        environment: required(row, "environment")?,
        session: required(row, "session")?,
        state: named(row, "state", &WorkState::ALL, WorkState::as_str)?,
        epoch: number(row, "epoch")?,
        claim_key: optional(row, "claim_key")?,
        worker: row.try_get("worker").map_err(failed)?,
        token_used: row.try_get("token_used").map_err(failed)?,
        metadata: json(row, "metadata")?,
        created_at: time(row, "created_at")?,
        queued_at: time(row, "queued_at")?,
        available_at: time(row, "available_at")?,
        reserved_at: optional_time(row, "reserved_at")?,
        acknowledged_at: optional_time(row, "acknowledged_at")?,
        started_at: optional_time(row, "started_at")?,
        heartbeat_at: optional_time(row, "heartbeat_at")?,
        lease_until: optional_time(row, "lease_until")?,
        stop_requested_at: optional_time(row, "stop_requested_at")?,
        stopped_at: optional_time(row, "stopped_at")?,
        reason: row.try_get("reason").map_err(failed)?,
        ended_with_session: row.try_get("ended_with_session").map_err(failed)?,
    })
}

fn refused(record: &WorkRecord) -> StoreError {
    let state = record.state;
    Refusal::Item { state }.into()
}

fn meets(expected: Expected, last: Option<Timestamp>) -> bool {
    match expected {
        Expected::Anything => true,
        Expected::None => last.is_none(),
        Expected::At(at) => last == Some(at),
        Expected::Unknown => false,
    }
}

/// Each heartbeat has a name of its own, however fast they follow.
fn later(last: Option<Timestamp>, now: Timestamp) -> i64 {
    let next = last.map_or(i64::MIN, |last| last.as_millisecond() + 1);
    now.as_millisecond().max(next)
}

fn after(now: Timestamp, wait: SignedDuration) -> i64 {
    now.as_millisecond().saturating_add(milliseconds(wait))
}

fn milliseconds(wait: SignedDuration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}
