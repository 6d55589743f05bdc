//! The links of gateways, by tunnel: which carry traffic, and which wait for approval.

pub(crate) mod life;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_tunnel_auth::{
    Announcement, ApprovalCode, GatewayPublicKey, LinkId, LinkIdentity, RouteName, TunnelId,
};
use mcp_tunnel_proto::SessionId;
use mcp_tunnel_transport::{CloseReason, Link};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::clock::entropy;
use crate::config::EdgeConfig;
use crate::failure::Failure;
use crate::measures;

/// A link that carries traffic.
#[derive(Debug)]
pub(crate) struct LiveLink {
    pub(crate) id: LinkId,
    pub(crate) identity: LinkIdentity,
    pub(crate) link: Link,
    pub(crate) announcement: Announcement,
    /// Where its gateway is; another place when it has resumed from there.
    pub(crate) remote: watch::Sender<SocketAddr>,
    /// When its gateway last began anew beside it.
    succeeded: Mutex<Option<Instant>>,
}

impl LiveLink {
    pub(crate) fn new(
        id: LinkId,
        identity: LinkIdentity,
        link: Link,
        announcement: Announcement,
        remote: SocketAddr,
    ) -> Self {
        Self {
            id,
            identity,
            link,
            announcement,
            remote: watch::Sender::new(remote),
            succeeded: Mutex::default(),
        }
    }

    /// Its gateway has resumed it from here. Another port of the same host is no news.
    fn resumed_from(&self, remote: SocketAddr) {
        self.remote.send_if_modified(|known| {
            let moved = known.ip() != remote.ip();
            if moved {
                *known = remote;
            }
            moved
        });
    }

    /// Whether the program behind `fresh`, a link without a past, can only be this one's, started again: it has its key, serves
    /// one of its routes, and is on the same machine as far as that one's name or address tells. Otherwise two programs share
    /// a key, which is a mistake, and nobody's calls end for it.
    fn is_followed_by(&self, fresh: &Self) -> bool {
        let (ours, theirs) = (&self.announcement, &fresh.announcement);
        let mut routes = theirs.routes().iter();
        let address = |link: &Self| link.remote.borrow().ip();
        self.id != fresh.id
            && self.identity == fresh.identity
            && routes.any(|route| ours.routes().contains(route))
            && (ours.host() == theirs.host() || address(self) == address(fresh))
    }

    /// Whether nobody will come back to it, its connection being lost: it has not been heard since its gateway began anew.
    fn is_orphaned(&self, lost: &CloseReason) -> bool {
        let CloseReason::Silent { after } = lost else {
            return false;
        };
        let succeeded = *self.succeeded();
        succeeded.is_some_and(|since| since.elapsed() < *after)
    }

