//! Whether the machine has slept.

use std::time::{Duration, Instant, SystemTime};

use crate::timer::now;

/// Looks at two clocks, each so often.
#[derive(Debug)]
pub(crate) struct Looks {
    watch: SleepWatch,
    interval: Duration,
    next: Instant,
}

impl Looks {
    /// `None` where the interval is zero: nobody looks.
    pub(crate) fn each(interval: Duration) -> Option<Self> {
        (!interval.is_zero()).then(|| Self {
            watch: SleepWatch::new(),
            interval,
            next: now() + interval,
        })
    }

    /// When the next look is due, on the runtime's clock.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Looks if it is time to: what has been noticed, which is `None` where no look was due.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Option<Duration>> {
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        Some(self.watch.look())
    }
}

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
            day: day(),
            run: Instant::now(),
        }
    }

    /// How long the machine has slept since the last look, if it has.
    pub(crate) fn look(&mut self) -> Option<Duration> {
        self.compare(day(), Instant::now())
    }

    fn compare(&mut self, day: SystemTime, run: Instant) -> Option<Duration> {
        let by_day = day.duration_since(self.day).unwrap_or_default();
        let by_run = run.saturating_duration_since(self.run);
        (self.day, self.run) = (day, run);
        Some(by_day.saturating_sub(by_run)).filter(|slept| *slept >= SLEEP)
    }
}

#[cfg(not(test))]
fn day() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
use simulated::day;

/// A machine that sleeps when a test says so.
#[cfg(test)]
pub(crate) mod simulated {
    use std::{
        cell::Cell,
        time::{Duration, SystemTime},
    };

    thread_local! {
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// What runs on this thread finds that its machine has slept for so long.
    pub(crate) fn sleep(slept: Duration) {
        SLEPT.set(SLEPT.get() + slept);
    }

    pub(super) fn day() -> SystemTime {
        SystemTime::now() + SLEPT.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_taken_when_they_are_due() {
        let second = Duration::from_secs(1);
        let mut looks = Looks::each(second).unwrap();
        let due = looks.next();
        simulated::sleep(60 * second);
        assert_eq!(looks.look(due - second / 2), None);
        assert!(looks.look(due).unwrap().unwrap() >= 59 * second);
        assert_eq!(looks.look(due), None);
        assert_eq!(looks.look(due + second), Some(None));
        assert!(Looks::each(Duration::ZERO).is_none());
    }

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
