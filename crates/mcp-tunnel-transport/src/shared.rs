//! What the driver and the handles of one link share: the session and who waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use mcp_tunnel_proto::{
    CloseCode, Connection, ConnectionError, Event, OpenHeader, ResetCode, StreamId, Transmit,
};
use tokio::sync::Notify;

use crate::{
    CloseReason,
    memory::Lease,
    resume::{Gap, Replacement, Resumption},
    tls::ResumeKey,
};

/// One link's state behind one lock.
///
/// The lock is held for straight-line code only: no await, no write to a socket, no waking of a task happens under
/// it. Wakers are taken out under the lock and woken after it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// One permit per stream that waits in [`State::incoming`]; all at once when none will come any more.
    pub(crate) arrivals: Notify,
    /// One permit when a slot for a stream of ours became free.
    pub(crate) slots: Notify,
    /// All waiters, when the link ended, drained, or the peer said GOAWAY.
    pub(crate) turns: Notify,
    pub(crate) open_timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) connection: Connection,
    /// Set while the driver sleeps; whoever gives it work takes it out.
    driver: Option<Waker>,
    streams: HashMap<StreamId, Waiting>,
    /// Streams that nobody accepted yet. Bound: the number of streams that the protocol lets the peer open.
    pub(crate) incoming: VecDeque<(StreamId, OpenHeader)>,
    pub(crate) closed: Option<CloseReason>,
    /// The peer takes no new streams.
    pub(crate) going_away: Option<CloseCode>,
    pub(crate) drained: bool,
    /// This end takes no new streams of the peer once those in `incoming` are taken.
    pub(crate) departing: bool,
    /// No [`Link`](crate::Link) is left to accept, open or close.
    orphaned: bool,
    /// Its part of the memory that sessions share.
    lease: Lease,
    /// How the session is named and proven on its next link, if it survives this one.
    pub(crate) resumption: Option<Resumption>,
    /// Since when, and why, the session has no link.
    pub(crate) gap: Option<Gap>,
    /// The new link, until the driver takes it.
    pub(crate) replacement: Option<Replacement>,
}

/// Who waits for one stream, and what it was told.
#[derive(Debug, Default)]
struct Waiting {
    wakers: [Option<Waker>; Interest::COUNT],
    /// The peer aborted what it was sending.
    reset: Option<ResetCode>,
    /// The peer does not want what is sent.
    stopped: Option<ResetCode>,
}

/// What of a stream a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    Reset,
    Stop,
}

impl Interest {
    const COUNT: usize = 4;
}

/// What is to be woken once the lock is gone.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    wakers: Vec<Waker>,
    arrivals: usize,
    slots: bool,
    pub(crate) turns: bool,
}

