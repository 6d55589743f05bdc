//! HELLO and ADMISSION, before a link carries streams.
//!
//! ```text
//!    gateway                                    edge
//!       |  HELLO (credential) ------------------> |   EdgeHandshake yields the hello
//!       | <------------------------------ HELLO   |
//!       |                                         |   whoever accepts decides
//!       | <---------- ADMISSION pending (code)    |   pend     (pings go both ways)
//!       | <---------- ADMISSION active (limits)   |   admit
//!       |         both sides: Connection          |
//!       | <---------- ADMISSION refused           |   refuse   (then the edge closes)
//! ```

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use crate::{
    Activation, Admission, CloseCode, Config, Connection, ConnectionError, EncodeError, Features,
    Frame, Hello, Limits, MAX_APPROVAL_CODE, MAX_HELLO, Refusal, Resumable, Side, Transmit,
    Violation,
    connection::{budget::Budget, liveness::Liveness},
    frame::{self, HEADER, Head, kind},
};

/// What both sides agreed on; the basis of a [`Connection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// Which side this is.
    pub side: Side,
    /// The protocol version.
    pub version: u8,
    /// What both offered.
    pub features: Features,
    /// What this side announced that it is ready to receive.
    pub local: Limits,
    /// What the peer is ready to receive.
    pub peer: Limits,
    /// The session's name and life after its link, if it may be resumed.
    pub resumable: Option<Resumable>,
}

/// Frames other than HELLO that may come before admission, each in payload bytes.
const MAX_EARLY_FRAME: u16 = 1024;

/// What both handshakes share: the two hellos, pings, and the end.
#[derive(Debug)]
struct Greeting {
    side: Side,
    config: Arc<Config>,
    ours: Hello,
    theirs: Option<Hello>,
    version: u8,
    /// At most HELLO, one ADMISSION and CLOSE wait here.
    queue: VecDeque<Frame>,
    liveness: Liveness,
    budget: Budget,
    /// Length of the partial frame that the last call left in the input.
    partial: usize,
    closed: Option<ConnectionError>,
}

impl Greeting {
    fn new(now: Instant, hello: Hello, config: Arc<Config>) -> Result<Self, EncodeError> {
        let frame = Frame::Hello(Box::new(hello.clone()));
        frame.encode(&mut BytesMut::with_capacity(MAX_HELLO))?;
        Ok(Self {
            side: hello.side,
            liveness: Liveness::new(now, &config),
            config,
            ours: hello,
            theirs: None,
            version: 0,
            queue: VecDeque::from([frame]),
            budget: Budget::new(),
            partial: 0,
            closed: None,
        })
    }

