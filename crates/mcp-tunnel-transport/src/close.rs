//! Why a link ended.

use std::{io, sync::Arc, time::Duration};

use mcp_tunnel_proto::{CloseCode, ConnectionError, Violation};

/// Why a link ended; every stream that was open then carries it in its error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This end closed it.
    #[error("closed here: {code}")]
    Local {
        /// What the peer was told.
        code: CloseCode,
    },
    /// The peer closed it.
    #[error("closed by the peer: {code}")]
    Peer {
        /// What it said.
        code: CloseCode,
        /// For people; may be empty.
        text: String,
    },
    /// The connection ended without a word: the peer's process or the path to it is gone.
    #[error("the connection ended without a close")]
    Eof,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] Arc<io::Error>),
    /// The peer broke the protocol; it was told so with the violation's code.
    #[error("the peer broke the protocol")]
    Violation(#[source] Violation),
    /// Nothing was heard from the peer, pings included.
    #[error("nothing was heard from the peer for {after:?}")]
    Silent {
        /// How long it was waited for: at most the configured silence.
        after: Duration,
    },
    /// The peer's side took no bytes.
    #[error("the peer took no bytes for {after:?}")]
    Stalled {
        /// The configured write stall.
        after: Duration,
    },
    /// The session was kept, and nobody went on with it in time.
    #[error("no new connection within {after:?}")]
    Expired {
        /// How long it was without one.
        after: Duration,
        /// What had ended its connection.
        #[source]
        lost: Arc<Self>,
    },
    /// The session was kept here, and the peer did not go on with it: it was restarted, or has given it up.
    #[error("the peer did not go on with the session")]
    NotResumed {
        /// What had ended its connection.
        #[source]
        lost: Arc<Self>,
    },
    /// The peer came back over a new connection. The reason of a connection's end, never of a session's.
    #[error("the peer came back over a new connection")]
    Replaced,
    /// The driver was dropped before the link was closed.
    #[error("the link's driver was dropped")]
    Abandoned,
}

impl CloseReason {
    /// Whether one of the two ends meant it: the rest are faults of peer or path.
    #[must_use]
    pub fn is_deliberate(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Peer { .. })
    }
}

impl CloseReason {
    /// Whether the connection still works, so that a last word can be said on it.
    pub(crate) fn is_said(&self) -> bool {
        !matches!(
            self,
            Self::Eof
                | Self::Io(_)
                | Self::Stalled { .. }
                | Self::Expired { .. }
                | Self::NotResumed { .. }
                | Self::Replaced
                | Self::Abandoned
        )
    }

    /// What the protocol reports, in a link's words; `silence` is how long was waited.
    pub(crate) fn of(error: ConnectionError, silence: Duration) -> Self {
        match error {
            ConnectionError::ClosedByPeer { code, text } => Self::Peer { code, text },
            ConnectionError::ClosedHere { code, .. } => Self::Local { code },
            ConnectionError::Silent => Self::Silent { after: silence },
            ConnectionError::PeerMisbehaved(violation) => Self::Violation(violation),
            _ => Self::Local {
                code: CloseCode::INTERNAL,
            },
        }
    }
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What TLS says about an end without its own farewell.
            io::ErrorKind::UnexpectedEof => Self::Eof,
            _ => Self::Io(Arc::new(error)),
        }
    }
}
