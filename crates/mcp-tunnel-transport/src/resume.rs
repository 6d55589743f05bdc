//! A session that changes its link: who may bring a new one, and how it gets to the driver.
//!
//! ```text
//!   gateway                               edge
//!   driver: link lost ── detach           driver: link lost ── detach   (or not noticed yet)
//!   claim()   epoch + 1, position, proof
//!        HELLO (credential, claim), RESUME ──────►  accept, judge, resume()
//!                                                   admit_claim(): epoch, proof; detaches the old link
//!        ◄────────────────── HELLO, RESUME (position, proof)
//!   accept_answer(): proof                          replace(): the driver attaches the new link
//!   replace(): the driver attaches the new link
//! ```
//!
//! The session's key is exported from its first connection, and each proof covers the new one's exporter: a claim can
//! neither be made by whoever did not make the first connection nor carried over to another (RESUME-3).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mcp_tunnel_proto::{CloseCode, Connection, Position, Resume, SessionId, Side};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    CloseReason, Exporter,
    outbox::Outbox,
    shared::{Shared, State, Wakes},
    timer::now,
    tls::ResumeKey,
};

/// A connection of any kind, for sessions that outlive the one that they began on.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Socket for IO {}

/// How a session is named and proven on its next link.
#[derive(Debug)]
pub(crate) struct Resumption {
    pub(crate) session: SessionId,
    key: ResumeKey,
    /// Of the last attempt that counted.
    epoch: u32,
    /// Changes of link that the peer may still make at once.
    left: u32,
    /// Up to when that is counted.
    counted: Instant,
}

/// ABUSE-1: changes of link that a peer may make at once, and as many each [`PER`].
const BURST: u32 = 64;
/// One more each so often; an honest gateway stays below, since it waits before it replaces a young link.
const PER: Duration = Duration::from_millis(500);

/// The time without a link.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) reason: CloseReason,
    pub(crate) since: Instant,
}

/// A new link on its way to the driver.
pub(crate) struct Replacement {
    pub(crate) io: Box<dyn Socket>,
    pub(crate) input: BytesMut,
    pub(crate) outbox: Outbox,
    /// How far the peer has received.
    pub(crate) peer: Position,
}

/// Why a claim to a session does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The link claims no session, or not this one.
    #[error("the claim is to another session")]
    OtherSession,
    /// The session cannot be resumed, or has ended.
    #[error("the session has ended")]
    Ended,
    /// A later attempt has come before this one.
    #[error("a later attempt has come before")]
    Stale,
    /// The peer has changed links too often: the session has ended with that.
    #[error("too many changes of link")]
    TooMany,
    /// The peer does not know the session's first connection.
    #[error("the claim is not proven")]
    NotProven,
}

impl Resumption {
    pub(crate) fn of(connection: &Connection, key: Option<ResumeKey>) -> Option<Self> {
        let resumable = connection.agreed().resumable?;
        Some(Self {
            session: resumable.session,
            key: key?,
            epoch: 0,
            left: BURST,
            counted: now(),
        })
    }

