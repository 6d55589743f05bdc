//! The life of one link, from HELLO to its end.
//!
//! ```text
//! accept ──► judge ──► refuse
//!              ├─────► pend ──(approved)──┐
//!              └──────────────────────────┴─► admit ──► drive ──► closed
//!                                                        │  ▲
//!                                        (rotated, stop) ▼  │
//!                                                       drain
//! ```
//!
//! Every new snapshot judges the link again, pending or live; the proof itself is checked once.

use std::sync::Arc;
use std::time::Duration;

use mcp_tunnel_auth::{
    AccessSnapshot, Announcement, CredentialError, DownReason, LinkCredential, LinkDecision,
    LinkId, LinkIdentity, LinkRefusal, LinkReport, LinkReportKind,
};
use mcp_tunnel_proto::{CloseCode, Refusal, RefusalCode};
use mcp_tunnel_transport::{
    AcceptError, CloseReason, Incoming, Link, LinkDriver, PendingLink, accept,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_rustls::server::TlsStream;

use super::{LiveLink, LivePlace, PendingPlace};
use crate::Shared;
use crate::access::News;
use crate::clock::{entropy, unix_ms};
use crate::ingress::PeerInfo;

/// Why a connection never came to carry traffic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No good HELLO came in time, or the connection broke before admission.
    #[error("no link came about")]
    Accept(#[source] AcceptError),
    /// The credential is of a format that this edge does not read.
    #[error("the link's credential cannot be read")]
    Credential(#[source] CredentialError),
    /// The credential was judged, and refused.
    #[error("the link was refused")]
    Refused(#[source] LinkRefusal),
    /// The edge has no current snapshot to judge by.
    #[error("there is no current access list to judge the link by")]
    NoAccessNews,
    /// The tunnel has as many links, live or pending, as it may have.
    #[error("the tunnel has as many links as it may have")]
    TooMany,
    /// It waited for approval as long as it may, or its gateway went away before that.
    #[error("the link was not approved while it waited")]
    NotApproved,
    /// The edge stops.
    #[error("the edge stops")]
    Stopping,
}

impl From<AcceptError> for LinkError {
    fn from(error: AcceptError) -> Self {
        Self::Accept(error)
    }
}

/// Everything about a link that does not change while it lives.
struct Known {
    id: LinkId,
    identity: LinkIdentity,
    announcement: Announcement,
    peer: PeerInfo,
}

/// Runs one link to its end, in the task of whoever accepted its connection.
pub(crate) async fn run<IO>(
    shared: &Arc<Shared>,
    tls: TlsStream<IO>,
    peer: PeerInfo,
) -> Result<(), LinkError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let incoming = accept(tls, &shared.config.link).await?;
    let mut news = shared.access.news();
    let (credential, decision, number) = match judge(shared, &incoming) {
        Ok(judged) => judged,
        Err(error) => {
            report_refusal(shared, &incoming, &peer, &error);
            incoming.refuse(refusal_of(&error)).await;
            return Err(error);
        }
    };
    peer.proven();
    let known = Known {
        id: LinkId::new(unix_ms(), &entropy().unwrap_or_default()),
        identity: *credential.identity(),
        announcement: credential.announcement().clone(),
        peer,
    };
    let (place, driver, number) = match decision {
        LinkDecision::Active { .. } => {
            let (link, driver) = incoming.admit().map_err(AcceptError::Ended)?;
            (enter(shared, &known, link)?, driver, number)
        }
        _ => {
            let Some(waiting) = shared.links.wait(known.identity.tunnel) else {
                incoming.refuse(refusal_of(&LinkError::TooMany)).await;
                return Err(LinkError::TooMany);
            };
            let pending = incoming.pend(&waiting.code().to_string());
            let (pending, number) =
                until_approved(shared, &known, pending, &waiting, &mut news).await?;
            let (link, driver) = pending.admit().map_err(AcceptError::Ended)?;
            drop(waiting);
            (enter(shared, &known, link)?, driver, number)
        }
    };
    known.report(shared, LinkReportKind::Up);
    tracing::info!(link = %known.id, tunnel = %known.identity.tunnel, remote = %known.peer.address(), "link up");
    let reason = drive(shared, &known, &place, driver, &mut news, number).await;
    drop(place);
    tracing::info!(link = %known.id, tunnel = %known.identity.tunnel, ?reason, "link down");
    known.report(shared, LinkReportKind::Down { reason });
    Ok(())
}

fn judge<IO>(
    shared: &Shared,
    incoming: &Incoming<IO>,
) -> Result<(LinkCredential, LinkDecision, u64), LinkError> {
    if shared.stopping.is_cancelled() {
        return Err(LinkError::Stopping);
    }
    let snapshot = shared.access.fresh().ok_or(LinkError::NoAccessNews)?;
    let credential =
        LinkCredential::decode(incoming.credential()).map_err(LinkError::Credential)?;
    let exporter = incoming.exporter().as_bytes();
    let decision = snapshot
        .judge_link(&credential, &shared.config.edge_name, exporter)
        .map_err(LinkError::Refused)?;
    Ok((credential, decision, snapshot.number()))
}

/// Tells the console of a gateway that was turned away, as far as it holds the token that it names.
fn report_refusal<IO>(
    shared: &Shared,
    incoming: &Incoming<IO>,
    peer: &PeerInfo,
    error: &LinkError,
) {
    let LinkError::Refused(reason) = error else {
        return;
    };
    if *reason == LinkRefusal::Unrecognised {
        return;
    }
    if let Ok(credential) = LinkCredential::decode(incoming.credential()) {
        let known = Known {
            id: LinkId::new(unix_ms(), &entropy().unwrap_or_default()),
            identity: *credential.identity(),
            announcement: credential.announcement().clone(),
            peer: peer.clone(),
        };
        known.report(shared, LinkReportKind::Refused { reason: *reason });
    }
}

fn enter(shared: &Shared, known: &Known, link: Link) -> Result<LivePlace, LinkError> {
    let live = LiveLink {
        id: known.id,
        link,
        announcement: known.announcement.clone(),
    };
    let place = shared.links.enter(known.identity.tunnel, live);
    place.ok_or(LinkError::TooMany)
}

/// Holds a pending link until a snapshot approves it; returns it with the number of that snapshot.
async fn until_approved<IO>(
    shared: &Shared,
    known: &Known,
    mut pending: PendingLink<IO>,
    waiting: &PendingPlace,
    news: &mut News,
) -> Result<(PendingLink<IO>, u64), LinkError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    known.report(
        shared,
        LinkReportKind::Pending {
            approval_code: waiting.code(),
        },
    );
    tracing::info!(link = %known.id, tunnel = %known.identity.tunnel, remote = %known.peer.address(), "link pending");
    let deadline = Instant::now() + shared.config.pending_for;
    let (error, reason) = loop {
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => break (LinkError::Stopping, DownReason::EdgeStops),
            reason = pending.closed() => {
                known.report(shared, LinkReportKind::Down { reason: down_reason(&reason) });
                return Err(LinkError::NotApproved);
            }
            snapshot = news.next() => match snapshot.rejudge(&known.identity, u64::MAX) {
                Ok(LinkDecision::Active { .. }) => return Ok((pending, snapshot.number())),
                Ok(_) => {}
                Err(refusal) => break (LinkError::Refused(refusal), DownReason::Withdrawn(refusal)),
            },
            () = sleep_until(deadline) => break (LinkError::NotApproved, DownReason::NotApproved),
        }
    };
    known.report(shared, LinkReportKind::Down { reason });
    pending.refuse(refusal_of(&error)).await;
    Err(error)
}

