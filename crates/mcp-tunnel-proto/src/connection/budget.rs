//! What a peer may make this side do for nothing, and how fast it may do it again.
//!
//! Frames that move payload pay with credit. The others are cheap for the peer and take work here, so
//! each kind has a bucket: a burst, refilled at a rate that no honest peer reaches. An empty bucket
//! closes the session with a code that names it (ABUSE-1).

use std::time::Instant;

use crate::Violation;

/// A bucket: full at first, emptied by `spend`, refilled over time.
#[derive(Debug)]
struct Bucket {
    left: u32,
    burst: u32,
    per_second: u32,
    filled: Option<Instant>,
}

impl Bucket {
    const fn new(burst: u32, per_second: u32) -> Self {
        Self {
            left: burst,
            burst,
            per_second,
            filled: None,
        }
    }

    #[must_use]
    fn spend(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            self.refill(now);
        } else if self.left >= self.burst {
            self.filled = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Adds what the time since the last refill is worth.
    fn refill(&mut self, now: Instant) {
        let since = self
            .filled
            .map_or(0, |then| now.saturating_duration_since(then).as_millis());
        let gain = since.saturating_mul(self.per_second.into()) / 1000;
        if gain > 0 {
            self.left = u32::try_from(gain).map_or(self.burst, |gain| gain.min(self.burst));
            self.filled = Some(now);
        }
    }
}

/// The buckets of one session.
#[derive(Debug)]
pub(crate) struct Budget {
    resets: Bucket,
    pings: Bucket,
    unknown: Bucket,
    credits: Bucket,
    closed: Bucket,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self {
            // Every running call of a full link may be cancelled at once, twice over (RESET and STOP).
            resets: Bucket::new(4096, 1000),
            // One each 5 s is usual; a peer that measures sends one a round trip.
            pings: Bucket::new(256, 50),
            unknown: Bucket::new(256, 50),
            // Only updates that raise a limit by little or nothing.
            credits: Bucket::new(4096, 1000),
            // Credits and stops that crossed the end of their stream.
            closed: Bucket::new(8192, 20_000),
        }
    }

    /// A RESET or STOP.
    pub(crate) fn on_reset(&mut self, now: Instant) -> Result<(), Violation> {
        self.resets
            .spend(now)
            .then_some(())
            .ok_or(Violation::FloodResets)
    }

    /// A PING or PONG.
    pub(crate) fn on_ping(&mut self, now: Instant) -> Result<(), Violation> {
        self.pings
            .spend(now)
            .then_some(())
            .ok_or(Violation::FloodPings)
    }

    /// A frame of an unknown, ignorable type.
    pub(crate) fn on_unknown(&mut self, now: Instant) -> Result<(), Violation> {
        self.unknown
            .spend(now)
            .then_some(())
            .ok_or(Violation::FloodUnknown)
    }

    /// A credit update that raised a limit by `rise`.
    pub(crate) fn on_credit(&mut self, now: Instant, rise: u64) -> Result<(), Violation> {
        if rise >= WORTHWHILE {
            return Ok(());
        }
        self.credits
            .spend(now)
            .then_some(())
            .ok_or(Violation::FloodCredits)
    }

    /// A new link, on which the peer says the credits of as many streams again.
    pub(crate) fn on_resumed(&mut self, streams: usize) {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        self.credits.left = self.credits.burst.saturating_add(streams);
    }

    /// A frame for a stream that closed a moment ago.
    pub(crate) fn on_closed(&mut self, now: Instant) -> Result<(), Violation> {
        self.closed
            .spend(now)
            .then_some(())
            .ok_or(Violation::FloodClosed)
    }
}

/// A rise of a limit, in bytes, that is worth its frame.
const WORTHWHILE: u64 = 1024;
