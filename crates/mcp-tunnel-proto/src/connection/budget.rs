//! What a peer may make this side do for nothing, and how fast it may do it again.
//!
//! Frames that move payload pay with credit. The others are cheap for the peer and take work here, so each kind has a
//! leaky bucket: a burst, refilled at a rate that no honest peer reaches. An empty bucket closes the session with a
//! code that names it (ABUSE-1).
//!
//! Where the bounds come from: what a frame costs here at most (a table look-up, an event, a wake-up: 0.1 to 1 µs) times
//! the rate is under half a core, and the rate is above what 40,000 calls a second on one link need, one in ten of them
//! cancelled. Time is looked at when a bucket is empty, so that a frame costs one subtraction.

use std::time::Instant;

use crate::Violation;

/// A bucket: full at first, emptied by `spend`, refilled over time.
#[derive(Debug)]
struct Bucket {
    left: u32,
    burst: u32,
    per_second: u32,
    /// When it was last full, or refilled.
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

    fn spend(&mut self, now: Instant, cost: u32, or: Violation) -> Result<(), Violation> {
        if self.left < cost {
            self.refill(now);
        } else if self.left >= self.burst {
            self.filled = Some(now);
        }
        self.left = self.left.checked_sub(cost).ok_or(or)?;
        Ok(())
    }

    /// Takes what is there of `cost`; who spends next may find nothing.
    const fn take(&mut self, cost: u32) {
        self.left = self.left.saturating_sub(cost);
    }

    /// Adds what the time since the last refill is worth.
    #[cold]
    fn refill(&mut self, now: Instant) {
        let since = self
            .filled
            .map_or(0, |then| now.saturating_duration_since(then).as_micros());
        let gain = since.saturating_mul(self.per_second.into()) / 1_000_000;
        if gain > 0 {
            let gain = u32::try_from(gain).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(gain).min(self.burst);
            self.filled = Some(now);
        }
    }
}

/// The buckets of one session.
#[derive(Debug)]
pub(crate) struct Budget {
    opens: Bucket,
    resets: Bucket,
    small: Bucket,
    credits: Bucket,
    closed: Bucket,
    pings: Bucket,
    unknown: Bucket,
    admissions: Bucket,
    cancels: Bucket,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self {
            // Slots bound how many are open; this bounds how fast they are opened, refused and opened again.
            opens: Bucket::new(131_072, 400_000),
            // Two a cancelled call (RESET and STOP). Every running call of a full link may be cancelled at once, four
            // times over; for ever, one call in eight of a busy link.
            resets: Bucket::new(8192, 10_000),
            // Answers that come token by token, on every stream of a full link at once, take a quarter of it.
            small: Bucket::new(262_144, 200_000),
            credits: Bucket::new(4096 * TINY, 1000 * TINY),
            // Credits and stops that crossed the end of their stream.
            closed: Bucket::new(16_384, 50_000),
            // One each 5 s is usual; 10 ms is the least interval that can be set, and its pongs come as well.
            pings: Bucket::new(256, 500),
            unknown: Bucket::new(256, 50),
            // A new approval code each time.
            admissions: Bucket::new(64, 2),
            // Half of what the peer allows.
            cancels: Bucket::new(4096, 5000),
        }
    }

    /// An OPEN.
    pub(crate) fn on_open(&mut self, now: Instant) -> Result<(), Violation> {
        self.opens.spend(now, 1, Violation::FloodOpens)
    }

    /// This side's application has reset a stream that the peer opened: what it cost to no purpose is taken from the
    /// opens to come.
    pub(crate) const fn on_refused(&mut self) {
        self.opens.take(1);
    }

    /// A RESET or STOP for a stream that the peer opened, or a STOP that says nothing new. The peer's first answers to a
    /// stream of this side are not counted: this side's own opens bound them.
    pub(crate) fn on_reset(&mut self, now: Instant) -> Result<(), Violation> {
        self.resets.spend(now, 1, Violation::FloodResets)
    }

    /// A DATA that does not end its stream, of so many bytes of payload.
    pub(crate) fn on_data(&mut self, now: Instant, length: usize) -> Result<(), Violation> {
        if length >= SMALL {
            return Ok(());
        }
        self.small.spend(now, 1, Violation::FloodSmall)
    }

    /// A credit update that raised a limit by `rise`.
    pub(crate) fn on_credit(&mut self, now: Instant, rise: u64) -> Result<(), Violation> {
        let cost = if rise >= WORTHWHILE { 1 } else { TINY };
        self.credits.spend(now, cost, Violation::FloodCredits)
    }

    /// A new link, on which the peer says the credits of as many streams again.
    pub(crate) fn on_resumed(&mut self, streams: usize) {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        let again = streams.saturating_mul(TINY);
        self.credits.left = self.credits.burst.saturating_add(again);
    }

    /// A frame for a stream that closed a moment ago.
    pub(crate) fn on_closed(&mut self, now: Instant) -> Result<(), Violation> {
        self.closed.spend(now, 1, Violation::FloodClosed)
    }

    /// A PING or PONG.
    pub(crate) fn on_ping(&mut self, now: Instant) -> Result<(), Violation> {
        self.pings.spend(now, 1, Violation::FloodPings)
    }

    /// A frame of an unknown, ignorable type.
    pub(crate) fn on_unknown(&mut self, now: Instant) -> Result<(), Violation> {
        self.unknown.spend(now, 1, Violation::FloodUnknown)
    }

    /// An ADMISSION.
    pub(crate) fn on_admission(&mut self, now: Instant) -> Result<(), Violation> {
        self.admissions.spend(now, 1, Violation::FloodAdmissions)
    }

    /// Whether this side may send so many of RESET and STOP for a stream of its own now. It relays what others wish, and
    /// must not lose the session for it.
    pub(crate) fn may_cancel(&mut self, now: Instant, frames: u32) -> bool {
        let spent = self.cancels.spend(now, frames, Violation::FloodResets);
        spent.is_ok()
    }
}

#[cfg(test)]
impl super::Connection {
    /// Lets this side send so many RESETs and STOPs at once and a second.
    pub(crate) const fn pace_cancels(&mut self, burst: u32, per_second: u32) {
        self.budget.cancels = Bucket::new(burst, per_second);
    }
}

/// Payload, in bytes, from which on a DATA pays for itself.
const SMALL: usize = 64;

/// A rise of a limit, in bytes, that is worth its frame.
const WORTHWHILE: u64 = 1024;

/// What a credit update costs that is not, in worthwhile ones.
const TINY: u32 = 256;
