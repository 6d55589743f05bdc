//! The audit: who did what, when, from where and why. Ours, beside the vendor's API.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "audit_entry")]
pub struct AuditEntry {
    /// `audit_…`, opaque; sorts by time.
    pub id: String,
    /// When.
    pub created_at: Timestamp,
    /// Who: `api_key:akey_…`, a user of the embedding service, or `edge` for what a tunnel's setting decided.
    pub actor: String,
    /// From where, as far as it is known.
    pub address: Option<String>,
    /// What was done: `tunnel_token.rotate`.
    pub action: String,
    /// To what.
    pub object_id: String,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
}
