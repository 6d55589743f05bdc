//! What ends a stream before its time.

use std::io;

use mcp_tunnel_proto::ResetCode;

use crate::CloseReason;

/// What ended a stream, or one direction of it, before its time.
///
/// Every [`io::Error`] of a stream has one inside: see [`StreamError::of`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer aborted what it was sending ([`io::ErrorKind::ConnectionReset`]).
    #[error("the peer reset the stream: {0}")]
    Reset(ResetCode),
    /// The peer does not want the rest of what is sent ([`io::ErrorKind::BrokenPipe`]).
    #[error("the peer stopped reading the stream: {0}")]
    Stopped(ResetCode),
    /// The link under the stream ended ([`io::ErrorKind::ConnectionReset`]).
    #[error("the link under the stream was lost")]
    LinkLost(#[source] CloseReason),
    /// This end has finished, reset or stopped the direction itself, or the whole stream is over
    /// ([`io::ErrorKind::BrokenPipe`]).
    #[error("the direction has ended")]
    Ended,
}

impl StreamError {
    /// The error inside one that a stream gave.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the peer is known not to have processed anything, so that the work is safe to replay.
    #[must_use]
    pub fn is_replay_safe(&self) -> bool {
        matches!(
            self,
            Self::Reset(ResetCode::REFUSED) | Self::Stopped(ResetCode::REFUSED)
        )
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::LinkLost(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Ended => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
