//! Sessions and their events.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{AgentId, EnvironmentId, EventId, SessionId, ThreadId, WorkId, WorkspaceId};

use super::{
    Acting, AgentStore, AuditStore, Changes, EnvironmentStore, Listed, StoreError, WorkState,
    WorkStore,
};

/// Sessions and their events; with its supertraits, all that sessions need.
///
/// Every event of a session has a number, and every change of a history names the number that
/// it was decided at: whoever decided by an older history decides again.
#[async_trait]
pub trait SessionStore: WorkStore + EnvironmentStore + AgentStore + AuditStore {
    /// Writes a session down, with the events that it begins with, and queues its first item.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is no such environment;
    /// [`Refusal::EnvironmentArchived`](super::Refusal::EnvironmentArchived),
    /// [`Refusal::EnvironmentCloud`](super::Refusal::EnvironmentCloud).
    async fn create_session(
        &self,
        workspace: &WorkspaceId,
        now: Timestamp,
        new: NewSession,
    ) -> Result<SessionRecord, StoreError>;

    /// One session, archived or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`].
    async fn session(
        &self,
        acting: &Acting,
        session: SessionId,
    ) -> Result<SessionRecord, StoreError>;

    /// A page of sessions.
    ///
    /// # Errors
    /// Only the store's own.
    async fn sessions(
        &self,
        workspace: &WorkspaceId,
        listing: &SessionListing,
    ) -> Result<Listed<SessionRecord>, StoreError>;

    /// Changes what is given, and writes `event` down.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`Refusal::SessionEnded`](super::Refusal::SessionEnded);
    /// [`Refusal::SessionRunning`](super::Refusal::SessionRunning) for another agent in a turn.
    async fn update_session(
        &self,
        acting: &Acting,
        session: SessionId,
        change: SessionChange,
        event: NewEvent,
    ) -> Result<SessionRecord, StoreError>;

    /// Ends a session for ever, its item with it, and writes `event` down; an archived one
    /// stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn archive_session(
        &self,
        acting: &Acting,
        session: SessionId,
        event: NewEvent,
    ) -> Result<SessionRecord, StoreError>;

    /// Takes a session away with its events and its item; `event` is the last thing that its
    /// streams are told.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn delete_session(
        &self,
        acting: &Acting,
        session: SessionId,
        event: NewEvent,
    ) -> Result<(), StoreError>;

    /// Appends to the history what was decided at a position of it.
    ///
    /// An item is queued in the same transaction where the session is running or a call waits
    /// for a worker, and there is none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`]; [`StoreError::Moved`] where the history
    /// has gone on; [`Refusal::SessionEnded`](super::Refusal::SessionEnded),
    /// [`Refusal::TooManyEvents`](super::Refusal::TooManyEvents),
    /// [`Refusal::OtherResult`](super::Refusal::OtherResult).
    async fn append(&self, append: Append) -> Result<Appended, StoreError>;

    /// Says that the loop has nothing to do at this position until `until`, or until a client writes.
    ///
    /// # Errors
    /// [`StoreError::Moved`].
    async fn rest(
        &self,
        session: SessionId,
        position: u64,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError>;

    /// A page of the history: what was processed in the order in which it was, then what is
    /// queued in the order in which it came. At least one event where there is one, and not
    /// many more bytes than `listing.bytes`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Denied`].
    async fn events(
        &self,
        acting: &Acting,
        session: SessionId,
        listing: &EventListing,
    ) -> Result<Listed<EventRecord>, StoreError>;

    /// Events with numbers above `after`, by number; for streams and loops, which were judged
    /// before. Of a session that is deleted, only the last event.
    ///
    /// # Errors
    /// Only the store's own.
    async fn events_after(
        &self,
        session: SessionId,
        after: u64,
        bytes: u64,
    ) -> Result<Listed<EventRecord>, StoreError>;

    /// Takes away at most about `most` rows of each kind that nobody needs any more, and says whether
    /// there may be more: the events of a deleted session; stopped items that ended before `before`, of
    /// sessions that are over, and of others all but the newest; what is left of sessions that were
    /// deleted before `before`.
    ///
    /// # Errors
    /// Only the store's own.
    async fn forget_ended(&self, before: Timestamp, most: u32) -> Result<bool, StoreError>;

    /// Sessions whose loop has something to do at `now`, and when the next one has.
    ///
    /// # Errors
    /// Only the store's own.
    async fn due(&self, now: Timestamp, limit: u32) -> Result<Due, StoreError>;

    /// Who waits for what.
    fn changes(&self) -> &Changes;

    /// What the store has to do beside its methods, until it is dropped: a store that several processes share
    /// announces here what the others committed. Nothing, where it is not said otherwise.
    ///
    /// [`Server::run`](crate::Server::run) awaits it, in each process.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    async fn tend(&self) {
        std::future::pending().await
    }
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionStatus {
    /// Waits for its client, or for results.
    Idle,
    /// In a turn.
    Running,
    /// In a turn that failed and will be tried again.
    Rescheduling,
    /// Over, for ever.
    Terminated,
}

impl SessionStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [
        Self::Idle,
        Self::Running,
        Self::Rescheduling,
        Self::Terminated,
    ];

    /// Its name in rows and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Rescheduling => "rescheduling",
            Self::Terminated => "terminated",
        }
    }
}

