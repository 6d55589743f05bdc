//! The table of streams, and what each half of one may still do.

use std::collections::{BTreeMap, VecDeque};

use super::{
    chunks::Chunks,
    flow::{self, Credit, Window},
};
use crate::{
    Agreed, Config, LastStream, OpenHeader, ResetCode, Side, StreamId, Urgency, Violation,
};

/// How many closed streams are remembered, so that late frames for them are ignored (STREAM-4).
const RECENTLY_CLOSED: usize = 256;

/// One stream: two halves that end apart (STREAM-2).
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) urgency: Urgency,
    /// The head of an OPEN that has not been transmitted.
    pub(crate) unsent: Option<Box<OpenHeader>>,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    /// In the queue of streams with control frames to send.
    pub(crate) in_control: bool,
    /// In one of the queues of streams with payload to send.
    pub(crate) in_ready: bool,
    /// Position behind its last session frame, where frames are kept.
    pub(crate) kept_until: u64,
}

impl Stream {
    pub(crate) fn new(urgency: Urgency, agreed: &Agreed) -> Self {
        Self {
            urgency,
            unsent: None,
            send: SendHalf::new(agreed.peer.stream_window),
            recv: RecvHalf::new(agreed.local.stream_window),
            in_control: false,
            in_ready: false,
            kept_until: 0,
        }
    }

    /// STREAM-3: both directions have ended on the wire and the application has let go of both.
    pub(crate) fn is_over(&self) -> bool {
        self.send.state == SendState::Ended
            && self.send.released
            && self.recv.state.is_ended()
            && self.recv.released
    }
}

/// The direction from here to the peer.
///
/// ```text
///            finish                 last payload sent
///   Open ─────────────► Finishing ─────────────────────► Ended
///     │                     │                              ▲
///     └──── reset, STOP ────┴──────► Resetting ── sent ────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendState {
    Open,
    /// The application has written all; the end is not sent yet.
    Finishing,
    /// RESET is to be sent.
    Resetting(ResetCode),
    /// The end was sent, whichever.
    Ended,
}

#[derive(Debug)]
pub(crate) struct SendHalf {
    pub(crate) state: SendState,
    pub(crate) buffer: Chunks,
    pub(crate) credit: Credit,
    /// The peer wants no more, or refused the stream.
    pub(crate) stopped: Option<ResetCode>,
    /// The application has finished or reset it.
    pub(crate) released: bool,
    /// A write was cut short; the application waits for `Writable`.
    pub(crate) blocked: bool,
    /// `Writable` is in the queue of events.
    pub(crate) writable_queued: bool,
}

impl SendHalf {
    fn new(window: u64) -> Self {
        Self {
            state: SendState::Open,
            buffer: Chunks::default(),
            credit: Credit::new(window),
            stopped: None,
            released: false,
            blocked: false,
            writable_queued: false,
        }
    }

    /// What may be accepted now, `buffered` being what all streams of the session hold.
    ///
    /// Nothing is accepted that the peer has no room for: credit is spent here, so that a stream whose
    /// reader is slow never holds payload that cannot leave.
    pub(crate) fn capacity(&self, config: &Config, buffered: usize) -> usize {
        let own = self.buffer.len();
        let session = config.session_send_buffer().saturating_sub(buffered);
        let assured = crate::QUANTUM.saturating_sub(own);
        config
            .send_buffer()
            .saturating_sub(own)
            .min(session.max(assured))
            .min(flow::length(self.credit.available()))
    }
}

/// The direction from the peer to here.
///
/// ```text
///            FIN
///   Open ──────────► Finished        payload may be unread
///    │ │     RESET
///    │ └───────────► Reset
///    │ stop                 FIN, RESET
///    └─────────────► Stopped ─────────► Discarded
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecvState {
    Open,
    Finished,
    Reset(ResetCode),
    /// The application wants no more; what comes is dropped until the peer ends it.
    Stopped,
    Discarded,
}

