//! Credit: what may be sent, what may come, all of it absolute and checked.
#![warn(clippy::arithmetic_side_effects)]

use std::time::{Duration, Instant};

use crate::{Violation, wire::MAX_OFFSET};

/// A whole frame of payload.
pub(crate) const FRAME: u64 = 16 * 1024;

/// What this side may send: a limit the peer raises, and what of it is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credit {
    limit: u64,
    used: u64,
}

impl Credit {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    /// CREDIT-4: a limit only rises; a lower or equal one is old news. Says by how much it rose.
    pub(crate) fn raise(&mut self, limit: u64) -> Result<u64, Violation> {
        if limit > MAX_OFFSET {
            return Err(Violation::Range);
        }
        let rise = limit.saturating_sub(self.limit);
        self.limit = self.limit.max(limit);
        Ok(rise)
    }

    /// Uses `amount`, which the caller has seen to be available.
    pub(crate) fn spend(&mut self, amount: u64) {
        debug_assert!(amount <= self.available(), "credit overdrawn");
        self.used = self.used.saturating_add(amount);
    }

    /// Takes back what was spent for something that never left.
    pub(crate) fn refund(&mut self, amount: u64) {
        self.used = self.used.saturating_sub(amount);
    }

    pub(crate) const fn available(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// What the peer may send: `limit` is what it was told, `received` what came, `consumed` what is gone
/// from our buffers.
///
/// ```text
///   0 ........ consumed ........ received ........ limit = consumed + size, as of the last grant
///              |<-- buffered -->|<-- may come -->|
///              |<----------- promised ---------->|
/// ```
///
/// The size follows the pace at which the window is emptied. A limit that was told cannot be taken back, so a window
/// that becomes smaller is one that is not renewed for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    size: u64,
    limit: u64,
    received: u64,
    consumed: u64,
    /// Since when the pace is measured, and what was gone by then.
    since: Option<Instant>,
    mark: u64,
}

impl Window {
    pub(crate) const fn new(size: u64) -> Self {
        Self {
            size,
            limit: size,
            received: 0,
            consumed: 0,
            since: None,
            mark: 0,
        }
    }

    /// The first bytes are here: from now on the pace counts.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Counts `amount` as received; `false` if the peer was not allowed it.
    #[must_use]
    pub(crate) fn receive(&mut self, amount: u64) -> bool {
        match self.received.checked_add(amount) {
            Some(received) if received <= self.limit => {
                self.received = received;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Counts `amount` as gone from our buffers.
    pub(crate) fn consume(&mut self, amount: u64) {
        self.consumed = self.consumed.saturating_add(amount).min(self.received);
    }

    /// The size that suits the pace since the last time that this was asked: twice what is emptied in a round trip, so
    /// that a grant for one half is on its way while the other arrives. At most double of what it was, at least half.
    pub(crate) fn pace(&mut self, now: Instant, round_trip: Duration) -> u64 {
        let gone = self.consumed.saturating_sub(self.mark);
        let since = self.since.replace(now).unwrap_or(now);
        self.mark = self.consumed;
        let time = now.saturating_duration_since(since).as_nanos();
        let twice = u128::from(gone)
            .saturating_mul(2)
            .saturating_mul(round_trip.as_nanos());
        let needed = match twice.checked_div(time) {
            Some(needed) => u64::try_from(needed).unwrap_or(u64::MAX),
            None => u64::MAX,
        };
        if needed > self.size {
            self.size.saturating_mul(2)
        } else if needed < self.size / 4 {
            self.size / 2
        } else {
            self.size
        }
    }

    /// Changes the size; what was told stays.
    pub(crate) fn resize(&mut self, size: u64) {
        self.size = size;
    }

    /// What may have to be held: unread bytes and those that the peer may still send.
    pub(crate) const fn promised(&self) -> u64 {
        self.limit.saturating_sub(self.consumed)
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether a grant is worth a frame: a `fraction`-th of the window. A full window that is read in small
    /// pieces thus gives no small grants.
    pub(crate) fn is_due(&self, fraction: u64) -> bool {
        self.gain() >= self.size.checked_div(fraction).unwrap_or(0).max(1)
    }

    /// The same for a count, where one more is worth a frame to a peer that has none left.
    pub(crate) fn is_count_due(&self, fraction: u64) -> bool {
        self.is_due(fraction) || (self.gain() > 0 && self.received == self.limit)
    }

    #[cfg(test)]
    pub(crate) const fn is_all_consumed(&self) -> bool {
        self.consumed == self.received
    }

    fn gain(&self) -> u64 {
        self.target().saturating_sub(self.limit)
    }

    /// Raises the limit as far as the window allows and returns it, to be told to the peer.
    pub(crate) fn grant(&mut self) -> u64 {
        self.limit = self.limit.max(self.target());
        self.limit
    }

    fn target(&self) -> u64 {
        self.consumed.saturating_add(self.size).min(MAX_OFFSET)
    }
}

/// What goes by in `time` at `rate` bytes per second, in whole frames.
pub(crate) fn within(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate).saturating_mul(time.as_nanos()) / 1_000_000_000;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    bytes.checked_next_multiple_of(FRAME).unwrap_or(u64::MAX)
}

/// Payload length as an amount of credit.
pub(crate) fn amount(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An amount of credit as a length in memory.
pub(crate) fn length(amount: u64) -> usize {
    usize::try_from(amount).unwrap_or(usize::MAX)
}
