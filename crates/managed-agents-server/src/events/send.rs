//! What clients and workers may say, and how it gets into the history.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use http::header::CONTENT_LENGTH;
use jiff::Timestamp;
use managed_agents_api::serve::{ApiError, JsonBody};
use managed_agents_api::{Event, EventBody, RawJson, SendEvents, SentEvents};
use managed_agents_loop::{Ledger, Refused};
use mcp_tunnel_auth::SessionId;

use crate::environment;
use crate::failure::answer;
use crate::history::{History, status_of};
use crate::hooks::{Caller, Id};
use crate::shared::Shared;
use crate::store::{
    Append, Authority, Denial, NewEvent, Refusal, SessionStatus, StoreError, Writer,
};

/// Appends what was sent, decided at one position of the history; where the history has
/// gone on meanwhile, decides again.
pub(super) async fn send(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(session): Id<SessionId>,
    request: Request,
) -> Result<Json<SentEvents>, ApiError> {
    let _memory = shared.bodies.take(announced(&request)).await;
    let JsonBody(body): JsonBody<SendEvents, BODY_BYTES_MOST> =
        JsonBody::from_request(request, &()).await?;
    if !(1..=EVENTS_MOST).contains(&body.events.len()) {
        return Err(ApiError::invalid(format!("events: 1 to {EVENTS_MOST}")));
    }
    let sent = body
        .events
        .iter()
        .map(|raw| Sent::read(raw, &caller.authority));
    let sent: Vec<_> = sent.collect::<Result<_, _>>()?;
    for _ in 0..TRIES {
        match try_append(&shared, &caller, session, &sent).await {
            Ok(data) => return Ok(Json(SentEvents { data })),
            Err(Failure::Store(StoreError::Moved)) => {}
            Err(Failure::Store(failure)) => return Err(answer::<SessionId>(failure)),
            Err(Failure::Wrong(error)) => return Err(error),
        }
    }
    Err(answer::<SessionId>(StoreError::Moved))
}

/// The events that a session begins with.
pub(crate) fn first_events(
    events: &[RawJson],
    authority: &Authority,
    now: Timestamp,
) -> Result<Vec<NewEvent>, ApiError> {
    if events.len() > INITIAL_MOST {
        return Err(ApiError::invalid(format!(
            "initial_events: at most {INITIAL_MOST}"
        )));
    }
    let mut ledger = Ledger::of(&[]);
    let mut new = Vec::new();
    for raw in events {
        let sent = Sent::read(raw, authority)?;
        if !matches!(sent.body, EventBody::UserMessage(_)) {
            return Err(ApiError::invalid(format!(
                "initial_events: {} is not served here; user.message is",
                sent.body.kind()
            )));
        }
        new.push(accepted(&sent, &mut ledger, now)?.0);
    }
    Ok(new)
}

/// One event as it was sent, with what was read of it.
struct Sent<'a> {
    raw: &'a RawJson,
    body: EventBody,
}

impl<'a> Sent<'a> {
    /// # Errors
    /// 400 for what is no event that a client sends; 403 for what a worker may not say.
    fn read(raw: &'a RawJson, authority: &Authority) -> Result<Self, ApiError> {
        let body: EventBody = raw
            .parse()
            .map_err(|error| ApiError::invalid(format!("events: {error}")))?;
        let by_worker = !matches!(authority, Authority::Operator { .. });
        match body {
            EventBody::UserToolResult(_) | EventBody::UserCustomToolResult(_) => {}
            EventBody::UserMessage(_)
            | EventBody::UserInterrupt(_)
            | EventBody::UserToolConfirmation(_) => {
                if by_worker {
                    return Err(ApiError::forbidden(format!(
                        "events: a worker sends results of tools, not {}: \
                         a session's user does, with an API key",
                        body.kind()
                    )));
                }
            }
            _ => {
                return Err(ApiError::invalid(format!(
                    "events: {:?} is not served here; user.message, user.interrupt, \
                     user.tool_confirmation, user.tool_result and user.custom_tool_result are",
                    body.kind()
                )));
            }
        }
        Ok(Self { raw, body })
    }

    /// The call that it is the result of.
    fn answers(&self) -> Option<&str> {
        match &self.body {
            EventBody::UserToolResult(result) => Some(&result.tool_use_id),
            EventBody::UserCustomToolResult(result) => Some(&result.custom_tool_use_id),
            _ => None,
        }
    }
}

