//! Memory beyond what every stream and session has: wide windows, and much that is retained.
//!
//! The session takes it, within what it was allowed, and says what it would take if it might. Whoever owns several
//! sessions thus keeps all of them within one budget, by numbers that go in and out between two calls.
#![warn(clippy::arithmetic_side_effects)]

use std::time::{Duration, Instant};

use super::{
    Connection,
    flow::{self, FRAME},
    streams::{RecvHalf, RecvState},
};
use crate::StreamId;

/// Round trips count as no shorter: at both ends there is a process that must be woken. Any longer, and a reader that is
/// slower than its sender finds what it is allowed in line before every small answer: at 1 ms and 3 GB/s that were 6 MB.
const LEAST_ROUND_TRIP: Duration = Duration::from_micros(100);

/// Twice the bytes per second of the fastest link for which a first wide window is not too narrow, 10 Gbit/s.
const TWICE_THE_FASTEST: u64 = 2 * 1_250_000_000;

/// The round trip of a link that has answered no ping yet.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(50);

/// What is taken, and what may be.
#[derive(Debug)]
pub(crate) struct Memory {
    /// By windows beyond the first one of their stream.
    windows: u64,
    /// By what may be retained beyond the least.
    retained: u64,
    /// What both may be.
    allowed: u64,
    /// What both would be if it were allowed.
    wanted: u64,
    /// The last stream whose window was refused some.
    refused: Option<StreamId>,
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            windows: 0,
            retained: 0,
            allowed: u64::MAX,
            wanted: 0,
            refused: None,
        }
    }

    const fn taken(&self) -> u64 {
        self.windows.saturating_add(self.retained)
    }

    #[cfg(test)]
    pub(super) const fn is_no_window_wide(&self) -> bool {
        self.windows == 0
    }

    /// As much of `more` as is allowed; what is not is wanted.
    fn room_for(&mut self, more: u64) -> u64 {
        let room = self.allowed.saturating_sub(self.taken());
        if more > room {
            self.wanted = self.wanted.max(self.taken().saturating_add(more));
        }
        more.min(room)
    }

    /// Takes memory for a window that has `taken` already and would like `wanted`; says what it has then, and whether it
    /// was allowed less than it might have.
    ///
    /// No window takes more than it leaves to the others of its session, so that a newcomer always finds some.
    fn take_window(&mut self, taken: u64, wanted: u64, most: u64) -> (u64, bool) {
        let free = most.saturating_sub(self.windows);
        let share = taken.saturating_add(free) / 2;
        let more = wanted.min(share).saturating_sub(taken);
        let allowed = self.room_for(more);
        self.windows = self.windows.saturating_add(allowed);
        (taken.saturating_add(allowed), allowed < more)
    }

    /// A stream is no more.
    pub(super) fn release(&mut self, recv: &RecvHalf) {
        self.windows = self.windows.saturating_sub(recv.taken);
    }

    /// Takes note of what the window of `recv` may have to hold now, `first` being what every stream's may.
    fn settle(&mut self, recv: &mut RecvHalf, first: u64) {
        let held = match recv.state {
            RecvState::Open => recv.window.promised().max(recv.window.size()),
            RecvState::Finished => flow::amount(recv.buffer.len()),
            // What still comes is dropped.
            RecvState::Reset(_) | RecvState::Stopped | RecvState::Discarded => 0,
        };
        let taken = held.saturating_sub(first).min(recv.taken);
        self.windows = self
            .windows
            .saturating_sub(recv.taken.saturating_sub(taken));
        recv.taken = taken;
    }
}

/// Memory, for whoever shares one budget among sessions.
impl Connection {
    /// Bytes that the session has taken beyond what every stream and session has: what its windows promise above
    /// [`Config::stream_window`](crate::Config::stream_window), and what it may retain above [`Config::retained`](crate::Config::retained).
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory.taken()
    }

    /// What [`memory`](Self::memory) would be if it were allowed, or would have been a moment ago; never less than it is.
    #[must_use]
    pub fn memory_wanted(&self) -> u64 {
        self.memory.wanted.max(self.memory.taken())
    }

    /// Allows the session this much [`memory`](Self::memory). Without a call there is no bound but those of
    /// [`Config`](crate::Config). What it has taken stays taken until it is used up: a promise to a peer cannot be taken back.
    ///
    /// Whatever is allowed, nothing comes to a stop: every stream keeps its first window. Where it is raised, there may be
    /// credit to transmit.
    pub fn allow_memory(&mut self, bytes: u64) {
        let more = bytes > self.memory.allowed;
        self.memory.allowed = bytes;
        // A window that was refused some need not wait until another half of it is read.
        if more
            && let Some(id) = self.memory.refused.take()
            && let Some(stream) = self.streams.get_mut(id)
        {
            stream.recv.credit_due = true;
            self.schedule.push_control(id, stream);
        }
    }
}

