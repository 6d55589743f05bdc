//! What an edge is told at its start.

use std::time::Duration;

use mcp_tunnel_auth::{DomainName, HostName};
use mcp_tunnel_transport::LinkConfig;

/// Settings of an [`Edge`](crate::Edge): two names, and limits that have defaults.
///
/// | setting | default | what it bounds |
/// |---|---|---|
/// | [`max_calls`](Self::set_max_calls) | 16,384 | calls under way, 256 KiB each at the worst |
/// | [`max_held_calls`](Self::set_max_held_calls) | 1,024 | calls that wait for a gateway |
/// | [`max_links_per_tunnel`](Self::set_max_links_per_tunnel) | 32 | live links of one tunnel |
/// | [`max_kept_links`](Self::set_max_kept_links) | 4,096 | links without a connection that are kept |
/// | [`max_kept_links_per_tunnel`](Self::set_max_kept_links_per_tunnel) | 8 | the same of one tunnel |
/// | [`link_keep`](Self::set_link_keep) | 60 s | how long one of them is kept |
/// | [`max_pending_per_tunnel`](Self::set_max_pending_per_tunnel) | 8 | links that wait for approval |
/// | [`pending_for`](Self::set_pending_for) | 1 h | how long one of them waits |
/// | [`hold`](Self::set_hold) | 5 s | how long a call waits for a gateway |
/// | [`head_deadline`](Self::set_head_deadline) | 5 min | silence before the answer's head |
/// | [`silence`](Self::set_silence) | 15 s | silence on an event stream before a comment |
/// | [`snapshot_max_age`](Self::set_snapshot_max_age) | 1 h | service without news from the console |
/// | [`drain`](Self::set_drain) | 30 s | how long running calls may finish |
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    pub(crate) domain: DomainName,
    pub(crate) edge_name: HostName,
    pub(crate) link: LinkConfig,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) max_calls: usize,
    pub(crate) max_held_calls: usize,
    pub(crate) max_links_per_tunnel: usize,
    pub(crate) max_kept_links: usize,
    pub(crate) max_kept_links_per_tunnel: usize,
    pub(crate) max_pending_per_tunnel: usize,
    pub(crate) pending_for: Duration,
    pub(crate) hold: Duration,
    pub(crate) head_deadline: Duration,
    pub(crate) silence: Duration,
    pub(crate) snapshot_max_age: Duration,
    pub(crate) drain: Duration,
}

impl EdgeConfig {
    /// An edge of `domain`, whose gateways know it as `edge.DOMAIN`.
    pub fn new(domain: DomainName) -> Self {
        Self {
            edge_name: domain.edge(),
            domain,
            link: LinkConfig::default().set_keep(LINK_KEEP),
            allowed_origins: Vec::new(),
            max_calls: 16_384,
            max_held_calls: 1_024,
            max_links_per_tunnel: 32,
            max_kept_links: 4_096,
            max_kept_links_per_tunnel: 8,
            max_pending_per_tunnel: 8,
            pending_for: Duration::from_secs(60 * 60),
            hold: Duration::from_secs(5),
            head_deadline: Duration::from_secs(5 * 60),
            silence: Duration::from_secs(15),
            snapshot_max_age: Duration::from_secs(60 * 60),
            drain: Duration::from_secs(30),
        }
    }

    /// The name that gateways verify and sign for, where the operator's certificate has one of its own.
    #[must_use]
    pub fn set_edge_name(mut self, name: HostName) -> Self {
        self.edge_name = name;
        self
    }

    /// Limits and deadlines of links, how long they are kept among them.
    #[must_use]
    pub fn set_link(mut self, link: LinkConfig) -> Self {
        self.link = link;
        self
    }

    /// How long a link that has lost its connection waits for its gateway to come back, with every call on it. Default
    /// 60 s; zero fails its calls at once. Raised, callers of a gateway that is gone for good wait for longer.
    #[must_use]
    pub fn set_link_keep(mut self, keep: Duration) -> Self {
        self.link = self.link.set_keep(keep);
        self
    }

