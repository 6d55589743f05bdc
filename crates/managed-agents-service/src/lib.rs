//! What every service of the Managed Agents API stands on: guarded routes, pages, the audit.
//!
//! ```text
//!  Route ── path, method, what it needs ──► the service's own guard
//!                                             │ workspace_of, check_headers, in_time
//!  handler ◄── Id, Ids, caller ───────────────┘
//!     │  change() ──► Change ──► store ──► AuditRecord
//!     └─ listing() ─► Listing ─► store ──► Listed ──► page() ──► answer
//! ```
//!
//! Two services are made of it, the tunnels' (`mcp-console`) and the sessions' (`managed-agents-server`); who may call what,
//! and what is kept, is theirs.
//!
//! # Example
//!
//! ```
//! use managed_agents_service::{Listed, audit_listing, audit_page, change};
//! use managed_agents_service::AuditRecord;
//! use mcp_tunnel_auth::WorkspaceId;
//!
//! let change = change(&WorkspaceId::parse("wrkspc_home")?, "user:ada", None, Some("moved".into()))?;
//! let row = AuditRecord::new(change, "vault.create", "vault_01");
//! // … a store keeps it in the transaction of the change itself …
//! let answer = audit_page(Listed::cut(vec![row], 20));
//! assert_eq!(answer.data[0].action, "vault.create");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//!
//! It authenticates nobody ([`Authenticate`](managed_agents_api::serve::Authenticate) does) and binds no socket.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `sqlite` | [`SqliteConfig`] and [`SqliteFault`]: how a database file is opened, and what its errors mean |
#![forbid(unsafe_code)]

mod environment;
mod failure;
mod hooks;
mod pages;
mod path;
mod records;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use environment::{entropy, id, now, unix_ms};
pub use failure::chain;
pub use hooks::{
    NAME_MOST, Route, change, check_headers, checked_text, guarded_caller, in_time, request_span,
    workspace_of,
};
pub use pages::{audit_listing, audit_page, listing, page};
pub use path::{Id, Ids, Named, not_found, parse};
pub use records::{AuditRecord, Change, Listed, Listing};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteConfig, SqliteFault};
