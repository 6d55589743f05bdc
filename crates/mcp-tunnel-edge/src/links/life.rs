//! The life of one link, from HELLO to its end.
//!
//! ```text
//! accept ──► judge ──► refuse
//!              ├─────► pend ──(approved)──┐
//!              └──────────────────────────┴─► admit ──► drive ──► closed
//!                                                        │  ▲
//!                                        (rotated, stop) ▼  │
//!                                                       drain
//!
//! accept, with a claim ──► judge ──► the session's own link takes the connection over
//! ```
//!
//! A link that loses its connection is kept for a while, with its calls, and not reported down. It ends at once when its
//! gateway comes up without a claim: that process has no calls to go on with. A link that is sent away is not kept: its
//! credential is not taken any more, or this edge takes no connections; who comes back finds another edge, or a new one.
//!
//! Every new snapshot judges the link again, pending or live; the proof itself is checked once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_tunnel_auth::{
    AccessSnapshot, Announcement, CredentialError, DownReason, LinkCredential, LinkDecision,
    LinkId, LinkIdentity, LinkRefusal, LinkReport, LinkReportKind,
};
use mcp_tunnel_proto::{CloseCode, Refusal, RefusalCode};
use mcp_tunnel_transport::{
    AcceptError, ClaimError, CloseReason, Exporter, Incoming, Link, LinkDriver, PendingLink, accept,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use super::{KeptPlace, Left, LiveLink, LivePlace, PendingPlace};
use crate::Shared;
use crate::access::News;
use crate::clock::{entropy, unix_ms};
use crate::ingress::PeerInfo;
use crate::measures;

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
    /// It claimed a link that is kept, without a right to it.
    #[error("the link's claim does not hold")]
    Claim(#[source] ClaimError),
    /// The edge stops.
    #[error("the edge stops")]
    Stopping,
}

impl From<AcceptError> for LinkError {
    fn from(error: AcceptError) -> Self {
        Self::Accept(error)
    }
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
    // Before the judgement, so that no snapshot falls between the two.
    let news = shared.access.news();
    let credential = LinkCredential::decode(incoming.credential());
    let judged = judge(shared, credential.as_ref(), incoming.exporter());
    let life = credential.ok().map(|credential| Life {
        shared,
        news,
        id: LinkId::new(unix_ms(), &entropy().unwrap_or_default()),
        identity: *credential.identity(),
        announcement: credential.announcement().clone(),
        remote: peer.address(),
        peer,
        shown: false,
        waits: None,
    });
    match (life, judged) {
        (Some(life), Ok((decision, number))) => match life.resume(incoming, &decision).await? {
            Some(incoming) => life.run(incoming, decision, number).await,
            None => Ok(()),
        },
        (life, judged) => {
            let error = judged.err().unwrap_or(LinkError::NoAccessNews);
            if let (Some(mut life), LinkError::Refused(reason)) = (life, &error) {
                life.report_refused(*reason);
            }
            incoming.refuse(refusal_of(&error)).await;
            Err(error)
        }
    }
}

/// The decision, and the number of the snapshot that it was made by.
fn judge(
    shared: &Shared,
    credential: Result<&LinkCredential, &CredentialError>,
    exporter: &Exporter,
) -> Result<(LinkDecision, u64), LinkError> {
    if shared.stopping.is_cancelled() {
        return Err(LinkError::Stopping);
    }
    let snapshot = shared.access.fresh().ok_or(LinkError::NoAccessNews)?;
    let credential = credential.map_err(|error| LinkError::Credential(*error))?;
    let edge_name = &shared.config.edge_name;
    let decision = snapshot.judge_link(credential, edge_name, exporter.as_bytes());
    Ok((decision.map_err(LinkError::Refused)?, snapshot.number()))
}

/// One link that has said who it is.
struct Life<'a> {
    shared: &'a Arc<Shared>,
    news: News,
    id: LinkId,
    identity: LinkIdentity,
    announcement: Announcement,
    remote: SocketAddr,
    peer: PeerInfo,
    /// The console has been told of the link, and not of its end.
    shown: bool,
    /// Its place while it is pending.
    waits: Option<PendingPlace>,
}

