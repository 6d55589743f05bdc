//! The session: every stream of a link, driven by bytes and time.

#[cfg(test)]
mod audit;
pub(crate) mod budget;
mod chunks;
mod flow;
mod handles;
mod input;
pub(crate) mod liveness;
mod memory;
mod replay;
mod resume;
mod schedule;
mod streams;
mod turns;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use self::{
    budget::Budget,
    chunks::COPY_TO_SEND,
    flow::{Credit, Window},
    liveness::Liveness,
    memory::Memory,
    replay::Replay,
    schedule::Schedule,
    streams::{RecvState, SendState, Stream, Streams},
};
pub use self::{
    handles::{ReadError, RecvStream, SendStream, WriteError},
    resume::{Position, ResumeError},
};
use crate::{
    Agreed, CloseCode, Config, Features, Frame, GoAway, LastStream, MAX_OPEN_HEAD, OpenHeader,
    ResetCode, StreamId, Transmit, Violation, slab::Slab,
};

/// Something that happened to the session. Fetched by [`Connection::poll_event`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream; first payload may already be readable.
    Opened {
        /// The stream.
        id: StreamId,
        /// What the peer said about it.
        header: OpenHeader,
    },
    /// A read will get payload or the end. At most one waits per stream.
    Readable {
        /// The stream.
        id: StreamId,
    },
    /// A write that was cut short may go on. At most one waits per stream.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The peer aborted its direction, or refused the stream ([`ResetCode::REFUSED`]); reads say so too.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// The peer wants no more of this side's direction; writes say so too.
    Stopped {
        /// The stream.
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// Both directions have ended and both halves were let go: the stream is no more.
    StreamClosed {
        /// The stream.
        id: StreamId,
    },
    /// [`Connection::open`] will work again after [`OpenError::NoSlot`].
    StreamsAvailable,
    /// The peer takes no new streams, from now on or soon.
    GoAway {
        /// What it still processes; [`LastStream::Any`] is the warning that comes first.
        last: LastStream,
        /// Why.
        code: CloseCode,
        /// How long running streams may take.
        drain: Option<Duration>,
        /// For people.
        text: String,
    },
    /// One side is going away and the last stream has ended: the link may be closed.
    Drained,
    /// A ping was answered after this long.
    Rtt(Duration),
    /// Nothing was heard for too long, so that the session, which can be resumed, has let go of its link.
    Detached,
    /// The session has ended. The last event.
    Closed(ConnectionError),
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer broke the protocol.
    #[error("peer misbehaved")]
    PeerMisbehaved(#[from] Violation),
    /// The peer sent CLOSE.
    #[error("closed by peer: {code}")]
    ClosedByPeer {
        /// Why.
        code: CloseCode,
        /// For people; the peer's words.
        text: String,
    },
    /// This side called [`Connection::close`].
    #[error("closed here: {code}")]
    ClosedHere {
        /// Why.
        code: CloseCode,
        /// For people.
        text: String,
    },
    /// Nothing was heard for [`Connection::silence`].
    #[error("peer is silent")]
    Silent,
    /// Nobody came back to a session without a link in time.
    #[error("no new link in time")]
    Expired,
}

impl ConnectionError {
    /// CLOSE-2: what the peer is told, if it is told anything.
    pub(crate) fn close_frame(&self) -> Option<Frame> {
        let (code, text) = match self {
            Self::PeerMisbehaved(violation) => (violation.close_code(), violation.to_string()),
            Self::ClosedHere { code, text } => (*code, text.clone()),
            Self::Silent => (CloseCode::SILENCE, String::new()),
            Self::ClosedByPeer { .. } | Self::Expired => return None,
        };
        Some(Frame::Close { code, text })
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// As many as allowed are open; [`Event::StreamsAvailable`] says when to try again.
    #[error("no slot for another stream")]
    NoSlot,
    /// One side is going away: open it on another link.
    #[error("going away")]
    GoingAway,
    /// The head exceeds [`MAX_OPEN_HEAD`].
    #[error("head too long")]
    HeadTooLong,
    /// All ids are used; a new session is needed.
    #[error("stream ids used up")]
    IdsExhausted,
    /// The session has ended.
    #[error("closed")]
    Closed,
}

/// How far this side's going away has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Departure {
    Staying,
    WarningDue,
    /// The pong to a ping sent after this one is awaited.
    Warned {
        after: u64,
    },
    FinalDue,
    Final,
}

/// One session over one link: bytes and time in, frames and events out.
///
/// It does no IO, reads no clock and never blocks. Its methods are in four groups:
///
/// 1. **The link**, called by whoever owns the socket: [`handle_input`](Self::handle_input) after each
///    read, [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has passed,
///    [`poll_transmit`](Self::poll_transmit) for what to write, [`poll_event`](Self::poll_event) for what happened.
/// 2. **Change of link**, for sessions that survive theirs: [`detach`](Self::detach), [`position`](Self::position),
///    [`attach`](Self::attach).
/// 3. **The application**: [`open`](Self::open), [`send_stream`](Self::send_stream),
///    [`recv_stream`](Self::recv_stream), and at the end [`go_away`](Self::go_away) and [`close`](Self::close).
/// 4. **Questions**: [`rtt`](Self::rtt), [`live_streams`](Self::live_streams), [`has_stream`](Self::has_stream), [`agreed`](Self::agreed),
///    [`memory_wanted`](Self::memory_wanted), [`wants_transmit`](Self::wants_transmit), [`is_closed`](Self::is_closed).
///
/// After any call of the first three groups, and in this order: `poll_event` until `None` (what the application
/// does on an event may make more to send), `poll_transmit` until `false` with a write of the output
/// whenever it is full, then wait for the socket, the application or `poll_timeout`, which is asked anew each time.
///
/// Every stream's two halves must be let go by the application: the sending one by
/// [`finish`](SendStream::finish) or [`reset`](SendStream::reset), the receiving one by reading to its end
/// or by [`stop`](RecvStream::stop). Until then the stream keeps its slot.
///
/// Events are bounded by what a read brings: per stream one `Opened`, one `Reset`, one `Stopped`, and one waiting
/// `Readable` and `Writable`.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    agreed: Agreed,
    streams: Streams,
    schedule: Schedule,
    liveness: Liveness,
    budget: Budget,
    events: VecDeque<Event>,
    /// Session credit to send with.
    credit: Credit,
    /// Session credit given.
    window: Window,
    /// What windows and retained bytes take beyond the least.
    memory: Memory,
    /// Bytes accepted from the application and not transmitted, all streams.
    buffered: usize,
    departure: Departure,
    /// What our GOAWAYs say.
    goaway: GoAway,
    peer_goaway: Option<LastStream>,
    drained: bool,
    closed: Option<ConnectionError>,
    close_frame: Option<Frame>,
    /// Length of the partial frame that the last call left in the input.
    partial: usize,
    /// Where received payloads lie that are not worth a read buffer.
    slab: Slab,
    /// Present if the session survives its link.
    replay: Option<Box<Replay>>,
    /// Without a link until then.
    detached: Option<Instant>,
    /// All credits are to be said again.
    credits_due: bool,
}

