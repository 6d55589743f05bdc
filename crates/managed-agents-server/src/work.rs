//! The work queue: what workers poll, hold and give up.

mod pollers;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use managed_agents_api::serve::{ApiError, JsonBody, PageParams, Params, Permission};
use managed_agents_api::{
    Begun, BegunBefore, ErrorDetails, ErrorType, HeartbeatQuery, HeartbeatState, Page, PollQuery,
    UpdateWork, Work, WorkData, WorkHeartbeat, WorkQueueStats, WorkSecret, code, headers,
};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{EnvironmentId, EventId, WorkId};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::config::{LEASE_LEAST, LEASE_MOST};
use crate::environment;
use crate::failure::answer;
use crate::hooks::{Caller, Id, Ids, Route, Takes};
use crate::metadata;
use crate::shared::Shared;
use crate::store::{
    Acting, Authority, BeatMismatch, Claim, Denial, Expected, ItemPath, Polled, Refusal, StopOrder,
    StoreError, Topic, WorkRecord, WorkState,
};

pub(crate) use pollers::Pollers;

pub(crate) fn routes() -> Vec<Route> {
    const WORK: &str = "/v1/environments/{environment}/work/{work}";
    let manage = Takes::api(Permission::EnvironmentsManage);
    let read = Takes::api(Permission::EnvironmentsRead);
    let holder = Takes::KEY.or_item();
    vec![
        Route::get("/v1/environments/{environment}/work", Takes::KEY, list),
        Route::get("/v1/environments/{environment}/work/poll", Takes::KEY, poll),
        Route::get(
            "/v1/environments/{environment}/work/stats",
            read.or_key(),
            stats,
        ),
        Route::get(WORK, read, retrieve),
        Route::post(WORK, manage, update),
        Route::post(
            "/v1/environments/{environment}/work/{work}/ack",
            Takes::KEY,
            ack,
        ),
        Route::post(
            "/v1/environments/{environment}/work/{work}/heartbeat",
            holder,
            heartbeat,
        ),
        Route::post(
            "/v1/environments/{environment}/work/{work}/begun",
            Takes::ITEM,
            begun,
        ),
        Route::post(
            "/v1/environments/{environment}/work/{work}/stop",
            manage.or_key().or_item(),
            stop,
        ),
    ]
}

/// Waits really: a commit of this process wakes it at once, one of another process as soon as the store notices.
async fn poll(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(environment): Id<EnvironmentId>,
    Params(query): Params<PollQuery>,
    head: HeaderMap,
) -> Result<Response, ApiError> {
    let (block, reclaim) = waits(query)?;
    let Authority::EnvironmentKey { key, .. } = caller.authority else {
        return Err(ApiError::internal());
    };
    let worker = worker_of(&head);
    let _waiting = shared.pollers.enter(environment, worker.as_deref())?;
    let mut queue = shared.store.changes().subscribe(Topic::Queue(environment));
    let deadline = Instant::now() + block;
    loop {
        let claim = Claim {
            workspace: caller.workspace.clone(),
            environment,
            key,
            worker: worker.clone(),
            now: environment::now(),
            reclaim,
        };
        let polled = shared.store.poll(&claim).await;
        let next = match polled.map_err(answer::<EnvironmentId>)? {
            Polled::Item(item) => return Ok(handed_out(&shared, *item)),
            Polled::Empty { next } => next,
        };
        if Instant::now() >= deadline {
            return Ok(polled_answer(Json(None::<Work>)));
        }
        let until = next.map_or(deadline, |at| deadline.min(instant(at, claim.now)));
        tokio::select! {
            _ = queue.changed() => {}
            () = sleep_until(until) => {}
            () = shared.closing.cancelled() => return Ok(polled_answer(Json(None))),
        }
    }
}