/// What a link does next.
enum Turn {
    Stay,
    /// Its connection is gone, and it waits for its gateway.
    Kept,
    /// New calls go elsewhere; running ones may finish.
    Drain(CloseCode, DownReason),
    Close(CloseCode, Option<LinkRefusal>),
}

impl Life<'_> {
    /// Hands the connection to the kept link that the gateway claims. Gives it back where there is none, or where the
    /// gateway is not approved any more: then it is a new link, and its gateway fails the calls of the old one.
    async fn resume<IO>(
        &self,
        incoming: Incoming<IO>,
        decision: &LinkDecision,
    ) -> Result<Option<Incoming<IO>>, LinkError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (Some(session), LinkDecision::Active { .. }) = (incoming.claim(), decision) else {
            return Ok(Some(incoming));
        };
        let Some(live) = self.shared.links.claimed(session, &self.identity) else {
            measures::link_resumed("unknown");
            return Ok(Some(incoming));
        };
        match incoming.resume(&live.link) {
            Ok(()) => {
                self.peer.proven();
                measures::link_resumed("resumed");
                live.resumed_from(self.remote);
                tracing::info!(link = %live.id, remote = %self.remote, "link resumed");
                Ok(None)
            }
            Err(unresumed) if unresumed.error == ClaimError::Ended => {
                measures::link_resumed("unknown");
                Ok(Some(unresumed.incoming))
            }
            Err(unresumed) => {
                measures::link_resumed("refused");
                let error = LinkError::Claim(unresumed.error);
                unresumed.incoming.refuse(refusal_of(&error)).await;
                Err(error)
            }
        }
    }

    async fn run<IO>(
        mut self,
        incoming: Incoming<IO>,
        decision: LinkDecision,
        number: u64,
    ) -> Result<(), LinkError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.peer.proven();
        // A check announces nothing, and comes beside a gateway that runs.
        let anew = incoming.claim().is_none() && !self.announcement.routes().is_empty();
        let ((link, driver), number) = match decision {
            LinkDecision::Active { .. } => (incoming.admit().map_err(AcceptError::Ended)?, number),
            _ => self.wait(incoming).await?,
        };
        let announcement = self.announcement.clone();
        let live = LiveLink::new(self.id, self.identity, link, announcement, self.remote);
        let place = self.shared.links.enter(self.identity.tunnel, live);
        let place = place.ok_or(LinkError::TooMany)?;
        let (id, tunnel) = (self.id, self.identity.tunnel);
        tracing::info!(link = %id, %tunnel, remote = %self.remote, "link up");
        self.report(LinkReportKind::Up);
        if anew {
            place.succeeds();
        }
        let reason = self.drive(&place, driver, number).await;
        drop(place);
        tracing::info!(link = %id, %tunnel, ?reason, "link down");
        self.report(LinkReportKind::Down { reason });
        Ok(())
    }

    /// Keeps a link pending until a snapshot approves it, and admits it under the number of that snapshot.
    async fn wait<IO>(&mut self, incoming: Incoming<IO>) -> Result<(Admitted<IO>, u64), LinkError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let gateway = self.identity.gateway;
        let Some(place) = self.shared.links.wait(self.identity.tunnel, gateway) else {
            incoming.refuse(refusal_of(&LinkError::TooMany)).await;
            return Err(LinkError::TooMany);
        };
        let approval_code = place.code();
        self.waits = Some(place);
        let (id, tunnel) = (self.id, self.identity.tunnel);
        tracing::info!(link = %id, %tunnel, remote = %self.remote, "link pending");
        self.report(LinkReportKind::Pending { approval_code });
        let mut pending = incoming.pend(&approval_code.to_string());
        let (error, reason) = match self.until_decided(&mut pending).await {
            Ok(number) => {
                self.waits = None;
                let admitted = pending.admit().map_err(AcceptError::Ended);
                return Ok((admitted.inspect_err(|_| self.report_lost())?, number));
            }
            Err(undecided) => undecided,
        };
        tracing::info!(link = %id, %tunnel, ?reason, "link down");
        // To the console the pending links of one gateway are one: that one of several is gone is no news.
        if self.leaves_others() {
            self.shown = false;
        } else {
            self.report(LinkReportKind::Down { reason });
        }
        pending.refuse(refusal_of(&error)).await;
        Err(error)
    }

    /// Waits for the snapshot that approves the link, and answers its number.
    async fn until_decided<IO>(
        &mut self,
        pending: &mut PendingLink<IO>,
    ) -> Result<u64, (LinkError, DownReason)>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = Instant::now() + self.shared.config.pending_for;
        loop {
            tokio::select! {
                biased;
                () = self.shared.stopping.cancelled() => {
                    return Err((LinkError::Stopping, DownReason::EdgeStops));
                }
                reason = pending.closed() => {
                    return Err((LinkError::NotApproved, down_reason(&reason)));
                }
                snapshot = self.news.next() => match snapshot.rejudge(&self.identity, u64::MAX) {
                    Ok(LinkDecision::Active { .. }) => return Ok(snapshot.number()),
                    Ok(_) => {}
                    Err(refusal) => {
                        return Err((LinkError::Refused(refusal), DownReason::Withdrawn(refusal)));
                    }
                },
                () = sleep_until(deadline) => {
                    return Err((LinkError::NotApproved, DownReason::NotApproved));
                }
            }
        }
    }

    /// Drives a live link to its end, and closes it when a snapshot says so.
    async fn drive<IO>(
        &mut self,
        place: &LivePlace,
        driver: LinkDriver<TlsStream<IO>>,
        admitted_under: u64,
    ) -> DownReason
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut driver = std::pin::pin!(driver.run());
        let mut tick = interval_at(Instant::now() + FIRST_ROUND_TRIP, ROUND_TRIPS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (link, mut remote) = (place.link(), place.remote());
        let mut presence = Presence::Connected;
        let mut drain: Option<(Instant, DownReason)> = None;
        let (code, refusal) = loop {
            let deadline = drain.map_or_else(Instant::now, |(deadline, _)| deadline);
            let turn = tokio::select! {
                biased;
                reason = &mut driver => {
                    return drain.map_or_else(|| down_reason(&reason), |(_, reason)| reason);
                }
                snapshot = self.news.next() => self.judge_again(&snapshot, admitted_under),
                () = self.shared.stopping.cancelled(), if drain.is_none() => {
                    Turn::Drain(CloseCode::SHUTDOWN, DownReason::EdgeStops)
                }
                () = sleep_until(deadline), if drain.is_some() => Turn::Close(CloseCode::NO_ERROR, None),
                () = link.drained(), if drain.is_some() => Turn::Close(CloseCode::NO_ERROR, None),
                change = presence.change(link) => presence.follow(change, place),
                Ok(()) = remote.changed() => {
                    self.remote = *remote.borrow_and_update();
                    self.report(LinkReportKind::Up);
                    Turn::Stay
                }
                _ = tick.tick() => {
                    self.report_round_trip(link);
                    Turn::Stay
                }
            };
            match turn {
                // Nobody may come back to a link that is sent away.
                Turn::Drain(code, _) if presence.is_kept() => break (code, None),
                Turn::Kept if drain.is_some() => break (CloseCode::NO_ERROR, None),
                Turn::Drain(code, reason) if drain.is_none() => {
                    let within = self.shared.config.drain;
                    link.go_away(code, Some(within));
                    drain = Some((Instant::now() + within, reason));
                }
                Turn::Stay | Turn::Kept | Turn::Drain(..) => {}
                Turn::Close(code, refusal) => break (code, refusal),
            }
        };
        let said = refusal.map(|refusal| refusal.to_string());
        link.close(code, said.as_deref().unwrap_or_default());
        // The driver says goodbye and ends; a peer that takes nothing does not delay that for long.
        let closed = timeout(FAREWELL, driver).await;
        let drained = drain.map(|(_, reason)| reason);
        let otherwise = || closed.map_or(DownReason::Lost, |reason| down_reason(&reason));
        refusal
            .map(DownReason::Withdrawn)
            .or(drained)
            .unwrap_or_else(otherwise)
    }

    fn judge_again(&self, snapshot: &AccessSnapshot, admitted_under: u64) -> Turn {
        match snapshot.rejudge(&self.identity, admitted_under) {
            Ok(LinkDecision::Active { .. }) => Turn::Stay,
            // It was approved, and is not any more.
            Ok(_) => Turn::Close(CloseCode::WITHDRAWN, Some(LinkRefusal::GatewayRefused)),
            Err(refusal @ LinkRefusal::TokenRotated) => {
                Turn::Drain(CloseCode::WITHDRAWN, DownReason::Withdrawn(refusal))
            }
            Err(refusal @ LinkRefusal::Disconnected) => {
                Turn::Close(CloseCode::DISCONNECTED, Some(refusal))
            }
            Err(refusal) => Turn::Close(CloseCode::WITHDRAWN, Some(refusal)),
        }
    }

    /// Gives the place of a pending link back; says whether others of its gateway wait on.
    fn leaves_others(&mut self) -> bool {
        let place = self.waits.take();
        place.is_some_and(|place| place.leave() == Left::Others)
    }

    fn report(&mut self, kind: LinkReportKind) {
        match kind {
            LinkReportKind::Pending { .. } | LinkReportKind::Up => self.shown = true,
            LinkReportKind::Down { .. } => self.shown = false,
            _ => {}
        }
        self.shared.reports.push(LinkReport::new(
            self.id,
            self.identity,
            self.remote,
            self.announcement.clone(),
            unix_ms(),
            kind,
        ));
    }

    /// Tells the console of a gateway that was turned away, as far as it holds the token that it names: anybody can
    /// name one.
    fn report_refused(&mut self, reason: LinkRefusal) {
        if reason != LinkRefusal::Unrecognised {
            self.report(LinkReportKind::Refused { reason });
        }
    }

    fn report_lost(&mut self) {
        self.report(LinkReportKind::Down {
            reason: DownReason::Lost,
        });
    }

    fn report_round_trip(&mut self, link: &Link) {
        if let Some(time) = link.rtt().filter(|_| link.is_attached()) {
            self.report(LinkReportKind::RoundTrip { time });
        }
    }
}

