//! The work queue.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyId, EventId, SessionId, WorkId, WorkspaceId};

use super::{Authority, Listed, Listing, StoreError};

/// Where an item stands.
///
/// ```text
///         poll: reserved          ack              heartbeat
/// queued ───────────────► queued ─────► starting ─────────────► active ─┐ heartbeat
///   ▲                       │              │                      │  ▲──┘
///   └───────────────────────┴──────────────┴──────────────────────┤
///        reservation or lease ran out: the claim is over          │ stop
///                                                                 ▼
///            stop by force, from any state: stopped ◄──────── stopping
///                                              confirmed, or the lease ran out
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkState {
    /// Waits for a worker, or for the acknowledgement of one that was given it.
    Queued,
    /// Acknowledged, not heard of yet.
    Starting,
    /// Held by a worker that is heard of.
    Active,
    /// To be given up by its worker.
    Stopping,
    /// Over, for ever.
    Stopped,
}

impl WorkState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Starting,
        Self::Active,
        Self::Stopping,
        Self::Stopped,
    ];

    /// Its name in rows and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// The work queue: every transition of an item.
///
/// ```text
/// item token ─┐
/// env key ────┼─► judged in the effect's own transaction ─► one transition ─► changes
/// operator ───┘
/// ```
#[async_trait]
pub trait WorkStore: Send + Sync + 'static {
    /// Hands out the oldest item that waits: reserves it under a new epoch, with which
    /// every token of an earlier claim dies. An item that was reserved longer ago than
    /// `reclaim` without being acknowledged is handed out again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Denial::KeyRevoked`](super::Denial::KeyRevoked),
    /// [`Refusal::EnvironmentArchived`](super::Refusal::EnvironmentArchived).
    async fn poll(&self, claim: &Claim) -> Result<Polled, StoreError>;

    /// Takes over a reserved item; it is queued again unless a heartbeat comes within `lease`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`];
    /// [`Refusal::Item`](super::Refusal::Item) unless the item is reserved.
    async fn acknowledge(
        &self,
        acting: &Acting,
        item: ItemPath,
        lease: SignedDuration,
    ) -> Result<WorkRecord, StoreError>;

    /// Prolongs the lease of an item. One that is stopping or stopped stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`]; [`StoreError::Beat`] where the last
    /// heartbeat is not `expected`, where nobody holds the item, and for a token of an
    /// earlier claim.
    async fn heartbeat(
        &self,
        acting: &Acting,
        item: ItemPath,
        expected: Expected,
        lease: SignedDuration,
    ) -> Result<Beaten, StoreError>;

    /// Asks the worker to give an item up, or takes it away. Where calls of the session still
    /// wait for results, another item is queued in the same transaction, unless an
    /// operator wanted the end or too many ended in vain: [`ATTEMPTS_MOST`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`];
    /// [`Refusal::Item`](super::Refusal::Item) where it is stopped already.
    async fn stop(
        &self,
        acting: &Acting,
        item: ItemPath,
        stop: StopOrder,
    ) -> Result<WorkRecord, StoreError>;

    /// Writes down that the calls are about to be run under this claim, and answers which of
    /// them were begun under another one. Saying the same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`];
    /// [`Refusal::NoSuchCall`](super::Refusal::NoSuchCall).
    async fn begin_calls(
        &self,
        acting: &Acting,
        item: ItemPath,
        calls: &[EventId],
    ) -> Result<Vec<EventId>, StoreError>;

    /// One item.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn work(&self, acting: &Acting, item: ItemPath) -> Result<WorkRecord, StoreError>;

    /// A page of the items of an environment, newest first; stopped ones count as archived.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn works(
        &self,
        acting: &Acting,
        environment: EnvironmentId,
        listing: &Listing,
    ) -> Result<Listed<WorkRecord>, StoreError>;

    /// Changes the client's own words about an item: `None` takes one away.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`Refusal::TooMany`](super::Refusal::TooMany) with more than `most`.
    async fn update_work(
        &self,
        acting: &Acting,
        item: ItemPath,
        metadata: &BTreeMap<String, Option<String>>,
        most: u32,
    ) -> Result<WorkRecord, StoreError>;

    /// What waits in the queue of an environment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn queue_stats(
        &self,
        acting: &Acting,
        environment: EnvironmentId,
    ) -> Result<QueueStats, StoreError>;

    /// Ends one lease that ran out before `now`: a held item is queued again under a new
    /// epoch, a stopping one is stopped. `None` where there is none left. `successor` is the
    /// id of the item that may have to follow, as in [`stop`](Self::stop).
    ///
    /// # Errors
    /// Only the store's own.
    async fn expire(
        &self,
        now: Timestamp,
        successor: WorkId,
    ) -> Result<Option<WorkRecord>, StoreError>;

    /// Where an item is, whatever its state: the one look-up that comes before a workspace is known.
    ///
    /// # Errors
    /// Only the store's own.
    async fn item_home(&self, work: WorkId) -> Result<Option<ItemHome>, StoreError>;
}

