//! Ids that came, within a bound.

use std::collections::{HashSet, VecDeque};

/// The newest ids that came: what makes an event count once that comes both from a stream and from a history.
///
/// Keeps [`MOST`](Self::MOST), about 10 MB: as many as our own servers let a session have. An older one counts as new again.
#[derive(Debug, Default)]
pub struct NewestIds {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl NewestIds {
    /// How many are kept.
    pub const MOST: usize = 100_000;

    /// Keeps an id; whether it is new.
    pub fn insert(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Whether it came, and is not too old.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.known.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_the_newest() {
        let mut ids = NewestIds::default();
        for number in 0..=NewestIds::MOST {
            assert!(ids.insert(&number.to_string()));
        }
        assert_eq!(ids.known.len(), NewestIds::MOST);
        assert_eq!(ids.order.len(), NewestIds::MOST);
        assert!(!ids.contains("0") && ids.contains("1") && !ids.insert("1"));
    }
}
