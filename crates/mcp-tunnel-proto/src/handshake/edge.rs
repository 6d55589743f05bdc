//! The edge's part.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use super::Greeting;
use crate::{
    Activation, Admission, CloseCode, Config, Connection, ConnectionError, EncodeError, Frame,
    Hello, MAX_APPROVAL_CODE, Refusal, Resumable, Resume, Side, Transmit, Violation,
};

/// The edge's part of HELLO and ADMISSION.
#[derive(Debug)]
pub struct EdgeHandshake {
    greeting: Greeting,
    refused: bool,
    /// A HELLO that claims a session, until its RESUME is there.
    claiming: Option<Hello>,
    resume: Option<Resume>,
}

impl EdgeHandshake {
    /// Starts with this side's HELLO, which the first [`poll_transmit`](Self::poll_transmit) sends.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if HELLO exceeds [`MAX_HELLO`](crate::MAX_HELLO).
    pub fn new(now: Instant, config: Arc<Config>, agent: &str) -> Result<Self, EncodeError> {
        let mut hello = Hello::new(Side::Edge, &config, Bytes::new());
        agent.clone_into(&mut hello.agent);
        Ok(Self {
            greeting: Greeting::new(now, hello, config)?,
            refused: false,
            claiming: None,
            resume: None,
        })
    }

    /// Takes input; the gateway's HELLO once it is there, with the RESUME that belongs to it if it claims a session.
    /// Afterwards only pings may come.
    ///
    /// # Errors
    /// The end of the link; [`poll_transmit`](Self::poll_transmit) may still have a CLOSE to send.
    pub fn handle_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<Hello>, ConnectionError> {
        loop {
            match self.greeting.next_frame(now, input)? {
                None => return Ok(None),
                Some(Frame::Hello(hello)) if hello.resume.is_some() => self.claiming = Some(*hello),
                Some(Frame::Hello(hello)) => return Ok(Some(*hello)),
                Some(Frame::Resume(resume)) if self.is_claimed(&resume) => {
                    self.resume = Some(resume);
                    return Ok(self.claiming.take());
                }
                // ADMISSION-3: a gateway that was not admitted opens nothing.
                Some(_) => return Err(self.greeting.fail(Violation::UnexpectedFrame.into())),
            }
        }
    }

    /// RESUME-1: RESUME belongs to the claim before it.
    fn is_claimed(&self, resume: &Resume) -> bool {
        let claim = self.claiming.as_ref().and_then(|hello| hello.resume);
        claim.is_some_and(|claim| claim.epoch == resume.epoch)
    }

    /// What the gateway said with its claim to a session: its position, and a proof for the caller to check.
    #[must_use]
    pub const fn claimed(&self) -> Option<&Resume> {
        self.resume.as_ref()
    }

    greeting_methods!();

    /// ADMISSION-6: keeps the link up without streams until a person has approved. `approval_code`: printable ASCII, at
    /// most [`MAX_APPROVAL_CODE`] bytes; more is cut off. May be said again with a new code.
    pub fn pend(&mut self, approval_code: &str) {
        let mut approval_code: String = approval_code
            .chars()
            .filter(char::is_ascii_graphic)
            .collect();
        approval_code.truncate(MAX_APPROVAL_CODE);
        self.answer(Admission::Pending { approval_code });
    }

    /// Refuses; the caller transmits it and closes.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.refused = true;
        self.answer(Admission::Refused(refusal));
    }

    /// RESUME-2: goes on with the session that the gateway claims, in place of admission. Writes HELLO and RESUME to
    /// `out`; the caller then attaches the session with the gateway's position. Version, features and limits stay
    /// those of the session (RESUME-6).
    ///
    /// # Errors
    /// Gives the handshake back if there is no claim with this epoch, or the link is refused or closed.
    #[expect(
        clippy::result_large_err,
        reason = "the handshake itself is handed back"
    )]
    pub fn resume(mut self, now: Instant, resume: Resume, out: &mut Transmit) -> Result<(), Self> {
        let claimed = self.resume.is_some_and(|c| c.epoch == resume.epoch);
        if !claimed || self.refused || self.greeting.closed.is_some() {
            return Err(self);
        }
        self.greeting
            .queue
            .retain(|frame| !matches!(frame, Frame::Admission(_)));
        self.greeting.queue.push_back(Frame::Resume(resume));
        self.greeting.poll_transmit(now, out);
        Ok(())
    }

    /// Admits with the limits of `config`, which may differ from those of HELLO. Transmit ADMISSION with
    /// `out` before anything else.
    ///
    /// # Errors
    /// Gives the handshake back if the gateway's HELLO has not come, or the link is refused or closed.
    #[expect(
        clippy::result_large_err,
        reason = "the handshake itself is handed back"
    )]
    pub fn admit(
        self,
        now: Instant,
        config: Arc<Config>,
        out: &mut Transmit,
    ) -> Result<Connection, Self> {
        self.admit_resumable(now, config, None, out)
    }

    /// The same for a session that survives its link, if the gateway offers that too and `resumable` is given.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    #[expect(
        clippy::result_large_err,
        reason = "the handshake itself is handed back"
    )]
    pub fn admit_resumable(
        mut self,
        now: Instant,
        config: Arc<Config>,
        resumable: Option<Resumable>,
        out: &mut Transmit,
    ) -> Result<Connection, Self> {
        let theirs = match &self.greeting.theirs {
            Some(theirs) if self.may_admit() => theirs.limits,
            Some(_) | None => return Err(self),
        };
        let agreed = self.greeting.agree(config.limits(), theirs, resumable);
        let mut activation = Activation::new(agreed.local);
        activation.resumable = agreed.resumable;
        self.answer(Admission::Active(activation));
        self.greeting.poll_transmit(now, out);
        Ok(Connection::new(now, agreed, config).carry_on(self.greeting.liveness))
    }

    /// Nothing was decided, and HELLO is there with all that belongs to it.
    fn may_admit(&self) -> bool {
        !self.refused && self.claiming.is_none() && self.greeting.closed.is_none()
    }

    /// ADMISSION-1. Only the latest word counts if several were said before one was sent.
    fn answer(&mut self, admission: Admission) {
        let queue = &mut self.greeting.queue;
        queue.retain(|frame| !matches!(frame, Frame::Admission(_)));
        queue.push_back(Frame::Admission(Box::new(admission)));
    }
}
