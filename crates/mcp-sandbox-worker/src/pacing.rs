//! How soon to ask for work again.

use std::time::Duration;

/// Longest pause after failures.
const MAX: Duration = Duration::from_secs(60);

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// An item came.
    Item,
    /// Nothing to do; `immediate`: the server asks for no pause.
    Empty {
        /// The answer carried the header that allows to ask again at once.
        immediate: bool,
    },
    /// It may be otherwise next time.
    Failed,
}

/// The pause before the next poll.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    failures: u32,
}

impl Pacing {
    /// The pause after this outcome; `draw` is evenly between 0 and 1. A pause that the server has asked for is at least kept.
    pub(crate) fn after(&mut self, polled: Polled, asked: Option<Duration>, draw: f64) -> Duration {
        let draw = draw.clamp(0.0, 1.0);
        match polled {
            Polled::Item | Polled::Empty { immediate: true } => {
                self.failures = 0;
                Duration::ZERO
            }
            // What the platform's own clients do.
            Polled::Empty { immediate: false } => {
                self.failures = 0;
                Duration::from_secs(1) + Duration::from_secs(2).mul_f64(draw)
            }
            Polled::Failed => {
                self.failures = self.failures.saturating_add(1);
                let doubled = Duration::from_secs(1 << self.failures.min(6)).min(MAX);
                doubled.max(asked.unwrap_or_default().min(MAX))
                    + Duration::from_secs(1).mul_f64(draw)
            }
        }
    }

    /// How many polls in a row have failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_is_asked_as_often_as_the_server_allows() {
        let mut pacing = Pacing::default();
        let mut seconds = |polled, draw| pacing.after(polled, None, draw).as_secs_f64();
        let empty = |immediate| Polled::Empty { immediate };
        assert!((seconds(empty(false), 0.0) - 1.0).abs() < 1e-9);
        assert!((seconds(empty(false), 1.0) - 3.0).abs() < 1e-9);
        assert!(seconds(empty(true), 1.0) == 0.0);
        assert!(seconds(Polled::Item, 1.0) == 0.0);
    }

    #[test]
    fn failures_back_off_to_a_minute_and_are_forgotten() {
        let mut pacing = Pacing::default();
        let mut seconds = |polled| pacing.after(polled, None, 0.0).as_secs();
        let failed = (0..8).map(|_| seconds(Polled::Failed)).collect::<Vec<_>>();
        assert_eq!(failed, [2, 4, 8, 16, 32, 60, 60, 60]);
        seconds(Polled::Item);
        assert_eq!(seconds(Polled::Failed), 2);
        let asked = Some(Duration::from_secs(10));
        assert_eq!(pacing.after(Polled::Failed, asked, 0.0).as_secs(), 10);
    }
}