    fn succeeded(&self) -> MutexGuard<'_, Option<Instant>> {
        self.succeeded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// All links of the edge. A tunnel without links has no entry; so nothing is kept before proof.
#[derive(Debug)]
pub(crate) struct Links {
    table: Mutex<Table>,
    /// Counts arrivals; calls that wait for a gateway look again when it changes.
    arrivals: watch::Sender<u64>,
    emptied: Notify,
    held: Semaphore,
    /// Places for links without a connection.
    kept: Semaphore,
    max_kept: usize,
    max_live: usize,
    max_pending: usize,
}

#[derive(Debug, Default)]
struct Table {
    tunnels: HashMap<TunnelId, TunnelLinks>,
    /// Unique while pending, over all tunnels: an administrator tells gateways apart by nothing else.
    codes: HashSet<ApprovalCode>,
}

#[derive(Debug, Default)]
struct TunnelLinks {
    /// Oldest first.
    live: Vec<Arc<LiveLink>>,
    pending: HashMap<GatewayPublicKey, Waiting>,
}

/// The pending links of one gateway. They share a code: what one of them shows has to stay good when another, such as
/// a check beside the running gateway, comes and goes.
#[derive(Debug)]
struct Waiting {
    code: ApprovalCode,
    links: usize,
}

impl TunnelLinks {
    fn pending(&self) -> usize {
        self.pending.values().map(|waiting| waiting.links).sum()
    }
}

/// What a look for a link found.
enum Found {
    Link(Arc<LiveLink>),
    /// None that is worth waiting for longer than the hold.
    Nobody {
        pending: bool,
    },
    /// Links that serve other routes.
    OtherRoutes(Vec<RouteName>),
}

impl Links {
    pub(crate) fn new(config: &EdgeConfig) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            arrivals: watch::Sender::new(0),
            emptied: Notify::new(),
            held: Semaphore::new(config.max_held_calls),
            kept: Semaphore::new(config.max_kept_links.min(Semaphore::MAX_PERMITS)),
            max_kept: config.max_kept_links_per_tunnel,
            max_live: config.max_links_per_tunnel,
            max_pending: config.max_pending_per_tunnel,
        })
    }

    /// The link for a call: the newest one that serves the route and takes streams, none of `tried`. Waits up to
    /// `hold` for a gateway to come, as far as there is room for one more waiting call.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn pick(
        &self,
        tunnel: &TunnelId,
        route: &RouteName,
        tried: &[LinkId],
        hold: Duration,
    ) -> Result<Arc<LiveLink>, Failure> {
        let mut arrivals = self.arrivals.subscribe();
        let deadline = Instant::now() + hold;
        let mut place = None;
        loop {
            let pending = match self.find(tunnel, route, tried) {
                Found::Link(link) => return Ok(link),
                Found::OtherRoutes(known) => {
                    return Err(Failure::NoSuchRoute {
                        route: route.clone(),
                        known,
                    });
                }
                Found::Nobody { pending } => pending,
            };
            let absent = if pending {
                Failure::GatewayPending
            } else {
                Failure::GatewayAbsent
            };
            if place.is_none() {
                place = Some(self.held.try_acquire().map_err(|_| absent.clone())?);
            }
            match tokio::time::timeout_at(deadline, arrivals.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(absent),
            }
        }
    }

    fn find(&self, tunnel: &TunnelId, route: &RouteName, tried: &[LinkId]) -> Found {
        let table = self.lock();
        let Some(links) = table.tunnels.get(tunnel) else {
            return Found::Nobody { pending: false };
        };
        let serves = |link: &&Arc<LiveLink>| link.announcement.routes().contains(route);
        let open = || {
            links
                .live
                .iter()
                .rev()
                .filter(|link| link.link.is_open() && !tried.contains(&link.id))
        };
        if let Some(link) = open().find(serves) {
            return Found::Link(Arc::clone(link));
        }
        if open().next().is_some() && !links.live.iter().any(|link| serves(&link)) {
            let known: BTreeSet<&RouteName> =
                open().flat_map(|link| link.announcement.routes()).collect();
            return Found::OtherRoutes(known.into_iter().cloned().collect());
        }
        Found::Nobody {
            pending: !links.pending.is_empty() && links.live.is_empty(),
        }
    }

    /// The routes that the live links of a tunnel announce.
    pub(crate) fn routes(&self, tunnel: &TunnelId) -> BTreeSet<RouteName> {
        let table = self.lock();
        let live = table
            .tunnels
            .get(tunnel)
            .into_iter()
            .flat_map(|links| &links.live);
        live.flat_map(|link| link.announcement.routes())
            .cloned()
            .collect()
    }

    /// Enters a link that carries traffic from now on; `None` when the tunnel has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, tunnel: TunnelId, link: LiveLink) -> Option<LivePlace> {
        let link = Arc::new(link);
        {
            let mut table = self.lock();
            let live = &mut table.tunnels.entry(tunnel).or_default().live;
            // Those that are kept have a bound of their own.
            let connected = live.iter().filter(|link| link.link.is_attached());
            if connected.count() >= self.max_live {
                return None;
            }
            live.push(Arc::clone(&link));
        }
        measures::links_changed("active", 1.0);
        self.arrived();
        Some(LivePlace {
            links: Arc::clone(self),
            tunnel,
            link,
        })
    }

    /// The link whose session a gateway claims; only its own will do.
    pub(crate) fn claimed(
        &self,
        session: SessionId,
        identity: &LinkIdentity,
    ) -> Option<Arc<LiveLink>> {
        let table = self.lock();
        let live = &table.tunnels.get(&identity.tunnel)?.live;
        let claimed = |link: &&Arc<LiveLink>| {
            link.identity == *identity && link.link.session() == Some(session)
        };
        live.iter().find(claimed).cloned()
    }

    /// A gateway has come up that goes on with no session: the process that had them is gone, and their calls end now
    /// rather than after the time that they are kept. That a session has lost its connection may not be known yet.
    /// Gateways of one machine that share a key and a route lose sessions by this, and only while they have no connection.
    pub(crate) fn succeed(&self, fresh: &LiveLink) {
        let table = self.lock();
        let live = table.tunnels.get(&fresh.identity.tunnel);
        let earlier = live.into_iter().flat_map(|links| &links.live);
        for link in earlier.filter(|link| link.is_followed_by(fresh)) {
            *link.succeeded() = Some(Instant::now());
            link.link.give_up();
        }
    }

    /// Calls that wait for a gateway look again.
    fn arrived(&self) {
        self.arrivals
            .send_modify(|arrivals| *arrivals = arrivals.wrapping_add(1));
    }

    /// Takes a place among the tunnel's pending links; `None` when all are taken.
    pub(crate) fn wait(
        self: &Arc<Self>,
        tunnel: TunnelId,
        gateway: GatewayPublicKey,
    ) -> Option<PendingPlace> {
        let mut table = self.lock();
        let Table { tunnels, codes } = &mut *table;
        if tunnels.get(&tunnel).map_or(0, TunnelLinks::pending) >= self.max_pending {
            return None;
        }
        let known = tunnels
            .get(&tunnel)
            .and_then(|links| links.pending.get(&gateway));
        let code = match known {
            Some(waiting) => waiting.code,
            None => new_code(codes)?,
        };
        let pending = &mut tunnels.entry(tunnel).or_default().pending;
        let waiting = pending.entry(gateway).or_insert(Waiting { code, links: 0 });
        waiting.links += 1;
        drop(table);
        measures::links_changed("pending", 1.0);
        Some(PendingPlace {
            links: Arc::clone(self),
            tunnel,
            gateway,
            code,
            left: None,
        })
    }

    /// Waits until no link is left, live or pending. Cancel safe.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().tunnels.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn leave(&self, tunnel: TunnelId, gone: Gone<'_>) -> Left {
        let mut table = self.lock();
        let Table { tunnels, codes } = &mut *table;
        let Entry::Occupied(mut entry) = tunnels.entry(tunnel) else {
            return Left::Last;
        };
        let links = entry.get_mut();
        let left = match gone {
            Gone::Live(link) => {
                links.live.retain(|live| !Arc::ptr_eq(live, link));
                Left::Last
            }
            Gone::Pending(gateway) => match links.pending.get_mut(&gateway) {
                Some(waiting) if waiting.links > 1 => {
                    waiting.links -= 1;
                    Left::Others
                }
                _ => {
                    if let Some(waiting) = links.pending.remove(&gateway) {
                        codes.remove(&waiting.code);
                    }
                    Left::Last
                }
            },
        };
        if links.live.is_empty() && links.pending.is_empty() {
            entry.remove();
        }
        if tunnels.is_empty() {
            self.emptied.notify_waiters();
        }
        left
    }

    /// A poisoned lock means that a panic interrupted straight-line code here; the table is still consistent.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a live link; leaves with it.