async fn ack(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, work): Ids<EnvironmentId, WorkId>,
) -> Result<Json<Work>, ApiError> {
    let item = ItemPath { environment, work };
    let lease = shared.config.lease;
    let taken = shared
        .store
        .acknowledge(&caller.acting(), item, lease)
        .await;
    taken
        .map(|record| Json(shown(record)))
        .map_err(|failure| match failure {
            StoreError::Refused(Refusal::Item { state }) => ApiError::conflict(format!(
                "the item is {}: only one that a poll handed out just now is acknowledged",
                state.as_str()
            )),
            other => answer::<WorkId>(other),
        })
}

async fn heartbeat(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, work): Ids<EnvironmentId, WorkId>,
    Params(query): Params<HeartbeatQuery>,
) -> Result<Json<WorkHeartbeat>, ApiError> {
    let item = ItemPath { environment, work };
    let text = query.expected_last_heartbeat.as_deref();
    let wish = query.desired_ttl_seconds;
    let lease = wish.map_or(shared.config.lease, |wish| {
        let seconds = i64::try_from(wish).unwrap_or(i64::MAX);
        SignedDuration::from_secs(seconds).clamp(LEASE_LEAST, LEASE_MOST)
    });
    let beaten = shared
        .store
        .heartbeat(&caller.acting(), item, expected(text), lease)
        .await
        .map_err(|failure| match failure {
            StoreError::Beat(found) => mismatch(text, found, lease),
            other => answer::<WorkId>(other),
        })?;
    Ok(Json(WorkHeartbeat {
        last_heartbeat: beaten.work.heartbeat_at.map(name_of).unwrap_or_default(),
        lease_extended: beaten.extended,
        state: beaten.work.state.into(),
        ttl_seconds: seconds(lease),
    }))
}

async fn stop(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, work): Ids<EnvironmentId, WorkId>,
    JsonBody(body): JsonBody<Stop>,
) -> Result<Json<Work>, ApiError> {
    let acting = caller.acting();
    let order = StopOrder {
        force: body.force.unwrap_or(false),
        reason: body
            .reason
            .map(|reason| reason.chars().take(REASON_MOST).collect()),
        grace: shared.config.lease,
        successor: environment::work_id(acting.now),
    };
    let item = ItemPath { environment, work };
    let stopped = shared.store.stop(&acting, item, order).await;
    stopped
        .map(|record| Json(shown(record)))
        .map_err(not_stopped)
}

async fn begun(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, work): Ids<EnvironmentId, WorkId>,
    JsonBody(body): JsonBody<Begun>,
) -> Result<Json<BegunBefore>, ApiError> {
    if !(1..=CALLS_MOST).contains(&body.tool_use_ids.len()) {
        return Err(ApiError::invalid(format!(
            "tool_use_ids: 1 to {CALLS_MOST} ids of events"
        )));
    }
    let calls = body
        .tool_use_ids
        .iter()
        .map(|id| EventId::parse(id).map_err(|_| answer::<WorkId>(Refusal::NoSuchCall.into())));
    let calls: Vec<_> = calls.collect::<Result<_, _>>()?;
    let item = ItemPath { environment, work };
    let before = shared
        .store
        .begin_calls(&caller.acting(), item, &calls)
        .await;
    Ok(Json(BegunBefore {
        begun_before: before
            .map_err(answer::<WorkId>)?
            .iter()
            .map(ToString::to_string)
            .collect(),
    }))
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(environment): Id<EnvironmentId>,
    params: PageParams,
) -> Result<Json<Page<Work>>, ApiError> {
    let mut listing = listing::<WorkId>(params)?;
    listing.include_archived = true;
    let listed = shared
        .store
        .works(&caller.acting(), environment, &listing)
        .await;
    let listed = listed.map_err(answer::<EnvironmentId>)?;
    Ok(Json(page(listed, |record| record.id, shown)))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, work): Ids<EnvironmentId, WorkId>,
) -> Result<Json<Work>, ApiError> {
    let item = ItemPath { environment, work };
    let found = shared.store.work(&caller.acting(), item).await;
    Ok(Json(shown(found.map_err(answer::<WorkId>)?)))
}