    /// Takes one change of link off the budget; `false` if it is spent.
    fn spend(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.counted).as_millis() / PER.as_millis();
        if let Ok(gained) = u32::try_from(gained) {
            self.left = self.left.saturating_add(gained).min(BURST);
            self.counted += PER * gained;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

impl Shared {
    /// The link under the session is gone; says whether the session goes on without one.
    pub(crate) fn lose(&self, reason: CloseReason) -> bool {
        let mut wakes = Wakes::default();
        let goes_on = self.lock().detach(reason, &mut wakes);
        self.wake(&mut wakes);
        goes_on
    }

    /// RESUME-1: what the gateway says on its next link. `None` while the session has a link, or when it cannot be resumed.
    pub(crate) fn claim(&self, exporter: &Exporter) -> Option<(SessionId, Resume)> {
        let mut state = self.lock();
        if state.closed.is_some() || state.lost().is_none() {
            return None;
        }
        let position = state.connection.position()?.as_u64();
        let resumption = state.resumption.as_mut()?;
        let epoch = resumption.epoch.checked_add(1)?;
        resumption.epoch = epoch;
        let proof = resumption
            .key
            .proof(exporter, Side::Gateway, epoch, position);
        Some((resumption.session, Resume::new(epoch, position, proof)))
    }

    /// Whether the edge's answer to a claim is proven, so that what is retained may be sent.
    pub(crate) fn is_answered(&self, exporter: &Exporter, said: &Resume) -> bool {
        let state = self.lock();
        let proven = |resumption: &Resumption| {
            resumption.epoch == said.epoch && resumption.key.is_proven(exporter, Side::Edge, said)
        };
        state.resumption.as_ref().is_some_and(proven)
    }

    /// RESUME-2: judges a claim, and answers it with this side's position. From here on the old link, if there still is
    /// one, is not read any more (RESUME-7).
    pub(crate) fn admit_claim(
        &self,
        session: SessionId,
        claim: &Resume,
        exporter: &Exporter,
    ) -> Result<Resume, ClaimError> {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        if state.closed.is_some() {
            return Err(ClaimError::Ended);
        }
        let Some(resumption) = &mut state.resumption else {
            return Err(ClaimError::Ended);
        };
        if resumption.session != session {
            return Err(ClaimError::OtherSession);
        }
        if claim.epoch <= resumption.epoch {
            return Err(ClaimError::Stale);
        }
        if !resumption.key.is_proven(exporter, Side::Gateway, claim) {
            return Err(ClaimError::NotProven);
        }
        if !resumption.spend(now()) {
            // ABUSE-1: the peer is told on the link that it has, if it has one.
            state.connection.close(CloseCode::FLOOD_RESUMES, "");
            state.take_events(&mut wakes);
            Self::wake_driver(state);
            self.wake(&mut wakes);
            return Err(ClaimError::TooMany);
        }
        resumption.epoch = claim.epoch;
        let key = resumption.key.clone();
        // A connection of an earlier claim that the driver has not taken up is an old one too.
        state.replacement = None;
        if !state.detach(CloseReason::Replaced, &mut wakes) {
            return Err(ClaimError::Ended);
        }
        let position = state.connection.position().map_or(0, Position::as_u64);
        Self::wake_driver(state);
        self.wake(&mut wakes);
        let proof = key.proof(exporter, Side::Edge, claim.epoch, position);
        Ok(Resume::new(claim.epoch, position, proof))
    }

    /// Hands a new link to the driver; a later one takes the place of one that was not taken yet.
    ///
    /// # Errors
    ///
    /// How the session has ended meanwhile.
    pub(crate) fn replace(&self, replacement: Replacement) -> Result<(), CloseReason> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        state.replacement = Some(replacement);
        let mut wakes = Wakes::default();
        wakes.turns = true;
        Self::wake_driver(state);
        self.wake(&mut wakes);
        Ok(())
    }

    /// Ends a session without a link before its time; without effect on one that has a link.
    pub(crate) fn give_up(&self) {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let Some(lost) = state.lost() else {
            return;
        };
        let lost = Arc::new(lost.clone());
        state.on_closed(CloseReason::NotResumed { lost }, &mut wakes);
        state.connection.close(CloseCode::NO_ERROR, "");
        state.take_events(&mut wakes);
        Self::wake_driver(state);
        self.wake(&mut wakes);
    }
}

impl State {
    /// Why the session has no link, and none on its way to the driver.
    pub(crate) fn lost(&self) -> Option<&CloseReason> {
        match (&self.gap, &self.replacement) {
            (Some(gap), None) => Some(&gap.reason),
            _ => None,
        }
    }

    /// Lets the session go on without a link; says whether it can.
    fn detach(&mut self, reason: CloseReason, wakes: &mut Wakes) -> bool {
        if self.closed.is_some() || self.connection.detach(now()).is_err() {
            return false;
        }
        self.on_detached(reason, wakes);
        true
    }

    pub(crate) fn on_detached(&mut self, reason: CloseReason, wakes: &mut Wakes) {
        let since = now();
        self.gap.get_or_insert(Gap { reason, since });
        wakes.turns = true;
    }

    /// Takes up the new link that waits, if the session has none.
    pub(crate) fn attach(&mut self, wakes: &mut Wakes) -> Option<Replacement> {
        let replacement = self.replacement.take()?;
        // An impossible position ends the session, and the peer is told so on the new link.
        let _ = self.connection.attach(now(), replacement.peer);
        self.gap = None;
        self.take_events(wakes);
        wakes.turns = true;
        Some(replacement)
    }

    /// Why a session that nobody came back to has ended.
    pub(crate) fn expired(&self) -> CloseReason {
        match &self.gap {
            Some(gap) => CloseReason::Expired {
                after: now().saturating_duration_since(gap.since),
                lost: Arc::new(gap.reason.clone()),
            },
            None => CloseReason::Abandoned,
        }
    }

    /// The time at which this side gives a session without a link up, whatever the peer would allow.
    pub(crate) fn given_up_at(&self, keep: Duration) -> Option<Instant> {
        let gap = self.gap.as_ref()?;
        Some(gap.since + keep)
    }
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