/// Who acts, and when.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct Acting {
    /// The workspace that everything is looked for in.
    pub workspace: WorkspaceId,
    /// Who.
    pub authority: Authority,
    /// When.
    pub now: Timestamp,
}

/// An item in its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct ItemPath {
    /// The environment.
    pub environment: EnvironmentId,
    /// The item.
    pub work: WorkId,
}

/// A poll.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct Claim {
    /// Where the environment is.
    pub workspace: WorkspaceId,
    /// Whose queue.
    pub environment: EnvironmentId,
    /// The key that asks.
    pub key: EnvironmentKeyId,
    /// The worker's own name.
    pub worker: Option<String>,
    /// When.
    pub now: Timestamp,
    /// How long a reservation holds.
    pub reclaim: SignedDuration,
}

/// What a poll found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Polled {
    /// An item, reserved for whoever asked.
    Item(Box<WorkRecord>),
    /// Nothing now.
    Empty {
        /// When something will be there without any change of rows.
        next: Option<Timestamp>,
    },
}

/// What a heartbeat expects of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// It does not say.
    Anything,
    /// There was none.
    None,
    /// It was this one.
    At(Timestamp),
    /// Something that was never the name of a heartbeat.
    Unknown,
}

/// What a heartbeat did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Beaten {
    /// The item afterwards.
    pub work: WorkRecord,
    /// Whether the lease was prolonged.
    pub extended: bool,
}

/// An order to stop an item.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct StopOrder {
    /// Takes it away at once.
    pub force: bool,
    /// What the worker or the operator says about it.
    pub reason: Option<String>,
    /// How long a worker may take to give it up.
    pub grace: SignedDuration,
    /// Id of the item that may have to follow.
    pub successor: WorkId,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkRecord {
    /// Its id.
    pub id: WorkId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// In whose queue.
    pub environment: EnvironmentId,
    /// What is to be done: a session to be served.
    pub session: SessionId,
    /// Where it stands.
    pub state: WorkState,
    /// Number of its newest claim.
    pub epoch: u64,
    /// The environment key of that claim.
    pub claim_key: Option<EnvironmentKeyId>,
    /// The worker of that claim.
    pub worker: Option<String>,
    /// Whether the token of that claim was used for an effect.
    pub token_used: bool,
    /// The client's own words.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last queued.
    pub queued_at: Timestamp,
    /// Before when it is not handed out.
    pub available_at: Timestamp,
    /// When it was handed out.
    pub reserved_at: Option<Timestamp>,
    /// When a worker took it over.
    pub acknowledged_at: Option<Timestamp>,
    /// When it first became active.
    pub started_at: Option<Timestamp>,
    /// The last heartbeat.
    pub heartbeat_at: Option<Timestamp>,
    /// When the lease, or the time to give it up, runs out.
    pub lease_until: Option<Timestamp>,
    /// When it was asked to be given up.
    pub stop_requested_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// What was said when it ended.
    pub reason: Option<String>,
    /// Whether it ended since its session did.
    pub ended_with_session: bool,
}

/// What waits in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Items that wait to be picked up.
    pub depth: u64,
    /// Items that were handed out and not acknowledged yet.
    pub pending: u64,
    /// When the oldest of both was queued.
    pub oldest_queued_at: Option<Timestamp>,
}

/// Where an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemHome {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// In whose queue.
    pub environment: EnvironmentId,
    /// What it serves.
    pub session: SessionId,
}

/// How long the token of an item that ended with its session may still read that session: long
/// enough for a worker whose stream broke to open another one, and to read in it that all is over.
pub const LAST_LOOK: SignedDuration = SignedDuration::from_mins(2);

/// Items that may end in a row while calls of their session wait for results, before no
/// more is queued. With [`back_off`] the last one follows about two minutes after the first.
pub const ATTEMPTS_MOST: u32 = 8;

/// How long an item waits that follows `attempts` which ended in vain: the first follows at
/// once, since a worker that was told to stop leaves its session to another one.
#[must_use]
pub fn back_off(attempts: u32) -> SignedDuration {
    match attempts {
        0 | 1 => SignedDuration::ZERO,
        more => SignedDuration::from_secs(1_i64 << (more - 2).min(6)).min(BACK_OFF_MOST),
    }
}

const BACK_OFF_MOST: SignedDuration = SignedDuration::from_secs(60);
