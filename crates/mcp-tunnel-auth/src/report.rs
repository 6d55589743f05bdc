//! What an edge tells the console about links.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::ApprovalCode;
use crate::credential::{Announcement, LinkIdentity};
use crate::id::LinkId;
use crate::snapshot::LinkRefusal;

/// One event in the life of a link whose token was genuine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkReport {
    /// Which link; drawn by the edge when it was proven.
    pub link: LinkId,
    /// Tunnel, token and gateway key.
    pub identity: LinkIdentity,
    /// Where the link comes from, as the edge sees it.
    pub remote_address: SocketAddr,
    /// What the gateway tells about itself.
    pub announcement: Announcement,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub kind: LinkReportKind,
}

impl LinkReport {
    /// Puts a report together.
    #[must_use]
    pub const fn new(
        link: LinkId,
        identity: LinkIdentity,
        remote_address: SocketAddr,
        announcement: Announcement,
        at_ms: u64,
        kind: LinkReportKind,
    ) -> Self {
        Self {
            link,
            identity,
            remote_address,
            announcement,
            at_ms,
            kind,
        }
    }
}

/// What happened to a link.
///
/// ```text
/// ──► Refused
/// ──► Pending ──► Up ──► RoundTrip … ──► Down
///         └────────────────────────────► Down
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum LinkReportKind {
    /// It waits for an administrator.
    Pending {
        /// What the gateway shows meanwhile.
        approval_code: ApprovalCode,
    },
    /// It carries traffic; said again when it has resumed from another address.
    Up,
    /// It lives, and this long takes a ping.
    RoundTrip {
        /// Time from ping to pong.
        time: Duration,
    },
    /// It is gone.
    Down {
        /// Why.
        reason: DownReason,
    },
    /// It was turned away after its proof.
    Refused {
        /// Why.
        reason: LinkRefusal,
    },
}

/// Why a link is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DownReason {
    /// The gateway said goodbye.
    Closed,
    /// The connection broke, or fell silent.
    Lost,
    /// The edge closed it by the console's decision.
    Withdrawn(LinkRefusal),
    /// A pending link waited as long as it may.
    NotApproved,
    /// The edge stops.
    EdgeStops,
    /// The gateway broke the protocol, or exceeded a limit.
    Misbehaved,
}