/// The link.
impl Connection {
    /// A session on what both sides agreed, as [`crate::GatewayHandshake`] and [`crate::EdgeHandshake`] make it.
    #[must_use]
    pub fn new(now: Instant, agreed: Agreed, config: Arc<Config>) -> Self {
        let replay = (agreed.features.contains(Features::RESUME) && agreed.resumable.is_some())
            .then(|| Box::new(Replay::new(config.retained())));
        Self {
            streams: Streams::new(&agreed, &config),
            schedule: Schedule::default(),
            liveness: Liveness::new(now, &config).adapting(replay.is_some()),
            budget: Budget::new(),
            events: VecDeque::new(),
            credit: Credit::new(agreed.peer.session_window),
            window: Window::new(agreed.local.session_window),
            memory: Memory::new(),
            buffered: 0,
            departure: Departure::Staying,
            goaway: GoAway::new(LastStream::Any, CloseCode::NO_ERROR),
            peer_goaway: None,
            drained: false,
            closed: None,
            close_frame: None,
            partial: 0,
            slab: Slab::new(),
            replay,
            detached: None,
            credits_due: false,
            config,
            agreed,
        }
    }

    /// Goes on with the pings of the handshake.
    pub(crate) fn carry_on(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness.adapting(self.replay.is_some());
        self
    }

