//! Waiting between attempts: full jitter, a cap, and what the edge asked for.

use std::time::Duration;

/// How long to wait before the next attempt to reach the edge.
///
/// The n-th wait is drawn evenly from `[0, min(cap, base · 2ⁿ))` ("full jitter"), so that a thousand gateways that
/// lost the same edge do not come back together. Only [`reset`](Self::reset) starts over, and the uplink calls it
/// only after a link was healthy for a configured time: an edge that accepts and drops at once is not hammered.
///
/// Randomness is an argument: the same numbers give the same waits.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits from `base` up to `cap`.
    ///
    /// `base` is raised to 1 ms and `cap` to `base`: a zero would be a busy loop.
    pub fn new(base: Duration, cap: Duration) -> Self {
        let base = base.max(Duration::from_millis(1));
        Self {
            base,
            cap: cap.max(base),
            attempts: 0,
        }
    }

    /// The next wait; `random` is any evenly distributed number.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        fraction(ceiling, random)
    }

    /// The next wait where the edge said how long to stay away at least.
    ///
    /// The jitter is added on top: all that heard the same number must not return at the same moment.
    pub fn next_after(&mut self, at_least: Duration, random: u64) -> Duration {
        at_least.saturating_add(self.next(random))
    }

    /// Starts over with the shortest wait.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Waits handed out since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The upper bound, not reached, of the next wait.
    pub fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

/// The time between two attempts for a session that waits and is not kept for long: drawn evenly from the upper half of
/// `[0, ceiling)`.
///
/// Unlike [`Backoff`] it neither grows, so that the network's return is met within the ceiling, nor comes near zero, so
/// that one gateway makes no more attempts than one in half a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace(Duration);

impl Pace {
    /// At least 20 ms.
    pub(crate) fn new(ceiling: Duration) -> Self {
        Self(ceiling.max(Duration::from_millis(20)))
    }

    /// The same, or slower on a path with this round trip: an attempt that will be answered is not begun twice.
    pub(crate) fn over(self, round_trip: Duration) -> Self {
        let slower = round_trip.saturating_mul(4).min(SLOWEST);
        Self(self.0.max(slower))
    }

    pub(crate) fn next(self, random: u64) -> Duration {
        let half = self.0 / 2;
        half + fraction(half, random)
    }
}

/// What no round trip slows attempts down beyond.
const SLOWEST: Duration = Duration::from_secs(2);

/// `whole · random / 2⁶⁴`, in nanoseconds.
fn fraction(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let drawn = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn ceilings_double_up_to_the_cap() {
        let mut backoff = Backoff::new(500 * MS, 30_000 * MS);
        let ceilings: Vec<u128> = (0..9)
            .map(|_| {
                let ceiling = backoff.ceiling().as_millis();
                backoff.next(0);
                ceiling
            })
            .collect();
        let expected = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000];
        assert_eq!(ceilings, expected);
    }

    #[test]
    fn jitter_spans_zero_to_the_ceiling() {
        let mut backoff = Backoff::new(1000 * MS, 1000 * MS);
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63), 500 * MS);
        let longest = backoff.next(u64::MAX);
        assert!(longest < 1000 * MS && longest > 999 * MS);
    }

    #[test]
    fn the_wait_of_the_edge_is_a_minimum() {
        let mut backoff = Backoff::new(1000 * MS, 8000 * MS);
        assert_eq!(backoff.next_after(5000 * MS, 1 << 63), 5500 * MS);
        assert_eq!(backoff.next_after(5000 * MS, 1 << 63), 6000 * MS);
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = Backoff::new(1000 * MS, 8000 * MS);
        backoff.next(7);
        backoff.next(7);
        assert_eq!(backoff.attempts(), 2);
        backoff.reset();
        assert_eq!(backoff.ceiling(), 1000 * MS);
    }

    #[test]
    fn a_pace_keeps_to_the_upper_half_and_waits_for_slow_paths() {
        let pace = Pace::new(500 * MS);
        assert_eq!(pace.next(0), 250 * MS);
        let longest = pace.next(u64::MAX);
        assert!(longest < 500 * MS && longest > 499 * MS);
        assert_eq!(pace.over(60 * MS), pace);
        assert_eq!(pace.over(300 * MS), Pace::new(1200 * MS));
        assert_eq!(pace.over(Duration::MAX), Pace::new(SLOWEST));
        assert_eq!(Pace::new(Duration::ZERO).next(0), 10 * MS);
    }

    #[test]
    fn extremes_neither_panic_nor_spin() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(backoff.ceiling(), MS);
        let mut endless = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..100 {
            backoff.next(u64::MAX);
            endless.next(u64::MAX);
        }
        assert_eq!(endless.next_after(Duration::MAX, u64::MAX), Duration::MAX);
    }
}