    /// The next frame that is for the owner; HELLO, PING and PONG are dealt with here.
    fn next_frame(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<Frame>, ConnectionError> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if input.len() > self.partial {
            self.liveness.on_heard(now);
        }
        let next = self.read(now, input);
        self.partial = input.len();
        match next {
            Ok(next) => Ok(next),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn read(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<Frame>, ConnectionError> {
        loop {
            let most = self.check_head(input)?;
            let Some(frame) = frame::decode(input, most)? else {
                return Ok(None);
            };
            match frame {
                Frame::Ping(number) => {
                    self.budget.on_ping(now)?;
                    self.liveness.on_ping(number);
                }
                Frame::Pong(number) => {
                    self.budget.on_ping(now)?;
                    let _ = self.liveness.on_pong(now, number);
                }
                // CLOSE-1
                Frame::Close { code, text } => {
                    return Err(ConnectionError::ClosedByPeer { code, text });
                }
                Frame::Ignored { .. } => self.budget.on_unknown(now)?,
                Frame::Hello(hello) => {
                    self.on_hello(&hello)?;
                    return Ok(Some(Frame::Hello(hello)));
                }
                other @ (Frame::Admission(_)
                | Frame::Resume(_)
                | Frame::Ack(_)
                | Frame::SessionCredit(_)
                | Frame::StreamCredit { .. }
                | Frame::StreamsCredit(_)
                | Frame::Open { .. }
                | Frame::Data { .. }
                | Frame::Reset { .. }
                | Frame::Stop { .. }
                | Frame::GoAway(_)) => return Ok(Some(other)),
            }
        }
    }

    /// Judges the next frame by its header, before its payload is waited for, and says how long it may be.
    fn check_head(&self, input: &BytesMut) -> Result<u16, Violation> {
        let hello = u16::try_from(MAX_HELLO.saturating_sub(HEADER)).unwrap_or(u16::MAX);
        let Some(head) = Head::peek(input) else {
            return Ok(hello);
        };
        match (head.kind, &self.theirs) {
            (kind::HELLO, None) if head.length > usize::from(hello) => Err(Violation::HelloSize),
            (kind::HELLO, None) => Ok(hello),
            // HELLO-1: nothing comes before HELLO, but a peer may say why it closes.
            (kind::CLOSE, None) => Ok(MAX_EARLY_FRAME),
            (_, None) | (kind::HELLO, Some(_)) => Err(Violation::UnexpectedFrame),
            (_, Some(_)) => Ok(MAX_EARLY_FRAME),
        }
    }

    fn on_hello(&mut self, hello: &Hello) -> Result<(), Violation> {
        if hello.side == self.side {
            return Err(Violation::Side);
        }
        self.version = self.ours.common_version(hello)?;
        self.theirs = Some(hello.clone());
        Ok(())
    }

    fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        self.queue.retain(|frame| matches!(frame, Frame::Hello(_)));
        if let Some(frame) = error.close_frame() {
            self.queue.push_back(frame);
        }
        self.closed = Some(error.clone());
        error
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        let before = out.is_empty();
        for frame in self.queue.drain(..) {
            out.push_frame(&frame);
        }
        if self.closed.is_none() && self.theirs.is_some() {
            if let Some(number) = self.liveness.poll_pong() {
                out.push_frame(&Frame::Pong(number));
            }
            if let Some(number) = self.liveness.poll_ping(now) {
                out.push_frame(&Frame::Ping(number));
            }
        }
        before != out.is_empty()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        match &self.closed {
            Some(error) => Err(error.clone()),
            None if self.liveness.is_silent(now) => Err(self.fail(ConnectionError::Silent)),
            None => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match (&self.closed, &self.theirs) {
            (Some(_), _) => None,
            (None, None) => Some(self.liveness.silent_at()),
            (None, Some(_)) => Some(self.liveness.deadline()),
        }
    }

    fn close(&mut self, code: CloseCode, text: &str) {
        if self.closed.is_none() {
            self.fail(ConnectionError::ClosedHere {
                code,
                text: text.to_owned(),
            });
        }
    }

    fn agree(&self, local: Limits, peer: Limits, resumable: Option<Resumable>) -> Agreed {
        let theirs = self.theirs.as_ref().map_or(Features::NONE, |h| h.features);
        Agreed {
            side: self.side,
            version: self.version,
            // HELLO-6
            features: self.ours.features.and(theirs),
            local,
            peer,
            resumable,
        }
    }
}

/// The methods that both handshakes have, word for word.
macro_rules! greeting_methods {
    () => {
        /// Adds what is to be sent to `out`; says whether that was anything. PING-1: no ping goes out
        /// before the peer's HELLO has come.
        pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
            self.greeting.poll_transmit(now, out)
        }

        /// When [`handle_timeout`](Self::handle_timeout) is to be called.
        #[must_use]
        pub fn poll_timeout(&self) -> Option<Instant> {
            self.greeting.poll_timeout()
        }

        /// Notices silence. Pings are sent by [`poll_transmit`](Self::poll_transmit), to be called after this.
        ///
        /// # Errors
        /// [`ConnectionError::Silent`] if nothing was heard for too long.
        pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
            self.greeting.handle_timeout(now)
        }

        /// Ends it; CLOSE is the last thing to be sent.
        pub fn close(&mut self, code: CloseCode, text: &str) {
            self.greeting.close(code, text);
        }

        /// Smoothed round-trip time, once a ping was answered.
        #[must_use]
        pub fn rtt(&self) -> Option<Duration> {
            self.greeting.liveness.rtt()
        }
    };
}

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
}