    /// Takes every whole frame off `input` and leaves a partial one, at most one frame long, in it.
    /// Payloads of 1 KiB and more are slices of `input`'s buffer; smaller ones are copied and share 16 KiB.
    ///
    /// # Errors
    /// The end of the session, which [`Event::Closed`] says too. [`poll_transmit`](Self::poll_transmit) may still
    /// have a CLOSE to send.
    pub fn handle_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<(), ConnectionError> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.detached.is_some() {
            // Whatever a dead link still brings will be sent again.
            input.clear();
            return Ok(());
        }
        // PING-3: any byte is life.
        if input.len() > self.partial {
            self.liveness.on_heard(now);
        }
        let outcome = self.read(now, input);
        self.partial = input.len();
        if let Err(error) = &outcome {
            self.end(error.clone());
        }
        outcome
    }

    /// The machine has slept for so long, which `now` need not show: clocks that count time usually stand still
    /// meanwhile. A ping asks for the peer at once. If the session survives its link, the time counts as silence too:
    /// after a long sleep the link is dead. To be followed by [`handle_timeout`](Self::handle_timeout), after what the link
    /// has brought.
    pub fn on_sleep(&mut self, slept: Duration) {
        self.liveness.on_sleep(slept);
    }

    /// Notices silence. Pings that are due are sent by [`poll_transmit`](Self::poll_transmit), to be called after this.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        self.schedule.unpace(now);
        if self.detached.is_some() {
            self.expire(now);
        } else if self.liveness.is_silent(now) {
            match self.detach(now) {
                Ok(()) => self.events.push_back(Event::Detached),
                Err(_) => self.end(ConnectionError::Silent),
            }
        }
    }

    /// Adds frames to `out` until it is full or none is left; says whether any was added.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.transmit(now, out)
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match &event {
            Event::Readable { id } => {
                if let Some(stream) = self.streams.get_mut(*id) {
                    stream.recv.readable_queued = false;
                }
            }
            Event::Writable { id } => {
                if let Some(stream) = self.streams.get_mut(*id) {
                    stream.send.writable_queued = false;
                }
            }
            Event::Opened { .. }
            | Event::Reset { .. }
            | Event::Stopped { .. }
            | Event::StreamClosed { .. }
            | Event::StreamsAvailable
            | Event::GoAway { .. }
            | Event::Drained
            | Event::Detached
            | Event::Rtt(_)
            | Event::Closed(_) => {}
        }
        Some(event)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (&self.closed, self.detached) {
            (Some(_), _) => None,
            (None, Some(deadline)) => Some(deadline),
            (None, None) => {
                let ping = self.liveness.deadline();
                let paced = self.schedule.paced_until();
                Some(paced.map_or(ping, |paced| paced.min(ping)))
            }
        }
    }
}

