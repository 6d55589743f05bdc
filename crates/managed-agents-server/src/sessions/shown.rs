//! A session as it is answered.

use jiff::{SignedDuration, Timestamp};
use managed_agents_api::serve::ApiError;
use managed_agents_api::{RawJson, Session, SessionStats, SessionUsage, SessionWorker};
use mcp_tunnel_auth::SessionId;

use crate::environment;
use crate::failure::answer;
use crate::history::agent_of;
use crate::store::{
    ATTEMPTS_MOST, SessionRecord, SessionStatus, SessionWork, StoreError, WorkState,
};

/// A session of the vendor's shape, and how its work stands.
///
/// # Errors
/// 500 where the row is damaged.
pub(crate) fn shown(record: SessionRecord) -> Result<Session, ApiError> {
    let agent = agent_of(&record).map_err(answer::<SessionId>)?;
    let worker = worker_state(&record);
    let now = environment::now();
    let stats = stats(&record, now);
    let usage = usage(&record, now).map_err(answer::<SessionId>)?;
    Ok(Session {
        id: record.id.to_string(),
        agent,
        environment_id: record.environment.to_string(),
        status: record.status.as_str().into(),
        title: record.title,
        metadata: record.metadata,
        resources: Vec::new(),
        vault_ids: Vec::new(),
        outcome_evaluations: Vec::new(),
        deployment_id: None,
        budget: None,
        stats,
        usage,
        created_at: record.created_at,
        updated_at: record.updated_at,
        archived_at: record.archived_at,
        worker: Some(worker),
    })
}

/// How long a session was busy: of one that is over, until its end.
pub(crate) fn stats(record: &SessionRecord, now: Timestamp) -> SessionStats {
    let until = match record.status {
        SessionStatus::Terminated => record.updated_at,
        _ => now,
    };
    let since = until.duration_since(record.created_at);
    SessionStats {
        active_seconds: Some(active(record, now).as_secs_f64()),
        duration_seconds: Some(since.max(SignedDuration::ZERO).as_secs_f64()),
    }
}

/// What a session used: what its loop said last, and nothing where it said nothing. The cost stays absent unless a loop
/// tells it: there is no price list here, and a wrong sum would be worse than none.
///
/// # Errors
/// Only where the row is damaged.
pub(crate) fn usage(record: &SessionRecord, now: Timestamp) -> Result<SessionUsage, StoreError> {
    #[derive(serde::Deserialize)]
    struct Said {
        usage: SessionUsage,
    }
    let said = record.usage.as_deref().map(serde_json::from_str::<Said>);
    let said = said.transpose().map_err(|source| StoreError::Corrupt {
        column: "usage",
        source: source.into(),
    })?;
    let mut usage = said.map(|said| said.usage).unwrap_or_default();
    for tokens in [
        &mut usage.input_tokens,
        &mut usage.output_tokens,
        &mut usage.cache_read_input_tokens,
    ] {
        tokens.get_or_insert(0);
    }
    for (part, none) in [
        (&mut usage.cache_creation, NO_CACHE),
        (&mut usage.server_tool_use, NO_REQUESTS),
    ] {
        if part.is_none() {
            *part = RawJson::from_text(none.to_owned()).ok();
        }
    }
    let active = active(record, now).as_secs_f64();
    usage.active_seconds.get_or_insert(active);
    Ok(usage)
}

/// Time in turns.
fn active(record: &SessionRecord, now: Timestamp) -> SignedDuration {
    let before = i64::try_from(record.active_ms).unwrap_or(i64::MAX);
    let since = record.active_since.map(|since| now.duration_since(since));
    let since = since.unwrap_or_default().max(SignedDuration::ZERO);
    SignedDuration::from_millis(before).saturating_add(since)
}

fn worker_state(record: &SessionRecord) -> SessionWorker {
    let work = record.work.as_ref();
    SessionWorker {
        work_id: work.map(|work| work.id.to_string()),
        state: work.map(|work| work.state.as_str().into()),
        worker_id: work.and_then(|work| work.worker.clone()),
        queued_at: work.map(|work| work.queued_at),
        attempts: record.attempts,
        last_reason: work.and_then(|work| work.reason.clone()),
        stuck: record.needs_worker.then(|| stuck(record, work)).flatten(),
    }
}

fn stuck(record: &SessionRecord, work: Option<&SessionWork>) -> Option<String> {
    let live = work.filter(|work| work.state != WorkState::Stopped);
    match live {
        None if record.held => Some(
            "tool calls wait, and an operator stopped the work: it goes on once an event is sent"
                .to_owned(),
        ),
        None => Some(format!(
            "tool calls wait, and {} items ended without a result, {ATTEMPTS_MOST} of them tried again: \
             look at the worker's log; it goes on once an event is sent",
            record.attempts
        )),
        Some(work) if work.state == WorkState::Queued => Some(format!(
            "tool calls wait for a worker: the item is queued since {}; \
             is a worker running, with a key of this environment?",
            work.queued_at
        )),
        Some(_) => None,
    }
}

const NO_CACHE: &str = r#"{"ephemeral_1h_input_tokens":0,"ephemeral_5m_input_tokens":0}"#;
const NO_REQUESTS: &str = r#"{"web_fetch_requests":0,"web_search_requests":0}"#;