impl RecvState {
    /// The peer will send nothing more in this direction.
    pub(crate) const fn is_ended(self) -> bool {
        match self {
            Self::Open | Self::Stopped => false,
            Self::Finished | Self::Reset(_) | Self::Discarded => true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct RecvHalf {
    pub(crate) state: RecvState,
    pub(crate) buffer: Chunks,
    pub(crate) window: Window,
    /// Memory that its window has taken beyond that of every stream.
    pub(crate) taken: u64,
    /// The size that its window was refused for want of it; zero if it was not.
    pub(crate) refused: u64,
    /// STOP is to be sent.
    pub(crate) stop_due: Option<ResetCode>,
    /// STREAM_CREDIT is to be sent.
    pub(crate) credit_due: bool,
    /// It is to be sent even if it says nothing new.
    pub(crate) credit_again: bool,
    /// The application has seen the end or stopped it.
    pub(crate) released: bool,
    /// `Readable` is in the queue of events.
    pub(crate) readable_queued: bool,
}

impl RecvHalf {
    fn new(window: u64) -> Self {
        Self {
            state: RecvState::Open,
            buffer: Chunks::default(),
            window: Window::new(window),
            taken: 0,
            refused: 0,
            stop_due: None,
            credit_due: false,
            credit_again: false,
            released: false,
            readable_queued: false,
        }
    }

    /// Drops what is unread.
    pub(crate) fn discard(&mut self) {
        let unread = self.buffer.clear();
        self.window.consume(flow::amount(unread));
        self.credit_due = false;
    }
}

/// Why a frame names a stream that is not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It was in the table a moment ago, or was skipped, or refused.
    Closed { recently: bool },
    /// It never was.
    Unopened,
}

/// All streams of a session, and who may open how many more.
#[derive(Debug)]
pub(crate) struct Streams {
    side: Side,
    map: BTreeMap<StreamId, Box<Stream>>,
    /// `None` once ids are used up.
    next_local: Option<StreamId>,
    /// Streams of this side in the table.
    live_local: u32,
    max_local: u32,
    /// Streams this side may open.
    pub(crate) credit: Credit,
    /// `open` was refused for want of a slot; `StreamsAvailable` is owed.
    pub(crate) starved: bool,
    /// Streams the peer may open.
    pub(crate) window: Window,
    highest_remote: Option<StreamId>,
    /// What this side's final GOAWAY accepted.
    pub(crate) accepted: LastStream,
    recent: VecDeque<StreamId>,
}

impl Streams {
    pub(crate) fn new(agreed: &Agreed, config: &Config) -> Self {
        Self {
            side: agreed.side,
            map: BTreeMap::new(),
            next_local: Some(StreamId::first(agreed.side)),
            live_local: 0,
            max_local: config.max_opened_streams(),
            credit: Credit::new(agreed.peer.max_streams),
            starved: false,
            window: Window::new(agreed.local.max_streams),
            highest_remote: None,
            accepted: LastStream::Any,
            recent: VecDeque::new(),
        }
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.map.get_mut(&id).map(Box::as_mut)
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.map.get(&id).map(Box::as_ref)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) const fn highest_remote(&self) -> Option<StreamId> {
        self.highest_remote
    }

    /// Whether this side has a slot for one more stream of its own.
    pub(crate) fn has_slot(&self) -> bool {
        self.credit.available() > 0 && self.live_local < self.max_local
    }

    /// The id for the next stream of this side.
    pub(crate) fn allocate(&mut self) -> Option<StreamId> {
        let id = self.next_local?;
        self.next_local = id.next();
        Some(id)
    }

    pub(crate) fn insert_local(&mut self, id: StreamId, stream: Stream) {
        self.credit.spend(1);
        self.live_local += 1;
        self.map.insert(id, Box::new(stream));
    }

    pub(crate) fn insert_remote(&mut self, id: StreamId, stream: Stream) {
        self.map.insert(id, Box::new(stream));
    }

    /// Checks the id of an OPEN and counts it. `false`: this side's GOAWAY refused it.
    pub(crate) fn admit_remote(&mut self, id: StreamId) -> Result<bool, Violation> {
        // OPEN-1
        if id.opener() == self.side {
            return Err(Violation::StreamParity);
        }
        // OPEN-2
        if self.highest_remote.is_some_and(|highest| id <= highest) {
            return Err(Violation::StreamReused);
        }
        // OPEN-4
        if !self.window.receive(1) {
            return Err(Violation::StreamLimit);
        }
        self.highest_remote = Some(id);
        // GOAWAY-5
        if self.accepted.refuses(id) {
            self.window.consume(1);
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes a stream that is over out of the table. Its slot is free from here on.
    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Box<Stream>> {
        let stream = self.map.remove(&id)?;
        if id.opener() == self.side {
            self.live_local = self.live_local.saturating_sub(1);
        } else {
            self.window.consume(1);
        }
        if self.recent.len() == RECENTLY_CLOSED {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        Some(stream)
    }

    /// Takes back a stream whose OPEN never left.
    pub(crate) fn cancel(&mut self, id: StreamId) -> Option<Box<Stream>> {
        let stream = self.map.remove(&id)?;
        self.live_local = self.live_local.saturating_sub(1);
        self.credit.refund(1);
        Some(stream)
    }

    /// Why a frame for `id` finds no stream.
    pub(crate) fn why_absent(&self, id: StreamId) -> Absent {
        let opened = if id.opener() == self.side {
            self.next_local.is_none_or(|next| id < next)
        } else {
            self.highest_remote.is_some_and(|highest| id <= highest)
        };
        // One in the table was not found for a reason: its OPEN has not left.
        if !opened || self.map.contains_key(&id) {
            return Absent::Unopened;
        }
        let refused = id.opener() != self.side && self.accepted.refuses(id);
        Absent::Closed {
            recently: refused || self.recent.contains(&id),
        }
    }

    /// Streams whose peer may still need credit.
    pub(crate) fn receiving(&self) -> impl Iterator<Item = StreamId> {
        let open = self.map.iter();
        open.filter(|(_, s)| s.recv.state == RecvState::Open && s.unsent.is_none())
            .map(|(id, _)| *id)
    }

    /// Whether this side has few slots left, or none: then the peer must hear at once which streams have ended.
    pub(crate) const fn is_short(&self) -> bool {
        self.starved || self.credit.available() < 16
    }

    #[cfg(test)]
    pub(crate) const fn is_none_of_ours_live(&self) -> bool {
        self.live_local == 0
    }

    /// Streams of this side that the peer's `last` leaves out.
    pub(crate) fn refused_by(&self, last: LastStream) -> Vec<StreamId> {
        self.map
            .keys()
            .copied()
            .filter(|id| id.opener() == self.side && last.refuses(*id))
            .collect()
    }
}
