//! The current access snapshot, and how fresh it is.

use std::sync::Arc;
use std::time::Duration;

use mcp_tunnel_auth::AccessSnapshot;
use tokio::sync::watch;
use tokio::time::Instant;

/// A snapshot that is not newer than the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("snapshot {offered} does not replace {current}")]
#[non_exhaustive]
pub struct StaleSnapshot {
    /// The number of the refused one.
    pub offered: u64,
    /// The number of the one in force.
    pub current: u64,
}

/// What the edge judges by. Age is counted from the arrival of a snapshot by the monotonic clock, so that the clocks
/// of console and edge need not agree.
#[derive(Debug)]
pub(crate) struct Access {
    current: watch::Sender<Current>,
    max_age: Duration,
}

#[derive(Debug, Clone)]
struct Current {
    snapshot: Arc<AccessSnapshot>,
    /// `None` before the first one has come.
    arrived: Option<Instant>,
}

impl Access {
    pub(crate) fn new(max_age: Duration) -> Self {
        let nobody = Current {
            snapshot: Arc::new(AccessSnapshot::empty(0)),
            arrived: None,
        };
        Self {
            current: watch::Sender::new(nobody),
            max_age,
        }
    }

    pub(crate) fn apply(&self, snapshot: Arc<AccessSnapshot>) -> Result<(), StaleSnapshot> {
        let offered = snapshot.number();
        let mut current_number = 0;
        let replaced = self.current.send_if_modified(|current| {
            current_number = current.snapshot.number();
            let newer = snapshot.supersedes(&current.snapshot);
            if newer {
                *current = Current {
                    snapshot,
                    arrived: Some(Instant::now()),
                };
            }
            newer
        });
        if replaced {
            Ok(())
        } else {
            Err(StaleSnapshot {
                offered,
                current: current_number,
            })
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.current.borrow().snapshot.number()
    }

    /// The snapshot in force, unless it is too old to serve by.
    pub(crate) fn fresh(&self) -> Option<Arc<AccessSnapshot>> {
        let current = self.current.borrow();
        let arrived = current.arrived?;
        (arrived.elapsed() < self.max_age).then(|| Arc::clone(&current.snapshot))
    }

    /// When the snapshot in force becomes too old.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.current
            .borrow()
            .arrived
            .map(|arrived| arrived + self.max_age)
    }

    pub(crate) fn news(&self) -> News {
        News {
            receiver: self.current.subscribe(),
        }
    }
}

/// Tells of each new snapshot; several in a row count as one.
#[derive(Debug)]
pub(crate) struct News {
    receiver: watch::Receiver<Current>,
}

impl News {
    /// The next snapshot that this handle has not seen. Pending for ever once the edge is gone. Cancel safe.
    pub(crate) async fn next(&mut self) -> Arc<AccessSnapshot> {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.receiver.borrow_and_update().snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: u64) -> Arc<AccessSnapshot> {
        Arc::new(AccessSnapshot::empty(number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_or_equal_snapshot_is_refused() {
        let access = Access::new(Duration::from_secs(60));
        assert!(access.fresh().is_none());
        access.apply(snapshot(5)).unwrap();
        assert_eq!(
            access.apply(snapshot(5)),
            Err(StaleSnapshot {
                offered: 5,
                current: 5
            })
        );
        assert_eq!(
            access.apply(snapshot(4)),
            Err(StaleSnapshot {
                offered: 4,
                current: 5
            })
        );
        assert_eq!(access.fresh().unwrap().number(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_grows_old_and_the_same_content_again_renews_it() {
        let access = Access::new(Duration::from_secs(60));
        access.apply(snapshot(1)).unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(access.fresh().is_some());
        access.apply(snapshot(2)).unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(access.fresh().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(access.fresh().is_none());
        // A refused one does not count as news.
        access.apply(snapshot(2)).unwrap_err();
        assert!(access.fresh().is_none());
    }

    #[tokio::test]
    async fn news_that_came_before_the_first_look_is_not_missed() {
        let access = Access::new(Duration::from_secs(60));
        let mut news = access.news();
        access.apply(snapshot(1)).unwrap();
        access.apply(snapshot(2)).unwrap();
        assert_eq!(news.next().await.number(), 2);
        let idle = tokio::select! { biased; _ = news.next() => false, () = std::future::ready(()) => true };
        assert!(idle);
    }
}
