//! One call: from an admitted request to the answer that streams back.
//!
//! ```text
//! caller ──► ingress ──► Call ──► link.open ──► hyper's client on the stream ──► gateway ──► MCP server
//!                          │                                                        │
//!                          └── Failure (502, 503, 504)      Answer ◄────────────────┘
//! ```
//!
//! Everything happens in the task that polls the ingress: there is none of the edge's own for a call, so that a caller
//! who goes away takes the whole call with it.

pub(crate) mod answer;
mod begin;
pub(crate) mod headers;
mod io;
pub(crate) mod severable;
pub(crate) mod sse;
pub(crate) mod trace;
pub(crate) mod upload;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version};
use mcp_tunnel_auth::RouteName;
use mcp_tunnel_proto::{OpenHeader, ResetCode, StreamKind, TraceContext};
use mcp_tunnel_transport::{OpenError, StreamError};
use tokio::time::Instant;

use self::answer::{Answer, IngressBody};
use self::begin::{BeginError, Begun, begin};
use self::headers::{
    Cookies, Forwarding, SERVER_TIMING, has_plain_coding, towards_caller, towards_server,
};
use self::severable::Severable;
use self::sse::Comments;
use self::upload::Upload;
use crate::Shared;
use crate::calls::{Grant, LiveCall};
use crate::clock::unix_ms;
use crate::failure::{self, Failure};
use crate::ingress::address::host_of;
use crate::links::LiveLink;
use crate::measures;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request that may be relayed.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) grant: Grant,
    /// Of the snapshot that admitted it.
    pub(crate) number: u64,
    /// Origin form.
    pub(crate) target: Uri,
    pub(crate) authority: String,
    pub(crate) scheme: &'static str,
    pub(crate) peer: Option<std::net::IpAddr>,
    pub(crate) cookies: Cookies,
    /// The caller asked for the time of each hop.
    pub(crate) probe: bool,
    pub(crate) trace: Option<TraceContext>,
}