/// A session to write down.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "an argument with every column")]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Id of its primary thread.
    pub thread: ThreadId,
    /// Where its tools run.
    pub environment: EnvironmentId,
    /// The JSON text of the agent as it is now, as it is served.
    pub agent: String,
    /// Whose snapshot that is.
    pub agent_id: AgentId,
    /// Of which version.
    pub agent_version: u64,
    /// For people.
    pub title: Option<String>,
    /// The client's own words.
    pub metadata: BTreeMap<String, String>,
    /// The JSON text of its resources.
    pub resources: String,
    /// What it begins with.
    pub events: Vec<NewEvent>,
    /// Id of its first item.
    pub work: WorkId,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Where its tools run.
    pub environment: EnvironmentId,
    /// Id of its primary thread.
    pub thread: ThreadId,
    /// The JSON text of its agent, as it is served.
    pub agent: String,
    /// Whose snapshot that is.
    pub agent_id: AgentId,
    /// Of which version.
    pub agent_version: u64,
    /// For people.
    pub title: Option<String>,
    /// The client's own words.
    pub metadata: BTreeMap<String, String>,
    /// The JSON text of its resources.
    pub resources: String,
    /// What it does.
    pub status: SessionStatus,
    /// Whether a call waits for a worker.
    pub needs_worker: bool,
    /// Number of its newest event.
    pub position: u64,
    /// Bytes of all its events.
    pub bytes: u64,
    /// Items that ended in vain since the last progress.
    pub attempts: u32,
    /// Whether an operator stopped its work.
    pub held: bool,
    /// Milliseconds in turns until `active_since`.
    pub active_ms: u64,
    /// Since when it is in a turn.
    pub active_since: Option<Timestamp>,
    /// The JSON text of its newest `session.usage`.
    pub usage: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// Its newest item.
    pub work: Option<SessionWork>,
}

/// The newest item of a session, as far as the session shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionWork {
    /// Its id.
    pub id: WorkId,
    /// Where it stands.
    pub state: WorkState,
    /// The worker of its newest claim.
    pub worker: Option<String>,
    /// When it was last queued.
    pub queued_at: Timestamp,
    /// Before when it is not handed out.
    pub available_at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// What the last item that ended with a word about it was said to end for.
    pub reason: Option<String>,
}

/// Which sessions.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct SessionListing {
    /// Only of this agent.
    pub agent: Option<AgentId>,
    /// Only of this version of the agent.
    pub agent_version: Option<u64>,
    /// Only made in this time.
    pub created: TimeSpan,
    /// Only with one of these; none: every status.
    pub statuses: Vec<SessionStatus>,
    /// Whether archived ones are listed.
    pub include_archived: bool,
    /// Oldest first instead of newest first.
    pub ascending: bool,
    /// Only those behind this one, in that order.
    pub after: Option<SessionId>,
    /// Most rows.
    pub limit: u32,
}

/// A time from, inclusive, to, exclusive, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct TimeSpan {
    /// Not before this.
    pub from: Option<i64>,
    /// Before this.
    pub until: Option<i64>,
}

/// What is to change of a session.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct SessionChange {
    /// Another title, or none.
    pub title: Option<Option<String>>,
    /// Other words of the client.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Another snapshot of the agent.
    pub agent: Option<String>,
}

/// An event to append.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "an argument with every column")]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub kind: String,
    /// Whether it is processed on receipt, or queued.
    pub processed: bool,
    /// The call that it is the result of.
    pub answers: Option<String>,
    /// Its JSON text without id and time: exactly what came.
    pub body: String,
}

/// An event of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventRecord {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub kind: String,
    /// When it was processed.
    pub processed_at: Option<Timestamp>,
    /// Its JSON text without id and time: exactly what came.
    pub body: String,
}

impl EventRecord {
    /// What becomes of `event`, before it has a number.
    pub(crate) fn unstored(event: &NewEvent, now: Timestamp) -> Self {
        Self {
            seq: 0,
            id: event.id,
            kind: event.kind.clone(),
            processed_at: event.processed.then_some(now),
            body: event.body.clone(),
        }
    }
}

/// Who appends.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Writer {
    /// A client or a worker.
    Client(Acting),
    /// The session's loop.
    Loop {
        /// When.
        now: Timestamp,
    },
}

/// What is to be appended.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct Append {
    /// To which session.
    pub session: SessionId,
    /// By whom.
    pub writer: Writer,
    /// The position at which it was decided.
    pub position: u64,
    /// Queued events that are processed now, before the new ones.
    pub taken_up: Vec<EventId>,
    /// New events.
    pub events: Vec<NewEvent>,
    /// What the session does afterwards.
    pub status: SessionStatus,
    /// Whether a call waits for a worker afterwards.
    pub needs_worker: bool,
    /// When the loop is to look again.
    pub due: Option<Timestamp>,
    /// Id of the item that may have to be queued.
    pub work: WorkId,
}

/// What was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Number of the newest event.
    pub position: u64,
    /// What was taken up, then what is new.
    pub events: Vec<EventRecord>,
}

/// A page of a history.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct EventListing {
    /// Only these types; none: every type.
    pub kinds: Vec<String>,
    /// Only processed in this time.
    pub processed: TimeSpan,
    /// Newest first instead of oldest first.
    pub descending: bool,
    /// Only those behind this one, in that order.
    pub after: Option<EventCursor>,
    /// Most events.
    pub limit: u32,
    /// Most bytes.
    pub bytes: u64,
}

/// A place in a listing of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an argument, complete by definition"
)]
pub struct EventCursor {
    /// Whether the event is queued.
    pub queued: bool,
    /// Its number.
    pub seq: u64,
}

/// Sessions whose loop has something to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due {
    /// Now.
    pub sessions: Vec<(WorkspaceId, SessionId)>,
    /// When the next one has.
    pub next: Option<Timestamp>,
}

/// Most events of a session: 100,000. Above, a client is refused. One event is at most as large as
/// a request, and [`BYTES_MOST`] bounds all of them.
pub const EVENTS_MOST: u64 = 100_000;

/// Most bytes of all events of a session: 256 MiB, since whoever decides reads all of them.
pub const BYTES_MOST: u64 = 256 << 20;
