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
//!
//!       |  HELLO (claim), RESUME (position) ----> |   on a new link of an old session
//!       | <---------- HELLO, RESUME (position)    |   resume
//!       |         both sides: Connection::attach  |
//! ```

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
        pub fn rtt(&self) -> Option<std::time::Duration> {
            self.greeting.liveness.rtt()
        }
    };
}

mod edge;
mod gateway;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::BytesMut;

pub use self::{
    edge::EdgeHandshake,
    gateway::{GatewayEvent, GatewayHandshake},
};

use crate::{
    CloseCode, Config, ConnectionError, EncodeError, Features, Frame, Hello, Limits, MAX_HELLO,
    Resumable, Side, Transmit, Violation,
    connection::{budget::Budget, liveness::Liveness},
    frame::{self, HEADER, Head, kind},
};

/// What both sides agreed on; the basis of a [`Connection`](crate::Connection).
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
            resumable: resumable.filter(|_| self.offers(theirs, Features::RESUME)),
        }
    }

    fn offers(&self, theirs: Features, feature: Features) -> bool {
        self.ours.features.and(theirs).contains(feature)
    }
}