async fn update(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Ids(environment, work): Ids<EnvironmentId, WorkId>,
    JsonBody(body): JsonBody<UpdateWork>,
) -> Result<Json<Work>, ApiError> {
    metadata::checked_patch(&body.metadata)?;
    let item = ItemPath { environment, work };
    let acting = caller.acting();
    let updated = shared
        .store
        .update_work(&acting, item, &body.metadata, PAIRS_MOST)
        .await;
    Ok(Json(shown(updated.map_err(answer::<WorkId>)?)))
}

async fn stats(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(environment): Id<EnvironmentId>,
) -> Result<Json<WorkQueueStats>, ApiError> {
    let stats = shared
        .store
        .queue_stats(&caller.acting(), environment)
        .await;
    let stats = stats.map_err(answer::<EnvironmentId>)?;
    Ok(Json(WorkQueueStats {
        depth: stats.depth,
        pending: stats.pending,
        oldest_queued_at: stats.oldest_queued_at,
        workers_polling: Some(shared.pollers.workers(environment)),
    }))
}

/// Body of a stop: `reason` is ours, and shown on the session.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Stop {
    force: Option<bool>,
    reason: Option<String>,
}

/// How long a poll waits, and how long a reservation holds.
fn waits(query: PollQuery) -> Result<(Duration, SignedDuration), ApiError> {
    let block = query.block_ms.unwrap_or(0);
    if query.block_ms == Some(0) || block > PollQuery::BLOCK_MS_MAX {
        return Err(ApiError::invalid(format!(
            "block_ms: 1 to {}, or leave it out to have an answer at once",
            PollQuery::BLOCK_MS_MAX
        )));
    }
    let reclaim = query
        .reclaim_older_than_ms
        .unwrap_or(PollQuery::RECLAIM_MS_DEFAULT);
    let reclaim = i64::try_from(reclaim).unwrap_or(i64::MAX);
    Ok((
        Duration::from_millis(block.into()),
        SignedDuration::from_millis(reclaim).min(LEASE_MOST),
    ))
}

/// The answer to a poll that found something: the only one that holds the item's secret.
fn handed_out(shared: &Shared, record: WorkRecord) -> Response {
    let token = shared.config.item_token(record.id, record.epoch);
    let secret = WorkSecret {
        sessions_token: token.encode(),
        api_base_url: None,
    };
    let mut work = shown(record);
    work.secret = Some(secret.encode());
    polled_answer(Json(Some(work)))
}

fn polled_answer(body: Json<Option<Work>>) -> Response {
    let ours = HeaderName::from_static(headers::POLL);
    let immediate = HeaderValue::from_static(headers::POLL_IMMEDIATE);
    let no_store = HeaderValue::from_static("no-store");
    ([(ours, immediate), (CACHE_CONTROL, no_store)], body).into_response()
}

fn worker_of(head: &HeaderMap) -> Option<String> {
    let text = head.get(headers::WORKER_ID)?.to_str().ok()?.trim();
    let text: String = text.chars().take(WORKER_MOST).collect();
    (!text.is_empty()).then_some(text)
}

/// Heartbeats are named by their time.
fn expected(text: Option<&str>) -> Expected {
    match text {
        None => Expected::Anything,
        Some(HeartbeatQuery::NO_HEARTBEAT) => Expected::None,
        Some(text) => text.parse().map_or(Expected::Unknown, Expected::At),
    }
}

fn name_of(at: Timestamp) -> String {
    at.to_string()
}