/// The application.
impl Connection {
    /// Opens a stream and takes as much of the front of `first` as there is room for; the rest is for
    /// [`SendStream::write`]. OPEN leaves with the next [`poll_transmit`](Self::poll_transmit), without
    /// waiting for the peer.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is taken then.
    pub fn open(&mut self, header: OpenHeader, first: &mut Bytes) -> Result<StreamId, OpenError> {
        if self.closed.is_some() {
            return Err(OpenError::Closed);
        }
        // GOAWAY-1
        if self.is_going_away() {
            return Err(OpenError::GoingAway);
        }
        if header.encoded_len() > MAX_OPEN_HEAD {
            return Err(OpenError::HeadTooLong);
        }
        if !self.streams.has_slot() {
            self.streams.starved = true;
            return Err(OpenError::NoSlot);
        }
        let id = self.streams.allocate().ok_or(OpenError::IdsExhausted)?;
        let mut stream = Stream::new(header.urgency, &self.agreed);
        stream.unsent = Some(Box::new(header));
        let room = stream
            .send
            .capacity(&self.config, self.buffered)
            .min(first.len());
        stream.send.blocked = room < first.len();
        stream.send.credit.spend(flow::amount(room));
        stream.send.buffer.push(first.split_to(room), COPY_TO_SEND);
        self.buffered = self.buffered.saturating_add(room);
        self.streams.insert_local(id, stream);
        self.schedule.push_open(id);
        Ok(id)
    }

    /// The sending half, until the application has finished or reset it.
    pub fn send_stream(&mut self, id: StreamId) -> Option<SendStream<'_>> {
        let alive = self.streams.get(id).is_some_and(|s| !s.send.released);
        alive.then_some(SendStream {
            connection: self,
            id,
        })
    }

    /// The receiving half, until the application has seen its end or stopped it.
    pub fn recv_stream(&mut self, id: StreamId) -> Option<RecvStream<'_>> {
        let alive = self.streams.get(id).is_some_and(|s| !s.recv.released);
        alive.then_some(RecvStream {
            connection: self,
            id,
        })
    }
}

/// The end.
impl Connection {
    /// Takes no new streams, in two steps so that none is lost: a warning, then, once the peer has surely
    /// seen it, the last id. Running streams go on; [`Event::Drained`] says when the last has ended. `drain`
    /// tells the peer how long they may take. A second call skips the wait for the peer.
    pub fn go_away(&mut self, code: CloseCode, drain: Option<Duration>, text: &str) {
        match self.departure {
            Departure::Staying => {
                self.goaway = GoAway::new(LastStream::Any, code);
                text.clone_into(&mut self.goaway.text);
                self.goaway.drain_millis = drain.map_or(0, |drain| {
                    u32::try_from(drain.as_millis()).unwrap_or(u32::MAX).max(1)
                });
                self.departure = Departure::WarningDue;
            }
            Departure::WarningDue | Departure::Warned { .. } => {
                self.departure = Departure::FinalDue;
            }
            Departure::FinalDue | Departure::Final => {}
        }
    }

    /// Ends the session at once; CLOSE is the last thing to be sent.
    pub fn close(&mut self, code: CloseCode, text: &str) {
        if self.closed.is_none() {
            let text = text.to_owned();
            self.end(ConnectionError::ClosedHere { code, text });
        }
    }

    /// Whether the session has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// CLOSE-3: one CLOSE, and nothing is read or sent after it.
    fn end(&mut self, error: ConnectionError) {
        self.close_frame = error.close_frame();
        self.closed = Some(error.clone());
        self.events.push_back(Event::Closed(error));
    }
}

/// Questions.
impl Connection {
    /// Smoothed round-trip time, once a ping was answered.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.liveness.rtt()
    }

    /// Silence after which the link counts as dead now: [`Config::silence`], or less where round trips are known and
    /// a session survives its link.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.liveness.silence()
    }

    /// Streams in the table, of both sides.
    #[must_use]
    pub fn live_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether the stream is among them: once it is not, nothing happens to it any more.
    #[must_use]
    pub fn has_stream(&self, id: StreamId) -> bool {
        self.streams.get(id).is_some()
    }

    /// Bytes accepted from the application that have not been transmitted.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Whether what the application did has left something for [`poll_transmit`](Self::poll_transmit), so that
    /// whoever owns the socket should be woken. May say so in vain while session credit is spent.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        self.transmit_wanted()
    }

    /// What both sides agreed.
    #[must_use]
    pub const fn agreed(&self) -> &Agreed {
        &self.agreed
    }
}