/// Drives a live link to its end, and closes it when a snapshot says so.
async fn drive<IO>(
    shared: &Shared,
    known: &Known,
    place: &LivePlace,
    driver: LinkDriver<TlsStream<IO>>,
    news: &mut News,
    admitted_under: u64,
) -> DownReason
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let link = place.link();
    let mut driver = std::pin::pin!(driver.run());
    let mut tick = interval_at(Instant::now() + FIRST_ROUND_TRIP, ROUND_TRIPS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drain: Option<(Instant, DownReason)> = None;
    loop {
        let deadline = drain.map_or_else(Instant::now, |(deadline, _)| deadline);
        let judged = tokio::select! {
            biased;
            reason = &mut driver => return drain.map_or_else(|| down_reason(&reason), |(_, reason)| reason),
            snapshot = news.next() => judge_again(&snapshot, known, admitted_under),
            () = shared.stopping.cancelled(), if drain.is_none() => Judged::Drain(CloseCode::SHUTDOWN, DownReason::EdgeStops),
            () = sleep_until(deadline), if drain.is_some() => Judged::Close(CloseCode::NO_ERROR, None),
            () = link.drained(), if drain.is_some() => Judged::Close(CloseCode::NO_ERROR, None),
            _ = tick.tick() => {
                if let Some(time) = link.rtt() {
                    known.report(shared, LinkReportKind::RoundTrip { time });
                }
                continue;
            }
        };
        match judged {
            Judged::Stays => {}
            Judged::Drain(code, reason) => {
                if drain.is_none() {
                    link.go_away(code, Some(shared.config.drain));
                    drain = Some((Instant::now() + shared.config.drain, reason));
                }
            }
            Judged::Close(code, refusal) => {
                link.close(code, refusal.map_or("", LinkRefusal::cure));
                // The driver says goodbye and ends; a peer that takes nothing does not delay that for long.
                let closed = tokio::time::timeout(FAREWELL, driver).await;
                let drained = drain.map(|(_, reason)| reason);
                let fallback = || closed.map_or(DownReason::Lost, |reason| down_reason(&reason));
                return refusal
                    .map(DownReason::Withdrawn)
                    .or(drained)
                    .unwrap_or_else(fallback);
            }
        }
    }
}

