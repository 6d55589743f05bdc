//! What an uplink tells its owner.

use std::{net::SocketAddr, time::Duration};

use mcp_tunnel_proto::{CloseCode, RefusalCode};

use crate::{AnswerError, CloseReason, Exporter, Link, OfferError, dial::DialError};

/// What an uplink does or has met.
#[derive(Debug)]
#[non_exhaustive]
pub enum UplinkEvent {
    /// An attempt begins. For a session that is kept, it connects again and again, at
    /// [a pace](crate::UplinkConfig::set_kept_pace), until it is answered or the time to connect has passed.
    Dialling {
        /// Attempts in a row without a healthy link, from 1.
        attempt: u32,
    },
    /// TLS is up: answer with [`present`](crate::Uplink::present).
    Dialled {
        /// What the credential has to sign.
        exporter: Exporter,
        /// The edge's address.
        address: SocketAddr,
    },
    /// A person has to approve this gateway; the link waits for it. May come again with another code.
    Pending {
        /// What the gateway shows to that person.
        approval_code: String,
    },
    /// The link carries streams.
    Active {
        /// To accept streams from.
        link: Link,
        /// The edge's address.
        address: SocketAddr,
    },
    /// The connection of the current link is gone, and its session is kept: streams wait, and a new connection is made,
    /// at once if the old one had lasted. [`Resumed`](Self::Resumed) says that they go on; [`Active`](Self::Active) that
    /// the edge began a new session instead, so that they have failed.
    Resuming {
        /// What ended the connection.
        reason: CloseReason,
    },
    /// The session of the current link goes on over a new connection.
    Resumed {
        /// How long it was without one.
        after: Duration,
        /// The edge's address.
        address: SocketAddr,
    },
    /// The edge sends no new streams on the current link; it finishes while a replacement is dialled.
    Draining {
        /// Why.
        code: CloseCode,
    },
    /// The edge refused the credential or the moment; [`RefusalCode::is_final`] tells which. The uplink goes on
    /// trying unless it is stopped.
    Refused {
        /// Why.
        code: RefusalCode,
        /// What the edge asked for.
        retry_after: Option<Duration>,
        /// For people; may be empty.
        text: String,
    },
    /// An attempt failed, or the link ended.
    Lost {
        /// Why; print the whole chain of sources.
        reason: LostReason,
    },
    /// The next attempt begins after this.
    Waiting {
        /// The wait, jitter included.
        delay: Duration,
    },
    /// It was drained or stopped, and every link has ended. The answer ever after.
    Stopped,
}

/// Why an attempt failed or a link ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LostReason {
    /// The edge was not reached.
    #[error("the edge was not reached")]
    Dial(#[from] DialError),
    /// The credential could not be offered.
    #[error("the credential could not be offered")]
    Offer(#[from] OfferError),
    /// Nobody called [`present`](crate::Uplink::present) in time.
    #[error("no credential was presented within {after:?}")]
    NotPresented {
        /// The configured time.
        after: Duration,
    },
    /// The edge did not answer the credential.
    #[error("no answer to the credential")]
    Answer(#[from] AnswerError),
    /// The link ended.
    #[error("the link ended")]
    Closed(#[from] CloseReason),
}
