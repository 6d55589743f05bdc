//! Waking those who wait for rows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mcp_tunnel_auth::{EnvironmentId, SessionId};
use tokio::sync::watch;

/// What somebody may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// The events of a session.
    Session(SessionId),
    /// The items of an environment.
    Queue(EnvironmentId),
    /// The keys of an environment: one was revoked.
    Keys(EnvironmentId),
    /// Sessions whose loop has something to do.
    Loop,
}

/// Who waits for what. A store announces what it committed; a store that several
/// processes share announces what the others committed too.
///
/// A wake-up says "look", never what there is: one too many costs a query, and none is lost
/// between looking and waiting when one subscribes before one looks. Its size is that of
/// the subscriptions that are alive.
#[derive(Debug, Default)]
pub struct Changes {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    topics: HashMap<Topic, watch::Sender<u64>>,
    /// Topics at which those that nobody waits for are swept out.
    sweep_at: usize,
}

impl Changes {
    /// Waits for `topic` from now on.
    pub fn subscribe(&self, topic: Topic) -> watch::Receiver<u64> {
        let mut waiting = self.lock();
        if waiting.topics.len() >= waiting.sweep_at {
            waiting
                .topics
                .retain(|_, sender| sender.receiver_count() > 0);
            waiting.sweep_at = SWEEP_LEAST.max(waiting.topics.len() * 2);
        }
        let sender = waiting.topics.entry(topic);
        sender.or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Wakes whoever waits for `topic`.
    pub fn announce(&self, topic: Topic) {
        if let Some(sender) = self.lock().topics.get(&topic) {
            sender.send_modify(|number| *number = number.wrapping_add(1));
        }
    }

    /// Wakes everybody: something changed, and nobody knows what.
    pub fn announce_all(&self) {
        for sender in self.lock().topics.values() {
            sender.send_modify(|number| *number = number.wrapping_add(1));
        }
    }

    /// Straight-line code only under this lock.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SWEEP_LEAST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u64) -> Topic {
        Topic::Queue(EnvironmentId::new(number, &[0; 10]))
    }

    #[test]
    fn only_those_who_wait_for_it_are_woken() {
        let changes = Changes::default();
        let mut one = changes.subscribe(queue(1));
        let mut again = changes.subscribe(queue(1));
        let other = changes.subscribe(queue(2));
        changes.announce(queue(1));
        changes.announce(queue(3));
        assert!(one.has_changed().unwrap());
        assert!(again.has_changed().unwrap());
        assert!(!other.has_changed().unwrap());
        one.mark_unchanged();
        again.mark_unchanged();
        assert!(!one.has_changed().unwrap());
        changes.announce_all();
        assert!(one.has_changed().unwrap() && other.has_changed().unwrap());
    }

    #[test]
    fn what_nobody_waits_for_is_swept_out() {
        let changes = Changes::default();
        let kept = changes.subscribe(queue(0));
        for number in 1..10_000 {
            drop(changes.subscribe(queue(number)));
        }
        assert!(changes.lock().topics.len() <= 2 * SWEEP_LEAST);
        changes.announce(queue(0));
        assert!(kept.has_changed().unwrap());
    }
}
