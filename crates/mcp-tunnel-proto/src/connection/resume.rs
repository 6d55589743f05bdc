//! Change of link under a session.

use std::time::Instant;

use super::{Connection, ConnectionError, Departure};
use crate::{StreamId, Violation};

/// How far a side has received: bytes of session frames since the session's start.
///
/// It is what [`Resume`](crate::Resume) says, and ends on a frame's border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// The position with this number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Why a session was not resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The session ends with its link: the feature is not agreed.
    #[error("session cannot be resumed")]
    NotResumable,
    /// The session still has a link.
    #[error("session has a link")]
    Attached,
    /// The session has ended.
    #[error("closed")]
    Closed,
    /// The peer's position cannot be: the session has ended with this.
    #[error("impossible position")]
    Position,
}

/// Change of link.
impl Connection {
    /// The link is gone. A resumable session goes on without one for [`Resumable::keep`](crate::Resumable::keep), which
    /// [`poll_timeout`](Self::poll_timeout) counts: streams stay open, the application may read and write.
    ///
    /// The transport drops partial input and what waited in its [`Transmit`](crate::Transmit). Without effect on a session
    /// that has no link already: its time runs on.
    ///
    /// # Errors
    /// [`ResumeError::NotResumable`], [`ResumeError::Closed`]: nothing has changed.
    pub fn detach(&mut self, now: Instant) -> Result<(), ResumeError> {
        if self.closed.is_some() {
            return Err(ResumeError::Closed);
        }
        let keep = match (&self.replay, &self.agreed.resumable) {
            (Some(_), Some(resumable)) => resumable.keep,
            _ => return Err(ResumeError::NotResumable),
        };
        self.detached.get_or_insert(now + keep);
        self.partial = 0;
        Ok(())
    }

    /// How far this side has received: what its RESUME says. `None` if the session cannot be resumed.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.replay
            .as_ref()
            .map(|replay| Position(replay.received()))
    }

    /// A new link is there, and both sides have said RESUME on it: what the peer has received is released, the
    /// rest is sent again, and every credit is said again.
    ///
    /// # Errors
    /// [`ResumeError::Position`] ends the session; the others change nothing.
    pub fn attach(&mut self, now: Instant, peer: Position) -> Result<(), ResumeError> {
        if self.closed.is_some() {
            return Err(ResumeError::Closed);
        }
        let replay = self.replay.as_mut().ok_or(ResumeError::NotResumable)?;
        if self.detached.is_none() {
            return Err(ResumeError::Attached);
        }
        if let Err(violation) = replay.rewind(peer.0) {
            self.end(violation.into());
            return Err(ResumeError::Position);
        }
        self.detached = None;
        self.liveness.renew(now, &self.config);
        self.say_credits_again();
        self.budget.on_resumed(self.streams.len());
        // The ping that followed the warning may be lost; any ping of the new link follows it too.
        if matches!(self.departure, Departure::Warned { .. }) {
            let after = self.liveness.ping_soon();
            self.departure = Departure::Warned { after };
        }
        self.settle_acknowledged();
        Ok(())
    }

    /// Whether the session has a link.
    #[must_use]
    pub const fn is_attached(&self) -> bool {
        self.detached.is_none()
    }

    /// Bytes sent that are kept because the peer may not have received them.
    #[must_use]
    pub fn retained(&self) -> u64 {
        self.replay.as_ref().map_or(0, |replay| replay.kept())
    }

    /// RESUME-5: credits are link frames; those of the old link may be lost.
    fn say_credits_again(&mut self) {
        self.credits_due = true;
        let open: Vec<StreamId> = self.streams.receiving().collect();
        for id in open {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.recv.credit_due = true;
                stream.recv.credit_again = true;
                self.schedule.push_control(id, stream);
            }
        }
    }

    pub(super) fn on_ack(&mut self, now: Instant, position: u64) -> Result<(), Violation> {
        // FRAME-6
        let replay = self.replay.as_mut().ok_or(Violation::UnexpectedFrame)?;
        let rise = replay.release(position)?;
        self.liveness.on_proven(replay.kept());
        // Each frame that was sent pays for one ACK; only those that say nothing new are cheap.
        if rise == 0 {
            self.budget.on_credit(now, 0)?;
        } else {
            self.retain_more();
        }
        self.settle_acknowledged();
        Ok(())
    }

    fn settle_acknowledged(&mut self) {
        while let Some(id) = self.replay.as_mut().and_then(|replay| replay.pop_ended()) {
            self.settle(id);
        }
    }

    /// RESUME-8: the end of a session that nobody came back to.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.detached.is_some_and(|deadline| now >= deadline) {
            self.end(ConnectionError::Expired);
        }
    }
}
