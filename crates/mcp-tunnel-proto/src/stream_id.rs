//! Who is who: the two sides of a link and the ids of streams.

use std::fmt;

/// Which end of the link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Side {
    /// The end inside the private network; it dialled. Its streams have odd ids.
    Gateway,
    /// The end in the cloud; it accepted. Its streams have even ids.
    Edge,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Gateway => Self::Edge,
            Self::Edge => Self::Gateway,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Edge => "edge",
        })
    }
}

/// A stream's id: 1 to 2^40 - 1, odd for the gateway's streams, even for the edge's.
///
/// Ids of one side only grow and are never used twice in a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// The greatest id there is.
    pub const MAX: Self = Self((1 << 40) - 1);

    /// The id with this number, if it is one.
    #[must_use]
    pub const fn new(raw: u64) -> Option<Self> {
        if raw == 0 || raw > Self::MAX.0 {
            None
        } else {
            Some(Self(raw))
        }
    }

    /// The number itself, which fits 40 bits.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The side that opened, or may open, this stream.
    #[must_use]
    pub const fn opener(self) -> Side {
        if self.0 % 2 == 1 {
            Side::Gateway
        } else {
            Side::Edge
        }
    }

    /// The first id that `side` uses.
    pub(crate) const fn first(side: Side) -> Self {
        match side {
            Side::Gateway => Self(1),
            Side::Edge => Self(2),
        }
    }

    /// The id after this one of the same side.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(2).and_then(Self::new)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