/// The event that becomes of `sent` at the end of the ledger's history.
fn accepted(
    sent: &Sent<'_>,
    ledger: &mut Ledger,
    now: Timestamp,
) -> Result<(NewEvent, Event), ApiError> {
    ledger.judge(&sent.body).map_err(|refused| match refused {
        Refused::Ended => ApiError::conflict(format!("events: {refused}")),
        _ => ApiError::invalid(format!("events: {refused}")),
    })?;
    let queued = matches!(sent.body, EventBody::UserMessage(_)) && !ledger.takes_messages_now();
    let id = environment::event_id(now);
    let event = Event::stamp(sent.raw, &id.to_string(), (!queued).then_some(now))
        .map_err(|error| ApiError::invalid(format!("events: {error}")))?;
    ledger.apply(&event);
    let new = NewEvent {
        id,
        kind: sent.body.kind().to_owned(),
        processed: !queued,
        answers: sent.answers().map(str::to_owned),
        body: sent.raw.as_str().to_owned(),
    };
    Ok((new, event))
}

enum Failure {
    Store(StoreError),
    Wrong(ApiError),
}

impl From<StoreError> for Failure {
    fn from(failure: StoreError) -> Self {
        Self::Store(failure)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Wrong(error)
    }
}

async fn try_append(
    shared: &Shared,
    caller: &Caller,
    session: SessionId,
    sent: &[Sent<'_>],
) -> Result<Vec<Event>, Failure> {
    let mut acting = caller.acting();
    let record = shared.store.session(&acting, session).await?;
    if record.status == SessionStatus::Terminated {
        // The token of its item may still read, and nothing else.
        return Err(Failure::Store(match acting.authority {
            Authority::Item { .. } => Denial::ClaimOver.into(),
            _ => Refusal::SessionEnded.into(),
        }));
    }
    let history = History::read(shared, &record).await?;
    acting.now = history.not_before(acting.now);
    let mut ledger = history.ledger.clone();
    let (mut new, mut answers) = (Vec::new(), Vec::new());
    for sent in sent {
        if let Some(before) = repeated(&history, sent)? {
            answers.push(before.clone());
            continue;
        }
        let (event, shown) = accepted(sent, &mut ledger, acting.now)?;
        new.push(event);
        answers.push(shown);
    }
    if new.is_empty() {
        return Ok(answers);
    }
    let append = Append {
        session,
        position: history.position,
        taken_up: Vec::new(),
        events: new,
        status: status_of(&ledger),
        needs_worker: ledger.needs_worker(),
        due: Some(acting.now),
        work: environment::work_id(acting.now),
        writer: Writer::Client(acting),
    };
    // Whoever adds to it next need not copy it.
    drop(history);
    shared.store.append(append).await?;
    Ok(answers)
}

/// The stored event, where `sent` is the same result again: a worker that did not hear the
/// answer repeats itself.
fn repeated<'a>(history: &'a History, sent: &Sent<'_>) -> Result<Option<&'a Event>, ApiError> {
    let before = sent
        .answers()
        .and_then(|call| history.ledger.call(call))
        .and_then(|call| call.result_id.as_deref())
        .and_then(|result| history.event(result));
    let Some(before) = before else {
        return Ok(None);
    };
    let again = Event::stamp(sent.raw, before.id(), before.processed_at());
    if again.is_ok_and(|again| again == *before) {
        return Ok(Some(before));
    }
    Err(ApiError::invalid(
        "events: the call has another result already, which stays",
    ))
}

/// What a request says that its body weighs; what does not say may be as large as allowed.
fn announced(request: &Request) -> u64 {
    let most = u64::try_from(BODY_BYTES_MOST).unwrap_or(u64::MAX);
    let header = request.headers().get(CONTENT_LENGTH);
    let length = header.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.unwrap_or(most).min(most)
}

/// Largest body: 32 MiB, the vendor's limit; a tool's image or document has about 27 MiB.
/// Further bodies wait once those that are being read have the bytes of `Shared::bodies`.
const BODY_BYTES_MOST: usize = 32 << 20;

/// Events of one request.
const EVENTS_MOST: usize = 100;

/// Events that a session may begin with: the vendor's limit.
const INITIAL_MOST: usize = 50;

/// Times that a decision is made anew, since somebody else was faster.
const TRIES: usize = 16;