    /// Links without a connection that are kept at once; the next one to lose its connection fails its calls. Default
    /// 4,096. Each holds no more than a live one may: what the protocol's
    /// [`Config`](mcp_tunnel_proto::Config) calls *received*, *to send* and *retained* for its open calls, all links together
    /// within one [`MemoryBudget`](mcp_tunnel_transport::MemoryBudget), and a few KiB when it has none.
    #[must_use]
    pub fn set_max_kept_links(mut self, links: usize) -> Self {
        self.max_kept_links = links;
        self
    }

    /// The same of one tunnel. Default 8.
    #[must_use]
    pub fn set_max_kept_links_per_tunnel(mut self, links: usize) -> Self {
        self.max_kept_links_per_tunnel = links;
        self
    }

    /// Web origins, such as `https://inspector.example`, that may call beside a tunnel's own. Default none: every
    /// other `Origin` is refused, so that no web page can use a visitor's reach (DNS rebinding included). The header
    /// passes unchanged: whether such a page may call is then for the server to say.
    #[must_use]
    pub fn set_allowed_origins(mut self, origins: impl IntoIterator<Item = String>) -> Self {
        self.allowed_origins = origins
            .into_iter()
            .map(|origin| origin.to_ascii_lowercase())
            .collect();
        self
    }

    /// Calls under way at once; one more is answered 503. Default 16,384; at least 1.
    ///
    /// An idle event stream costs about 20 KiB. A call whose reader is slow pins a stream window, a read buffer and
    /// what waits for the caller's socket, 64 KiB each and as much under TLS: 256 KiB, 4 GiB if every call does it,
    /// which takes valid keys. Windows that have grown add no more than
    /// [`LinkConfig::set_memory`] allows all calls together. Raised, slow readers pin more.
    #[must_use]
    pub fn set_max_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls.max(1);
        self
    }

    /// Calls that wait at once for a gateway to come; one more is answered 503 without waiting. Default 1,024.
    #[must_use]
    pub fn set_max_held_calls(mut self, calls: usize) -> Self {
        self.max_held_calls = calls;
        self
    }

    /// Live links of one tunnel; one more is refused, try again later. Default 32; at least 1. Who holds a token and
    /// an approved key could otherwise hold any number of sockets.
    #[must_use]
    pub fn set_max_links_per_tunnel(mut self, links: usize) -> Self {
        self.max_links_per_tunnel = links.max(1);
        self
    }

    /// Links of one tunnel that wait for approval; one more is refused, try again later. Default 8. This is all that
    /// a stolen token can hold.
    #[must_use]
    pub fn set_max_pending_per_tunnel(mut self, links: usize) -> Self {
        self.max_pending_per_tunnel = links;
        self
    }

    /// How long a link may wait for approval. Default one hour.
    #[must_use]
    pub fn set_pending_for(mut self, time: Duration) -> Self {
        self.pending_for = time;
        self
    }

    /// How long a call waits for a gateway that is not there, before its 503. Default 5 s.
    #[must_use]
    pub fn set_hold(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }

    /// How long an answer's head may take, counted from the last byte of the request, before the 504. Default five
    /// minutes: a tool that answers with plain JSON says nothing until it is done.
    #[must_use]
    pub fn set_head_deadline(mut self, time: Duration) -> Self {
        self.head_deadline = time;
        self
    }

    /// Silence on an event stream after which the edge writes a comment, between events only. Default 15 s.
    #[must_use]
    pub fn set_silence(mut self, time: Duration) -> Self {
        self.silence = time;
        self
    }

    /// How long the edge serves without a new snapshot. Default one hour; a console publishes every minute. This
    /// bounds how long a revocation can be missed while the console is away.
    #[must_use]
    pub fn set_snapshot_max_age(mut self, age: Duration) -> Self {
        self.snapshot_max_age = age;
        self
    }

    /// How long running calls may finish when a link is rotated away, or when the edge stops. Default 30 s.
    #[must_use]
    pub fn set_drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }
}

/// Longer than a network change, a sleep or the restart of a proxy takes; shorter than callers wait.
const LINK_KEEP: Duration = Duration::from_secs(60);
