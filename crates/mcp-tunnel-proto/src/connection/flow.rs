//! Credit: what may be sent, what may come, all of it absolute and checked.
#![warn(clippy::arithmetic_side_effects)]

use crate::{Violation, wire::MAX_OFFSET};

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
/// ```
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    size: u64,
    limit: u64,
    received: u64,
    consumed: u64,
}

impl Window {
    pub(crate) const fn new(size: u64) -> Self {
        Self {
            size,
            limit: size,
            received: 0,
            consumed: 0,
        }
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

    /// Grows the window; a window never shrinks here.
    pub(crate) fn widen(&mut self, size: u64) {
        self.size = self.size.max(size);
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

/// Payload length as an amount of credit.
pub(crate) fn amount(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An amount of credit as a length in memory.
pub(crate) fn length(amount: u64) -> usize {
    usize::try_from(amount).unwrap_or(usize::MAX)
}
