//! The gateway's part.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{Agreed, Greeting};
use crate::{
    Admission, CloseCode, Config, Connection, ConnectionError, EncodeError, Frame, Hello, Refusal,
    Resume, ResumeClaim, SessionId, Side, Transmit, Violation,
};

/// What the gateway learns before its link is active.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GatewayEvent {
    /// The edge's HELLO came.
    Hello(Hello),
    /// A person must approve; show them the code.
    Pending {
        /// What the edge drew.
        approval_code: String,
    },
    /// The link carries streams: go on with [`GatewayHandshake::into_connection`].
    Active(Agreed),
    /// The edge will close.
    Refused(Refusal),
    /// The session goes on: check the proof, then [`Connection::attach`] with the position. Whatever is left of the input
    /// is for the session.
    Resumed(Resume),
}

/// The gateway's part of HELLO and ADMISSION.
#[derive(Debug)]
pub struct GatewayHandshake {
    greeting: Greeting,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Active(Agreed),
    Resumed,
    Refused,
}

impl GatewayHandshake {
    /// Starts with this side's HELLO, which the first [`poll_transmit`](Self::poll_transmit) sends.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if HELLO exceeds [`MAX_HELLO`](crate::MAX_HELLO).
    pub fn new(
        now: Instant,
        config: Arc<Config>,
        credential: Bytes,
        agent: &str,
    ) -> Result<Self, EncodeError> {
        let mut hello = Hello::new(Side::Gateway, &config, credential);
        agent.clone_into(&mut hello.agent);
        Ok(Self {
            greeting: Greeting::new(now, hello, config)?,
            phase: Phase::Waiting,
        })
    }

    /// The same on a new link for an old session: HELLO names it, RESUME follows at once (RESUME-1). The edge answers
    /// with RESUME, or as if there were no claim: then the old session's streams are lost.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if HELLO exceeds [`MAX_HELLO`](crate::MAX_HELLO).
    pub fn resuming(
        now: Instant,
        config: Arc<Config>,
        credential: Bytes,
        agent: &str,
        session: SessionId,
        resume: Resume,
    ) -> Result<Self, EncodeError> {
        let mut hello = Hello::new(Side::Gateway, &config, credential);
        agent.clone_into(&mut hello.agent);
        hello.resume = Some(ResumeClaim::new(session, resume.epoch));
        let mut greeting = Greeting::new(now, hello, config)?;
        greeting.queue.push_back(Frame::Resume(resume));
        Ok(Self {
            greeting,
            phase: Phase::Waiting,
        })
    }

    /// Takes input up to the next event. Call until it says `None`; after [`GatewayEvent::Active`] and
    /// [`GatewayEvent::Resumed`] the rest of `input` is for the [`Connection`].
    ///
    /// # Errors
    /// The end of the link; [`poll_transmit`](Self::poll_transmit) may still have a CLOSE to send.
    pub fn handle_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<GatewayEvent>, ConnectionError> {
        if matches!(self.phase, Phase::Active(_) | Phase::Resumed) {
            return Ok(None);
        }
        let admission = match self.greeting.next_frame(now, input)? {
            None => return Ok(None),
            Some(Frame::Hello(hello)) => return Ok(Some(GatewayEvent::Hello(*hello))),
            // ADMISSION-1: nothing follows a refusal.
            Some(Frame::Admission(admission)) if !matches!(self.phase, Phase::Refused) => {
                if let Err(violation) = self.greeting.budget.on_admission(now) {
                    return Err(self.greeting.fail(violation.into()));
                }
                *admission
            }
            Some(Frame::Resume(resume)) if self.has_claimed(&resume) => {
                self.phase = Phase::Resumed;
                return Ok(Some(GatewayEvent::Resumed(resume)));
            }
            // ADMISSION-2: no other frame before it is active.
            Some(_) => {
                return Err(self.greeting.fail(Violation::UnexpectedFrame.into()));
            }
        };
        Ok(Some(match admission {
            Admission::Pending { approval_code } => GatewayEvent::Pending { approval_code },
            Admission::Refused(refusal) => {
                self.phase = Phase::Refused;
                GatewayEvent::Refused(refusal)
            }
            // ADMISSION-5: its limits, not those of the edge's HELLO.
            Admission::Active(activation) => {
                let local = self.greeting.ours.limits;
                let agreed = self
                    .greeting
                    .agree(local, activation.limits, activation.resumable);
                self.phase = Phase::Active(agreed);
                GatewayEvent::Active(agreed)
            }
        }))
    }

    greeting_methods!();

    /// The session, once [`GatewayEvent::Active`] has come and everything is transmitted.
    ///
    /// # Errors
    /// Gives the handshake back if it is not active.
    #[expect(
        clippy::result_large_err,
        reason = "the handshake itself is handed back"
    )]
    pub fn into_connection(self, now: Instant) -> Result<Connection, Self> {
        match self.phase {
            Phase::Active(agreed) => {
                let session = Connection::new(now, agreed, self.greeting.config);
                Ok(session.carry_on(self.greeting.liveness))
            }
            Phase::Waiting | Phase::Resumed | Phase::Refused => Err(self),
        }
    }

    /// RESUME-2: the edge's RESUME repeats the epoch of the claim, and comes before any ADMISSION that counts.
    fn has_claimed(&self, resume: &Resume) -> bool {
        let claim = self.greeting.ours.resume;
        matches!(self.phase, Phase::Waiting) && claim.is_some_and(|c| c.epoch == resume.epoch)
    }
}
