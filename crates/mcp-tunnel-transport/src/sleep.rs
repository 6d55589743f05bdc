//! Whether the machine has slept.

use std::time::{Duration, Instant, SystemTime};

/// Time that the day's clock is ahead by before that counts as a sleep: clocks are adjusted by less.
const SLEEP: Duration = Duration::from_secs(3);

/// Compares two clocks: that of the day goes on while the machine sleeps, the one that measures time stands still on
/// most systems. Where it goes on too, there is nothing to notice: its jump is silence.
#[derive(Debug)]
pub(crate) struct SleepWatch {
    day: SystemTime,
    run: Instant,
}

impl SleepWatch {
    pub(crate) fn new() -> Self {
        Self {
            day: SystemTime::now(),
            run: Instant::now(),
        }
    }

    /// How long the machine has slept since the last look, if it has.
    pub(crate) fn look(&mut self) -> Option<Duration> {
        self.compare(SystemTime::now(), Instant::now())
    }

    fn compare(&mut self, day: SystemTime, run: Instant) -> Option<Duration> {
        let by_day = day.duration_since(self.day).unwrap_or_default();
        let by_run = run.saturating_duration_since(self.run);
        (self.day, self.run) = (day, run);
        Some(by_day.saturating_sub(by_run)).filter(|slept| *slept >= SLEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_that_is_ahead_is_a_sleep() {
        let mut watch = SleepWatch::new();
        let (day, run) = (watch.day, watch.run);
        let second = Duration::from_secs(1);
        assert_eq!(watch.compare(day + second, run + second), None);
        assert_eq!(watch.compare(day + 4 * second, run + 2 * second), None);
        let woken = watch.compare(day + 3604 * second, run + 3 * second);
        assert_eq!(woken, Some(3599 * second));
        // Told once; a clock that is set back is no sleep; one that shows the sleep hides none.
        assert_eq!(watch.compare(day + 3605 * second, run + 4 * second), None);
        assert_eq!(watch.compare(day, run + 5 * second), None);
        assert_eq!(
            watch.compare(day + 3600 * second, run + 3605 * second),
            None
        );
    }
}