/// Why a call gets no answer from the server.
enum Ended {
    Failed(Failure),
    /// Access was withdrawn before the answer began.
    Withdrawn,
    /// The caller's body broke off: mostly it is gone, but one that sends a malformed body still reads.
    CallerGone,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Relays one call. The answer is always one: the server's, or the edge's own failure.
///
/// # Cancel safety
/// Dropping it aborts the call: the stream is reset, so that the gateway and the server learn at once.
pub(crate) async fn relay(
    shared: &Arc<Shared>,
    admitted: Admitted,
    parts: Parts,
    upload: Upload,
) -> Response<IngressBody> {
    let started = Instant::now();
    let relayed = relay_or_end(shared, &admitted, parts, &upload, started).await;
    let (response, outcome) = match relayed {
        Ok(response) => {
            shared.calls.measures.answered(started.elapsed());
            return response;
        }
        Err(Ended::Withdrawn) => (failure::refusal(), "withdrawn"),
        Err(Ended::CallerGone) => (
            Failure::BadRequest.answer(&upload.prefix(Duration::ZERO).await),
            "caller_gone",
        ),
        Err(Ended::Failed(failure)) => {
            let Grant { tunnel, route, .. } = &admitted.grant;
            tracing::debug!(%tunnel, %route, failure = failure.label(), "call failed");
            (
                failure.answer(&upload.prefix(ID_PATIENCE).await),
                failure.label(),
            )
        }
    };
    measures::call_failed(outcome);
    response
}

async fn relay_or_end(
    shared: &Arc<Shared>,
    admitted: &Admitted,
    parts: Parts,
    upload: &Upload,
    started: Instant,
) -> Result<Response<IngressBody>, Ended> {
    if shared.stopping.is_cancelled() {
        return Err(Failure::Stopping.into());
    }
    if !has_plain_coding(&parts.headers) {
        return Err(Failure::BadRequest.into());
    }
    let call = shared
        .calls
        .enter(admitted.grant.clone())
        .ok_or(Failure::Overloaded)?;
    // A snapshot that came between the judgement and this entry has not seen the call: judge again.
    let snapshot = shared.access.fresh().ok_or(Failure::NoAccessNews)?;
    if snapshot.number() != admitted.number && !admitted.grant.holds(&snapshot, unix_ms()) {
        return Err(Ended::Withdrawn);
    }
    upload.gather().await;
    let head = outgoing_head(parts, admitted);
    let (begun, link, waited) =
        begin_on_some_link(shared, admitted, Some(head), upload, &call, started).await?;
    upload.forget_prefix();
    Ok(answer(
        shared,
        admitted,
        begun,
        &link,
        call,
        Timing { started, waited },
    ))
}

/// Tries links until one begins with the call. A call that a gateway refused untouched may be tried again, as long as
/// nothing of its body has been taken.
async fn begin_on_some_link(
    shared: &Shared,
    admitted: &Admitted,
    mut head: Option<Parts>,
    upload: &Upload,
    call: &LiveCall,
    started: Instant,
) -> Result<(Begun, Arc<LiveLink>, Duration), Ended> {
    let Grant { tunnel, route, .. } = &admitted.grant;
    let deadline = shared.config.head_deadline;
    let mut tried = Vec::new();
    loop {
        let link = tokio::select! {
            biased;
            () = cut(call) => return Err(Ended::Withdrawn),
            link = shared.links.pick(tunnel, route, &tried, shared.config.hold) => link?,
        };
        let waited = started.elapsed();
        let header = open_header(admitted, upload, deadline)?;
        let begun = tokio::select! {
            biased;
            () = cut(call) => return Err(Ended::Withdrawn),
            begun = attempt(&link, header, call, &mut head, upload) => begun,
            () = late(upload, deadline) => Err(Failed::Final(Failure::Late { after: Some(deadline) })),
        };
        match begun {
            Ok(begun) => return Ok((begun, link, waited)),
            Err(Failed::NotBegun(failure)) if tried.len() < MAX_REPLAYS && head.is_some() => {
                tracing::debug!(%tunnel, failure = failure.label(), "trying another link");
                tried.push(link.id);
            }
            Err(Failed::NotBegun(failure) | Failed::Final(failure)) => return Err(failure.into()),
            Err(Failed::CallerGone) => return Err(Ended::CallerGone),
        }
    }
}

/// What the gateway is told beside the request. The deadline is the edge's own, and is told only where it counts from
/// now: while a body is still coming, each part of it begins the wait anew.
fn open_header(
    admitted: &Admitted,
    upload: &Upload,
    deadline: Duration,
) -> Result<OpenHeader, Failure> {
    // Every route of ours is a label of DNS, which is all that the wire asks for.
    let route = admitted.grant.route.as_str().parse();
    let route = route.map_err(|_| Failure::BadAnswer)?;
    let mut header = OpenHeader::new(StreamKind::Http, route);
    header.deadline = upload.is_whole().then(|| {
        let left = (upload.progress() + deadline).saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    });
    header.trace = admitted.trace;
    Ok(header)
}

/// How an attempt on one link failed.
enum Failed {
    /// Nothing was begun at the far end.
    NotBegun(Failure),
    Final(Failure),
    CallerGone,
}

/// Makes one attempt. It takes the head with the body; without a body it leaves the head for another attempt.
async fn attempt(
    link: &LiveLink,
    header: OpenHeader,
    call: &LiveCall,
    head: &mut Option<Parts>,
    upload: &Upload,
) -> Result<Begun, Failed> {
    let route = &call.grant().route;
    let opened = link.link.open(header, Bytes::new()).await;
    let stream = opened.map_err(|error| match error {
        OpenError::NoRoom { .. } => Failed::NotBegun(Failure::GatewayBusy),
        OpenError::Stream(error) => on_stream_error(&error, route),
        _ => Failed::NotBegun(Failure::StreamRefused),
    })?;
    let taken = if upload.is_empty() {
        head.as_ref().map(clone_head)
    } else {
        head.take()
    };
    let taken = taken.ok_or(Failed::Final(Failure::StreamRefused))?;
    let (stream, severer) = Severable::new(stream);
    call.severed_by(severer);
    let begun = begin(stream, taken, upload)
        .await
        .map_err(|error| match error {
            BeginError::Stream(error) => on_stream_error(&error, route),
            BeginError::Upload => Failed::CallerGone,
            BeginError::Answer(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no HTTP answer");
                Failed::Final(Failure::BadAnswer)
            }
        })?;
    if begun.head.status.is_informational() {
        return Err(Failed::Final(Failure::BadAnswer));
    }
    Ok(begun)
}

fn on_stream_error(error: &StreamError, route: &RouteName) -> Failed {
    let code = match error {
        StreamError::Reset(code) | StreamError::Stopped(code) => *code,
        _ => return Failed::Final(Failure::LinkLost),
    };
    match code {
        ResetCode::REFUSED => Failed::NotBegun(Failure::StreamRefused),
        ResetCode::OVERLOADED => Failed::Final(Failure::GatewayBusy),
        ResetCode::UNREACHABLE => Failed::Final(Failure::ServerUnreachable {
            route: route.clone(),
        }),
        ResetCode::DEADLINE => Failed::Final(Failure::Late { after: None }),
        ResetCode::UNKNOWN_ROUTE => Failed::Final(Failure::NoSuchRoute {
            route: route.clone(),
            known: Vec::new(),
        }),
        _ => Failed::Final(Failure::GatewayAborted),
    }
}

async fn cut(call: &LiveCall) {
    poll_fn(|cx| call.poll_cut(cx)).await;
}

/// Ends when nothing has come from the caller for so long, and no answer has begun.
async fn late(upload: &Upload, after: Duration) {
    loop {
        let deadline = upload.progress() + after;
        if Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// The head that goes to the gateway: origin form, HTTP/1.1, headers put right.
fn outgoing_head(mut parts: Parts, admitted: &Admitted) -> Parts {
    parts.version = Version::HTTP_11;
    parts.uri = admitted.target.clone();
    parts.extensions.clear();
    let forwarding = Forwarding {
        authority: &admitted.authority,
        scheme: admitted.scheme,
        peer: admitted.peer,
        cookies: admitted.cookies,
        probe: admitted.probe,
    };
    towards_server(&mut parts.headers, &forwarding);
    parts
}

fn clone_head(head: &Parts) -> Parts {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::clone(&head.method);
    parts.uri = head.uri.clone();
    parts.headers = head.headers.clone();
    parts
}

#[derive(Debug, Clone, Copy)]
struct Timing {
    started: Instant,
    /// Until a link was there.
    waited: Duration,
}

fn answer(
    shared: &Shared,
    admitted: &Admitted,
    begun: Begun,
    link: &LiveLink,
    call: LiveCall,
    timing: Timing,
) -> Response<IngressBody> {
    let Begun {
        head,
        body,
        connection,
    } = begun;
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    towards_caller(
        response.headers_mut(),
        &host_of(&admitted.authority),
        admitted.cookies,
    );
    if admitted.probe {
        add_timing(response.headers_mut(), link, timing);
    }
    let comments = (head.status == StatusCode::OK)
        .then(|| Comments::for_answer(response.headers(), shared.config.silence))
        .flatten();
    let answer = Answer::new(body, connection, call, comments);
    response.map(|()| IngressBody::relayed(answer))
}

/// Adds the edge's hops to those that gateway and server have told: in one value, since some clients read no second.
fn add_timing(headers: &mut HeaderMap, link: &LiveLink, timing: Timing) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    let told = headers
        .get_all(SERVER_TIMING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut hops: Vec<String> = told.map(str::to_owned).collect();
    hops.push(format!("edge;dur={:.3}", milliseconds(timing.waited)));
    if let Some(rtt) = link.link.rtt() {
        hops.push(format!(
            "link;dur={:.3};desc=\"round trip\"",
            milliseconds(rtt)
        ));
    }
    hops.push(format!(
        "total;dur={:.3}",
        milliseconds(timing.started.elapsed())
    ));
    if let Ok(value) = HeaderValue::from_str(&hops.join(", ")) {
        headers.insert(SERVER_TIMING, value);
    }
}

/// How long a failure waits for the request's id to arrive. It is there already, unless the caller is slow.
const ID_PATIENCE: Duration = Duration::from_millis(250);
/// A gateway that drains is one, its successor may be another.
const MAX_REPLAYS: usize = 3;

#[cfg(test)]
mod tests;
