//! Why a store did not do what it was asked.

use std::error::Error;

use jiff::Timestamp;

use super::WorkState;

/// Why a store did not do what it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is none such, or none that the caller may know of.
    #[error("no such row in this workspace")]
    NotFound,
    /// The caller's credential is not, or no longer, good for this.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The present state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The history has gone on since it was read: read it again, decide again.
    #[error("the history of the session has gone on")]
    Moved,
    /// The item's last heartbeat is not the expected one.
    #[error(transparent)]
    Beat(#[from] BeatMismatch),
    /// The disk is full, or broken.
    #[error("the disk takes no more writes")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// Another writer held the store for too long.
    #[error("the store is busy")]
    Busy(#[source] Box<dyn Error + Send + Sync>),
    /// A row does not hold what this version writes.
    #[error("column {column} holds what no version wrote")]
    Corrupt {
        /// Where.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store failed otherwise.
    #[error("the store failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a credential is not good for an effect, judged in the effect's own transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// The environment key was revoked, and what was claimed with it ended with it.
    #[error("the environment key was revoked")]
    KeyRevoked,
    /// The item was stopped, queued again or handed to another worker since.
    #[error("the claim of this item token is over")]
    ClaimOver,
    /// The holder of the item uses its item token: the environment key alone is not enough.
    #[error("the item is held by its item token")]
    HeldByToken,
}

/// What the present state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The environment is archived.
    #[error("the environment is archived")]
    EnvironmentArchived,
    /// Sessions run on self-hosted environments only.
    #[error("the environment is a cloud environment")]
    EnvironmentCloud,
    /// The environment has as many keys as it may.
    #[error("the environment has {most} keys that are not revoked, the most it may have")]
    TooManyKeys {
        /// How many.
        most: u32,
    },
    /// The environment still has sessions that are not archived.
    #[error("the environment has sessions that are not archived")]
    EnvironmentInUse,
    /// The item is not in a state in which that can be done.
    #[error("the item is {}", .state.as_str())]
    Item {
        /// The state that it is in.
        state: WorkState,
    },
    /// The session ended, for ever.
    #[error("the session is archived")]
    SessionEnded,
    /// The session is in a turn.
    #[error("the session is running")]
    SessionRunning,
    /// The session has as many events as it may.
    #[error("the session has {most} events, the most it may have")]
    TooManyEvents {
        /// How many.
        most: u64,
    },
    /// The call already has another result.
    #[error("the call has another result already")]
    OtherResult,
    /// The session has no such call.
    #[error("the session has no such call")]
    NoSuchCall,
    /// The agent has another version than the one that was expected.
    #[error("the agent is at version {newest}")]
    OtherVersion {
        /// Its newest version.
        newest: u64,
    },
    /// The agent is archived.
    #[error("the agent is archived")]
    AgentArchived,
    /// The skill has another name.
    #[error("the skill has another name")]
    OtherSkill,
    /// A skill has at least one version.
    #[error("it is the skill's only version")]
    LastVersion,
    /// There are as many of these as there may be.
    #[error("there are {most} {what}, the most there may be")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        most: u32,
    },
}

/// What a heartbeat found instead of what it expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the last heartbeat is not the expected one")]
#[non_exhaustive]
pub struct BeatMismatch {
    /// The state that the item is in.
    pub state: WorkState,
    /// Its last heartbeat.
    pub last: Option<Timestamp>,
}

impl BeatMismatch {
    /// An item in `state` that was last heard of at `last`.
    #[must_use]
    pub const fn new(state: WorkState, last: Option<Timestamp>) -> Self {
        Self { state, last }
    }
}
