//! What the edge tells the console about links: one place a link, the newest state in it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mcp_tunnel_auth::{LinkId, LinkIdentity, LinkReport, LinkReportKind};
use tokio::sync::Notify;

use crate::measures;

/// Reports on their way to the console. A console that does not read loses round trips and refusals first.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<Key>,
    newest: HashMap<Key, LinkReport>,
}

/// What coalesces: the states of one link; the refusals of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Link(LinkId),
    Refused(LinkIdentity),
}

impl Reports {
    pub(crate) fn push(&self, report: LinkReport) {
        let dropped = self.lock().push(report);
        if let Some(dropped) = dropped {
            measures::report_dropped();
            tracing::warn!(link = %dropped.link, "the console does not read reports: one is lost");
        }
        self.ready.notify_one();
    }

    /// The next report, oldest link first.
    ///
    /// # Cancel safety
    /// Cancel safe: a report is taken only when it is returned.
    pub(crate) async fn next(&self) -> LinkReport {
        loop {
            let waiting = self.ready.notified();
            if let Some(report) = self.lock().pop() {
                return report;
            }
            waiting.await;
        }
    }

    /// A poisoned lock means that a panic interrupted straight-line code here; the queue is still consistent.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Returns what was lost for lack of room.
    fn push(&mut self, report: LinkReport) -> Option<LinkReport> {
        let minor = matches!(
            report.kind,
            LinkReportKind::RoundTrip { .. } | LinkReportKind::Refused { .. }
        );
        let key = match report.kind {
            LinkReportKind::Refused { .. } => Key::Refused(report.identity),
            _ => Key::Link(report.link),
        };
        if let Some(waiting) = self.newest.get_mut(&key) {
            // A round trip says less than that the link is up, which the console has not heard yet.
            if !matches!(report.kind, LinkReportKind::RoundTrip { .. }) || is_round_trip(waiting) {
                *waiting = report;
            }
            return None;
        }
        let mut lost = None;
        if self.order.len() >= MAX_REPORTS {
            if minor {
                return Some(report);
            }
            lost = self.pop();
        }
        self.order.push_back(key.clone());
        self.newest.insert(key, report);
        lost
    }

    fn pop(&mut self) -> Option<LinkReport> {
        let key = self.order.pop_front()?;
        self.newest.remove(&key)
    }
}

fn is_round_trip(report: &LinkReport) -> bool {
    matches!(report.kind, LinkReportKind::RoundTrip { .. })
}

/// About 300 bytes each: 5 MiB when no console reads.
const MAX_REPORTS: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcp_tunnel_auth::{Announcement, DownReason, GatewayKey, LinkRefusal, TokenId, TunnelId};

    use super::*;

    fn report(link: u64, kind: LinkReportKind) -> LinkReport {
        let identity = LinkIdentity::new(
            TunnelId::new(1, &[1; 10]),
            TokenId::new(1, &[1; 10]),
            GatewayKey::from_bytes([1; 32]).public_key(),
        );
        let announcement = Announcement::new("0", "host", vec![]).unwrap();
        LinkReport::new(
            LinkId::new(link, &[0; 10]),
            identity,
            ([127, 0, 0, 1], 1).into(),
            announcement,
            link,
            kind,
        )
    }

    const TRIP: LinkReportKind = LinkReportKind::RoundTrip {
        time: Duration::from_millis(1),
    };
    const DOWN: LinkReportKind = LinkReportKind::Down {
        reason: DownReason::Lost,
    };

    #[tokio::test]
    async fn the_newest_state_of_a_link_is_told_once() {
        let reports = Reports::default();
        reports.push(report(1, LinkReportKind::Up));
        reports.push(report(2, LinkReportKind::Up));
        reports.push(report(1, TRIP));
        assert_eq!(reports.next().await.kind, LinkReportKind::Up);
        reports.push(report(2, DOWN));
        assert_eq!(reports.next().await.kind, DOWN);
        reports.push(report(1, TRIP));
        reports.push(report(1, DOWN));
        assert_eq!(reports.next().await.kind, DOWN);
        assert!(reports.lock().order.is_empty() && reports.lock().newest.is_empty());
    }

    #[tokio::test]
    async fn refusals_of_one_gateway_are_one_report() {
        let reports = Reports::default();
        for link in 0..10 {
            reports.push(report(
                link,
                LinkReportKind::Refused {
                    reason: LinkRefusal::TokenRotated,
                },
            ));
        }
        assert_eq!(reports.next().await.at_ms, 9);
        assert!(reports.lock().order.is_empty());
    }

    #[test]
    fn a_console_that_does_not_read_costs_bounded_memory() {
        let mut queue = Queue::default();
        for link in 0..MAX_REPORTS as u64 {
            assert!(queue.push(report(link, LinkReportKind::Up)).is_none());
        }
        assert_eq!(queue.push(report(u64::MAX >> 16, TRIP)).unwrap().kind, TRIP);
        assert_eq!(queue.push(report(u64::MAX >> 17, DOWN)).unwrap().at_ms, 0);
        assert_eq!(
            (queue.order.len(), queue.newest.len()),
            (MAX_REPORTS, MAX_REPORTS)
        );
    }
}