/// Windows.
impl Connection {
    /// The application has taken `length` bytes: gives credit back once it is worth a frame.
    pub(super) fn consumed(&mut self, id: StreamId, length: usize) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let recv = &mut stream.recv;
        recv.window.consume(flow::amount(length));
        if recv.taken > 0 {
            self.memory.settle(recv, self.agreed.local.stream_window);
        }
        if recv.state == RecvState::Open && recv.window.is_due(2) {
            recv.credit_due = true;
            self.schedule.push_control(id, stream);
        }
    }

    /// The new limit of a stream, if it is worth a frame. Here a window becomes wider or narrower: the first time that a
    /// reader turns out to need it, a wide one, and from there on by doubling.
    pub(super) fn renew_window(&mut self, now: Instant, id: StreamId) -> Option<u64> {
        let round_trip = self.round_trip();
        let recv = &mut self.streams.get_mut(id)?.recv;
        if !std::mem::take(&mut recv.credit_due) || recv.state != RecvState::Open {
            return None;
        }
        let again = std::mem::take(&mut recv.credit_again);
        let size = recv.window.size();
        let refused = std::mem::take(&mut recv.refused);
        let wanted = if recv.window.is_due(2) {
            recv.window.pace(now, round_trip)
        } else {
            refused
        };
        let first = self.agreed.local.stream_window;
        if wanted > size {
            let wide = self.config.wide_stream_window();
            let wide = wide.min(flow::within(TWICE_THE_FASTEST, round_trip));
            let wanted = wanted.max(wide).min(self.config.max_stream_window());
            let most = self.config.shared_window();
            let extra = wanted.saturating_sub(first);
            let (taken, refused) = self.memory.take_window(recv.taken, extra, most);
            if refused {
                recv.refused = wanted;
                self.memory.refused = Some(id);
            }
            recv.taken = taken;
            recv.window.resize(size.max(first.saturating_add(taken)));
        } else if wanted < size && wanted > 0 {
            recv.window.resize(wanted.max(first));
            self.memory.settle(recv, first);
        }
        (again || recv.window.is_due(2)).then(|| recv.window.grant())
    }

    /// The new limit of the session, if it is worth a frame. It costs nothing here: what arrives is in the streams'
    /// windows, and it is the peer who retains what is on its way.
    pub(super) fn renew_session(&mut self, now: Instant, again: bool) -> Option<u64> {
        if self.window.is_due(4) {
            let round_trip = self.round_trip();
            let size = self.window.pace(now, round_trip);
            let (least, most) = (
                self.agreed.local.session_window,
                self.config.max_session_window(),
            );
            self.window.resize(size.min(most).max(least));
        }
        (again || self.window.is_due(4)).then(|| self.window.grant())
    }

    /// Gives back what a window has taken that its stream does not need any more.
    pub(super) fn settle_window(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.recv.taken > 0
        {
            let first = self.agreed.local.stream_window;
            self.memory.settle(&mut stream.recv, first);
        }
    }

    fn round_trip(&self) -> Duration {
        let least = self.liveness.least_rtt();
        least.unwrap_or(USUAL_ROUND_TRIP).max(LEAST_ROUND_TRIP)
    }
}

/// Retained bytes.
impl Connection {
    /// Payload that may be sent now, headers included: session credit, as far as what is sent may be retained too.
    pub(super) fn sendable(&mut self) -> u64 {
        let credit = self.credit.available();
        match &mut self.replay {
            // With the next acknowledgement a whole frame goes, and not a scrap now.
            Some(replay) if replay.room() < FRAME => {
                replay.waiting |= credit > 0;
                0
            }
            Some(replay) => credit.min(replay.room()),
            None => credit,
        }
    }

    /// An acknowledgement came, and payload had waited for it: the link carries more than may be retained. A peer that
    /// acknowledges nothing thus makes this side retain no more than the least.
    pub(super) fn retain_more(&mut self) {
        let Some(replay) = &mut self.replay else {
            return;
        };
        if std::mem::take(&mut replay.waiting) {
            let least = self.config.retained();
            let most = self.config.max_retained().saturating_sub(least);
            let more = least.saturating_add(self.memory.retained);
            let more = more.min(most.saturating_sub(self.memory.retained));
            let allowed = self.memory.room_for(more);
            // What is not allowed now may be at the next acknowledgement.
            replay.waiting = allowed < more;
            let more = allowed;
            self.memory.retained = self.memory.retained.saturating_add(more);
            replay.bound = least.saturating_add(self.memory.retained);
        }
    }

    /// Now and then: forgets what was wanted, gives back half of what may be retained if it was not nearly used, and memory
    /// that nothing lies in.
    pub(super) fn want_less(&mut self) {
        self.memory.wanted = 0;
        self.slab.rest();
        let Some(replay) = &mut self.replay else {
            return;
        };
        let peak = replay.reset_peak();
        if self.memory.retained > 0 && peak < replay.bound / 4 {
            let least = self.config.retained();
            let bound = least.max(replay.bound / 2);
            self.memory.retained = bound.saturating_sub(least);
            replay.bound = bound;
        }
    }
}
