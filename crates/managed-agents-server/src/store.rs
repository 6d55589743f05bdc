//! Where agents, environments, sessions and their work are kept.
//!
//! A method of these traits is a whole transition: one transaction that changes everything
//! that belongs together, or nothing. Time and ids are arguments, so that a store has
//! neither clock nor randomness. Whoever acts is judged in the effect's own transaction:
//! an item token that died a moment ago changes nothing.
//!
//! [`conformance`] is the suite that every implementation passes.

mod agents;
mod audit;
mod changes;
pub mod conformance;
mod environments;
mod error;
mod library;
mod records;
mod sessions;
#[cfg(feature = "sqlite")]
mod sqlite;
mod work;

pub use agents::{AgentListing, AgentRecord, AgentStore};
pub use audit::AuditStore;
pub use changes::{Changes, Topic};
pub use environments::{
    EnvironmentChange, EnvironmentKeyRecord, EnvironmentKind, EnvironmentRecord, EnvironmentStore,
    NewEnvironment, NewEnvironmentKey,
};
pub use error::{BeatMismatch, Denial, Refusal, StoreError};
pub use library::{LibraryStore, NewSkillVersion, SkillRecord, SkillVersionRecord};
#[cfg(feature = "sqlite")]
pub use managed_agents_service::SqliteConfig;
pub use managed_agents_service::{AuditRecord, Change, Listed, Listing};
pub use records::Authority;
pub use sessions::{
    Append, Appended, BYTES_MOST, Due, EVENTS_MOST, EventCursor, EventListing, EventRecord,
    NewEvent, NewSession, SessionChange, SessionListing, SessionRecord, SessionStatus,
    SessionStore, SessionWork, TimeSpan, Writer,
};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use work::{
    ATTEMPTS_MOST, Acting, Beaten, Claim, Expected, ItemHome, ItemPath, LAST_LOOK, Polled,
    QueueStats, StopOrder, WorkRecord, WorkState, WorkStore, back_off,
};