#[derive(Debug)]
pub(crate) struct LivePlace {
    links: Arc<Links>,
    tunnel: TunnelId,
    link: Arc<LiveLink>,
}

impl LivePlace {
    pub(crate) fn link(&self) -> &Link {
        &self.link.link
    }

    /// Where the gateway is, from now on.
    pub(crate) fn remote(&self) -> watch::Receiver<SocketAddr> {
        self.link.remote.subscribe()
    }

    /// The gateway has begun anew with this link.
    pub(crate) fn succeeds(&self) {
        self.links.succeed(&self.link);
    }

    /// As [`LiveLink::is_orphaned`].
    pub(crate) fn is_orphaned(&self, lost: &CloseReason) -> bool {
        self.link.is_orphaned(lost)
    }

    /// A place for the link while it has no connection; `None` when as many are kept as may be.
    pub(crate) fn keep(&self) -> Option<KeptPlace<'_>> {
        let permit = self.links.kept.try_acquire().ok()?;
        let table = self.links.lock();
        let live = table.tunnels.get(&self.tunnel).map(|links| &links.live);
        let kept = live.into_iter().flatten();
        let kept = kept.filter(|link| !link.link.is_attached()).count();
        drop(table);
        if kept > self.links.max_kept {
            return None;
        }
        measures::links_changed("kept", 1.0);
        Some(KeptPlace { _permit: permit })
    }

    /// The link has a connection again.
    pub(crate) fn resumed(&self) {
        self.links.arrived();
    }
}

impl Drop for LivePlace {
    fn drop(&mut self) {
        measures::links_changed("active", -1.0);
        self.links.leave(self.tunnel, Gone::Live(&self.link));
    }
}

/// The place of a link without a connection.
#[derive(Debug)]
pub(crate) struct KeptPlace<'a> {
    _permit: SemaphorePermit<'a>,
}

impl Drop for KeptPlace<'_> {
    fn drop(&mut self) {
        measures::links_changed("kept", -1.0);
    }
}

/// What leaves the table.
enum Gone<'a> {
    Live(&'a Arc<LiveLink>),
    Pending(GatewayPublicKey),
}

/// What a pending link leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// No link of its gateway waits any more.
    Last,
    /// Others of its gateway wait, with the same code.
    Others,
}

/// The entry of a pending link, and its approval code.
#[derive(Debug)]
pub(crate) struct PendingPlace {
    links: Arc<Links>,
    tunnel: TunnelId,
    gateway: GatewayPublicKey,
    code: ApprovalCode,
    /// Once it is out of the table.
    left: Option<Left>,
}

impl PendingPlace {
    pub(crate) fn code(&self) -> ApprovalCode {
        self.code
    }

    /// Gives the place back.
    pub(crate) fn leave(mut self) -> Left {
        self.give_back()
    }

    fn give_back(&mut self) -> Left {
        let (links, tunnel, gateway) = (&self.links, self.tunnel, self.gateway);
        *self.left.get_or_insert_with(|| {
            measures::links_changed("pending", -1.0);
            links.leave(tunnel, Gone::Pending(gateway))
        })
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A code that no pending link has; `None` where the operating system has no randomness.
fn new_code(codes: &mut HashSet<ApprovalCode>) -> Option<ApprovalCode> {
    loop {
        let code = ApprovalCode::from_entropy(entropy()?);
        if codes.insert(code) {
            return Some(code);
        }
    }
}