fn mismatch(expected: Option<&str>, found: BeatMismatch, lease: SignedDuration) -> ApiError {
    let last = found.last.map(name_of);
    let message = format!(
        "Heartbeat precondition failed: expected {}, actual was {}",
        expected.unwrap_or("a claim that stands"),
        last.as_deref().unwrap_or("NULL")
    );
    let state = HeartbeatState {
        state: found.state.into(),
        lease_updated_at: last.clone(),
        last_heartbeat: last,
        lease_extended: false,
        ttl_seconds: Some(seconds(lease)),
    };
    let details = ErrorDetails {
        error_code: Some(code::HEARTBEAT_PRECONDITION_FAILED.to_owned()),
        error_visibility: Some("user_facing".to_owned()),
        current_state: Some(state),
    };
    ApiError::new(ErrorType::InvalidRequest, message)
        .with_status(StatusCode::PRECONDITION_FAILED)
        .with_details(details)
}

/// Whoever may not stop an item is told the same as whoever comes too late: workers ignore a 409.
fn not_stopped(failure: StoreError) -> ApiError {
    match failure {
        StoreError::Refused(Refusal::Item { .. }) => {
            ApiError::conflict("the item is stopped already")
        }
        StoreError::Denied(Denial::HeldByToken) => ApiError::conflict(
            "the item is held by a worker that uses its item token, with which it is stopped",
        ),
        StoreError::Denied(Denial::ClaimOver) => ApiError::conflict(
            "the claim of this item token is over: the item is not its holder's any more",
        ),
        other => answer::<WorkId>(other),
    }
}

fn shown(record: WorkRecord) -> Work {
    Work {
        id: record.id.to_string(),
        environment_id: record.environment.to_string(),
        data: WorkData::session(record.session.to_string()),
        metadata: record.metadata,
        state: record.state.into(),
        created_at: record.created_at,
        acknowledged_at: record.acknowledged_at,
        started_at: record.started_at,
        latest_heartbeat_at: record.heartbeat_at,
        stop_requested_at: record.stop_requested_at,
        stopped_at: record.stopped_at,
        secret: None,
    }
}

impl From<WorkState> for managed_agents_api::WorkState {
    fn from(state: WorkState) -> Self {
        Self::from(state.as_str())
    }
}

impl Caller {
    /// This caller, acting now.
    pub(crate) fn acting(&self) -> Acting {
        Acting {
            workspace: self.workspace.clone(),
            authority: self.authority.clone(),
            now: environment::now(),
        }
    }
}

fn seconds(lease: SignedDuration) -> u64 {
    u64::try_from(lease.as_secs()).unwrap_or(0)
}

/// A time of the store as one of this process.
fn instant(at: Timestamp, now: Timestamp) -> Instant {
    let wait = at.duration_since(now).max(SignedDuration::ZERO);
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}

/// Calls that may be begun at once: more than a turn ever has in parallel.
const CALLS_MOST: usize = 256;

/// Pairs of metadata.
const PAIRS_MOST: u32 = 16;

/// Longest reason and name of a worker, in characters; what is longer is cut.
const REASON_MOST: usize = 1000;
const WORKER_MOST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_named_in_one_way() {
        let at = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        let name = name_of(at);
        assert_eq!(name, "2026-09-21T14:13:20Z");
        assert_eq!(expected(Some(&name)), Expected::At(at));
        assert_eq!(expected(Some("hb-1")), Expected::Unknown);
        assert_eq!(expected(Some("NO_HEARTBEAT")), Expected::None);
        assert_eq!(expected(None), Expected::Anything);
    }

    #[test]
    fn a_poll_waits_less_than_a_second_or_not_at_all() {
        let wait = |block_ms| {
            waits(PollQuery {
                block_ms,
                reclaim_older_than_ms: None,
            })
            .map(|(block, _)| block.as_millis())
            .ok()
        };
        assert_eq!(wait(None), Some(0));
        assert_eq!(wait(Some(999)), Some(999));
        assert_eq!(wait(Some(0)), None);
        assert_eq!(wait(Some(1000)), None);
    }
}
