//! Events of a session: listed, sent, streamed.

mod send;
mod stream;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use managed_agents_api::serve::{ApiError, Params, Permission};
use managed_agents_api::{Event, EventFilter, LIMIT_MAX, Order, Page, TimeRange};
use mcp_tunnel_auth::SessionId;

use crate::failure::answer;
use crate::history::event_of;
use crate::hooks::{Caller, Id, Route, Takes};
use crate::shared::Shared;
use crate::store::{EventCursor, EventListing, EventRecord, Listed, TimeSpan};

pub(crate) use send::first_events;
pub(crate) use stream::{Streams, Watcher, open};

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::SessionsRead).or_key().or_item();
    let manage = Takes::api(Permission::SessionsManage).or_key().or_item();
    vec![
        Route::get("/v1/sessions/{session}/events", read, list),
        Route::post("/v1/sessions/{session}/events", manage, send::send),
        Route::get("/v1/sessions/{session}/events/stream", read, stream::stream),
    ]
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Params(filter): Params<EventFilter>,
) -> Result<Json<Page<Event>>, ApiError> {
    page(&shared, &caller, session, filter).await.map(Json)
}

/// A page of the history of a session.
pub(crate) async fn page(
    shared: &Shared,
    caller: &Caller,
    session: SessionId,
    filter: EventFilter,
) -> Result<Page<Event>, ApiError> {
    let listing = listing(filter)?;
    let listed = shared
        .store
        .events(&caller.acting(), session, &listing)
        .await;
    let listed: Listed<EventRecord> = listed.map_err(answer::<SessionId>)?;
    let last = listed.rows.last().filter(|_| listed.more);
    let data = listed.rows.iter().map(event_of).collect::<Result<_, _>>();
    Ok(Page {
        next_page: last.map(token),
        data: data.map_err(answer::<SessionId>)?,
    })
}

fn listing(filter: EventFilter) -> Result<EventListing, ApiError> {
    let limit = filter.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid(format!(
            "limit: a number from 1 to {LIMIT_MAX}"
        )));
    }
    let wrong = || ApiError::invalid("page: give the next_page of the page before, or nothing");
    Ok(EventListing {
        kinds: filter
            .types
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        processed: span(&filter.created_at),
        descending: filter.order == Some(Order::Desc),
        after: filter
            .page
            .map(|page| cursor(&page).ok_or_else(wrong))
            .transpose()?,
        limit,
        bytes: PAGE_BYTES_MOST,
    })
}

/// A range of times in whole milliseconds, as rows hold them.
pub(crate) fn span(range: &TimeRange) -> TimeSpan {
    let floor = |at: Timestamp| at.as_nanosecond().div_euclid(1_000_000);
    let ceiling = |at: Timestamp| -(-at.as_nanosecond()).div_euclid(1_000_000);
    let narrow = |ms: i128| i64::try_from(ms).unwrap_or(i64::MAX);
    let from = range.gte.map(ceiling).into_iter();
    let from = from.chain(range.gt.map(|at| floor(at) + 1)).max();
    let until = range.lt.map(ceiling).into_iter();
    let until = until.chain(range.lte.map(|at| floor(at) + 1)).min();
    TimeSpan {
        from: from.map(narrow),
        until: until.map(narrow),
    }
}

fn token(row: &EventRecord) -> String {
    let queued = if row.processed_at.is_none() { 'q' } else { 'p' };
    URL_SAFE_NO_PAD.encode(format!("{queued}{}", row.seq))
}

fn cursor(token: &str) -> Option<EventCursor> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (queued, seq) = if let Some(seq) = text.strip_prefix('q') {
        (true, seq)
    } else {
        (false, text.strip_prefix('p')?)
    };
    let seq = seq.parse().ok()?;
    Some(EventCursor { queued, seq })
}

/// Events of a page when the request does not say.
const LIMIT_DEFAULT: u32 = 100;

/// Bytes of a page: one event may be larger, and then is alone in it.
const PAGE_BYTES_MOST: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_exact_to_the_millisecond() {
        let at = |micros| Timestamp::from_microsecond(micros).unwrap();
        let range = |gt, gte, lt, lte| TimeRange { gt, gte, lt, lte };
        let cases = [
            (range(None, Some(at(1_500)), None, None), (Some(2), None)),
            (range(None, Some(at(2_000)), None, None), (Some(2), None)),
            (range(Some(at(1_500)), None, None, None), (Some(2), None)),
            (range(Some(at(2_000)), None, None, None), (Some(3), None)),
            (range(None, None, Some(at(2_000)), None), (None, Some(2))),
            (range(None, None, Some(at(2_500)), None), (None, Some(3))),
            (range(None, None, None, Some(at(2_000))), (None, Some(3))),
            (range(None, None, None, Some(at(2_500))), (None, Some(3))),
        ];
        for (range, (from, until)) in cases {
            assert_eq!(span(&range), TimeSpan { from, until }, "{range:?}");
        }
    }

    #[test]
    fn only_tokens_of_ours_are_places() {
        let place = EventCursor {
            queued: true,
            seq: 7,
        };
        assert_eq!(cursor(&URL_SAFE_NO_PAD.encode("q7")), Some(place));
        for wrong in ["", "x", "cTc9", &URL_SAFE_NO_PAD.encode("q-7")] {
            assert_eq!(cursor(wrong).map(|found| found.seq), None, "{wrong}");
        }
    }
}