/// Whoever drops the future of a link ends it, and the console must not believe in it for ever.
impl Drop for Life<'_> {
    fn drop(&mut self) {
        if !self.leaves_others() && self.shown {
            self.report_lost();
        }
    }
}

/// Whether a live link has a connection.
enum Presence<'a> {
    Connected,
    Kept {
        _place: KeptPlace<'a>,
    },
    /// Its driver is about to end.
    Over,
}

impl<'a> Presence<'a> {
    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// Waits for the loss of the connection and says why, or for another one. Cancel safe.
    async fn change(&self, link: &Link) -> Option<CloseReason> {
        match self {
            Self::Connected => link.detached().await,
            Self::Kept { .. } => {
                link.attached().await;
                None
            }
            Self::Over => std::future::pending().await,
        }
    }

    /// Follows such a change.
    fn follow(&mut self, change: Option<CloseReason>, place: &'a LivePlace) -> Turn {
        *self = match change {
            Some(reason) if place.is_orphaned(&reason) => {
                tracing::info!(%reason, "link lost, and its gateway has begun anew");
                return Turn::Close(CloseCode::REPLACED, None);
            }
            Some(reason) => {
                tracing::info!(%reason, "link lost, kept for its gateway");
                match place.keep() {
                    Some(kept) => Self::Kept { _place: kept },
                    None => return Turn::Close(CloseCode::OVERLOADED, None),
                }
            }
            None if place.link().is_attached() => {
                place.resumed();
                Self::Connected
            }
            None if place.link().is_alive() => Self::Connected,
            None => Self::Over,
        };
        if self.is_kept() {
            Turn::Kept
        } else {
            Turn::Stay
        }
    }
}

type Admitted<IO> = (Link, LinkDriver<TlsStream<IO>>);

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
        LinkError::Claim(ClaimError::TooMany) => {
            (RefusalCode::OVERLOADED, Some(Duration::from_secs(5)))
        }
        LinkError::Claim(_) => (RefusalCode::SESSION, None),
        LinkError::NotApproved => (RefusalCode::UNAVAILABLE, Some(Duration::from_secs(1))),
        LinkError::NoAccessNews => (RefusalCode::UNAVAILABLE, Some(Duration::from_secs(5))),
        LinkError::Stopping | LinkError::Accept(_) => {
            (RefusalCode::UNAVAILABLE, Some(Duration::from_secs(1)))
        }
    };
    // The reason alone: the gateway knows the cure of each code, in words for where it runs.
    let text = match error {
        LinkError::Refused(refusal) => refusal.to_string(),
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