impl Shared {
    pub(crate) fn new(
        mut connection: Connection,
        key: Option<ResumeKey>,
        open_timeout: Duration,
        lease: Lease,
    ) -> Arc<Self> {
        connection.allow_memory(0);
        let resumption = Resumption::of(&connection, key);
        let state = State {
            connection,
            driver: None,
            streams: HashMap::new(),
            incoming: VecDeque::new(),
            closed: None,
            going_away: None,
            drained: false,
            departing: false,
            orphaned: false,
            lease,
            resumption,
            gap: None,
            replacement: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            arrivals: Notify::new(),
            slots: Notify::new(),
            turns: Notify::new(),
            open_timeout,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics; if it did, the session's own checks still hold.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the driver look at what was just done, without the lock.
    pub(crate) fn wake_driver(mut state: MutexGuard<'_, State>) {
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Ends the link from this side.
    pub(crate) fn close(&self, code: CloseCode, text: &str) {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        state.connection.close(code, text);
        state.take_events(&mut wakes);
        Self::wake_driver(state);
        self.wake(&mut wakes);
    }

    /// Records how the link ended and wakes everybody; the first reason stays. Answers the one that counts.
    pub(crate) fn end(&self, reason: CloseReason) -> CloseReason {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        state.on_closed(reason.clone(), &mut wakes);
        let reason = state.closed.clone().unwrap_or(reason);
        drop(state);
        self.wake(&mut wakes);
        reason
    }

    /// The last [`Link`](crate::Link) is gone: refuses what nobody will accept, and closes once no stream is left.
    pub(crate) fn orphan(&self) {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        state.orphaned = true;
        let refused = std::mem::take(&mut state.incoming);
        for (id, _) in refused {
            state.abandon(id, ResetCode::REFUSED);
        }
        state.close_if_orphaned();
        state.take_events(&mut wakes);
        Self::wake_driver(state);
        self.wake(&mut wakes);
    }

    pub(crate) fn wake(&self, wakes: &mut Wakes) {
        for waker in wakes.wakers.drain(..) {
            waker.wake();
        }
        for _ in 0..std::mem::take(&mut wakes.arrivals) {
            self.arrivals.notify_one();
        }
        if std::mem::take(&mut wakes.slots) {
            self.slots.notify_one();
        }
        if std::mem::take(&mut wakes.turns) {
            self.turns.notify_waiters();
            self.arrivals.notify_waiters();
            self.slots.notify_waiters();
        }
    }
}

impl State {
    /// The driver goes to sleep after this look; it is woken as soon as there is work.
    pub(crate) fn park_driver(&mut self, cx: &Context<'_>) {
        match &self.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.driver = Some(cx.waker().clone()),
        }
    }

    /// Remembers who waits for what of a stream.
    pub(crate) fn park(&mut self, id: StreamId, interest: Interest, cx: &Context<'_>) {
        let waiting = self.streams.entry(id).or_default();
        if let Some(slot) = waiting.wakers.get_mut(interest as usize) {
            match slot {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => *slot = Some(cx.waker().clone()),
            }
        }
    }

    /// The peer's RESET of a stream, once it came.
    pub(crate) fn reset(&self, id: StreamId) -> Option<ResetCode> {
        self.streams.get(&id)?.reset
    }

    /// The peer's STOP of a stream, once it came.
    pub(crate) fn stopped(&self, id: StreamId) -> Option<ResetCode> {
        self.streams.get(&id)?.stopped
    }

    /// Gives up both directions of a stream.
    pub(crate) fn abandon(&mut self, id: StreamId, code: ResetCode) {
        if let Some(send) = self.connection.send_stream(id) {
            send.reset(code);
        }
        if let Some(recv) = self.connection.recv_stream(id) {
            recv.stop(code);
        }
    }

    /// Gathers what the session has to say, until it has said all or the batch is full.
    pub(crate) fn gather(&mut self, now: Instant, batch: &mut Transmit) {
        // A last word is said whatever waits before it.
        let last_word = self.closed.is_some();
        while (last_word || !batch.is_full()) && self.connection.poll_transmit(now, batch) {}
    }

    /// Lets the session have what it wants of the memory that sessions share, if there is some. Says whether that has
    /// changed: then it may have something to send.
    pub(crate) fn share_memory(&mut self) -> bool {
        let change = self.lease.follow(self.connection.memory_wanted());
        if let Some(bytes) = change {
            self.connection.allow_memory(bytes);
        }
        change.is_some()
    }

    /// Takes note of what happened in the session.
    pub(crate) fn take_events(&mut self, wakes: &mut Wakes) {
        while let Some(event) = self.connection.poll_event() {
            self.on_event(event, wakes);
        }
    }

    fn on_event(&mut self, event: Event, wakes: &mut Wakes) {
        match event {
            Event::Readable { id } => self.wake_one(id, Interest::Read, wakes),
            Event::Writable { id } => self.wake_one(id, Interest::Write, wakes),
            Event::Opened { id, .. } if self.orphaned => self.abandon(id, ResetCode::REFUSED),
            Event::Opened { id, header } => {
                self.incoming.push_back((id, header));
                wakes.arrivals += 1;
            }
            Event::Reset { id, code } => {
                let waiting = self.streams.entry(id).or_default();
                waiting.reset = Some(code);
                waiting.wake_all(wakes);
            }
            Event::Stopped { id, code } => {
                let waiting = self.streams.entry(id).or_default();
                waiting.stopped = Some(code);
                waiting.wake_all(wakes);
            }
            Event::StreamClosed { id } => {
                // Who waits for an abort learns that none will come.
                if let Some(mut waiting) = self.streams.remove(&id) {
                    waiting.wake_all(wakes);
                }
                self.close_if_orphaned();
            }
            Event::StreamsAvailable => wakes.slots = true,
            Event::GoAway { code, .. } => {
                self.going_away = Some(code);
                wakes.turns = true;
            }
            Event::Drained => {
                self.drained = true;
                wakes.turns = true;
            }
            Event::Detached => {
                let after = self.connection.silence();
                self.on_detached(CloseReason::Silent { after }, wakes);
            }
            Event::Closed(ConnectionError::Expired) => {
                let reason = self.expired();
                self.on_closed(reason, wakes);
            }
            Event::Closed(error) => {
                let reason = CloseReason::of(error, self.connection.silence());
                self.on_closed(reason, wakes);
            }
            // `Rtt` is asked for when it is wanted.
            _ => {}
        }
    }

    fn wake_one(&mut self, id: StreamId, interest: Interest, wakes: &mut Wakes) {
        if let Some(waiting) = self.streams.get_mut(&id)
            && let Some(slot) = waiting.wakers.get_mut(interest as usize)
        {
            wakes.wakers.extend(slot.take());
        }
    }

    pub(crate) fn on_closed(&mut self, reason: CloseReason, wakes: &mut Wakes) {
        if self.closed.is_none() {
            self.closed = Some(reason);
            for waiting in self.streams.values_mut() {
                waiting.wake_all(wakes);
            }
        }
        wakes.turns = true;
    }

    fn close_if_orphaned(&mut self) {
        if self.orphaned && self.connection.live_streams() == 0 {
            self.connection.close(CloseCode::NO_ERROR, "");
        }
    }

    /// How many streams somebody waits for, or has waited for.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.streams.len()
    }

    /// What may still be accepted.
    pub(crate) fn is_accepting(&self) -> bool {
        self.closed.is_none() && !self.drained
    }
}

impl Waiting {
    fn wake_all(&mut self, wakes: &mut Wakes) {
        let wakers = self.wakers.iter_mut().filter_map(Option::take);
        wakes.wakers.extend(wakers);
    }
}