/// What the parts share.
impl Connection {
    fn is_going_away(&self) -> bool {
        self.peer_goaway.is_some() || self.departure != Departure::Staying
    }

    fn capacity(&self, id: StreamId) -> usize {
        self.streams
            .get(id)
            .map_or(0, |s| s.send.capacity(&self.config, self.buffered))
    }

    /// RESET-1: at most once, and never after the end.
    fn reset(&mut self, id: StreamId, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.send.released = true;
        if matches!(stream.send.state, SendState::Open | SendState::Finishing) {
            self.buffered = self.buffered.saturating_sub(stream.send.buffer.clear());
            stream.send.state = SendState::Resetting(code);
            if id.opener() != self.agreed.side {
                self.budget.on_refused();
            }
            if stream.unsent.is_none() || !self.cancel_unsent(id) {
                self.queue_control(id);
            }
        }
        self.settle(id);
    }

    fn stop(&mut self, id: StreamId, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.recv.released = true;
        stream.recv.discard();
        if stream.recv.state == RecvState::Open {
            stream.recv.state = RecvState::Stopped;
            stream.recv.stop_due = Some(code);
            if stream.unsent.is_none() || !self.cancel_unsent(id) {
                self.queue_control(id);
            }
        }
        self.settle_window(id);
        self.settle(id);
    }

    /// A stream that both ends of this side gave up before OPEN left leaves no trace.
    fn cancel_unsent(&mut self, id: StreamId) -> bool {
        let dead = self.streams.get(id).is_some_and(|s| {
            matches!(s.send.state, SendState::Resetting(_)) && s.recv.state == RecvState::Stopped
        });
        if dead {
            self.schedule.cancel_open(id);
            self.streams.cancel(id);
            self.events.push_back(Event::StreamClosed { id });
            self.wake_opener();
            self.check_drained();
        }
        dead
    }

    fn queue_control(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            self.schedule.push_control(id, stream);
        }
    }

    fn wake_reader(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && !stream.recv.readable_queued
        {
            stream.recv.readable_queued = true;
            self.events.push_back(Event::Readable { id });
        }
    }

    /// A writer that was cut short goes on once its buffer is half empty and there is room.
    fn wake_writer(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let send = &mut stream.send;
        let low = send.buffer.len() <= self.config.send_buffer() / 2;
        if send.blocked
            && low
            && send.state == SendState::Open
            && send.capacity(&self.config, self.buffered) > 0
        {
            send.blocked = false;
            if !send.writable_queued {
                send.writable_queued = true;
                self.events.push_back(Event::Writable { id });
            }
        }
    }

    fn wake_opener(&mut self) {
        if self.streams.starved && self.streams.has_slot() {
            self.streams.starved = false;
            self.events.push_back(Event::StreamsAvailable);
        }
    }

    /// STREAM-3: frees the stream's slot if nothing is left of it.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id).filter(|s| s.is_over()) else {
            return;
        };
        // ACK-3: the peer gets the slot back only once it is sure that nothing of the stream is kept.
        if let Some(replay) = &mut self.replay
            && id.opener() != self.agreed.side
            && !replay.is_acknowledged(stream.kept_until)
        {
            replay.push_ending(stream.kept_until, id);
            return;
        }
        if let Some(stream) = self.streams.remove(id) {
            self.memory.release(&stream.recv);
        }
        self.events.push_back(Event::StreamClosed { id });
        self.wake_opener();
        self.check_drained();
    }

    fn check_drained(&mut self) {
        let going = self.departure == Departure::Final
            || matches!(self.peer_goaway, Some(last) if last != LastStream::Any);
        if going && !self.drained && self.streams.is_empty() {
            self.drained = true;
            self.events.push_back(Event::Drained);
        }
    }
}
