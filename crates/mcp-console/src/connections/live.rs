//! Links that are up at this moment, as edges report them: in memory, since they end
//! with the process that holds them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use mcp_tunnel_auth::{Fingerprint, LinkId, LinkReport, LinkReportKind, TunnelId};

/// Links that are up, by gateway; and reports that the store did not take yet.
#[derive(Default)]
pub(crate) struct Live(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    gateways: HashMap<(TunnelId, Fingerprint), BTreeMap<LinkId, LiveLink>>,
    /// The newest unwritten report of each gateway.
    unwritten: HashMap<(TunnelId, Fingerprint), LinkReport>,
}

struct LiveLink {
    address: IpAddr,
    seen: Timestamp,
    rtt: Option<Duration>,
}

/// What is known of a gateway at this moment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sighting {
    pub(crate) links: u32,
    pub(crate) several_addresses: bool,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) rtt: Option<Duration>,
}

impl Live {
    /// Takes a report in. A link that is only heard of by its round trip is up: a console
    /// that was started again learns of it that way.
    pub(crate) fn note(&self, report: &LinkReport) {
        let mut inner = self.lock();
        let gateway = key_of(report);
        match report.kind {
            LinkReportKind::Up => inner.touch(report, None),
            LinkReportKind::RoundTrip { time } => inner.touch(report, Some(time)),
            LinkReportKind::Down { .. } => {
                if let Some(links) = inner.gateways.get_mut(&gateway) {
                    links.remove(&report.link);
                    if links.is_empty() {
                        inner.gateways.remove(&gateway);
                    }
                }
            }
            _ => {}
        }
    }

    /// Keeps a report for later. One for each gateway: a newer one says all that matters.
    pub(crate) fn keep(&self, report: LinkReport) {
        let mut inner = self.lock();
        let key = key_of(&report);
        if inner.unwritten.len() < UNWRITTEN_MOST || inner.unwritten.contains_key(&key) {
            inner.unwritten.insert(key, report);
        }
    }

    /// What was kept, to be tried again.
    pub(crate) fn take_unwritten(&self) -> Vec<LinkReport> {
        let mut inner = self.lock();
        inner.unwritten.drain().map(|(_, report)| report).collect()
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        !self.lock().unwritten.is_empty()
    }

    pub(crate) fn of(&self, tunnel: TunnelId, gateway: Fingerprint) -> Sighting {
        let inner = self.lock();
        let Some(links) = inner.gateways.get(&(tunnel, gateway)) else {
            return Sighting::default();
        };
        let mut addresses = links.values().map(|link| link.address);
        let first = addresses.next();
        Sighting {
            links: u32::try_from(links.len()).unwrap_or(u32::MAX),
            several_addresses: addresses.any(|address| Some(address) != first),
            last_seen_at: links.values().map(|link| link.seen).max(),
            rtt: links.values().next_back().and_then(|link| link.rtt),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn touch(&mut self, report: &LinkReport, rtt: Option<Duration>) {
        let links = self.gateways.entry(key_of(report)).or_default();
        if links.len() >= LINKS_MOST && !links.contains_key(&report.link) {
            return;
        }
        let address = report.remote_address.ip().to_canonical();
        let link = links.entry(report.link).or_insert_with(|| LiveLink {
            address,
            seen: Timestamp::UNIX_EPOCH,
            rtt: None,
        });
        // It may have resumed from elsewhere.
        link.address = address;
        link.rtt = rtt.or(link.rtt);
        link.seen = i64::try_from(report.at_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or(link.seen);
    }
}

fn key_of(report: &LinkReport) -> (TunnelId, Fingerprint) {
    (report.identity.tunnel, report.identity.fingerprint())
}

/// Links of one gateway that are told apart; further ones are not counted. Edges have
/// lower limits of their own.
const LINKS_MOST: usize = 256;

/// Gateways whose last report waits for the store: about 1 KiB each. Above it the row
/// keeps what it knew, and the next report of that gateway writes it.
const UNWRITTEN_MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use mcp_tunnel_auth::{Announcement, DownReason, GatewayKey, LinkIdentity, RouteName, TokenId};

    use super::*;

    fn report(link: u8, address: &str, kind: LinkReportKind) -> LinkReport {
        let identity = LinkIdentity::new(
            TunnelId::new(1, &[1; 10]),
            TokenId::new(1, &[1; 10]),
            GatewayKey::from_bytes([1; 32]).public_key(),
        );
        let announcement = Announcement::new("0.1.0", "host", vec![RouteName::default()]).unwrap();
        LinkReport::new(
            LinkId::new(u64::from(link), &[link; 10]),
            identity,
            address.parse().unwrap(),
            announcement,
            1_000,
            kind,
        )
    }

    fn sighting(live: &Live) -> Sighting {
        let report = report(0, "192.0.2.1:1", LinkReportKind::Up);
        live.of(report.identity.tunnel, report.identity.fingerprint())
    }

    #[test]
    fn one_key_from_two_addresses_shows() {
        let live = Live::default();
        live.note(&report(1, "192.0.2.1:1", LinkReportKind::Up));
        live.note(&report(2, "192.0.2.1:2", LinkReportKind::Up));
        assert!(!sighting(&live).several_addresses);
        live.note(&report(3, "192.0.2.9:1", LinkReportKind::Up));
        assert_eq!(sighting(&live).links, 3);
        assert!(sighting(&live).several_addresses);
    }

    #[test]
    fn a_link_that_moves_is_at_one_address() {
        let live = Live::default();
        live.note(&report(1, "192.0.2.1:1", LinkReportKind::Up));
        live.note(&report(1, "192.0.2.9:1", LinkReportKind::Up));
        live.note(&report(2, "192.0.2.9:2", LinkReportKind::Up));
        assert!(!sighting(&live).several_addresses);
    }

    #[test]
    fn a_link_is_live_from_its_first_sign_to_its_end() {
        let live = Live::default();
        let time = Duration::from_millis(7);
        live.note(&report(
            1,
            "192.0.2.1:1",
            LinkReportKind::RoundTrip { time },
        ));
        assert_eq!(sighting(&live).rtt, Some(time));
        let reason = DownReason::Lost;
        live.note(&report(1, "192.0.2.1:1", LinkReportKind::Down { reason }));
        assert_eq!(sighting(&live), Sighting::default());
    }

    #[test]
    fn the_newest_unwritten_report_of_a_gateway_is_kept() {
        let live = Live::default();
        live.keep(report(1, "192.0.2.1:1", LinkReportKind::Up));
        live.keep(report(2, "192.0.2.1:2", LinkReportKind::Up));
        let kept = live.take_unwritten();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].remote_address.port(), 2);
        assert!(!live.has_unwritten());
    }
}