enum Judged {
    Stays,
    /// New calls go elsewhere; running ones may finish.
    Drain(CloseCode, DownReason),
    Close(CloseCode, Option<LinkRefusal>),
}

fn judge_again(snapshot: &AccessSnapshot, known: &Known, admitted_under: u64) -> Judged {
    match snapshot.rejudge(&known.identity, admitted_under) {
        Ok(LinkDecision::Active { .. }) => Judged::Stays,
        // It was approved, and is not any more.
        Ok(_) => Judged::Close(CloseCode::WITHDRAWN, Some(LinkRefusal::GatewayRefused)),
        Err(refusal @ LinkRefusal::TokenRotated) => {
            Judged::Drain(CloseCode::WITHDRAWN, DownReason::Withdrawn(refusal))
        }
        Err(refusal @ LinkRefusal::Disconnected) => {
            Judged::Close(CloseCode::DISCONNECTED, Some(refusal))
        }
        Err(refusal) => Judged::Close(CloseCode::WITHDRAWN, Some(refusal)),
    }
}

impl Known {
    fn report(&self, shared: &Shared, kind: LinkReportKind) {
        shared.reports.push(LinkReport::new(
            self.id,
            self.identity,
            self.peer.address(),
            self.announcement.clone(),
            unix_ms(),
            kind,
        ));
    }
}

fn down_reason(reason: &CloseReason) -> DownReason {
    match reason {
        CloseReason::Peer { .. } => DownReason::Closed,
        CloseReason::Violation(_) => DownReason::Misbehaved,
        _ => DownReason::Lost,
    }
}

/// What the gateway is told.
fn refusal_of(error: &LinkError) -> Refusal {
    let (code, retry_after) = match error {
        LinkError::Refused(refusal) => (refusal_code(*refusal), None),
        LinkError::Credential(_) => (RefusalCode::CREDENTIAL, None),
        LinkError::TooMany => (RefusalCode::OVERLOADED, Some(Duration::from_secs(60))),
        LinkError::NotApproved => (RefusalCode::UNAVAILABLE, Some(Duration::from_secs(1))),
        LinkError::NoAccessNews => (RefusalCode::UNAVAILABLE, Some(Duration::from_secs(5))),
        LinkError::Stopping | LinkError::Accept(_) => {
            (RefusalCode::UNAVAILABLE, Some(Duration::from_secs(1)))
        }
    };
    let text = match error {
        LinkError::Refused(refusal) => format!("{refusal}; {}", refusal.cure()),
        other => other.to_string(),
    };
    let mut refusal = Refusal::new(code, text);
    refusal.retry_after = retry_after;
    refusal
}

fn refusal_code(refusal: LinkRefusal) -> RefusalCode {
    match refusal {
        LinkRefusal::Intercepted => RefusalCode::INTERCEPTED,
        LinkRefusal::TokenRotated => RefusalCode::RETIRED,
        LinkRefusal::GatewayRefused => RefusalCode::REFUSED,
        LinkRefusal::Unrecognised => RefusalCode::TUNNEL,
        LinkRefusal::Disconnected => RefusalCode::UNAVAILABLE,
        _ => RefusalCode::CREDENTIAL,
    }
}

/// A first round trip is told soon, so that the console has one to show.
const FIRST_ROUND_TRIP: Duration = Duration::from_secs(5);
const ROUND_TRIPS: Duration = Duration::from_secs(60);
/// Within the two seconds that a revocation may take.
const FAREWELL: Duration = Duration::from_secs(1);
