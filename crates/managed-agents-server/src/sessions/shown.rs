//! A session as it is answered.

use managed_agents_api::serve::ApiError;
use managed_agents_api::{Session, SessionStats, SessionUsage, SessionWorker};
use mcp_tunnel_auth::SessionId;

use crate::failure::answer;
use crate::history::agent_of;
use crate::store::{ATTEMPTS_MOST, SessionRecord, SessionWork, WorkState};

/// A session of the vendor's shape, and how its work stands.
///
/// # Errors
/// 500 where the row is damaged.
pub(crate) fn shown(record: SessionRecord) -> Result<Session, ApiError> {
    let agent = agent_of(&record).map_err(answer::<SessionId>)?;
    let worker = worker_state(&record);
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
        stats: SessionStats::default(),
        usage: SessionUsage::default(),
        created_at: record.created_at,
        updated_at: record.updated_at,
        archived_at: record.archived_at,
        worker: Some(worker),
    })
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