/// The gateway's part of HELLO and ADMISSION.
#[derive(Debug)]
pub struct GatewayHandshake {
    greeting: Greeting,
    agreed: Option<Agreed>,
}

impl GatewayHandshake {
    /// Starts with this side's HELLO, which the first [`poll_transmit`](Self::poll_transmit) sends.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if HELLO exceeds [`MAX_HELLO`].
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
            agreed: None,
        })
    }

    /// Takes input up to the next event. Call until it says `None`; after [`GatewayEvent::Active`] the rest
    /// of `input` is for the [`Connection`].
    ///
    /// # Errors
    /// The end of the link; [`poll_transmit`](Self::poll_transmit) may still have a CLOSE to send.
    pub fn handle_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<GatewayEvent>, ConnectionError> {
        if self.agreed.is_some() {
            return Ok(None);
        }
        let admission = match self.greeting.next_frame(now, input)? {
            None => return Ok(None),
            Some(Frame::Hello(hello)) => return Ok(Some(GatewayEvent::Hello(*hello))),
            Some(Frame::Admission(admission)) => *admission,
            // ADMISSION-2: no other frame before it is active.
            Some(_) => {
                return Err(self.greeting.fail(Violation::UnexpectedFrame.into()));
            }
        };
        Ok(Some(match admission {
            Admission::Pending { approval_code } => GatewayEvent::Pending { approval_code },
            Admission::Refused(refusal) => GatewayEvent::Refused(refusal),
            // ADMISSION-5: its limits, not those of the edge's HELLO.
            Admission::Active(activation) => {
                let local = self.greeting.ours.limits;
                let agreed = self
                    .greeting
                    .agree(local, activation.limits, activation.resumable);
                self.agreed = Some(agreed);
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
        match self.agreed {
            Some(agreed) => {
                let session = Connection::new(now, agreed, self.greeting.config);
                Ok(session.carry_on(self.greeting.liveness))
            }
            None => Err(self),
        }
    }
}

/// The edge's part of HELLO and ADMISSION.
#[derive(Debug)]
pub struct EdgeHandshake {
    greeting: Greeting,
    refused: bool,
}

impl EdgeHandshake {
    /// Starts with this side's HELLO, which the first [`poll_transmit`](Self::poll_transmit) sends.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if HELLO exceeds [`MAX_HELLO`].
    pub fn new(now: Instant, config: Arc<Config>, agent: &str) -> Result<Self, EncodeError> {
        let mut hello = Hello::new(Side::Edge, &config, Bytes::new());
        agent.clone_into(&mut hello.agent);
        Ok(Self {
            greeting: Greeting::new(now, hello, config)?,
            refused: false,
        })
    }

    /// Takes input; the gateway's HELLO once it is there. Afterwards only pings may come.
    ///
    /// # Errors
    /// The end of the link; [`poll_transmit`](Self::poll_transmit) may still have a CLOSE to send.
    pub fn handle_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<Hello>, ConnectionError> {
        match self.greeting.next_frame(now, input)? {
            None => Ok(None),
            Some(Frame::Hello(hello)) => Ok(Some(*hello)),
            // ADMISSION-3: a gateway that was not admitted opens nothing.
            Some(_) => Err(self.greeting.fail(Violation::UnexpectedFrame.into())),
        }
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
        mut self,
        now: Instant,
        config: Arc<Config>,
        out: &mut Transmit,
    ) -> Result<Connection, Self> {
        let theirs = match &self.greeting.theirs {
            Some(theirs) if !self.refused && self.greeting.closed.is_none() => theirs.limits,
            Some(_) | None => return Err(self),
        };
        let local = config.limits();
        self.answer(Admission::Active(Activation::new(local)));
        self.greeting.poll_transmit(now, out);
        let agreed = self.greeting.agree(local, theirs, None);
        Ok(Connection::new(now, agreed, config).carry_on(self.greeting.liveness))
    }

    /// ADMISSION-1. Only the latest word counts if several were said before one was sent.
    fn answer(&mut self, admission: Admission) {
        let queue = &mut self.greeting.queue;
        queue.retain(|frame| !matches!(frame, Frame::Admission(_)));
        queue.push_back(Frame::Admission(Box::new(admission)));
    }
}
